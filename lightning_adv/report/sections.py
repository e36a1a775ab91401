"""One section of the page for each table that a run folder has, whoever's observer wrote it.

The section's choices and plots are laid out here; what is chosen is drawn in the page, by ``assets/tables.js``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final, NamedTuple

from lightning_adv.report.labels import SECTIONS, ChannelPicture, describe_metric, describe_statistic, describe_table
from lightning_adv.report.runs import Run
from lightning_adv.report.tables import Table, merge

_CHANNEL: Final = re.compile(r".+\[\d+\]")
_WHOLE: Final = "the whole network"


class Choices(NamedTuple):
    """What can be chosen in a section, as pairs of a value and its label, and what is chosen first.

    Attributes:
        runs: The runs that have the table, by their index.
        statistics: What was measured.
        names: The layers, in the order of every network; the empty string is the whole network.
        domains: The BatchNorm domains; the empty string where there are none.
        first: By the name of each control its first value.
    """

    runs: dict[str, str]
    statistics: dict[str, str]
    names: dict[str, str]
    domains: dict[str, str]
    first: dict[str, str]


def table_names(runs: Sequence[Run]) -> list[str]:
    """Return the tables that any of the runs has: this package's in their order, then the others by name."""
    known = list(SECTIONS)
    found = {name for run in runs for name in run.tables}
    return [name for name in known if name in found] + sorted(found.difference(known))


def table_section(name: str, names: Sequence[str], runs: Sequence[Run]) -> tuple[str, dict[str, Any]]:
    """Return the section of a table: its HTML, and what the page needs to draw it.

    Args:
        name: The table.
        names: For each run its name.
        runs: The runs, of which at least one has the table.
    """
    section = describe_table(name)
    tables = {index: run.tables[name] for index, run in enumerate(runs) if name in run.tables}
    choices = find_choices(name, names, tables)
    identity = f"table-{name}"
    layers = [layer for layer in choices.names if layer]
    controls = [
        _select(identity, "statistic", "Statistic", choices.statistics, choices.first["statistic"]),
        _select(identity, "name", "Layer", choices.names, choices.first["name"]),
        _select(identity, "domain", "BatchNorm domain", choices.domains, choices.first["domain"]),
        _select(identity, "run", "Run of the heat map" + " and the channels" * bool(section.channels), choices.runs,
                choices.first["run"]),
        _select(identity, "axis", "Axis", {"epochs": "epochs", "steps": "optimizer steps"}, "epochs"),
        f'<label class="check"><input type="checkbox" id="{escape(identity)}-log" name="log"'
        f"{' checked' * section.log}>Logarithmic</label>",
        _slider(identity),
    ]  # fmt: skip
    plots = ["curve"]
    if len(layers) > 1:
        plots = ["heatmap", "curve", "layers"]
    pictures = [picture for picture in section.channels if _has_channels(picture, tables.values())]
    plots += ["channels"] * len(pictures)
    cards = [card(plot, wide=plot == "heatmap" or len(plots) == 1) for plot in plots]
    html = (
        f'<section id="{escape(identity)}" class="table"><h2>{escape(section.title)}</h2>'
        f'<p class="lead">{escape(section.lead)}</p><form class="controls">{"".join(controls)}</form>'
        f'<div class="grid">{"".join(cards)}</div></section>'
    )
    return html, {
        "id": identity,
        "table": name,
        "runs": list(tables),
        "axes": {statistic: describe_statistic(statistic).axis for statistic in choices.statistics},
        "channels": [picture._asdict() for picture in pictures],
    }


def find_choices(name: str, names: Sequence[str], tables: Mapping[int, Table]) -> Choices:
    """Return what can be chosen in the section of a table.

    Args:
        name: The table.
        names: For each run on the page its name.
        tables: The table of each run that has it, by the run's index.
    """
    section = describe_table(name)
    found: dict[int, tuple[list[str], ...]] = {
        index: tuple(list(dict.fromkeys(key[part] for key in table.series)) for part in range(3))
        for index, table in tables.items()
    }
    layers = merge([layer for layer in parts[0] if layer] for parts in found.values())
    whole = [""] if any("" in parts[0] for parts in found.values()) else []
    domains = list(dict.fromkeys(domain for parts in found.values() for domain in parts[1]))
    measured = list(dict.fromkeys(statistic for parts in found.values() for statistic in parts[2]))
    if section.channels:
        measured = [each for each in measured if not _CHANNEL.fullmatch(each)] or measured
    statistic = section.first if section.first in measured else measured[0]
    # the run with most to show: several domains, then the most looks
    run = max(tables, key=lambda index: (len(found[index][1]), len(tables[index].looks), -index))
    having = dict.fromkeys(key[0] for key in tables[run].series if key[2] == statistic)
    sampled = [key[0] for key in tables[run].series if key[0] and _CHANNEL.fullmatch(key[2])]
    layer = next(iter(sampled if section.channels else ()), next((each for each in reversed(having) if each), ""))
    named = [domain for domain in domains if domain] or [""]
    return Choices(
        runs={str(index): names[index] for index in tables},
        statistics={each: describe_statistic(each).title for each in measured},
        names={each: each or _WHOLE for each in [*layers, *whole]},
        domains={each: each or "the only one" for each in named},
        first={"statistic": statistic, "name": layer, "run": str(run), "domain": named[-1]},
    )


def metric_section(metrics: Sequence[str]) -> str:
    """Return the cards of the training curves: up to four, each of a metric that can be chosen.

    Args:
        metrics: In the order of the menu.
    """
    described = {metric: describe_metric(metric) for metric in metrics}
    rate = next((metric for metric in metrics if described[metric].group == "Learning rate"), "")
    wanted = [
        metric for metric in ("val/robust_accuracy", "val/clean_accuracy", "train/loss", rate) if metric in described
    ]
    cards = []
    for number, first in enumerate(wanted or metrics[:2]):
        options = _options({metric: label.title for metric, label in described.items()}, first)
        chooser = f'<select id="training-metric{number}" aria-label="Metric of plot {number + 1}">{options}</select>'
        cards.append(card("metric", chooser))
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


def _has_channels(picture: ChannelPicture, tables: Iterable[Table]) -> bool:
    return any(key[2].startswith(f"{picture.running}[") for table in tables for key in table.series)


def _select(section: str, name: str, label: str, options: Mapping[str, str], first: str) -> str:
    """A choice; where there is only one, it is there for the script and not seen."""
    hidden = " hidden" * (len(options) < 2)
    identity = escape(f"{section}-{name}")
    chooser = f'<select id="{identity}" name="{name}">{_options(options, first)}</select>'
    return f"<label{hidden}>{escape(label)}{chooser}</label>"


def _options(options: Mapping[str, str], first: str) -> str:
    return "".join(
        f'<option value="{escape(value)}"{" selected" * (value == first)}>{escape(label)}</option>'
        for value, label in options.items()
    )


def _slider(section: str) -> str:
    identity = escape(f"{section}-look")
    return (
        f'<div class="slider"><button type="button" aria-label="Play">▶</button><label for="{identity}">'
        f'<span>Epoch</span> <output for="{identity}"></output></label>'
        f'<input type="range" id="{identity}" name="look" min="0" step="1"></div>'
    )
