"""Training loops that take their steps in turns, and the clock over them: what the benchmarks share.

README.md beside this file says how it is timed.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import logging
import queue
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from lightning_adv.attacks import PGD
from lightning_adv.nn.backbones import Backbone
from lightning_adv.regimes import MadryTraining, Regime

Batch = tuple[Tensor, Tensor]
AttackFunction = Callable[[Tensor, Tensor], Tensor]
Loop = Callable[[Iterable[Batch]], None]  # trains on each batch of a loader
Result = TypeVar("Result")
M_ARENA_MAX = -8  # malloc.h of glibc
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

# With a learning rate of 0 an update costs the same, and every step of every contender sees the same weights.
OPTIMIZER = partial(torch.optim.SGD, lr=0.0, momentum=0.9, weight_decay=5e-4)


@dataclass(frozen=True)
class Workload:
    """A network and the attack that it is trained against, as in ``configs/``."""

    backbone: Backbone
    image_shape: tuple[int, int, int]
    batch_size: int
    eps: float
    step_size: float
    passes: int  # training steps of each contender in a round
    rounds: int = 7
    steps: int = 10  # of the attack
    clock: Callable[[], float] = time.perf_counter

    def attack(self, **options: Any) -> PGD:
        return PGD(self.eps, self.steps, self.step_size, **options)

    def batch(self) -> Batch:
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(self.batch_size, *self.image_shape, generator=generator)
        return x, torch.randint(10, (self.batch_size,), generator=generator)

    def regime(self, kind: type[Regime] = MadryTraining, **options: Any) -> Regime:
        torch.manual_seed(0)  # the same weights for everyone
        settings = {"num_classes": 10, "attack": self.attack(), "optimizer": OPTIMIZER, **options}
        return kind(self.backbone, **settings).train()


# A zero-initialised last BatchNorm would make the gradients of every residual branch exactly zero.
RESNET18 = Backbone("resnet18", stem="cifar", options={"zero_init_last": False})
NARROW = {"zero_init_last": False, "channels": [16, 32, 64, 128]}  # a quarter of the width; the stem has 64 channels
RESNET18_WIDTH16 = Backbone("resnet18", stem="cifar", options=NARROW)
DIGITS_RESNET = Backbone("resnet18", in_channels=1, stem="cifar", options=NARROW)
SMALL_CNN = Backbone("small_cnn", in_channels=1, options={"width": 32})
WORKLOADS = {
    "resnet18": Workload(RESNET18, (3, 32, 32), batch_size=8, eps=8 / 255, step_size=2 / 255, passes=3),
    "small_cnn": Workload(SMALL_CNN, (1, 8, 8), batch_size=64, eps=0.2, step_size=0.05, passes=20),
}


# What the bounds are made of ------------------------------------------------------------------------------------------


def gradients_alone(network: nn.Module, pgd: PGD, images: Tensor) -> AttackFunction:
    """K times forward and backward to the input, BatchNorm in eval mode: what no eager attack can do without."""
    evaluated = twin(network).eval()  # so that switching train flags is not part of the bound
    leaf = images.clone().requires_grad_()

    def attack(x: Tensor, y: Tensor) -> Tensor:
        for _ in range(pgd.steps):
            torch.autograd.grad(F.cross_entropy(evaluated(leaf), y, reduction="sum"), leaf)
        return x

    return attack


def twin(network: nn.Module, own: Iterable[Tensor] = ()) -> nn.Module:
    """Return a copy with train flags of its own that shares every tensor, except for copies of those in ``own``."""
    left_out = {id(tensor) for tensor in own}
    tensors = chain(network.parameters(), network.buffers())
    return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors if id(tensor) not in left_out})


# Training loops -------------------------------------------------------------------------------------------------------


def loop_of(loss: Callable[[Tensor, Tensor], Tensor], network: nn.Module) -> Loop:
    """On each batch the loss, its gradients to the weights, and the optimizer's update."""
    optimizer = OPTIMIZER(network.parameters())

    def loop(loader: Iterable[Batch]) -> None:
        for x, y in loader:
            value = loss(x, y)
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return loop


def regime_loop(regime: Regime) -> Loop:
    """``training_step`` called by hand, without a Trainer."""
    return loop_of(lambda x, y: cast(Tensor, regime.training_step((x, y), 0)), regime.network)


def trainer(folder: str, name: str, **options: Any) -> Trainer:
    """Return a Trainer for one epoch with a CSVLogger, which writes to ``folder/name``."""
    return Trainer(
        accelerator="cpu", max_epochs=1, enable_model_summary=False, logger=CSVLogger(folder, name), **options
    )


def bare_trainer(folder: str, name: str) -> Trainer:
    """Return a Trainer with a CSVLogger, no progress bar and no checkpoints."""
    return trainer(folder, name, enable_progress_bar=False, enable_checkpointing=False)


# The contenders: training loops that take one step when they are told to ----------------------------------------------


class Finished(Exception):  # noqa: N818 (not an error)
    """Ends a training loop from inside its loader."""


class Seconds(NamedTuple):
    """What a step took, or the median of several."""

    step: float
    attack: float
    """Its part inside the functions that a :class:`Stopwatch` is over; 0 where there is none."""


