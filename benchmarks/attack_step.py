"""The time of one PGD training step over that of a plain loop: this package, its Trainer, and other attack libraries.

README.md beside this file says what is measured and how to read the tables.
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from hand_written import HAND_WRITTEN, naive_trades, plain_pgd
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, RichProgressBar
from peers import PEERS
from timing import (
    DIGITS_RESNET,
    RESNET18_WIDTH16,
    WORKLOADS,
    AttackFunction,
    Batch,
    Loop,
    Seconds,
    Stopwatch,
    Workload,
    bare_trainer,
    gradients_alone,
    heading,
    loop_of,
    parse_arguments,
    ratios,
    share_one_heap,
    take_turns,
    trainer,
)
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_adv.attacks import PGD
from lightning_adv.callbacks import BestCheckpoint, LastCheckpoint, Throughput, TrainingCurves
from lightning_adv.nn.view.attack_view import attack_view
from lightning_adv.regimes import TRADES, MadryTraining

PLAIN, AGAIN, BOUND, OURS = "plain loop", "plain loop, again", "eager bound", "lightning_adv PGD"
REGIME, MIXED = "MadryTraining", "MadryTraining in bf16-mixed"
TRAINER, FIT = "MadryTraining in a Trainer", "MadryTraining as in lightning-adv fit"
NAIVE, NAIVE_AGAIN = "naive loop", "naive loop, again"

TIMED = {
    "resnet18": replace(WORKLOADS["resnet18"], batch_size=32, passes=1, rounds=5),
    "resnet18_width16": replace(WORKLOADS["resnet18"], backbone=RESNET18_WIDTH16, batch_size=64, passes=1, rounds=5),
    "digits_resnet": replace(WORKLOADS["small_cnn"], backbone=DIGITS_RESNET, passes=2),
    "small_cnn": replace(WORKLOADS["small_cnn"], passes=5),
}
TRADES_ON = ("resnet18_width16", "digits_resnet")  # where it takes less than a minute
Rounds = Mapping[str, Sequence[Seconds]]


# The attacks that are measured: (network, our attack, a batch's images) -> (x, y) -> x_adv ----------------------------


ATTACKS: dict[str, Callable[[nn.Module, PGD, Tensor], AttackFunction]] = {
    PLAIN: plain_pgd,
    AGAIN: plain_pgd,
    BOUND: gradients_alone,
    **HAND_WRITTEN,
    **PEERS,
    OURS: lambda network, pgd, images: partial(pgd, network),
}

REGIMES: dict[str, dict[str, Any]] = {
    "MadryTraining, view: off": {"view": "off"},
    REGIME: {},
    "MadryTraining, channels_last": {"channels_last": True},
    "MadryTraining, attack_precision: bf16": {"attack_precision": "bf16"},
    MIXED: {},  # under autocast, which a view computes in too
    f"{MIXED}, channels_last": {"channels_last": True},
}


def left_behind(network: nn.Module, attack: AttackFunction, workload: Workload) -> str:
    """Say what an attack changed in a network in train mode whose first BatchNorm is frozen in eval mode."""
    next(module for module in network.modules() if isinstance(module, _BatchNorm)).eval()
    flags, buffers = [module.training for module in network.modules()], copy.deepcopy(list(network.buffers()))
    attack(*workload.batch())
    changed = {
        "gradients": any(parameter.grad is not None for parameter in network.parameters()),
        "requires_grad": not all(parameter.requires_grad for parameter in network.parameters()),
        "train flags": flags != [module.training for module in network.modules()],
        "buffers": not all(map(torch.equal, buffers, network.buffers())),
    }
    return ", ".join(name for name, is_changed in changed.items() if is_changed) or "nothing"


# The contenders -------------------------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """A training loop, and what its attack leaves behind."""

    loop: Loop
    left_behind: str


def with_plain_update(name: str, workload: Workload, watch: Stopwatch) -> Entry:
    """An attack, and the update of the plain loop."""
    x, _ = workload.batch()
    network, other = workload.regime().network, workload.regime().network
    attack = watch.over(ATTACKS[name](network, workload.attack(), x))
    loop = loop_of(lambda x, y: F.cross_entropy(network(attack(x, y)), y), network)
    small = replace(workload, batch_size=2)
    return Entry(loop, left_behind(other, ATTACKS[name](other, workload.attack(), small.batch()[0]), small))


def with_regime(name: str, workload: Workload, watch: Stopwatch) -> Entry:
    """A regime's step; in bf16-mixed, under the autocast that the Trainer would put around it."""
    regime, other = (watched(workload, watch, **REGIMES[name]) for _ in range(2))
    precision = partial(torch.autocast, "cpu", torch.bfloat16, enabled=name.startswith(MIXED))

    def loss(x: Tensor, y: Tensor) -> Tensor:
        with precision():
            return regime.training_step((x, y), 0)

    def attack(x: Tensor, y: Tensor) -> Tensor:
        with precision():
            return other.inner_maximisation(x, y)

    return Entry(loop_of(loss, regime.network), left_behind(other.network, attack, replace(workload, batch_size=2)))


