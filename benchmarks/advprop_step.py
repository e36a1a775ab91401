"""The time of AdvProp's training step over its eager bound, and those of TRADES and AWP over Madry et al.'s.

README.md beside this file says what is measured and how to read the tables.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from functools import partial

import torch.nn.functional as F
from timing import (
    Loop,
    Workload,
    bare_trainer,
    cells,
    gradients_alone,
    heading,
    loop_of,
    parse_arguments,
    regime_loop,
    share_one_heap,
    take_turns,
    twin,
)
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_adv.regimes import TRADES, AdvPropTraining, Regime, WeightPerturbation

BOUND, AGAIN = "eager bound", "eager bound, again"
ADVPROP, IN_TRAINER = "AdvPropTraining", "AdvPropTraining in a Trainer"
MADRY, WITH_TRADES, WITH_AWP = "MadryTraining", "MadryTraining with TRADES", "MadryTraining with AWP"


# AdvProp's bound: algorithm 2 of Xie (2020) with a BatchNorm for each domain and nothing else -------------------------


def pair(network: nn.Module) -> nn.ModuleList:
    """Return a network and one with BatchNorms of its own, which shares all else: the main and the auxiliary one."""
    return nn.ModuleList([network, twin(network, own=batchnorm_tensors(network))])


def batchnorm_tensors(network: nn.Module) -> Iterator[Tensor]:
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            yield from module.parameters()
            yield from module.buffers()


def bound_loop(networks: nn.ModuleList, workload: Workload) -> Loop:
    """The attack's gradients through the auxiliary network, a pass through each network, one update."""
    main, auxiliary = networks
    attack = gradients_alone(auxiliary, workload.attack(), workload.batch()[0])

    def loss(x: Tensor, y: Tensor) -> Tensor:
        x_adv = attack(x, y)
        return F.cross_entropy(main(x), y) + F.cross_entropy(auxiliary(x_adv), y)

    return loop_of(loss, networks)


# The measurement ------------------------------------------------------------------------------------------------------


def regimes(workload: Workload) -> dict[str, Regime]:
    """What runs in a Trainer."""
    kl_attack = workload.attack(loss="kl", start="gaussian")  # that of TRADES
    return {
        IN_TRAINER: workload.regime(AdvPropTraining),
        MADRY: workload.regime(),
        WITH_TRADES: workload.regime(objective=TRADES(), attack=kl_attack),
        WITH_AWP: workload.regime(weight_perturbation=WeightPerturbation()),
    }


def compare(workload: Workload) -> dict[str, list[float]]:
    """Return the seconds of each contender's step in each round."""
    loops = {name: bound_loop(pair(workload.regime().network), workload) for name in (BOUND, AGAIN)}
    loops[ADVPROP] = regime_loop(workload.regime(AdvPropTraining))
    with tempfile.TemporaryDirectory() as folder:
        for name, regime in regimes(workload).items():
            loops[name] = partial(bare_trainer(folder, name).fit, regime)
        found = take_turns(loops, workload)
    return {name: [seconds.step for seconds in rounds] for name, rounds in found.items()}


def table(seconds: dict[str, list[float]]) -> str:
    lines = ["| contender | ms a step | over the bound | lowest to highest |", "|---|---:|---:|---:|"]
    lines += [f"| {name} | {cells(seconds[name], seconds[BOUND])} |" for name in (BOUND, AGAIN, ADVPROP, IN_TRAINER)]
    lines += ["", "| in a Trainer | ms a step | over MadryTraining | lowest to highest |", "|---|---:|---:|---:|"]
    lines += [f"| {name} | {cells(seconds[name], seconds[MADRY])} |" for name in (MADRY, WITH_TRADES, WITH_AWP)]
    return "\n".join(lines)


def main() -> None:
    share_one_heap()
    args = parse_arguments(__doc__, steps=5)
    results = {}
    for name, workload in args.workloads.items():
        results[name] = compare(workload)
        print(f"{heading(name, workload, args)}\n{table(results[name])}", flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
