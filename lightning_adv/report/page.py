"""Runs as one HTML file that needs nothing else: Plotly, the data and the pictures are inside."""

from __future__ import annotations

import base64
import json
import math
import sys
from array import array
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from lightning_adv._version import __version__
from lightning_adv.analysis.training_curves import Curve
from lightning_adv.report.runs import Run, Table
from lightning_adv.report.tables import problem_lists, settings_tables, summary_table

_SCRIPTS = ("data", "labels", "plots", "training", "batchnorm", "layers", "sections", "report")
_DIGITS = 5  # significant ones of a curve: more than a screen shows


def build_page(
    names: Sequence[str],
    runs: Sequence[Run],
    *,
    built: datetime,
    reload_seconds: float | None = None,
    left_out: Mapping[str, str] | None = None,
) -> str:
    """Return the page.

    The data lie in it as JSON, one block for each analysis of each run, which the page reads when it draws them. Of
    the tables' values these blocks hold fp32 in base64: the tables are fp32 to begin with.

    Args:
        names: For each run its name.
        runs: What was read of them.
        built: The time to print on the page.
        reload_seconds: After how long the page loads itself again; None for never.
        left_out: By name, why a run is not among these.
    """
    blocks = [
        _block(
            "report-data", {"reload": reload_seconds, "runs": [_run(n, r) for n, r in zip(names, runs, strict=True)]}
        )
    ]
    for index, run in enumerate(runs):
        blocks += [_block(f"{analysis}-{index}", pack_table(table)) for analysis, table in run.tables.items()]
        pictures = {name: base64.b64encode(content).decode("ascii") for name, content in run.figures.items()}
        blocks += [_block(f"figures-{index}", pictures)] if pictures else []
    count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    page = Template(_asset("template.html")).substitute(
        title=escape(", ".join(names) if len(names) <= 3 else count),
        count=count,
        built=built.strftime("%Y-%m-%d %H:%M"),
        version=escape(__version__),
        styles=_asset("report.css"),
        summary=summary_table(names, runs),
        problems=problem_lists(names, runs, left_out or {}),
        settings=settings_tables(names, runs),
        data="\n".join(blocks),
        plotly=_plotly(),
        scripts="\n".join(_asset(f"{name}.js") for name in _SCRIPTS),
    )
    # Half a surrogate pair, as a file's name that is not UTF-8 has it, cannot be written as UTF-8.
    return page.encode("utf-8", "backslashreplace").decode("utf-8")


def pack_table(table: Table) -> dict[str, Any]:
    """Return a table as the page reads it.

    Returns:
        ``epochs`` and ``steps`` of the L looks; ``names``, ``domains`` and ``statistics`` that occur; ``keys``, for
        each of S series the three indices into these, one after the other; ``values``, (S, L) little-endian fp32 in
        base64, NaN where a look has no value.
    """
    names, domains, statistics = (list(dict.fromkeys(key[part] for key in table.series)) for part in range(3))
    index = [{value: number for number, value in enumerate(values)} for values in (names, domains, statistics)]
    values = array("f", (value for series in table.series.values() for value in series))
    if sys.byteorder == "big":
        values.byteswap()
    return {
        "epochs": [epoch for epoch, _ in table.looks],
        "steps": [step for _, step in table.looks],
        "names": names,
        "domains": domains,
        "statistics": statistics,
        "keys": [index[part][key[part]] for key in table.series for part in range(3)],
        "values": base64.b64encode(values.tobytes()).decode("ascii"),
    }


def _run(name: str, run: Run) -> dict[str, Any]:
    """What the page needs of a run from the start."""
    curves = {
        metric: [[point[0] for point in curve], [_rounded(point[1]) for point in curve]]
        for metric, curve in _one_rate(run.metrics).items()
        if not metric.startswith("test/")
    }
    kinds = [f"{kind}_{part}" for kind in ("clean", "robust") for part in ("accuracy", "interval")]
    results = run.results or {}
    tested = {**(results.get("domains") or {}), "": results} if results else {}
    return {
        "name": name,
        "metrics": curves,
        "tested": {
            domain: {kind: measured[kind] for kind in kinds if measured.get(kind) is not None}
            for domain, measured in tested.items()
            if isinstance(measured, dict)
        },
        "analyses": list(run.tables),
        "figures": list(run.figures),
    }


def _one_rate(metrics: Mapping[str, Curve]) -> dict[str, Curve]:
    """Name the first learning rate ``lr-``, and drop its equals: parameter groups mostly share one rate.

    Optimizers and their groups have other names in other runs, and are to be compared.
    """
    found: dict[str, Curve] = {}
    for name, curve in metrics.items():
        if not name.startswith("lr-"):
            found[name] = curve
        elif "lr-" not in found:
            found["lr-"] = curve
        elif all(curve != other for key, other in found.items() if key.startswith("lr-")):
            found[name] = curve
    return found


def _rounded(value: float) -> float | None:
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None


def _block(name: str, data: Any) -> str:
    # Nothing that a file says can end the script element or begin a comment in it: there is no < in it.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>'


@cache
def _asset(name: str) -> str:
    return files("lightning_adv.report").joinpath("assets", name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    return files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")
