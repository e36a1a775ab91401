"""The share of training time that the observers take with their defaults, in adversarial training on CIFAR-10.

README.md beside this file says what is measured and how to read the table.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch
from lightning.pytorch import Callback, LightningDataModule
from timing import CLOCKS, WORKLOADS, Workload, trainer
from torch.utils.data import DataLoader, TensorDataset

from lightning_adv.attacks import PGD
from lightning_adv.callbacks import (
    BatchNormDrift,
    FlightRecorder,
    LocalResponse,
    Observer,
    RunningVsBatch,
    WeightSmoothness,
)

IMAGES_PER_EPOCH = 49_000  # of configs/cifar10/madry.yaml, where 1,000 of 50,000 are held out
LOOKS_PER_FIGURE = 10  # the observers' default
OBSERVERS: dict[str, Callable[..., Observer]] = {
    "BatchNormDrift": BatchNormDrift,
    "RunningVsBatch": lambda **when: RunningVsBatch(batch_size=128, **when),  # that of the configuration
    "WeightSmoothness": WeightSmoothness,
    "LocalResponse": LocalResponse,
    "FlightRecorder": FlightRecorder,
}


class Data(LightningDataModule):
    """Random images: as many batches as the run has steps, and a validation set that a probe can be taken from."""

    num_classes = 10

    def __init__(self, workload: Workload, steps: int) -> None:
        super().__init__()
        self._shape, self._batch, self._steps = workload.image_shape, workload.batch_size, steps

    def _loader(self, images: int) -> DataLoader[Any]:
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(images, *self._shape, generator=generator)
        return DataLoader(TensorDataset(x, torch.randint(10, (images,), generator=generator)), self._batch)

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(max(self._steps * self._batch, 256))  # two batches of RunningVsBatch, at the least

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(1000)


class Clock(Callback):
    """Takes down how long each step took, and each look after it."""

    def __init__(self, observers: dict[str, Observer]) -> None:
        self.observers, self.since = observers, 0.0
        self.steps: list[float] = []
        self.looks: dict[str, list[float]] = {name: [0.0] for name in observers}

    def on_train_batch_start(self, *_: Any) -> None:
        self.since = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        seen = sum(observer.seconds - sum(self.looks[name]) for name, observer in self.observers.items())
        self.steps.append(time.perf_counter() - self.since - seen)
        for name, observer in self.observers.items():
            self.looks[name].append(observer.seconds - sum(self.looks[name]))


def measure(workload: Workload, rounds: int, names: Sequence[str] = tuple(OBSERVERS), **images: int) -> dict[str, Any]:
    """Train for some steps with a look of each observer after each.

    Args:
        workload: The network and its batches.
        rounds: Steps, each with its looks; there is one more before them.
        names: The observers.
        **images: ``images`` of each of them, where it is not the default.

    Returns:
        ``step``: the seconds of a step, and by observer ``look``: those of a look, and ``figures``: those of drawing,
        which the first look does too. Each is a median over the rounds but for the figures.
    """
    observers = {name: OBSERVERS[name](every_n_steps=1, figures_every_n_looks=10**6, **images) for name in names}
    clock = Clock(observers)
    attack = PGD(workload.eps, steps=20, step_size=workload.step_size / 2)  # the configuration's evaluation attack
    with tempfile.TemporaryDirectory() as folder:
        options = {"enable_progress_bar": False, "enable_checkpointing": False, "num_sanity_val_steps": 0}
        options["limit_train_batches"] = rounds + 1
        # the probe is of validation images, but there is no validation
        run = trainer(folder, "run", callbacks=[*observers.values(), clock], check_val_every_n_epoch=2, **options)
        # one round more: the first is the warm-up, and draws
        run.fit(workload.regime(evaluation_attack=attack), Data(workload, rounds + 1))
    looks = {name: seconds[1:] for name, seconds in clock.looks.items()}
    usual = {name: median(seconds[1:]) for name, seconds in looks.items()}
    return {
        "step": median(clock.steps[1:]),
        "look": usual,
        "figures": {name: max(0.0, seconds[0] - usual[name]) for name, seconds in looks.items()},
        "steps": clock.steps,
        "looks": looks,
    }


def table(measured: dict[str, Any], batch_size: int, times: float = 1) -> str:
    epoch = measured["step"] / batch_size * IMAGES_PER_EPOCH
    lines = [
        f"an epoch of {IMAGES_PER_EPOCH:,} images: {epoch:,.1f} s",
        "",
        "| observer | s a look | s for its figures | share of training time |",
        "|---|---:|---:|---:|",
    ]
    total = 0.0
    for name, look in measured["look"].items():
        figures = measured["figures"][name]
        share = (times * look + figures / LOOKS_PER_FIGURE) / epoch
        total += share
        lines.append(f"| {name} | {look:.2f} | {figures:.2f} | {100 * share:.2f} % |")
    return "\n".join([*lines, f"| all | | | {100 * total:.2f} % |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=list(WORKLOADS), default="resnet18")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--observers", choices=list(OBSERVERS), nargs="+", default=list(OBSERVERS))
    parser.add_argument(
        "--images", type=int, help="of FlightRecorder alone, in place of its 128, to which it is scaled"
    )
    parser.add_argument("--threads", type=int, default=1, help="torch's threads")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: for one thread on a busy machine")
    parser.add_argument("--json", type=Path, help="file for the seconds of every step and look")
    args = parser.parse_args()
    if args.images is not None and args.observers != ["FlightRecorder"]:
        parser.error("--images is for --observers FlightRecorder")
    images = {} if args.images is None else {"images": args.images}
    torch.set_num_threads(args.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    own = WORKLOADS[args.network]
    workload = Workload(own.backbone, own.image_shape, args.batch_size, own.eps, own.step_size, passes=1)
    with mock.patch("time.perf_counter", CLOCKS[args.clock]):  # which the observers read too
        measured = measure(workload, args.rounds, args.observers, **images)
    print(f"{args.network}, batches of {args.batch_size}, PGD-10, {args.clock} time, torch {torch.__version__}\n")
    print(table(measured, args.batch_size, 128 / images.get("images", 128)), flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
