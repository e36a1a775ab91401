"""What the figure of a study shows: settings of a study file, checked, and chosen from the grid where not given."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

from lightning_adv.core.errors import UsageError
from lightning_adv.core.reading import shorten
from lightning_adv.core.suggestions import did_you_mean
from lightning_adv.studies.figures.values import are_subsets, is_ordered
from lightning_adv.studies.results import KINDS

FIGURE_KINDS: Final = ("lines", "bars", "with_without", "scatter")


@dataclass(frozen=True)
class FigureSettings:
    """What a figure shows.

    Attributes:
        kind: ``lines``, ``bars``, ``with_without`` or ``scatter``.
        x: The column along the horizontal axis; of ``scatter`` a measure. None for one group of bars.
        lines: The column whose values get a colour each; None for a colour by measure.
        panels: The column whose values get a panel each; None for one panel.
        y: The measures.
        reference: Rows that are drawn as horizontal lines: columns, and the text in them.
    """

    kind: str
    x: str | None
    lines: str | None = None
    panels: str | None = None
    y: tuple[str, ...] = ()
    reference: Mapping[str, str] = field(default_factory=dict)


_KEYS: Final = tuple(each.name for each in fields(FigureSettings))


def check_figure(spec: Any, columns: Iterable[str] | Mapping[str, Iterable[str]], measures: Iterable[str]) -> None:
    """Check the settings of a figure, before anything is trained.

    Args:
        spec: What a study file says; None for nothing.
        columns: The columns of what varies, without the seed; a mapping has the values of each, so that those of
            ``reference`` are checked too.
        measures: What is measured. Accuracies of BatchNorm domains and at several radii, which only results know, are
            taken as well.

    Raises:
        UsageError: Something in it is unknown or does not fit.

    Example:
        >>> check_figure({"x": "cutof"}, ["setting", "cutoff"], ["robust_accuracy"])
        Traceback (most recent call last):
        lightning_adv.core.errors.UsageError: figure.x: there is no column 'cutof'. Did you mean 'cutoff'? There are ...
    """
    if spec is None:
        return
    if not isinstance(spec, Mapping):
        raise UsageError(
            f"it must be a mapping such as {{kind: lines, x: cutoff}}, got {shorten(spec)!r}.", key="figure"
        )
    values = {name: list(columns[name]) if isinstance(columns, Mapping) else [] for name in columns}
    known = [*measures]
    for key in spec:
        if key not in _KEYS:
            raise UsageError(
                f"there is no such setting.{did_you_mean(key, _KEYS)} There are {', '.join(_KEYS)}.",
                key=f"figure.{key}",
            )
    kind = spec.get("kind")
    if kind is not None and kind not in FIGURE_KINDS:
        raise UsageError(
            f"it must be {', '.join(FIGURE_KINDS)}, got {kind!r}.{did_you_mean(kind, FIGURE_KINDS)}", key="figure.kind"
        )
    _check_axes(spec, [*values, "seed"], known)
    _check_measures(_listed(spec.get("y")), known, "figure.y")
    _check_reference(spec.get("reference"), values)


def _check_axes(spec: Mapping[str, Any], columns: Sequence[str], measures: Sequence[str]) -> None:
    given = {key: spec[key] for key in ("x", "lines", "panels") if spec.get(key) is not None}
    if spec.get("kind") == "scatter" and "x" in given:
        _check_measures([given.pop("x")], measures, "figure.x")
    if spec.get("kind") == "with_without" and "lines" in given:
        raise UsageError("with_without draws no lines: give panels.", key="figure.lines")
    for key, column in given.items():
        if column not in columns:
            raise UsageError(
                f"there is no column {shorten(column)!r}.{did_you_mean(column, columns)} There are {_some(columns)}.",
                key=f"figure.{key}",
            )
        if (other := next(name for name, value in given.items() if value == column)) != key:
            raise UsageError(f"{column!r} is {other} already.", key=f"figure.{key}")


def _check_measures(names: Sequence[Any], measures: Sequence[str], key: str) -> None:
    for name in names:
        if name in measures or (isinstance(name, str) and _may_come(name, measures)):
            continue
        raise UsageError(
            f"there is no measure {shorten(name)!r}.{did_you_mean(name, measures)} There are {_some(measures)}.",
            key=key,
        )


def _may_come(name: str, measures: Sequence[str]) -> bool:
    """Whether a column may be that of a BatchNorm domain or of one of several radii, and is no slip of the pen."""
    if re.fullmatch(r".*_seconds", name) or any(name.startswith(f"{m}_") for m in measures if m.endswith("_accuracy")):
        return True
    of_domain = re.fullmatch(rf"\w+_({'|'.join(KINDS)})_accuracy", name) is not None
    return of_domain and not difflib.get_close_matches(name, measures, cutoff=0.9)


def _check_reference(reference: Any, values: Mapping[str, Sequence[str]]) -> None:
    if reference is None:
        return
    if not isinstance(reference, Mapping) or not reference:
        raise UsageError(
            f"it must be a mapping such as {{setting: only pretrained}}, got {shorten(reference)!r}.",
            key="figure.reference",
        )
    for column, text in reference.items():
        key = f"figure.reference.{column}"
        if column not in values:
            raise UsageError(
                f"there is no such column.{did_you_mean(column, values)} There are {_some(values)}.", key=key
            )
        if values[column] and str(text) not in values[column]:
            known = values[column]
            raise UsageError(
                f"there is no value {str(text)!r}.{did_you_mean(text, known)} There are {_some(known)}.", key=key
            )


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "") if names else "none"


def _listed(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def measures_in(spec: Any) -> list[str]:
    """Return what the settings of a figure name as measures."""
    if not isinstance(spec, Mapping):
        return []
    named = [*_listed(spec.get("y")), *([spec.get("x")] if spec.get("kind") == "scatter" else [])]
    return [name for name in named if isinstance(name, str)]


def choose_figure(
    spec: Mapping[str, Any] | None, columns: Mapping[str, Sequence[str]], measures: Sequence[str]
) -> FigureSettings:
    """Fill in what a study file does not say of its figure.

    Subsets are drawn with and without each part. Else the first column with several values that have an order of their
    own is along the horizontal axis, or the first one if none has; the next is lines, and the next panels. Values
    without an order are bars.

    Args:
        spec: What a study file says, checked.
        columns: For each column of what varies its values.
        measures: What is measured.

    Example:
        >>> found = choose_figure(None, {"setting": ["before", "after"], "cutoff": ["m1", "m2"]}, ["robust_accuracy"])
        >>> found.kind, found.x, found.lines
        ('lines', 'cutoff', 'setting')
    """
    given = dict(spec or {})
    kind, x = given.get("kind"), given.get("x")
    reference = {column: str(text) for column, text in (given.get("reference") or {}).items()}
    columns = {c: [value for value in values if value != reference.get(c)] for c, values in columns.items()}
    chosen = {given.get(key) for key in ("x", "lines", "panels")}
    free = [column for column, values in columns.items() if len(values) > 1 and column not in chosen]
    if kind == "scatter":
        x = x or next((name for name in ("clean_accuracy", *measures) if name in measures), None)
    elif x is None and free:
        subsets = [column for column in free if are_subsets(columns[column])]
        ordered = [column for column in free if is_ordered(columns[column])]
        x = ((subsets if kind in (None, "with_without") else []) or ordered or free)[0]
        free.remove(x)
    kind = kind or _kind(columns.get(x or "", ()))
    lines, panels = given.get("lines"), given.get("panels")
    if "lines" not in given and kind != "with_without" and free:
        lines = free.pop(0)
    if "panels" not in given and kind != "scatter" and free:
        panels = free.pop(0)
    usual = [name for name in (f"{kind}_accuracy" for kind in KINDS) if name in measures and name != x]
    y = tuple(_listed(given.get("y")) or usual or measures[:2])
    return FigureSettings(kind, x, lines, panels, y, reference)


def _kind(values: Sequence[str]) -> str:
    if are_subsets(values):
        return "with_without"
    return "lines" if len(values) > 1 and is_ordered(values) else "bars"
