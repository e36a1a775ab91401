"""What the result files of one cell say, as columns of a study's table: each number exactly as it is in the file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias, TypeGuard

from lightning_adv.core.errors import UsageError
from lightning_adv.core.reading import Problems, read_json, shorten
from lightning_adv.core.table import salvage_table
from lightning_adv.core.threat_model import ThreatModel
from lightning_adv.studies.attempts import read_seconds, result_of
from lightning_adv.studies.collect import CollectPath, NotThereError

Value: TypeAlias = str | int | float | None
"""What stands in a cell of the table; None is an empty one."""

KINDS: Final = ("clean", "robust")


class StageResult(NamedTuple):
    """What one stage of a point came to.

    Attributes:
        command: ``fit``, ``evaluate`` or ``transfer``.
        status: ``done``, ``running``, ``failed``, ``begun``, ``missing`` or ``waits``.
        folder: The cell's folder.
    """

    command: str
    status: str
    folder: Path


class CellReader:
    """Reads the results of cells, each once: a table is written anew after each cell, of a thousand.

    Args:
        collect: What is collected besides, by column.

    Attributes:
        told: What cannot be read or found, kind by kind.
    """

    def __init__(self, collect: Mapping[str, CollectPath]) -> None:
        self.told = Problems()
        self._told_once: set[tuple[str, str]] = set()
        self._collect = collect
        self._known: dict[tuple[str, Path], dict[str, Value]] = {}

    def values(self, stage: str, result: StageResult) -> dict[str, Value]:
        """Return what one cell says.

        Args:
            stage: The stage's name.
            result: The cell.

        Returns:
            Of a fit its columns without the stage's name, of an evaluation :func:`evaluation_columns`, of a transfer
            the two rates; what is collected from it; and ``<stage>_seconds``. Nothing where it has not ended.
        """
        values = dict(self._of_result(stage, result)) if result.status == "done" else {}
        if (seconds := read_seconds(result.folder)) is not None:
            values[f"{stage}_seconds"] = seconds
        return values

    def _of_result(self, stage: str, result: StageResult) -> dict[str, Value]:
        if (stage, result.folder) not in self._known:
            values: dict[str, Value] = {}
            content = self._read(result_of(result.folder, result.command), result.folder)
            if content is not None:
                values = _COLUMNS[result.command](stage, content, lambda key: self._strange(result, key))
                values |= dict(self._collected(stage, result, content))
            self._known[stage, result.folder] = values
        return self._known[stage, result.folder]

    def _collected(self, stage: str, result: StageResult, content: Any) -> Iterator[tuple[str, Value]]:
        contents: dict[str | None, Any] = {None: content}
        for column, path in self._collect.items():
            if path.stage != stage:
                continue
            if path.table not in contents:
                contents[path.table] = self._last_look(result, str(path.table))
            if contents[path.table] is None:
                continue
            try:
                yield column, _plain(path.find(contents[path.table]))
            except NotThereError as error:
                name = f"{path.table}.csv" if path.table else result_of(result.folder, result.command).name
                self._tell(f"collect.{column}: {error} in the {name} of some cells", result.folder.name)

    def _last_look(self, result: StageResult, table: str) -> list[dict[str, Any]] | None:
        """Return the rows of the last look of an observer; None where its table cannot be read."""
        path = result_of(result.folder, result.command).parent / "analyses" / f"{table}.csv"
        try:
            rows, clauses = salvage_table(path)
        except UsageError as error:
            self._tell(f"{path.name} cannot be read ({error})", result.folder.name)
            return None
        for clause in clauses:
            self._tell(f"in {path.name} {clause}", result.folder.name)
        last = max((row.step for row in rows), default=0)
        return [row._asdict() for row in rows if row.step == last]

    def _read(self, path: Path, folder: Path) -> dict[str, Any] | None:
        try:
            content = read_json(path)
            if not isinstance(content, dict):
                raise UsageError("it is not a mapping")
        except UsageError as error:
            self._tell(f"{path.name} cannot be read ({error})", folder.name)
            return None
        return content

    def _tell(self, kind: str, where: str) -> None:
        if (kind, where) not in self._told_once:
            self._told_once.add((kind, where))
            self.told.add(kind, where)

    def _strange(self, result: StageResult, key: str) -> None:
        name = result_of(result.folder, result.command).name
        self._tell(f"values in {name} that are of another kind are left out", f"{key} of {result.folder.name}")


_Strange: TypeAlias = Callable[[str], None]
"""Is told the keys of values that cannot be."""


def _fit_columns(stage: str, content: Mapping[str, Any], strange: _Strange) -> dict[str, Value]:
    del stage
    values = dict(_measured(content, "", strange, ""))
    domains = content.get("domains")
    for domain, measured in domains.items() if isinstance(domains, dict) else ():
        if isinstance(measured, dict):
            values |= _measured(measured, f"{domain}_", strange, f"domains.{domain}.")
    if isinstance(images := content.get("test_images"), int):
        values["test_images"] = images
    elif images is not None:
        strange("test_images")
    return values


def _measured(content: Mapping[str, Any], prefix: str, strange: _Strange, above: str) -> Iterator[tuple[str, Value]]:
    for kind in KINDS:
        share = content.get(f"{kind}_accuracy"), content.get(f"{kind}_interval")
        yield from _share(share, f"{prefix}{kind}_{{}}", strange, f"{above}{kind}_accuracy")


def _share(found: tuple[Any, Any], column: str, strange: _Strange, key: str) -> Iterator[tuple[str, Value]]:
    accuracy, interval = found
    if accuracy is None:
        return
    if not _is_share(accuracy):
        strange(key)
        return
    yield column.format("accuracy"), accuracy
    if isinstance(interval, list) and len(interval) == 2 and all(map(_is_share, interval)):
        yield from ((column.format("low"), interval[0]), (column.format("high"), interval[1]))
    else:
        strange(f"the interval of {key}")


def _evaluation_columns(stage: str, content: Mapping[str, Any], strange: _Strange) -> dict[str, Value]:
    """The clean accuracy, and that under all attacks together by threat model: ``STAGE_robust_accuracy_Linf_8/255``."""
    values: dict[str, Value] = {}
    models = content.get("threat_models")
    cases = [("clean", "", content.get("clean"))]
    for model in models if isinstance(models, list) else ():
        if isinstance(model, dict):
            cases.append(("robust", f"_{_threat(model)}", model.get("all_or_nothing")))
    for kind, suffix, share in cases:
        if isinstance(share, dict):
            column = f"{stage}_{kind}_{{}}{suffix}"
            values |= _share((share.get("accuracy"), share.get("interval")), column, strange, f"{kind}{suffix}")
    return values


def _threat(model: Mapping[str, Any]) -> str:
    norm, eps = model.get("norm"), model.get("eps")
    threat = ThreatModel(norm if isinstance(norm, str) else None, eps if _is_amount(eps) else None)
    return str(threat).replace(" ", "_")


def _transfer_columns(stage: str, content: Mapping[str, Any], strange: _Strange) -> dict[str, Value]:
    """The share of examples that fool: over all attacks and pairs of two networks, and of a network with itself."""
    values: dict[str, Value] = {}
    rates = content.get("rates")
    rows = [row for row in rates if isinstance(row, dict)] if isinstance(rates, list) else []
    for name, white_box in (("black_box", False), ("white_box", True)):
        of_kind = [row for row in rows if row.get("white_box") is white_box]
        fooled, total = ([n for row in of_kind if _is_amount(n := row.get(key))] for key in ("fooled", "total"))
        if not len(fooled) == len(total) == len(of_kind):
            strange(f"rates, {name.replace('_', '-')}")
        elif sum(total):
            values[f"{stage}_{name}_rate"] = sum(fooled) / sum(total)
    return values


_COLUMNS: Final[Mapping[str, Callable[[str, Mapping[str, Any], _Strange], dict[str, Value]]]] = {
    "fit": _fit_columns,
    "evaluate": _evaluation_columns,
    "transfer": _transfer_columns,
}


def _plain(value: Any) -> Value:
    if value is None or isinstance(value, bool):
        return None if value is None else str(value).lower()
    if isinstance(value, str):
        return shorten(" ".join(value.split()))  # a row of the table is one line
    if isinstance(value, int | float):
        return value if math.isfinite(value) else None
    raise NotThereError(f"there is a {'mapping' if isinstance(value, dict) else 'list'}, not one value,")


def _is_amount(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _is_share(value: Any) -> TypeGuard[float]:
    return _is_amount(value) and value <= 1
