"""The figure of a study, from the rows of its table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from lightning_adv.core.figures import GREY, TEXT, new_figure
from lightning_adv.studies.figures.bars import draw_bars
from lightning_adv.studies.figures.canvas import Canvas
from lightning_adv.studies.figures.lines import draw_lines
from lightning_adv.studies.figures.parts import Content
from lightning_adv.studies.figures.scatter import draw_scatter
from lightning_adv.studies.figures.settings import FigureSettings, check_figure, choose_figure, measures_in
from lightning_adv.studies.figures.values import Row, axes_of, values_of
from lightning_adv.studies.figures.with_without import draw_with_without
from lightning_adv.studies.table import measures_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DRAW: Final[Mapping[str, Callable[[Content], Canvas]]] = {
    "lines": draw_lines,
    "bars": draw_bars,
    "with_without": draw_with_without,
    "scatter": draw_scatter,
}


def draw_study(rows: Sequence[Row], spec: Mapping[str, Any] | None = None, title: str = "") -> Figure:
    """Draw a study.

    No axis of the grid is averaged over without a word below the figure, and what is missing is a gap that is counted
    there. Of several seeds the mean is drawn, with each run behind it; of one run the 95 % Wilson interval.

    Args:
        rows: The rows of the study's table, from :func:`.read_study_folder` or from pandas, by
            ``pandas.read_csv(...).to_dict("records")``.
        spec: What the figure shows: ``kind``, ``x``, ``lines``, ``panels``, ``y``, ``reference``. What is not given is
            chosen from the rows.
        title: The title.

    Raises:
        UsageError: A column, a measure or a kind in ``spec`` does not exist.

    Example:
        >>> rows = [
        ...     {"cutoff": f"m{k}", "seed": 0, "status": "done", "clean_accuracy": 0.9, "robust_accuracy": 0.1 * k}
        ...     for k in range(4)
        ... ]
        >>> figure = draw_study(rows, title="Block-wise retraining")
        >>> figure.axes[0].get_xlabel(), len(figure.axes[0].lines)
        ('Cutoff', 2)
    """
    settings = settings_of(rows, spec)
    measures = _measures(rows)
    if all(row.get("status") == "done" for row in rows):  # else a measure may be one that comes yet
        check_figure(spec, axes_of(rows), measures)
    if not rows or not settings.y:
        return _empty(title)
    return _DRAW[settings.kind](Content.split(settings, rows)).finish(title)


def settings_of(rows: Sequence[Row], spec: Mapping[str, Any] | None = None) -> FigureSettings:
    """Return what the figure of some rows shows, with all that is chosen from the rows.

    A measure that the rows have not is taken: it may come with the next of them.

    Raises:
        UsageError: A column, a value or a kind in ``spec`` does not exist.

    Example:
        >>> settings_of([{"eps": eps, "seed": 0, "status": "done", "robust_accuracy": 0.5} for eps in (0.1, 0.2)]).kind
        'lines'
    """
    columns = {column: values_of(rows, column) for column in axes_of(rows)}
    measures = _measures(rows)
    if rows:
        check_figure(spec, columns, [*measures, *measures_in(spec)])
    return choose_figure(spec, columns, measures)


def _measures(rows: Sequence[Row]) -> tuple[str, ...]:
    return measures_of(list(dict.fromkeys(column for row in rows for column in row)), rows)


def _empty(title: str) -> Figure:
    figure = new_figure(4.8, 2.4)
    figure.suptitle(title, fontsize=TEXT + 2)
    figure.text(0.5, 0.45, "There are no numbers to draw yet.", ha="center", color=GREY, fontsize=TEXT)
    return figure
