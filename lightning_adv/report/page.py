"""Runs as one HTML file that needs nothing else: Plotly, the data and the pictures are inside."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from lightning_adv._version import __version__
from lightning_adv.report.figures import (
    metric_figures,
    result_figures,
    run_forms,
    study_forms,
    swatch,
    table_forms,
    themes,
)
from lightning_adv.report.interpretation_section import interpretation_section
from lightning_adv.report.interpretations import Interpretation
from lightning_adv.report.runs import Run
from lightning_adv.report.sections import card, metric_cards, select_options, table_names, table_section
from lightning_adv.report.studies import Study
from lightning_adv.report.study_section import study_section
from lightning_adv.report.summary import problem_lists, settings_tables, summary_table
from lightning_adv.report.tables import pack_table

_SCRIPTS = ("plots", "tables", "study", "study_figure", "study_curves", "report")


def build_page(
    names: Sequence[str],
    runs: Sequence[Run],
    *,
    built: datetime,
    reload_seconds: float | None = None,
    left_out: Mapping[str, str] | None = None,
    studies: Mapping[str, Study] | None = None,
    interpretations: Mapping[str, Interpretation] | None = None,
) -> str:
    """Return the page: studies, then interpretations, then runs.

    The plots lie in it as JSON, as plotly.py builds them, and the numbers of the tables in one block for each table of
    each run, which the page draws from as its reader chooses.

    Args:
        names: For each run its name.
        runs: What was read of them.
        built: The time to print on the page.
        reload_seconds: After how long the page loads itself again; None for never.
        left_out: By name, why a run or a study is not among these.
        studies: By name, what was read of studies.
        interpretations: By name, what was read of interpretations.
    """
    studies, interpretations = studies or {}, interpretations or {}
    tables = [table_section(name, names, runs) for name in table_names(runs)]
    metrics = metric_figures(names, runs)
    results = result_figures(names, runs)
    of_studies = [study_section(index, name, study) for index, (name, study) in enumerate(studies.items())]
    data = {
        "reload": reload_seconds,
        "runs": [{"name": name, **run_forms(name, index)} for index, name in enumerate(names)],
        "themes": themes(),
        "forms": table_forms(),
        "results": [figure for _, _, figure in results],
        "metrics": metrics,
        "sections": [section for _, section in tables],
        **({"studies": [content for _, content, _ in of_studies], "places": study_forms()} if studies else {}),
    }
    blocks = [_block("report-data", data)]
    for index, run in enumerate(runs):
        blocks += [_block(f"table-{name}-{index}", pack_table(table)) for name, table in run.tables.items()]
        pictures = {name: base64.b64encode(content).decode("ascii") for name, content in run.figures.items()}
        blocks += [_block(f"figures-{index}", pictures)] if pictures else []
    blocks += [_block(f"study-{index}-runs", curves) for index, (_, _, curves) in enumerate(of_studies)]
    of_interpretations = [interpretation_section(index, *each) for index, each in enumerate(interpretations.items())]
    known = [*studies, *interpretations, *names]
    count = _count(len(studies), len(runs), len(interpretations))
    problems = problem_lists(names, runs, left_out or {})
    of_runs = Template(_asset("runs.html")).substitute(
        summary=summary_table(names, runs),
        problems=problems,
        results="".join(card("result", title, escape(key), wide=len(results) == 1) for title, key, _ in results),
        metrics=metric_cards(list(metrics)),
        tables="\n".join(html for html, _ in tables),
        figures=_figure_options(runs),
        settings=settings_tables(names, runs),
    )
    page = Template(_asset("template.html")).substitute(
        title=escape(", ".join(known) if len(known) <= 3 else count),
        count=count,
        built=built.strftime("%Y-%m-%d %H:%M"),
        version=escape(__version__),
        styles=_asset("report.css"),
        choices=_run_choices(names),
        studies="\n".join([*(html for html, _, _ in of_studies), *of_interpretations]),
        runs=of_runs if runs else problems,
        data="\n".join(blocks),
        plotly=_plotly(),
        scripts="\n".join(_asset(f"{name}.js") for name in _SCRIPTS),
    )
    # Half a surrogate pair, as a file's name that is not UTF-8 has it, cannot be written as UTF-8.
    return page.encode("utf-8", "backslashreplace").decode("utf-8")


def _count(studies: int, runs: int, interpretations: int = 0) -> str:
    """Say how many of each there are.

    Example:
        >>> _count(0, 1), _count(1, 2), _count(0, 0, 1)
        ('1 run', '1 study, 2 runs', '1 interpretation')
    """
    said = [f"{studies} {'study' if studies == 1 else 'studies'}"] if studies else []
    said += [f"{interpretations} interpretation{'' if interpretations == 1 else 's'}"] if interpretations else []
    return ", ".join(said + ([f"{runs} {'run' if runs == 1 else 'runs'}"] if runs else []))


def _run_choices(names: Sequence[str]) -> str:
    buttons = [f'<button type="button" value="{each}">{each}</button>' for each in ("all", "none") if len(names) > 2]
    boxes = [
        f'<label><input type="checkbox" checked>{swatch(index)}'
        f'<span title="{escape(name)}">{escape(name)}</span></label>'
        for index, name in enumerate(names)
    ]
    return "".join(buttons + boxes)


def _figure_options(runs: Sequence[Run]) -> str:
    """The names of the pictures; what most runs have is chosen first, the last of several."""
    having = Counter(name for run in runs for name in run.figures)
    first = max(having, key=lambda name: (having[name], name), default="")
    return select_options({name: name.replace("_", " ") for name in sorted(having, key=str.casefold)}, first)


def _block(name: str, data: Any) -> str:
    # Nothing that a file says can end the script element or begin a comment in it: there is no < in it.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{escape(name)}">{text}</script>'


@cache
def _asset(name: str) -> str:
    return files("lightning_adv.report").joinpath("assets", name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    return files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")
