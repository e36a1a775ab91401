"""One section of the page for each table that a run folder has, whoever's observer wrote it.

The section's choices and the places of its plots are HTML from here; ``assets/tables.js`` draws what is chosen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from itertools import chain, groupby
from typing import Any, Final

from lightning_adv.report.labels import (
    INTRODUCTIONS,
    describe_metric,
    describe_statistic,
    describe_table,
    shorten_middle,
)
from lightning_adv.report.runs import Run
from lightning_adv.report.tables import Table, merge

_CHANNEL: Final = re.compile(r".+\[\d+\]")


def table_names(runs: Sequence[Run]) -> list[str]:
    """Return the tables that any of the runs has: this package's in their order, then the others by name."""
    found = {name for run in runs for name in run.tables}
    return [name for name in INTRODUCTIONS if name in found] + sorted(found.difference(INTRODUCTIONS))


def table_section(name: str, names: Sequence[str], runs: Sequence[Run]) -> tuple[str, dict[str, Any]]:
    """Return the section of a table: its HTML, and what the page needs to draw it.

    Args:
        name: The table.
        names: For each run its name.
        runs: The runs, of which at least one has the table.
    """
    about = describe_table(name)
    tables = {index: run.tables[name] for index, run in enumerate(runs) if name in run.tables}
    options, first = _choices(name, names, tables)
    present = {key[2] for table in tables.values() for key in table.series}
    channels = [each for each in about.channels if any(one.startswith(f"{each.running}[") for one in present)]
    layers = {layer: shorten_middle(layer) for layer in options["name"] if layer}
    plots = (["heatmap", "curve", "profile"] if len(layers) > 1 else ["curve"]) + ["channels"] * len(channels)
    identity = escape(f"table-{name}")
    labels = {"statistic": "Statistic", "name": "Layer", "domain": "BatchNorm domain", "axis": "Axis"}
    labels["run"] = "Run of the heat map and the channels" if channels else "Run of the heat map"
    useless = {key for key in labels if len(options[key]) < 2} | ({"run"} if plots == ["curve"] else set())
    controls = "".join(
        f'<label{" hidden" * (key in useless)}>{label}<select id="{identity}-{key}" name="{key}">'
        f"{select_options(options[key], first[key])}</select></label>"
        for key, label in labels.items()
    )
    html = f"""<section id="{identity}"><h2>{escape(about.title)}</h2><p class="lead">{escape(about.lead)}</p>
<form class="controls">{controls}<label class="check"><input type="checkbox" id="{identity}-log" name="log"
{" checked" * about.log}>Logarithmic</label><div class="slider"><button type="button" aria-label="Play">▶</button>
<label for="{identity}-look"><span>Epoch</span> <output for="{identity}-look"></output></label>
<input type="range" id="{identity}-look" name="look" min="0" step="1"></div></form>
<div class="grid">{"".join(card(plot, wide=plot == "heatmap" or len(plots) == 1) for plot in plots)}</div></section>"""
    axes = {statistic: describe_statistic(statistic).axis for statistic in options["statistic"]}
    pictures = [picture._asdict() for picture in channels]
    return html, {
        "table": name,
        "runs": list(tables),
        "axes": axes,
        "layers": list(layers.items()),
        "channels": pictures,
    }


def _choices(
    name: str, names: Sequence[str], tables: Mapping[int, Table]
) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Return by the name of each control its options, as values with their labels, and the first value."""
    about = describe_table(name)
    found = {
        index: [list(dict.fromkeys(part)) for part in zip(*table.series, strict=True)]
        for index, table in tables.items()
    }
    layers, domains, measured = ([parts[k] for parts in found.values()] for k in range(3))
    statistics = list(dict.fromkeys(chain(*measured)))
    if about.channels:  # these have their own pictures
        statistics = [each for each in statistics if not _CHANNEL.fullmatch(each)] or statistics
    statistic = about.first if about.first in statistics else statistics[0]
    order = merge([[layer for layer in of_run if layer] for of_run in layers])
    order += [""] * any("" in of_run for of_run in layers)
    through = [domain for domain in dict.fromkeys(chain(*domains)) if domain] or [""]
    # the run with most to show: several domains, then the most looks; of it a layer of which there are channels
    run = max(tables, key=lambda index: (len(found[index][1]), len(tables[index].looks), -index))
    sampled = [key[0] for key in tables[run].series if about.channels and _CHANNEL.fullmatch(key[2])]
    having = [key[0] for key in tables[run].series if key[2] == statistic]
    layer = (sampled or [each for each in reversed(having) if each] or having)[0]
    options = {
        "statistic": {each: describe_statistic(each).title for each in statistics},
        "name": {each: each or "the whole network" for each in order},
        "domain": {each: each or "the only one" for each in through},
        "run": {str(index): names[index] for index in tables},
        "axis": {"epochs": "epochs", "steps": "optimizer steps"},
    }
    return options, {"statistic": statistic, "name": layer, "domain": through[-1], "run": str(run), "axis": "epochs"}


def metric_cards(metrics: Sequence[str], section: str = "training", plot: str = "metric") -> str:
    """Return the places of the training curves: up to four, each of a metric that can be chosen.

    Args:
        metrics: In the order of the menu.
        section: The section that they are in.
        plot: What is drawn in them.
    """
    labels = {metric: describe_metric(metric) for metric in metrics}
    rates = [metric for metric in metrics if metric.startswith("lr-")][:1]
    wanted = [
        metric for metric in ("val/robust_accuracy", "val/clean_accuracy", "train/loss", *rates) if metric in metrics
    ]
    cards = []
    for number, first in enumerate(wanted or metrics[:2]):
        groups = "".join(
            f'<optgroup label="{group}">{select_options({each: labels[each].title for each in of}, first)}</optgroup>'
            for group, of in groupby(metrics, lambda metric: labels[metric].group)
        )
        chooser = f'<select id="{section}-metric{number}" aria-label="Metric of plot {number + 1}">{groups}</select>'
        cards.append(card(plot, chooser))
    return "".join(cards) or '<p class="nothing">No run has a metrics.csv that can be read.</p>'


def card(plot: str, title: str = "", caption: str = "", *, wide: bool = False) -> str:
    """Return the place of a plot.

    Args:
        plot: What is drawn in it.
        title: HTML; empty where the page writes it.
        caption: HTML, in small below the title.
        wide: Whether it is as wide as the page.
    """
    return (
        f'<figure class="card{" wide" * wide}"><figcaption><b>{title}</b> <span>{caption}</span></figcaption>'
        f'<div class="plot" role="img" data-plot="{plot}"></div></figure>'
    )


def select_options(options: Mapping[str, str], first: str) -> str:
    """Return the options of a choice as HTML.

    Example:
        >>> select_options({"a": "A", "b": "B"}, "b")
        '<option value="a">A</option><option value="b" selected>B</option>'
    """
    return "".join(
        f'<option value="{escape(value)}"{" selected" * (value == first)}>{escape(label)}</option>'
        for value, label in options.items()
    )