class Stopwatch:
    """Adds up the seconds inside the functions that it is put over. One serves all contenders: they take turns."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._seconds = clock, 0.0

    def over(self, function: Callable[..., Result]) -> Callable[..., Result]:
        def timed(*args: Any) -> Result:
            start = self._clock()
            result = function(*args)
            self._seconds += self._clock() - start
            return result

        return timed

    def take(self) -> float:
        """Return the seconds since the last call."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


class Contender:
    """A training loop in a thread of its own; a call lets it take one step and returns the seconds.

    The Trainer owns its loop, so the only place to hold it is its loader, and all the other loops are held in the same
    way. A step lasts from a batch leaving the loader until the next one is asked for: nothing is left out.
    """

    def __init__(self, workload: Workload, loop: Loop, watch: Stopwatch | None = None) -> None:
        self._workload, self._loop, self._threads = workload, loop, torch.get_num_threads()
        self._watch = Stopwatch(workload.clock) if watch is None else watch
        self._go_on: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Seconds | Exception] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __call__(self) -> Seconds:
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
            self._watch.take()
            start = clock()
            yield batch
            self._results.put(Seconds(clock() - start, self._watch.take()))
        raise Finished

    def _run(self) -> None:
        torch.set_num_threads(self._threads)  # each thread has its own number
        try:
            self._loop(self)
        except Exception as error:
            self._results.put(error)


# The measurement ------------------------------------------------------------------------------------------------------


def share_one_heap() -> None:
    """Let all threads allocate from one heap, as a process of one thread does.

    glibc gives each thread a heap of its own, which returns memory to the system when it likes: of two identical loops
    one is then up to 20 % slower than the other, in every round.
    """
    if sys.platform.startswith("linux") and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_ARENA_MAX, 1)


def take_turns(loops: dict[str, Loop], workload: Workload, watch: Stopwatch | None = None) -> dict[str, list[Seconds]]:
    """Return each loop's median seconds of a step in each round."""
    contenders = {name: Contender(workload, loop, watch) for name, loop in loops.items()}
    try:
        return measure(contenders, workload)
    finally:
        for contender in contenders.values():
            contender.close()


def measure(contenders: dict[str, Contender], workload: Workload) -> dict[str, list[Seconds]]:
    """Return the median seconds of a step in each round. In a pass the contenders take turns in a random order."""
    shuffled = random.Random(0)
    for take_a_step in contenders.values():
        take_a_step(), take_a_step()  # warm-up
    seconds: dict[str, list[Seconds]] = {name: [] for name in contenders}
    for _ in range(workload.rounds):
        times: dict[str, list[Seconds]] = {name: [] for name in contenders}
        for _ in range(workload.passes):
            for name in shuffled.sample(list(contenders), len(contenders)):
                times[name].append(contenders[name]())
        for name, own in times.items():
            seconds[name].append(Seconds(*map(median, zip(*own, strict=True))))
    return seconds


def ratios(seconds: list[float], reference: list[float]) -> list[float]:
    """Return the ratio of each round."""
    return [a / b for a, b in zip(seconds, reference, strict=True)]


def cells(seconds: list[float], reference: list[float]) -> str:
    """Return three cells of a table: ms a step, the median ratio, and the lowest and the highest."""
    over = ratios(seconds, reference)
    return f"{1e3 * median(seconds):.1f} | {median(over):.3f} | {min(over):.3f} to {max(over):.3f}"


# The command line -----------------------------------------------------------------------------------------------------


def parse_arguments(
    description: str | None,
    steps: int,
    workloads: dict[str, Workload] = WORKLOADS,
    arguments: Sequence[str] | None = None,
) -> argparse.Namespace:
    """Return the command line, with ``workloads`` by name, and set torch's threads."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--networks", nargs="+", choices=list(workloads), default=list(workloads))
    own = ", ".join(f"{workload.batch_size} for {name}" for name, workload in workloads.items())
    parser.add_argument("--batch-size", type=int, help=f"default: {own}")
    parser.add_argument("--steps", type=int, default=steps, help="gradient steps of the attack")
    own = ", ".join(f"{workload.rounds} for {name}" for name, workload in workloads.items())
    parser.add_argument("--rounds", type=int, help=f"each gives one ratio; the table has their median; default: {own}")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: for one thread on a busy machine")
    parser.add_argument("--json", type=Path, help="file for the seconds of every round")
    args = parser.parse_args(arguments)
    given = {"batch_size": args.batch_size, "rounds": args.rounds, "steps": args.steps, "clock": CLOCKS[args.clock]}
    changes = {name: value for name, value in given.items() if value is not None}
    args.workloads = {name: replace(workloads[name], **changes) for name in args.networks}
    torch.set_num_threads(args.threads)
    # the Trainers here only train, and so get no validation images for a regime that could validate
    warnings.filterwarnings("ignore", message="You defined a `validation_step` but have no `val_dataloader`")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return args


def heading(name: str, workload: Workload, args: argparse.Namespace) -> str:
    attack = f"{workload.batch_size}×{'×'.join(map(str, workload.image_shape))}, PGD-{workload.steps}"
    measured = f"{workload.rounds} rounds of {workload.passes} steps, {args.clock} time, threads: {args.threads}"
    return f"\n{name}, {attack}, {measured}, torch {torch.__version__}\n"
