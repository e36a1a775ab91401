"""The training curves of a study's runs, packed: a page of hundreds of runs stays one that can be sent by mail."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lightning_adv.report.figures import Figure, order_of_metrics
from lightning_adv.report.labels import describe_metric
from lightning_adv.report.studies import Curves
from lightning_adv.report.tables import to_base64

_MOST_NUMBERS = 1_500_000  # of all curves of a study: 8 MB of the page


def pack_curves(curves: Mapping[str, Curves], most: int = _MOST_NUMBERS) -> tuple[dict[str, Any], int]:
    """Return the curves as the page reads them.

    Args:
        curves: By cell, for each metric its points (epoch, value).
        most: How many numbers may be packed. Of longer curves one in ``every`` points stays, and the last.

    Returns:
        ``metrics``, how each is shown, in the order of the menu, and ``runs``, by cell for each of its metrics its
        place in ``metrics``, its epochs (the empty text where they are 0, 1, 2, ...) and its values, both
        little-endian fp32 in base64; and ``every``.

    Example:
        >>> packed, every = pack_curves({"0a": {"train/loss": [(0, 1.0), (1, 2.0)]}})
        >>> packed["metrics"][0]["title"], packed["runs"], every
        ('Loss, training', {'0a': [[0, '', 'AACAPwAAAEA=']]}, 1)
    """
    size = sum(len(points) for of in curves.values() for points in of.values())
    every = max(1, math.ceil(2 * size / most))
    metrics = order_of_metrics(name for of in curves.values() for name in of if not name.startswith("test/"))
    place = {name: number for number, name in enumerate(metrics)}
    runs = {
        key: [[place[name], *_packed(points[::-every][::-1])] for name, points in of.items() if name in place]
        for key, of in curves.items()
    }
    return {"metrics": [_shown(name) for name in metrics], "runs": runs}, every


def _packed(points: list[tuple[float, float]]) -> tuple[str, str]:
    epochs = [epoch for epoch, _ in points]
    return "" if epochs == list(range(len(epochs))) else to_base64(epochs), to_base64([value for _, value in points])


def _shown(metric: str) -> Figure:
    label = describe_metric(metric)
    return {**label._asdict(), "name": metric, "factor": 100 if label.group == "Accuracy" else 1}
