"""What an evaluation takes: the preset ``standard`` over its attacks on every sample, early stop, PGD-50 of libraries.

README.md beside this file says what is measured and how to read the tables.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import torch
from attack_step import ATTACKS, BOUND
from sklearn.datasets import load_digits
from timing import CLOCKS, WORKLOADS, ratios
from torch import Tensor, nn

from lightning_adv.attacks import PGD, Attack
from lightning_adv.commands.evaluate.settings import parse_settings
from lightning_adv.commands.shared.networks import load_network
from lightning_adv.evaluation import Plan, evaluate_chunk, make_plan, summarise
from lightning_adv.evaluation.plan import BATCHES

SKIPPING, EVERY = "lightning_adv evaluate", "every attack on every sample"
FULL, AGAIN, EARLY = "full loop", "full loop, again", "early stop"
Contenders = Mapping[str, Callable[[], object]]


# The preset: with and without skipping what is broken -----------------------------------------------------------------


def digits(images: int) -> tuple[Tensor, Tensor]:
    """Return the first digits (N, 1, 8, 8) and their labels; the networks have seen most of them in training."""
    data = load_digits()
    x = torch.tensor(data.images[:images] / 16, dtype=torch.float32)[:, None]
    return x, torch.tensor(data.target[:images])


def on_every_sample(network: nn.Module, x: Tensor, y: Tensor, plan: Plan, batch_size: int) -> None:
    """Run each attack of the plan on all images: each restart, and each part of AutoAttack."""
    for stage in (stage for case in plan.cases for stage in case.attack.stages()):
        for images, labels in zip(x.split(batch_size), y.split(batch_size), strict=True):
            x_adv = without_early_stop(stage)(network, images, labels)
            with torch.no_grad():
                network(x_adv)


def without_early_stop(attack: Attack) -> Attack:
    """Return the attack with all of its steps."""
    attack = copy.copy(attack)
    if isinstance(attack, PGD):
        attack.early_stop = False
    return attack


def skipping(network: nn.Module, x: Tensor, y: Tensor, plan: Plan, batch_size: int) -> str:
    """Evaluate as the command does; return the accuracies under all attacks together."""
    parts = zip(x.split(BATCHES * batch_size), y.split(BATCHES * batch_size), strict=True)
    chunks = [
        evaluate_chunk(network, images, labels, plan, number=number, batch_size=batch_size)
        for number, (images, labels) in enumerate(parts)
    ]
    found = summarise(plan, chunks).all_or_nothing.values()
    return " / ".join(f"{100 * accuracy.accuracy:.1f}" for accuracy in found)


def compare_preset(args: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Print and return the seconds of each round, by checkpoint."""
    settings, _ = parse_settings([f"--config={args.config}", "--checkpoint=none", "--data=DigitsDataModule"])
    plan = make_plan(settings.attacks, {"linf": args.eps})
    x, y = digits(args.images)
    print(f"\n{args.config}, eps {args.eps} in Linf, {len(x)} digits, {_how(args)}\n")
    print("| network | robust accuracy (%) | every sample (s) | evaluate (s) | ratio | lowest to highest |")
    print("|---|---:|---:|---:|---:|---:|")
    seconds = {}
    for checkpoint in args.checkpoints:
        network = load_network(checkpoint, None, num_classes=10, domain=None).network
        given = (network, x, y, plan, args.batch_size)
        robust = skipping(*given)
        contenders = {SKIPPING: partial(skipping, *given), EVERY: partial(on_every_sample, *given)}
        found = seconds[checkpoint] = take_turns(contenders, args.rounds, CLOCKS[args.clock])
        over = ratios(found[SKIPPING], found[EVERY])
        times = f"{median(found[EVERY]):.1f} | {median(found[SKIPPING]):.1f}"
        spread = f"{min(over):.3f} to {max(over):.3f}"
        print(f"| {checkpoint} | {robust} | {times} | {median(over):.3f} | {spread} |", flush=True)
    return seconds


# PGD-50 with and without early stop -----------------------------------------------------------------------------------


