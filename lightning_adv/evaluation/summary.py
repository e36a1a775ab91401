"""What the verdicts of all chunks come to: accuracies with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, cat

from lightning_adv.core.errors import UsageError
from lightning_adv.core.shares import Share
from lightning_adv.core.threat_model import ThreatModel
from lightning_adv.evaluation.corruptions.errors import CorruptionError, sum_errors
from lightning_adv.evaluation.plan import Case, Plan
from lightning_adv.evaluation.verdicts import BROKEN, MISCLASSIFIED, SKIPPED, CaseVerdicts, ChunkVerdicts, broken_within


class CaseSummary(NamedTuple):
    """What one attack did under one threat model.

    Attributes:
        case: The attack and the threat model.
        attacked: Number of samples that it was run on.
        broken: Number of them that it broke.
        alone: Share under this attack alone; None where it did not see the samples that were broken before.
        left: Share under this attack and all that ran before it within this ball.
        stages: How many samples each stage of the attack broke (restarts, parts of an ensemble).
        seconds: How long it took, all processes together.
    """

    case: Case
    attacked: int
    broken: int
    alone: Share | None
    left: Share
    stages: tuple[int, ...]
    seconds: float


class AccuracyOverSteps(NamedTuple):
    """The accuracy over the number of attack steps.

    Attributes:
        threat: The threat model.
        steps: The numbers of steps.
        accuracies: The accuracy after each.
    """

    threat: ThreatModel
    steps: tuple[int, ...]
    accuracies: tuple[Share, ...]


class Summary(NamedTuple):
    """What an evaluation found.

    Attributes:
        clean: Share on the images as they are.
        cases: What each attack did, in the order of the plan.
        all_or_nothing: For each threat model the accuracy where a sample counts only if no attack within the ball, at
            this radius or a smaller one, breaks it.
        curves: The accuracies over the number of steps.
        corruptions: The errors on corrupted images, a row for each corruption and severity; none if not asked for.
    """

    clean: Share
    cases: tuple[CaseSummary, ...]
    all_or_nothing: dict[ThreatModel, Share]
    curves: tuple[AccuracyOverSteps, ...]
    corruptions: tuple[CorruptionError, ...] = ()


def summarise(plan: Plan, chunks: Sequence[ChunkVerdicts]) -> Summary:
    """Add up the verdicts of all chunks.

    Args:
        plan: What was run.
        chunks: What is known of each chunk, all of their cases.

    Raises:
        UsageError: There are no samples.

    Example:
        >>> import torch
        >>> from lightning_adv.attacks import FGSM
        >>> from lightning_adv.evaluation import evaluate_chunk, make_plan
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> x, plan = torch.rand(8, 3, 2, 2), make_plan([FGSM()], {"linf": [1.0]})
        >>> chunks = [evaluate_chunk(network, x, network(x).argmax(1), plan)]
        >>> summarise(plan, chunks).clean
        Share(correct=8, total=8)
    """
    total = sum(len(chunk.labels) for chunk in chunks)
    if not total:
        raise UsageError("An evaluation needs at least one sample, got none.")
    correct = cat([chunk.correct for chunk in chunks])
    cases = []
    for number, case in enumerate(plan.cases):
        broken = _broken(chunks, case.threat, plan.cases[: number + 1])
        cases.append(_summarise_case(case, [chunk.cases[case.key] for chunk in chunks], correct, broken))
    all_or_nothing = {
        threat: Share(int((correct & ~_broken(chunks, threat, plan.cases)).sum()), total) for threat in plan.threats
    }
    shards = [[CorruptionError(*row) for rows in chunk.corruptions.values() for row in rows] for chunk in chunks]
    clean = Share(int(correct.sum()), total)
    return Summary(clean, tuple(cases), all_or_nothing, _curves(plan, chunks), tuple(sum_errors(shards)))


def _broken(chunks: Sequence[ChunkVerdicts], threat: ThreatModel, cases: Sequence[Case]) -> Tensor:
    return cat([broken_within(chunk, threat, cases) for chunk in chunks])


def _summarise_case(case: Case, parts: Sequence[CaseVerdicts], correct: Tensor, broken_so_far: Tensor) -> CaseSummary:
    verdicts = [verdict for part in parts for verdict in part.verdicts]
    broken, skipped = verdicts.count(BROKEN), verdicts.count(SKIPPED)
    attacked = len(verdicts) - verdicts.count(MISCLASSIFIED) - skipped
    stages = [stage for part in parts for stage in part.stage if stage is not None]
    return CaseSummary(
        case,
        attacked,
        broken,
        alone=None if skipped else Share(attacked - broken, len(verdicts)),
        left=Share(int((correct & ~broken_so_far).sum()), len(verdicts)),
        stages=tuple(stages.count(number) for number in range(len(case.attack.stages()))),
        seconds=sum(part.seconds for part in parts),
    )


def _curves(plan: Plan, chunks: Sequence[ChunkVerdicts]) -> tuple[AccuracyOverSteps, ...]:
    curves = []
    images = sum(chunk.curve_images for chunk in chunks)
    for case in plan.curves:
        counts = [chunk.curves[case.key] for chunk in chunks if chunk.curve_images]
        accuracies = tuple(Share(sum(column), images) for column in zip(*counts, strict=True))
        curves.append(AccuracyOverSteps(case.threat, plan.steps, accuracies))
    return tuple(curves)
