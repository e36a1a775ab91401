"""What an evaluation has written down, before it is gone on with: a disk or a hand may have changed it since."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lightning_adv.evaluation.verdicts import BROKEN, MISCLASSIFIED, SKIPPED, SURVIVED, CaseVerdicts, ChunkVerdicts


def is_whole(chunk: ChunkVerdicts) -> bool:
    """Return whether all that is known of a chunk is of its kind, and whether it fits together.

    Example:
        >>> is_whole(ChunkVerdicts(0, [0, 1], [3, 3], [3, 5]))
        True
        >>> is_whole(ChunkVerdicts(0, [0, 1], [3, 3], [3]))
        False
    """
    of_samples = (chunk.index, chunk.labels, chunk.predicted)
    return (
        _is_count(chunk.chunk)
        and all(_is_list(part, _is_count, len(chunk.labels)) for part in of_samples)
        and all(isinstance(key, str) and _is_whole_case(case, chunk) for key, case in chunk.cases.items())
        and _is_count(chunk.curve_images)
        and all(_is_list(curve, _is_count) for curve in chunk.curves.values())
        and all(_is_list(rows, _is_error) for rows in chunk.corruptions.values())
    )


def _is_whole_case(case: CaseVerdicts, chunk: ChunkVerdicts) -> bool:
    count = len(chunk.labels)
    lists = (
        (case.verdicts, lambda verdict: verdict in (MISCLASSIFIED, BROKEN, SURVIVED, SKIPPED)),
        (case.predicted, lambda value: value is None or _is_integer(value)),
        (case.distance, lambda value: value is None or _is_number(value)),
        (case.stage, lambda value: value is None or _is_count(value)),
    )
    if not all(_is_list(values, test, count) for values, test in lists) or not _is_number(case.seconds):
        return False
    wrong = [verdict == MISCLASSIFIED for verdict in case.verdicts]
    broken = [verdict == BROKEN for verdict in case.verdicts]
    return wrong == [guess != label for guess, label in zip(chunk.predicted, chunk.labels, strict=True)] and all(
        broken == [value is not None for value in values] for values in (case.predicted, case.stage)
    )


def _is_list(values: Any, test: Callable[[Any], bool], count: int | None = None) -> bool:
    return isinstance(values, list) and count in (None, len(values)) and all(map(test, values))


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_count(value: Any) -> bool:
    return _is_integer(value) and value >= 0


def _is_number(value: Any) -> bool:
    return _is_integer(value) or (isinstance(value, float) and not math.isnan(value))


def _is_error(row: Any) -> bool:
    """Whether something is a row of :class:`~lightning_adv.evaluation.corruptions.errors.CorruptionError`."""
    if not isinstance(row, list) or len(row) != 5:
        return False
    name, severity, images, correct, total = row
    texts = isinstance(name, str) and isinstance(images, str)
    return texts and all(map(_is_count, (severity, correct, total))) and correct <= total