def watched(workload: Workload, watch: Stopwatch, **options: Any) -> MadryTraining:
    regime = cast(MadryTraining, workload.regime(MadryTraining, **options))
    regime.configure_model()  # as a Trainer does, which puts the network channels-last if asked
    regime.inner_maximisation = watch.over(regime.inner_maximisation)  # type: ignore[method-assign]
    return regime


def trainers(folder: str) -> dict[str, Trainer]:
    """A Trainer with a CSVLogger, and one with all that ``lightning-adv fit`` adds, the progress bar drawn too."""
    bar = RichProgressBar(console_kwargs={"file": open(os.devnull, "w"), "force_terminal": True})  # noqa: SIM115
    observers = [Throughput(), TrainingCurves(), LearningRateMonitor("epoch"), BestCheckpoint(), LastCheckpoint(), bar]
    return {TRAINER: bare_trainer(folder, "few"), FIT: trainer(folder, "all", callbacks=observers)}


# The measurement ------------------------------------------------------------------------------------------------------


def compare(workload: Workload) -> tuple[dict[str, list[Seconds]], dict[str, str]]:
    """Return the seconds of each contender that is installed, and what their attacks leave behind."""
    watch, entries = Stopwatch(workload.clock), {}
    for name in ATTACKS:
        with suppress(ImportError):
            entries[name] = with_plain_update(name, workload, watch)
    entries |= {name: with_regime(name, workload, watch) for name in REGIMES}
    loops = {name: entry.loop for name, entry in entries.items()}
    with tempfile.TemporaryDirectory() as folder:
        for name, its_trainer in trainers(folder).items():
            loops[name] = partial(its_trainer.fit, watched(workload, watch))
        return take_turns(loops, workload, watch), {name: entry.left_behind for name, entry in entries.items()}


def compare_trades(workload: Workload) -> dict[str, list[Seconds]]:
    """Return the seconds of TRADES' inner maximisation alone."""
    x, _ = workload.batch()
    kl = workload.attack(loss="kl", start="gaussian")
    attacks = {name: naive_trades(workload.regime().network, workload.attack(), x) for name in (NAIVE, NAIVE_AGAIN)}
    for name, options in REGIMES.items():
        if not name.startswith(MIXED) and "channels_last" not in options:  # which an attack knows nothing of
            regime = cast(MadryTraining, workload.regime(MadryTraining, attack=kl, objective=TRADES(), **options))
            attacks[name] = regime.inner_maximisation
    return take_turns({name: partial(attack_loop, attack) for name, attack in attacks.items()}, workload)


def attack_loop(attack: AttackFunction, loader: Iterable[Batch]) -> None:
    for x, y in loader:
        attack(x, y)


def compare_preparing(workload: Workload, rounds: int = 9) -> tuple[list[float], list[float]]:
    """Return the seconds in which a view takes over weights that have moved, and those of a forward pass of a batch."""
    network, (x, _) = workload.regime().network.eval(), workload.batch()
    view = attack_view(network)
    view.prepare(x)
    prepared, passed = [], []
    for _ in range(rounds):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(1.0)
            start = workload.clock()
            view.prepare(x)
            between = workload.clock()
            network(x)
        prepared.append(between - start)
        passed.append(workload.clock() - between)
    return prepared, passed


# The tables -----------------------------------------------------------------------------------------------------------


