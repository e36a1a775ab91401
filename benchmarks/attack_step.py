"""The time of one PGD training step over its eager bound: this package, its Trainer, and other attack libraries.

README.md beside this file says what is measured and how to read the table.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import queue
import random
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from peers import PEERS, AttackFunction
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_adv.attacks import PGD
from lightning_adv.callbacks import BestCheckpoint, LastCheckpoint, Throughput, TrainingCurves
from lightning_adv.nn.backbones import Backbone
from lightning_adv.regimes import MadryTraining

Batch = tuple[Tensor, Tensor]
Loop = Callable[[Iterable[Batch]], None]  # trains on each batch of a loader
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

# With a learning rate of 0 an update costs the same, and every step of every contender sees the same weights.
OPTIMIZER = partial(torch.optim.SGD, lr=0.0, momentum=0.9, weight_decay=5e-4)
BOUND, REGIME = "eager bound", "MadryTraining"
TRAINER, FIT = "MadryTraining in a Trainer", "MadryTraining as in lightning-adv fit"


@dataclass(frozen=True)
class Workload:
    """A network and the attack that it is trained against, as in ``configs/``."""

    backbone: Backbone
    image_shape: tuple[int, int, int]
    batch_size: int
    eps: float
    step_size: float
    passes: int  # training steps of each contender in a round
    steps: int = 10  # of the attack
    clock: Callable[[], float] = time.perf_counter

    def attack(self) -> PGD:
        return PGD(self.eps, self.steps, self.step_size)

    def batch(self) -> Batch:
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(self.batch_size, *self.image_shape, generator=generator)
        return x, torch.randint(10, (self.batch_size,), generator=generator)

    def regime(self) -> MadryTraining:
        torch.manual_seed(0)  # the same weights for everyone
        return MadryTraining(self.backbone, num_classes=10, attack=self.attack(), optimizer=OPTIMIZER).train()


# A zero-initialised last BatchNorm would make the gradients of every residual branch exactly zero.
RESNET18 = Backbone("resnet18", stem="cifar", options={"zero_init_last": False})
SMALL_CNN = Backbone("small_cnn", in_channels=1, options={"width": 32})
WORKLOADS = {
    "resnet18": Workload(RESNET18, (3, 32, 32), batch_size=8, eps=8 / 255, step_size=2 / 255, passes=3),
    "small_cnn": Workload(SMALL_CNN, (1, 8, 8), batch_size=64, eps=0.2, step_size=0.05, passes=20),
}


# The attacks that are measured: (network, our attack, a batch's images) -> (x, y) -> x_adv ----------------------------


def gradients_alone(network: nn.Module, pgd: PGD, images: Tensor) -> AttackFunction:
    """K times forward and backward to the input, BatchNorm in eval mode: what no eager attack can do without."""
    # The twin shares every tensor and has train flags of its own, so that switching them is not part of the bound.
    shared = {id(tensor): tensor for tensor in chain(network.parameters(), network.buffers())}
    twin = copy.deepcopy(network, shared).eval()
    leaf = images.clone().requires_grad_()

    def attack(x: Tensor, y: Tensor) -> Tensor:
        for _ in range(pgd.steps):
            torch.autograd.grad(F.cross_entropy(twin(leaf), y, reduction="sum"), leaf)
        return x

    return attack


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


# The contenders: training loops that take one step when they are told to ----------------------------------------------


class Finished(Exception):  # noqa: N818 (not an error)
    """Ends a training loop from inside its loader."""


class Contender:
    """A training loop in a thread of its own; a call lets it take one step and returns the seconds.

    The Trainer owns its loop, so the only place to hold it is its loader, and all the other loops are held in the same
    way. A step lasts from a batch leaving the loader until the next one is asked for: nothing is left out.
    """

    def __init__(self, workload: Workload, loop: Loop) -> None:
        self._workload, self._loop, self._threads = workload, loop, torch.get_num_threads()
        self._go_on: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[float | Exception] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __call__(self) -> float:
        self._go_on.put(True)
        result = self._results.get()
        if isinstance(result, Exception):
            raise result
        return result

    def close(self) -> None:
        self._go_on.put(False)
        self._thread.join()

    def __len__(self) -> int:
        return 10**9  # without a length, Lightning would fetch one batch ahead

    def __iter__(self) -> Iterator[Batch]:
        batch, clock = self._workload.batch(), self._workload.clock
        while self._go_on.get():
            start = clock()
            yield batch
            self._results.put(clock() - start)
        raise Finished

    def _run(self) -> None:
        torch.set_num_threads(self._threads)  # each thread has its own number
        try:
            self._loop(self)
        except Exception as error:
            self._results.put(error)


def loop_of(loss: Callable[[Tensor, Tensor], Tensor], network: nn.Module) -> Loop:
    """On each batch the loss, its gradients to the weights, and the optimizer's update."""
    optimizer = OPTIMIZER(network.parameters())

    def loop(loader: Iterable[Batch]) -> None:
        for x, y in loader:
            value = loss(x, y)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()

    return loop


