"""What autograd keeps during an attack, and the peak of the process: on the network itself and on views of it.

README.md beside this file says what is measured and how to read the table.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from timing import RESNET18_WIDTH16, WORKLOADS, Workload
from torch import Tensor, nn

from lightning_adv.nn.view.attack_view import attack_view

PLAIN = "the network, weights frozen"
VARIANTS: dict[str, dict[str, Any] | None] = {
    PLAIN: None,
    "view": {},
    "view in bf16": {"dtype": torch.bfloat16},
}
MEASURED = {
    "resnet18": replace(WORKLOADS["resnet18"], batch_size=64),
    "resnet18_width16": replace(WORKLOADS["resnet18"], backbone=RESNET18_WIDTH16, batch_size=64),
    "small_cnn": WORKLOADS["small_cnn"],
}
MB = 1e6
BYTES = 1 if sys.platform == "darwin" else 1024  # the unit of ru_maxrss


# What autograd keeps --------------------------------------------------------------------------------------------------


def kept(network: nn.Module, workload: Workload) -> int:
    """Return the bytes that autograd keeps for one gradient step of the attack, weights left out.

    Every tensor that is saved for the backward pass goes through a hook. Storages are counted once, and are held until
    the end, so that no address comes twice.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    storages: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        attack_once(network, workload)
    return sum(storage.nbytes() for storage in storages.values())


def attack_once(network: nn.Module, workload: Workload) -> None:
    replace(workload, steps=1).attack()(network, *workload.batch())


def build(variant: str, workload: Workload) -> nn.Module:
    """Return what is attacked, ready for its first pass."""
    network = workload.regime().network.eval()
    options = VARIANTS[variant]
    if options is None:
        return network
    view = attack_view(network, **options)
    view.prepare(workload.batch()[0])
    return view


# The peak of a process ------------------------------------------------------------------------------------------------


def measure_here(variant: str, workload: Workload) -> dict[str, int]:
    """Return bytes: this process's peak when all is built, its peak after attacking, and what autograd keeps."""
    network = build(variant, workload)
    built = peak()
    for _ in range(2):
        attack_once(network, workload)
    return {"built": built, "attacked": peak(), "kept": kept(network, workload)}


def peak() -> int:
    return BYTES * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(variant: str, network: str, args: argparse.Namespace) -> dict[str, int]:
    """Do so in a process of its own.

    On Linux a process starts with the peak of the one that starts it: this one must stay small, and only imports.
    """
    settings = ["--networks", network, "--batch-size", str(args.batch_size), "--threads", str(args.threads)]
    command = [sys.executable, __file__, *settings, "--variant", variant]
    found: dict[str, int] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


# The table ------------------------------------------------------------------------------------------------------------


def table(found: dict[str, dict[str, int]]) -> str:
    lines = ["| attacked | autograd keeps, MB | over the network | peak of the process, MB | added by attacking, MB |"]
    lines.append("|---|---:|---:|---:|---:|")
    for variant, own in found.items():
        added, over = own["attacked"] - own["built"], own["kept"] / found[PLAIN]["kept"]
        cells = f"{own['kept'] / MB:.1f} | {over:.3f} | {own['attacked'] / MB:.0f} | {added / MB:.0f}"
        lines.append(f"| {variant} | {cells} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=list(MEASURED), default=["resnet18"])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1, help="torch's threads")
    parser.add_argument("--json", type=Path, help="file for the bytes")
    parser.add_argument("--variant", choices=list(VARIANTS), help=argparse.SUPPRESS)  # the process to measure
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    results = {}
    for name in args.networks:
        workload = replace(MEASURED[name], batch_size=args.batch_size)
        if args.variant is not None:
            print(json.dumps(measure_here(args.variant, workload)))
            return
        results[name] = {variant: measure(variant, name, args) for variant in VARIANTS}
        shape = "×".join(map(str, (workload.batch_size, *workload.image_shape)))
        print(f"\n{name}, {shape}, threads: {args.threads}, torch {torch.__version__}\n\n{table(results[name])}")
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
