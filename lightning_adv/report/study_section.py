"""The section of a study: its figure's menus, the table, which is readable without scripts, and places for curves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from html import escape
from typing import Any, Final

from lightning_adv.report.figures import plain
from lightning_adv.report.labels import describe_measure, shorten_middle
from lightning_adv.report.sections import card, metric_cards, select_options
from lightning_adv.report.studies import Study
from lightning_adv.report.study_curves import pack_curves
from lightning_adv.report.study_files import number
from lightning_adv.report.study_table import Axis, ends_of, has_parts, read_axis, row_labels, shares_of, table
from lightning_adv.report.summary import problem_lists

_KINDS: Final = {"lines": "lines", "bars": "bars", "with_without": "with and without a part", "scatter": "scatter"}
_MOST_PLOTS: Final = 4


def study_section(index: int, name: str, study: Study) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return the section of a study.

    Args:
        index: Its place among the studies of the page.
        name: What it is called on the page.
        study: What was read of it.

    Returns:
        Its HTML, what the page needs to draw it, and the packed training curves.
    """
    identity = f"study-{index}"
    axes = [read_axis(study, axis) for axis in [*study.axes, *(["seed"] if "seed" in study.columns else [])]]
    shares = shares_of(study)
    curves, every = pack_curves(study.curves)
    thinned = [f"The curves have more points than a page can show: one in {every} is shown."] if every > 1 else []
    told = replace(study, missing=study.missing + thinned)
    labels = row_labels(study, axes, name)
    html = f"""<section id="{identity}" class="study"><h2>{escape(study.title)}</h2>
<p class="lead">{_lead(study)}</p>{problem_lists([name], [told], {})}
{_figure(identity, study, axes)}
<h3>Table</h3>
<form class="controls rows"><label class="search">Rows with<input type="search" id="{identity}-search" name="search"
placeholder="words of a row"></label><output></output></form>
<div class="scrolling tall" tabindex="0" role="region" aria-label="Table of {escape(study.title)}">
{table(study, axes, labels, shares)}</div>
{_curves(identity, study, [metric["name"] for metric in curves["metrics"]])}</section>"""
    return html, {"id": identity, "name": name, **_data(study, axes, labels, shares)}, curves


def _lead(study: Study) -> str:
    counts = Counter(row.get("status", "") for row in study.rows)
    said = ", ".join(f"{count} {escape(status)}" for status, count in counts.items() if status)
    stages = ", then ".join(
        escape(stage if command == stage else f"{stage} ({command})") for stage, command in study.stages.items()
    )
    rows = "1 row" if len(study.rows) == 1 else f"{len(study.rows):,} rows"
    return " · ".join(filter(None, (stages and f"Stages: {stages}", f"{rows}: {said}" if said else rows)))


def _figure(identity: str, study: Study, axes: Sequence[Axis]) -> str:
    """Return the menus of the figure, those of the rows, and a place for each measure that is drawn at first."""
    figure, varied = study.figure, [axis for axis in axes if len(axis.values) > 1]
    if not study.measures:
        return '<p class="nothing">There are no numbers yet to draw.</p>'
    names = {axis.name: axis.name for axis in axes}
    measures = {name: describe_measure(name).title for name in study.measures}
    kinds = {kind: title for kind, title in _KINDS.items() if kind != "with_without" or any(map(has_parts, axes))}
    horizontal = (
        f"{select_options({'': 'none'}, figure['x'])}"
        f'<optgroup label="Varied">{select_options(names, figure["x"])}</optgroup>'
        f'<optgroup label="Measured">{select_options(measures, figure["x"])}</optgroup>'
    )
    menus = {
        "kind": ("Figure", select_options(kinds, figure["kind"])),
        "x": ("Horizontal axis", horizontal),
        "lines": ("Colours", select_options({"": "none", **names}, figure["lines"])),
        "panels": ("Panels", select_options({"": "none", **names}, figure["panels"])),
    }
    menus |= {
        f"only-{place}": (f"Only {escape(axis.name)}", select_options({"": "all"} | _numbered(axis.values), ""))
        for place, axis in enumerate(axes)
        if axis in varied
    }
    status = dict.fromkeys(row.get("status", "") for row in study.rows)
    if len(status) > 1:
        menus["status"] = ("Only status", select_options({"": "all"} | {each: each for each in status if each}, ""))
    controls = "".join(
        f'<label>{title}<select id="{identity}-{key}" name="{key}">{options}</select></label>'
        for key, (title, options) in menus.items()
    )
    cards = "".join(
        card(
            "study",
            f'<select id="{identity}-y{place}" aria-label="Vertical axis of plot {place + 1}">'
            f"{select_options(measures, y)}</select>",
        )
        for place, y in enumerate(figure["y"][:_MOST_PLOTS])
    )
    return f'<form class="controls figure">{controls}</form><div class="grid">{cards}</div>'


def _numbered(values: Sequence[str]) -> dict[str, str]:
    return {str(place): value for place, value in enumerate(values)}


def _curves(identity: str, study: Study, metrics: Sequence[str]) -> str:
    if not study.curves:
        return ""
    stages = list(dict.fromkeys(stage for point in study.points for stage, key in point.items() if key in study.curves))
    menu = f'<label{" hidden" * (len(stages) < 2)}>Stage<select id="{identity}-stage">'
    menu += f"{select_options({stage: stage for stage in stages}, stages[-1])}</select></label>"
    return f"""<div class="curves" id="{identity}-curves"><h3>Training curves</h3>
<p class="lead">A click on a point of the figure or on a row of the table shows its runs here; several are compared.
These are all that the page holds of a run: <code>lightning-adv report</code> with the run's folder shows its analyses,
figures and settings.</p><form class="controls">{menu}</form><ul class="chosen"></ul>
<div class="grid" hidden>{metric_cards(metrics, identity, "study-metric")}</div></div>"""


def _data(study: Study, axes: Sequence[Axis], labels: Sequence[str], shares: Container[str]) -> dict[str, Any]:
    return {
        "axes": [
            {**axis._asdict(), "ticks": list(map(shorten_middle, axis.values)), "parts": has_parts(axis)}
            for axis in axes
        ],
        "measures": {name: _measure(study, name, name in shares) for name in study.measures},
        "status": [row.get("status", "") for row in study.rows],
        "labels": list(labels),
        "figure": study.figure,
        "points": [{stage: key for stage, key in point.items() if key in study.curves} for point in study.points],
        "folders": {key: f"{study.cells[key].get('folder')}/version_0" for key in study.curves},
    }


def _measure(study: Study, name: str, share: bool) -> dict[str, Any]:
    label = describe_measure(name)
    factor = 100 if share else 1

    def column(of: str) -> Iterator[float | None]:
        for row in study.rows:
            value = number(row.get(of, ""))
            yield None if value is None else float(f"{factor * value:.6g}")

    low, high = ends_of(name)
    ends = (
        {"low": list(column(low)), "high": list(column(high))} if low in study.columns and high in study.columns else {}
    )
    return {
        "title": label.title,
        "axis": plain(f"{label.axis} (%)" if share else label.axis),
        "share": share,
        "values": list(column(name)),
        **ends,
    }