class Column:
    """One quantity of a table's rows, against those of the first, which was measured a second time.

    Args:
        seconds: Of each row, round by round.
        reference: The row that the others are set against.
        again: The same, measured a second time.
    """

    def __init__(self, seconds: Mapping[str, list[float]], reference: str, again: str) -> None:
        self.seconds, self.reference = seconds, reference
        self.noise = max(abs(ratio - 1) for ratio in ratios(seconds[again], seconds[reference]))

    def ratio(self, name: str, over: str | None = None) -> str:
        """Return the median ratio, marked if it is within the noise."""
        found = median(self.ratios(name, over))
        is_noise = abs(found - 1) <= self.noise and name != self.reference
        return f"≈ {found:.3f}" if is_noise else f"{found:.3f}"

    def ratios(self, name: str, over: str | None = None) -> list[float]:
        return ratios(self.seconds[name], self.seconds[self.reference if over is None else over])

    def cells(self, name: str) -> str:
        """Return three cells: ms, the median ratio, and the lowest and the highest."""
        over = self.ratios(name)
        return f"{1e3 * median(self.seconds[name]):.1f} | {self.ratio(name)} | {min(over):.3f} to {max(over):.3f}"


def table(found: Rounds, leaves: Mapping[str, str]) -> str:
    step = Column({name: [seconds.step for seconds in rounds] for name, rounds in found.items()}, PLAIN, AGAIN)
    attack = Column({name: [seconds.attack for seconds in rounds] for name, rounds in found.items()}, PLAIN, AGAIN)
    over = "over the plain loop | lowest to highest"
    lines = [f"| contender | step, ms | {over} | attack alone, ms | {over} | the attack leaves behind |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|---|")
    for name in [*ATTACKS, *REGIMES, TRAINER, FIT]:
        if name in found:
            lines.append(f"| {name} | {step.cells(name)} | {attack.cells(name)} | {leaves.get(name, '')} |")
        else:
            lines.append(f"| {name} | not installed | | | | | | |")
    strays = f"{step.noise:.3f} in the step, {attack.noise:.3f} in the attack"
    lines += [
        "",
        f"≈: within the noise, no further from 1 than the plain loop's second measurement strays ({strays}).",
        "",
    ]
    lines += [*against_peers(step, attack), "", trainer_adds(step)]
    return "\n".join(lines)


def preparing(prepared: Sequence[float], passed: Sequence[float]) -> str:
    ms, forward = 1e3 * median(prepared), 1e3 * median(passed)
    return f"A view takes over new weights in {ms:.2f} ms, {ms / forward:.4f} of a forward pass of the batch."


def against_peers(step: Column, attack: Column) -> list[str]:
    """Ours over the fastest of the others."""
    fastest = [
        min((*HAND_WRITTEN, *PEERS), key=lambda name: median(column.seconds.get(name, [float("inf")])))
        for column in (step, attack)
    ]
    lines = [
        f"| over the fastest of the others | step ({fastest[0]}) | attack alone ({fastest[1]}) |",
        "|---|---:|---:|",
    ]
    for name in (OURS, *REGIMES, TRAINER, FIT):
        lines.append(f"| {name} | {step.ratio(name, fastest[0])} | {attack.ratio(name, fastest[1])} |")
    return lines


def trainer_adds(step: Column) -> str:
    shares = ", ".join(f"{step.ratio(name, REGIME)} ({name})" for name in (TRAINER, FIT))
    return f"The Trainer's step over that of {REGIME}: {shares}."


def trades_table(found: Rounds) -> str:
    column = Column({name: [seconds.step for seconds in own] for name, own in found.items()}, NAIVE, NAIVE_AGAIN)
    lines = ["| TRADES' attack alone | ms | over the naive loop | lowest to highest |", "|---|---:|---:|---:|"]
    lines += [f"| {name} | {column.cells(name)} |" for name in found]
    return "\n".join([*lines, "", f"≈: within {column.noise:.3f} of 1, the noise of this table."])


# The command line -----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    share_one_heap()
    args = parse_arguments(__doc__, steps=10, workloads=TIMED, arguments=arguments)
    results: dict[str, dict[str, Any]] = {}
    for name, workload in args.workloads.items():
        found, leaves = compare(workload)
        print(f"{heading(name, workload, args)}\n{table(found, leaves)}", flush=True)
        print(f"\n{preparing(*compare_preparing(workload))}", flush=True)
        results[name] = {"seconds": found, "left_behind": leaves}
        if name in TRADES_ON:
            trades = results[name]["trades"] = compare_trades(workload)
            print(f"\n{trades_table(trades)}", flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