def plain_loop(name: str, workload: Workload) -> Loop:
    network = workload.regime().network
    attack = ATTACKS[name](network, workload.attack(), workload.batch()[0])
    return loop_of(lambda x, y: F.cross_entropy(network(attack(x, y)), y), network)


def regime_loop(workload: Workload) -> Loop:
    """``training_step`` called by hand: with no Trainer, ``self.log`` would warn and return."""
    regime = workload.regime()
    return loop_of(lambda x, y: regime.training_step((x, y), 0), regime.network)


def trainers(folder: str) -> dict[str, Trainer]:
    """A Trainer with a CSVLogger, and one with all that ``lightning-adv fit`` adds, the progress bar drawn too."""
    both: dict[str, Any] = {"accelerator": "cpu", "max_epochs": 1, "enable_model_summary": False}
    bar = RichProgressBar(console_kwargs={"file": open(os.devnull, "w"), "force_terminal": True})  # noqa: SIM115
    observers = [Throughput(), TrainingCurves(), LearningRateMonitor("epoch"), BestCheckpoint(), LastCheckpoint(), bar]
    few = Trainer(logger=CSVLogger(folder, "few"), enable_progress_bar=False, enable_checkpointing=False, **both)
    return {TRAINER: few, FIT: Trainer(logger=CSVLogger(folder, "all"), callbacks=observers, **both)}


# The measurement ------------------------------------------------------------------------------------------------------


def measure(contenders: dict[str, Contender], rounds: int, passes: int) -> dict[str, list[float]]:
    """Return the median seconds of a step in each round. In a pass the contenders take turns in a random order."""
    shuffled = random.Random(0)
    for take_a_step in contenders.values():
        take_a_step(), take_a_step()  # warm-up
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(passes):
            for name in shuffled.sample(list(contenders), len(contenders)):
                times[name].append(contenders[name]())
        for name, own in times.items():
            seconds[name].append(median(own))
    return seconds


def compare(workload: Workload, rounds: int) -> dict[str, dict[str, Any]]:
    """Return each contender's seconds and what its attack leaves behind; nothing where it is not installed."""
    rows: dict[str, dict[str, Any]] = {name: {} for name in [*ATTACKS, REGIME, TRAINER, FIT]}
    loops: dict[str, Loop] = {REGIME: regime_loop(workload)}
    for name in ATTACKS:
        with suppress(ImportError):
            loops[name] = plain_loop(name, workload)
            rows[name]["left_behind"] = left_behind(name, workload)
    with tempfile.TemporaryDirectory() as folder:
        for name, trainer in trainers(folder).items():
            loops[name] = partial(trainer.fit, workload.regime())
        contenders = {name: Contender(workload, loop) for name, loop in loops.items()}
        try:
            for name, seconds in measure(contenders, rounds, workload.passes).items():
                rows[name]["seconds"] = seconds
        finally:
            for contender in contenders.values():
                contender.close()
    return rows


def ratios(rows: dict[str, dict[str, Any]], name: str, reference: str) -> list[float]:
    return [a / b for a, b in zip(rows[name]["seconds"], rows[reference]["seconds"], strict=True)]


def table(rows: dict[str, dict[str, Any]]) -> str:
    lines = ["| contender | ms a step | over the bound | lowest to highest | the attack leaves behind |"]
    lines.append("|---|---:|---:|---:|---|")
    for name, row in rows.items():
        if "seconds" not in row:
            lines.append(f"| {name} | not installed | | | |")
            continue
        over = ratios(rows, name, BOUND)
        figures = f"{1e3 * median(row['seconds']):.1f} | {median(over):.3f} | {min(over):.3f} to {max(over):.3f}"
        lines.append(f"| {name} | {figures} | {row.get('left_behind', '')} |")
    shares = [f"{100 * (median(ratios(rows, name, REGIME)) - 1):.1f} % ({name})" for name in (TRAINER, FIT)]
    return "\n".join([*lines, "", f"The Trainer adds to the step of MadryTraining {', '.join(shares)}."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--batch-size", type=int, help="default: 8 for resnet18, 64 for small_cnn")
    parser.add_argument("--steps", type=int, default=10, help="gradient steps of the attack")
    parser.add_argument("--rounds", type=int, default=7, help="each gives one ratio; the table has their median")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: for one thread on a busy machine")
    parser.add_argument("--json", type=Path, help="file for the seconds of every round")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    results = {}
    for name in args.networks:
        batch_size = WORKLOADS[name].batch_size if args.batch_size is None else args.batch_size
        workload = replace(WORKLOADS[name], batch_size=batch_size, steps=args.steps, clock=CLOCKS[args.clock])
        results[name] = compare(workload, args.rounds)
        attack = f"{batch_size}×{'×'.join(map(str, workload.image_shape))}, PGD-{args.steps}"
        measured = f"{args.rounds} rounds of {workload.passes} steps, {args.clock} time, threads: {args.threads}"
        print(f"\n{name}, {attack}, {measured}, torch {torch.__version__}\n\n{table(results[name])}")
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
