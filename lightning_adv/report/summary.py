"""The page's tables as HTML, readable without scripts: the summary of the runs, what is wrong, their settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Protocol

from lightning_adv.core.distances import tell_distance
from lightning_adv.report.configs import MAIN, differences, shared
from lightning_adv.report.figures import swatch
from lightning_adv.report.runs import Run

_HEAD = {
    "Run": "",
    "Clean accuracy": "%, 95 % interval",
    "Robust accuracy": "%, 95 % interval",
    "Regime": "training attack",
    "Network": "data",
    "Evaluation attack": "threat model",
    "Training time": "epochs",
    "Images/s": "precision",
}
"""The columns, and what stands in small below."""
_NUMBERS = frozenset({"Clean accuracy", "Robust accuracy", "Training time", "Images/s"})
_BETWEEN_WORDS = re.compile(r"(?<=[_/\\])(?=[^\W\d])|(?<=[\w\]]\.)(?=[^\W\d])|(?<=[a-z])(?=[A-Z])")
_LONGEST = 2000  # characters of a setting that are shown
_NONE = '<span class="none" title="not known">–</span>'


def summary_table(names: Sequence[str], runs: Sequence[Run]) -> str:
    """Return the table of the runs; a regime with BatchNorm domains has one more row for each but that of inference.

    Accuracies are of the test images. A run without results shows its last validation accuracies, and says so.
    """
    head = "".join(f'<th scope="col"{_class(name)}>{name}{_small(below)}</th>' for name, below in _HEAD.items())
    rows = "".join(_summary_rows(index, name, run) for index, (name, run) in enumerate(zip(names, runs, strict=True)))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _summary_rows(index: int, name: str, run: Run) -> str:
    results, config = run.results or {}, run.config or {}
    training_attack = ((results.get("training") or {}).get("attack") or {}).get("name") or config.get("model.attack")
    epochs, speed = results.get("epochs"), results.get("images_per_second")
    cells = {
        "Run": f"{swatch(index)}{_name(name)}{_status(run)}",
        "Clean accuracy": _accuracy(results, "clean", run),
        "Robust accuracy": _accuracy(results, "robust", run),
        "Regime": _cell(results.get("regime") or config.get("model"), training_attack),
        "Network": _cell(
            results.get("network") or config.get("model.backbone.name"), results.get("dataset") or config.get("data")
        ),
        "Evaluation attack": _attack(results, config),
        "Training time": _cell(
            duration(results.get("training_seconds")), f"{epochs} epoch{'' if epochs == 1 else 's'}" if epochs else None
        ),
        "Images/s": _cell(speed and f"{speed:,.0f}", results.get("precision") or config.get("trainer.precision")),
    }
    rows = [_row(cells, 'class="run"')]
    for domain, measured in (results.get("domains") or {}).items():
        if domain == results.get("inference_domain") or not isinstance(measured, dict):
            continue  # the former's accuracies are those of the run
        inner = dict.fromkeys(cells, "") | {"Run": f"{escape(domain)} BatchNorm"}
        inner |= {f"{kind.title()} accuracy": _accuracy(measured, kind, None) for kind in ("clean", "robust")}
        rows.append(_row(inner, 'class="domain"'))
    return "".join(rows)


def _row(cells: Mapping[str, str], attributes: str) -> str:
    (first, title), *others = cells.items()
    body = "".join(f"<td{_class(name)}>{cell}</td>" for name, cell in others)
    return f'<tr {attributes}><th scope="row"{_class(first)}>{title}</th>{body}</tr>'


def _status(run: Run) -> str:
    if run.results is not None:
        domain = run.results.get("inference_domain")
        return _small(domain and f"{domain} BatchNorm")
    # The rows of the test are of an epoch after the last one.
    trained = [curve for name, curve in run.metrics.items() if not name.startswith("test/")]
    ended = max((point[0] for curve in trained for point in curve), default=None)
    of = (run.config or {}).get("trainer.max_epochs", "")
    epoch = "" if ended is None else f": epoch {ended + 1:.0f}{f' of {of}' if of.strip('0').isdecimal() else ''}"
    said = "no results yet" if trained else "no results"
    if "results.json" in run.damaged:
        said = "results cannot be read"
    return f'<small class="going">{said}{epoch}</small>'


def _accuracy(measured: Mapping[str, Any], kind: str, run: Run | None) -> str:
    share, interval = measured.get(f"{kind}_accuracy"), measured.get(f"{kind}_interval")
    if share is None:
        curve = [] if run is None else run.metrics.get(f"val/{kind}_accuracy", [])
        return f"{100 * curve[-1][1]:.1f}<small>validation</small>" if curve and 0 <= curve[-1][1] <= 1 else _NONE
    if interval is None:
        return f"{100 * share:.1f}"
    return f"{100 * share:.1f}<small>{100 * interval[0]:.1f} to {100 * interval[1]:.1f}</small>"


def _attack(results: Mapping[str, Any], config: Mapping[str, str]) -> str:
    """Name the attack of the evaluation and its ball; before there are results, as the configuration does."""
    key = "model.evaluation_attack"
    threat = results.get("threat_model") or {}
    name = (results.get("evaluation_attack") or {}).get("name")
    if name is None and (name := config.get(key)) is not None and f"{key}.steps" in config:
        name += f"-{config[f'{key}.steps']}"
    norm = threat.get("norm") or config.get(f"{key}.norm", "").capitalize()
    measured = threat.get("eps")
    eps = config.get(f"{key}.eps") if measured is None else tell_distance(measured)
    ball = ", ".join(str(part) for part in (norm, f"eps {eps}" if eps else None) if part)
    return _cell(name, ball)


class Told(Protocol):
    """What was read of a folder, a run's or a study's: what is missing, and by file what is damaged."""

    missing: list[str]
    damaged: dict[str, list[str]]


def problem_lists(names: Sequence[str], runs: Sequence[Told], left_out: Mapping[str, str]) -> str:
    """Return the lists of what cannot be read and of what is missing, and of which runs; empty where all is there.

    Args:
        names: For each run its name.
        runs: The runs.
        left_out: By name, why a run cannot be shown at all.
    """
    missing = _grouped(names, [run.missing for run in runs])
    return _problems("What cannot be read or shown", damage(names, runs, left_out)) + _problems(
        "What is missing", missing
    )


def damage(names: Sequence[str], runs: Sequence[Told], left_out: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return one sentence for each thing that cannot be read, after the names of the runs that it is said of.

    Args:
        names: For each run its name.
        runs: The runs.
        left_out: By name, why a run cannot be shown at all.
    """
    whole = [(name, f"It is not shown: {reason.removeprefix('RUN: ')}") for name, reason in left_out.items()]
    return whole + _grouped(names, [[said for of_file in run.damaged.values() for said in of_file] for run in runs])