def compare_early_stop(args: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Print and return the seconds of each round, by checkpoint and eps."""
    x, y = digits(args.images)
    print(f"\nPGD-{args.steps} in Linf with early stop, over the full loop, {len(x)} digits, {_how(args)}\n")
    rules, times = "last iterate (%) | any iterate (%)", "full loop (s) | again | early stop | lowest to highest"
    print(f"| network | eps | {rules} | {times} |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    seconds = {}
    for checkpoint in args.checkpoints:
        network = load_network(checkpoint, None, num_classes=10, domain=None).network
        for eps in args.eps:
            full = PGD(eps=eps, steps=args.steps, step_size=eps / 10)
            early = PGD(eps=eps, steps=args.steps, step_size=eps / 10, early_stop=True)
            last, any_iterate = (accuracy(network, x, y, attack, args.batch_size) for attack in (full, early))
            contenders = {
                name: partial(accuracy, network, x, y, attack, args.batch_size)
                for name, attack in ((FULL, full), (AGAIN, full), (EARLY, early))
            }
            found = seconds[f"{checkpoint}, eps {eps:g}"] = take_turns(contenders, args.rounds, CLOCKS[args.clock])
            again, over = (ratios(found[name], found[FULL]) for name in (AGAIN, EARLY))
            told = f"{100 * last:.1f} | {100 * any_iterate:.1f} | {median(found[FULL]):.2f} | {median(again):.3f}"
            spread = f"{median(over):.3f} | {min(over):.3f} to {max(over):.3f}"
            print(f"| {checkpoint} | {eps:g} | {told} | {spread} |", flush=True)
    return seconds


def accuracy(network: nn.Module, x: Tensor, y: Tensor, attack: Attack, batch_size: int) -> float:
    """Attack all images, from the same starts each time; return the share that is classified correctly then."""
    generator, correct = torch.Generator().manual_seed(0), 0
    for images, labels in zip(x.split(batch_size), y.split(batch_size), strict=True):
        x_adv = attack(network, images, labels, generator=generator)
        with torch.no_grad():
            correct += int((network(x_adv).argmax(1) == labels).sum())
    return correct / len(x)


# PGD-50 of several libraries ------------------------------------------------------------------------------------------


def compare_libraries(args: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Print and return the seconds of each round, by network."""
    seconds = {}
    for name, workload in WORKLOADS.items():
        network, (x, y) = workload.regime().network.eval(), workload.batch()
        attacks = {}
        for contender, make in ATTACKS.items():
            with suppress(ImportError):
                attacks[contender] = partial(make(network, replace(workload, steps=args.steps).attack(), x), x, y)
        seconds[name] = found = take_turns(attacks, args.rounds, CLOCKS[args.clock])
        print(f"\nPGD-{args.steps}, {name}, {len(x)} images, {_how(args)}\n")
        print("| attack | ms | over the bound | lowest to highest |\n|---|---:|---:|---:|")
        for contender, own in found.items():
            over = ratios(own, found[BOUND])
            figures = f"{1e3 * median(own):.0f} | {median(over):.3f} | {min(over):.3f} to {max(over):.3f}"
            print(f"| {contender} | {figures} |", flush=True)
    return seconds


# The measurement ------------------------------------------------------------------------------------------------------


def take_turns(contenders: Contenders, rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Return each contender's seconds in each round; in a round they take turns in a random order."""
    shuffled = random.Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name in shuffled.sample(list(contenders), len(contenders)):
            start = clock()
            contenders[name]()
            seconds[name].append(clock() - start)
    return seconds


def _how(args: argparse.Namespace) -> str:
    return f"{args.rounds} rounds, {args.clock} time, threads: {args.threads}, torch {torch.__version__}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", nargs="*", help="of runs on the digits; none for the libraries alone")
    parser.add_argument("--config", default="evaluation/standard", help="the preset")
    parser.add_argument("--eps", type=float, nargs="+", default=[0.2])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=250)
    parser.add_argument("--steps", type=int, default=50, help="gradient steps of PGD: with --early-stop, of libraries")
    parser.add_argument(
        "--early-stop", action="store_true", help="PGD with early stop over PGD, in place of the preset"
    )
    parser.add_argument("--rounds", type=int, default=3, help="each gives one ratio; the table has their median")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: for one thread on a busy machine")
    parser.add_argument("--json", type=Path, help="file for the seconds of every round")
    args = parser.parse_args(arguments)
    if args.early_stop and not args.checkpoints:
        parser.error("--early-stop needs checkpoints")
    torch.set_num_threads(args.threads)
    logging.getLogger("lightning_adv").setLevel(logging.ERROR)
    compare = compare_early_stop if args.early_stop else compare_preset if args.checkpoints else compare_libraries
    results = compare(args)
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
