"""Is the number suspicious? What an evaluation says of its own results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.text import Text
from torch import nn

from lightning_adv.commands.shared.images import TestImages, in_precision_of
from lightning_adv.commands.shared.printing import plain_console
from lightning_adv.core.seeds import derive_seed
from lightning_adv.evaluation import Case, ChunkVerdicts, Plan, ThreatModel
from lightning_adv.evaluation.suspicion import Suspicion, blackbox_beats_whitebox, find_suspicions
from lightning_adv.evaluation.verdicts import BROKEN, SURVIVED, broken_within


def look(network: nn.Module, images: TestImages, plan: Plan, count: int, device: torch.device) -> list[dict[str, Any]]:
    """Look at a network and at how attacks on it do, at the largest radius of each norm.

    Args:
        network: The network, on the device.
        images: The test images.
        plan: What the evaluation runs.
        count: How many images to look at, the first ones; 0 for none.
        device: Where to compute.

    Returns:
        What is suspicious, as plain data.
    """
    largest = {threat.norm: threat for threat in plan.threats if threat.norm is not None}.values()
    if not count or not largest:
        return []
    x, y = images.first(count)
    x = in_precision_of(network, x)
    found: list[dict[str, Any]] = []
    for threat in largest:
        if threat.norm is None or threat.eps is None:
            continue
        generator = torch.Generator().manual_seed(derive_seed(plan.seed, "suspicions", str(threat)))
        told = find_suspicions(
            network, x.to(device), y.to(device), norm=threat.norm, eps=threat.eps, generator=generator
        )
        # What is wrong with the network itself is the same in every ball; how attacks compare has an eps.
        known = [each["name"] for each in found]
        found += [_plain(each, threat, len(y)) for each in told if "eps" in each.evidence or each.name not in known]
    return found


def look_at_verdicts(plan: Plan, chunks: Sequence[ChunkVerdicts]) -> list[dict[str, Any]]:
    """Look for black-box attacks that break what gradient attacks in the same ball did not.

    Only samples count that a gradient attack was run on, in that ball or a smaller one: where a black-box attack runs
    first, or alone, and what it breaks is skipped, nothing is known of the others.
    """
    found: list[dict[str, Any]] = []
    for threat in plan.threats:
        cases = [case for case in plan.cases if case.threat == threat]
        black, white = (torch.cat([_broken(chunk, cases, kind) for chunk in chunks]) for kind in (True, False))
        smaller = torch.cat([broken_within(chunk, threat, plan.cases) for chunk in chunks]) & ~black
        compared = torch.cat([_attacked_by_gradient(chunk, cases) for chunk in chunks]) | smaller
        black &= compared
        if black.any() and (suspicion := blackbox_beats_whitebox((white | smaller)[compared], black[compared])):
            found.append(_plain(suspicion, threat, int(compared.sum())))
    return found


def print_suspicions(found: Sequence[Mapping[str, Any]], looked: bool) -> None:
    """Print what is suspicious, or that nothing is."""
    console = plain_console()
    for each in found:
        where = f"{ThreatModel(each['norm'], each['eps'])}, {each['images']:,} images"
        console.print(Text.assemble((f"Suspicious: {each['name'].replace('_', ' ')}", "bold"), f" ({where})"))
        console.print(f"  {each['message']}")
    if looked and not found:
        console.print("No sign that the numbers are too good: see suspicions in evaluation.json.")


def is_suspicion(value: Any) -> bool:
    """Return whether something is what :func:`look` returns an entry of, after it was written down and read again."""
    if not isinstance(value, dict):
        return False
    texts = all(isinstance(value.get(key), str) for key in ("name", "message", "norm"))
    numbers = all(type(value.get(key)) in (int, float) for key in ("eps", "images"))
    return texts and numbers and isinstance(value.get("evidence"), dict)


def _broken(chunk: ChunkVerdicts, cases: Sequence[Case], black_box: bool) -> torch.Tensor:
    """Return which samples the black-box stages of some cases broke, or the others: (N,) bool."""
    broken = torch.zeros(len(chunk.labels), dtype=torch.bool)
    for case in cases:
        kinds = [stage.black_box for stage in case.attack.stages()]
        found = chunk.cases[case.key]
        for number, (verdict, stage) in enumerate(zip(found.verdicts, found.stage, strict=True)):
            if verdict == BROKEN and stage is not None and kinds[stage] == black_box:
                broken[number] = True
    return broken


def _attacked_by_gradient(chunk: ChunkVerdicts, cases: Sequence[Case]) -> torch.Tensor:
    """Return which samples a stage that is no black box was run on: (N,) bool."""
    attacked = torch.zeros(len(chunk.labels), dtype=torch.bool)
    for case in cases:
        kinds = [stage.black_box for stage in case.attack.stages()]
        if all(kinds):
            continue
        first, found = kinds.index(False), chunk.cases[case.key]
        for number, (verdict, stage) in enumerate(zip(found.verdicts, found.stage, strict=True)):
            if verdict == SURVIVED or (stage is not None and stage >= first):
                attacked[number] = True
    return attacked


def _plain(suspicion: Suspicion, threat: ThreatModel, images: int) -> dict[str, Any]:
    return {
        "name": suspicion.name,
        "message": suspicion.message,
        "evidence": dict(suspicion.evidence),
        "norm": threat.norm,
        "eps": threat.eps,
        "images": images,
    }
