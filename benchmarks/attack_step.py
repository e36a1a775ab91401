"""The time of one PGD training step over its eager bound: this package, its Trainer, and other attack libraries.

README.md beside this file says what is measured and how to read the table.
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, RichProgressBar
from peers import PEERS
from timing import (
    AttackFunction,
    Loop,
    Workload,
    bare_trainer,
    cells,
    gradients_alone,
    heading,
    loop_of,
    parse_arguments,
    ratios,
    regime_loop,
    take_turns,
    trainer,
)
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_adv.attacks import PGD
from lightning_adv.callbacks import BestCheckpoint, LastCheckpoint, Throughput, TrainingCurves

BOUND, REGIME = "eager bound", "MadryTraining"
TRAINER, FIT = "MadryTraining in a Trainer", "MadryTraining as in lightning-adv fit"


# The attacks that are measured: (network, our attack, a batch's images) -> (x, y) -> x_adv ----------------------------


ATTACKS: dict[str, Callable[[nn.Module, PGD, Tensor], AttackFunction]] = {
    BOUND: gradients_alone,
    "eager bound, again": gradients_alone,
    "lightning_adv PGD": lambda network, pgd, images: partial(pgd, network),
    **PEERS,
}


def left_behind(name: str, workload: Workload) -> str:
    """Say what an attack changed in a network in train mode whose first BatchNorm is frozen in eval mode."""
    network, (x, y) = workload.regime().network, workload.batch()
    next(module for module in network.modules() if isinstance(module, _BatchNorm)).eval()
    flags, buffers = [module.training for module in network.modules()], copy.deepcopy(list(network.buffers()))
    ATTACKS[name](network, workload.attack(), x)(x, y)
    changed = {
        "gradients": any(parameter.grad is not None for parameter in network.parameters()),
        "requires_grad": not all(parameter.requires_grad for parameter in network.parameters()),
        "train flags": flags != [module.training for module in network.modules()],
        "buffers": not all(map(torch.equal, buffers, network.buffers())),
    }
    return ", ".join(name for name, is_changed in changed.items() if is_changed) or "nothing"


# The training loops ---------------------------------------------------------------------------------------------------


def plain_loop(name: str, workload: Workload) -> Loop:
    network = workload.regime().network
    attack = ATTACKS[name](network, workload.attack(), workload.batch()[0])
    return loop_of(lambda x, y: F.cross_entropy(network(attack(x, y)), y), network)


def trainers(folder: str) -> dict[str, Trainer]:
    """A Trainer with a CSVLogger, and one with all that ``lightning-adv fit`` adds, the progress bar drawn too."""
    bar = RichProgressBar(console_kwargs={"file": open(os.devnull, "w"), "force_terminal": True})  # noqa: SIM115
    observers = [Throughput(), TrainingCurves(), LearningRateMonitor("epoch"), BestCheckpoint(), LastCheckpoint(), bar]
    return {TRAINER: bare_trainer(folder, "few"), FIT: trainer(folder, "all", callbacks=observers)}


# The measurement ------------------------------------------------------------------------------------------------------


def compare(workload: Workload, rounds: int) -> dict[str, dict[str, Any]]:
    """Return each contender's seconds and what its attack leaves behind; nothing where it is not installed."""
    rows: dict[str, dict[str, Any]] = {name: {} for name in [*ATTACKS, REGIME, TRAINER, FIT]}
    loops: dict[str, Loop] = {REGIME: regime_loop(workload.regime())}
    for name in ATTACKS:
        with suppress(ImportError):
            loops[name] = plain_loop(name, workload)
            rows[name]["left_behind"] = left_behind(name, workload)
    with tempfile.TemporaryDirectory() as folder:
        for name, its_trainer in trainers(folder).items():
            loops[name] = partial(its_trainer.fit, workload.regime())
        for name, seconds in take_turns(loops, workload, rounds).items():
            rows[name]["seconds"] = seconds
    return rows


def table(rows: dict[str, dict[str, Any]]) -> str:
    lines = ["| contender | ms a step | over the bound | lowest to highest | the attack leaves behind |"]
    lines.append("|---|---:|---:|---:|---|")
    for name, row in rows.items():
        if "seconds" in row:
            figures = cells(row["seconds"], rows[BOUND]["seconds"])
            lines.append(f"| {name} | {figures} | {row.get('left_behind', '')} |")
        else:
            lines.append(f"| {name} | not installed | | | |")
    added = {name: median(ratios(rows[name]["seconds"], rows[REGIME]["seconds"])) - 1 for name in (TRAINER, FIT)}
    shares = ", ".join(f"{100 * share:.1f} % ({name})" for name, share in added.items())
    return "\n".join([*lines, "", f"The Trainer adds to the step of MadryTraining {shares}."])


def main() -> None:
    args = parse_arguments(__doc__, steps=10)
    results = {}
    for name, workload in args.workloads.items():
        results[name] = compare(workload, args.rounds)
        print(f"{heading(name, workload, args)}\n{table(results[name])}")
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