def _grouped(names: Sequence[str], sentences: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """Return each sentence once, after the names of all runs that it is said of."""
    said: dict[str, list[str]] = {}
    for name, of_run in zip(names, sentences, strict=True):
        for sentence in of_run:
            said.setdefault(sentence, []).append(name)
    return [(", ".join(of), sentence) for sentence, of in said.items()]


def _problems(title: str, said: Sequence[tuple[str, str]]) -> str:
    items = "".join(f"<li><b>{escape(of)}</b> {escape(sentence)}</li>" for of, sentence in said)
    return f'<details class="missing" open><summary>{title}</summary><ul>{items}</ul></details>' if items else ""


def settings_tables(names: Sequence[str], runs: Sequence[Run]) -> str:
    """Return the settings in which the runs differ, or the main ones of a single run; below them all the others."""
    configs = [run.config for run in runs]
    if not any(configs):
        return "<p>None of these runs has a config.yaml.</p>"
    common = shared(configs)
    folded = _table(("Setting", "Value"), ([_code(key), _setting(value)] for key, value in common.items()))
    if len(runs) == 1:
        main = ([escape(title), _setting(common[key])] for key, title in MAIN.items() if key in common)
        return _scrolling(_table(("Setting", "Value"), main)) + _folded("The whole configuration", folded)
    different = differences(configs)
    rows = ([_code(key), *(_setting(value) for value in values)] for key, values in different.items())
    swatches = [f"{swatch(index)}{escape(name)}" for index, name in enumerate(names)]
    which = "The runs" if all(configs) else "The runs whose settings are known"
    said = f"<p>{which} have the same settings.</p>" if sum(map(bool, configs)) > 1 else ""
    if different:
        said = (
            '<p class="lead">Those in which the runs differ. Of parts that are of different classes, only what they '
            "have in common is compared.</p>" + _scrolling(_table(("Setting", *swatches), rows))
        )
    known = "the runs share" if all(configs) else "the runs whose settings are known share"
    return said + _folded(f"The {len(common)} settings that {known}", folded)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col">{title}</th>' for title in head)
    body = "".join(
        f'<tr><th scope="row">{title}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for title, *cells in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _scrolling(table: str) -> str:
    return f'<div class="scrolling" tabindex="0" role="region" aria-label="Settings">{table}</div>'


def _folded(title: str, table: str) -> str:
    return f'<details class="settings"><summary>{title}</summary>{_scrolling(table)}</details>'


def duration(seconds: float | None) -> str | None:
    """Return a time in the two largest units.

    Example:
        >>> duration(8000)
        '2 h 13 min'
    """
    if seconds is None:
        return None
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _cell(value: Any, below: Any = None) -> str:
    return (_NONE if value in (None, "null") else escape(str(value))) + _small(below)


def _small(text: Any) -> str:
    return "" if text in (None, "", "null") else f"<small>{escape(str(text))}</small>"


def _code(key: str) -> str:
    return f"<code>{_breakable(key)}</code>"


def _name(name: str) -> str:
    return f'<span class="name">{escape(name)}</span>'


def _setting(value: str | None) -> str:
    if value is None or value == "null":
        return _NONE
    return _breakable(value if len(value) <= _LONGEST else f"{value[:_LONGEST]} ... ({len(value):,} characters)")


def _breakable(text: str) -> str:
    """Let a key, a class or a path break between its words. No entity that ``escape`` makes has such a place."""
    return _BETWEEN_WORDS.sub("<wbr>", escape(text))


def _class(name: str) -> str:
    return ' class="number"' if name in _NUMBERS else ""
