"""Which of RobustBench's CIFAR-10 Linf networks load here, with the logits of the authors' own classes.

``python benchmarks/robustbench_layouts.py FOLDER`` takes the folder that holds the package ``robustbench`` 1.1.1 (``pip
install --no-deps --target FOLDER robustbench geotorch torchdiffeq``), builds each entry's class with random weights,
loads its state dict by ``robustbench/<entry>``, and compares the logits of random images. Nothing is downloaded.
Entries of one class, size and normalisation are compared once. It takes 10 GB of memory and half an hour on one core.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.zoo.robustbench import NOT_BUILT, PUBLISHED

OUTPUT = Path(__file__).parent.parent / "docs" / "results" / "robustbench.json"
XCIT = "Debenedetti2022Light"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the package robustbench lies")
    arguments = parser.parse_args()
    entries = load_entries(arguments.folder)
    if entries.keys() != PUBLISHED.keys() | NOT_BUILT.keys():
        raise SystemExit(f"other entries: {sorted(entries.keys() ^ (PUBLISHED.keys() | NOT_BUILT.keys()))}")
    compared: dict[str, dict[str, float]] = {}
    rows = []
    for name in entries:
        row: dict[str, Any] = {"entry": name, "loads": name in PUBLISHED}
        if name in PUBLISHED:
            check_source(name, entries[name])
            kind = describe(name, entries[name])
            if kind not in compared:
                compared[kind] = compare(name, entries[name])
                print(name, compared[kind], flush=True)
            row |= compared[kind]
        rows.append(row)
    recorded = {
        "how": "python benchmarks/robustbench_layouts.py FOLDER",
        "machine": f"{platform.machine()}, one thread, no GPU",
        "versions": {"torch": torch.__version__, "timm": timm.__version__, "robustbench": "1.1.1"},
    }
    OUTPUT.write_text(json.dumps({"title": "Networks of RobustBench", "recorded": recorded, "rows": rows}, indent=1))
    print(f"{sum(row['loads'] for row in rows)} of {len(rows)}; see {OUTPUT}")


def load_entries(folder: Path) -> dict[str, dict[str, Any]]:
    """Return RobustBench's own table. Its package is not imported, which needs what PyPI does not have."""
    sys.path.append(str(folder))
    package = types.ModuleType("robustbench")
    package.__path__ = [str(folder / "robustbench")]
    sys.modules["robustbench"] = package
    from robustbench.model_zoo.cifar10 import linf

    return dict(linf)


def build(name: str, entry: dict[str, Any]) -> nn.Module:
    """Build the authors' class. RobustBench's table has names for its XCiTs that it does not register."""
    if name.startswith(XCIT):
        return timm.create_model(f"{name.lower().replace('-', '_')}_cifar10_linf")
    network: nn.Module = entry["model"]()
    return network


def check_source(name: str, entry: dict[str, Any]) -> None:
    """Check that the weights lie where RobustBench says."""
    source = entry["gdrive_id"]
    if source is None:
        from robustbench.model_zoo.architectures.xcit import default_cfgs

        source = default_cfgs[f"{name.lower().replace('-', '_')}_cifar10_linf"]["url"]
    if PUBLISHED[name].source != source:
        raise SystemExit(f"{name}: {PUBLISHED[name].source} is not {source}")


def describe(name: str, entry: dict[str, Any]) -> str:
    """Return what tells the class, the size and the normalisation of an entry, theirs and ours."""
    published = PUBLISHED[name]
    ours = (published.network, published.options, published.normalization, published.activation, published.stem)
    with torch.device("meta"):
        network = build(name, entry)
    buffers = [key for key, _ in network.named_buffers() if "running" not in key and "num_batches" not in key]
    return f"{ours} {type(network)} {network} {buffers}"


@torch.no_grad()
def compare(name: str, entry: dict[str, Any]) -> dict[str, float]:
    """Return the largest difference of the logits of random images, and how far these differ from each other."""
    torch.manual_seed(0)
    network = build(name, entry).eval()
    randomize(network)
    plain = network.model if name.startswith(XCIT) else network
    images = torch.rand(2, 3, 32, 32)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.pt"
        torch.save({"state_dict": {f"module.{key}": value for key, value in plain.state_dict().items()}}, file)
        theirs: Tensor = network(images)
        del network, plain
        ours = Backbone(f"robustbench/{name}", checkpoint=str(file)).build(10).eval()(images)
    return {
        "difference": float((theirs - ours).abs().max()),
        "of_logits": float(theirs.abs().max()),
        "between_images": float((theirs[0] - theirs[1]).abs().max()),
    }


def randomize(network: nn.Module) -> None:
    """Draw weights that keep the scale of the features, so that images come out as differently as they went in."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
            module.weight.uniform_(0.3, 0.7)
            module.bias.normal_(0, 0.1)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)


if __name__ == "__main__":
    main()
