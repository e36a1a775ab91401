"""The table of a study, ``study.csv``: one row for each point of its grid. What its columns are, and reading it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from lightning_adv.core.errors import UsageError
from lightning_adv.core.files import write_whole
from lightning_adv.core.reading import WIDTH, Problems, read_csv, read_json
from lightning_adv.studies.results import KINDS, Value

TABLE, DESCRIPTION = "study.csv", "study.json"
SHARES = tuple(f"{kind}_{part}" for kind in KINDS for part in ("accuracy", "low", "high"))
_FIXED: Final = ("seed", "status", *SHARES, "test_images", "run")
_NO_MEASURE = re.compile(r"(.*_)?(clean|robust)_(low|high)(_.*)?|.*_seconds|test_images|run")


@dataclass(frozen=True)
class StudyTable:
    """What is in ``study.csv``, and what ``study.json`` says of it.

    Attributes:
        axes: The columns of what varies.
        columns: All columns, in order.
        rows: By column: text in the columns of what varies, numbers in those of numbers, None where there is nothing.
        title: The study's.
        figure: How its figure is drawn; empty where nothing is said.
        told: What could not be read or found, a clause for each kind.

    Example:
        >>> table = StudyTable(("cutoff",), ("cutoff", "seed", "status", "robust_accuracy", "robust_low", "run"), ())
        >>> table.measures
        ('robust_accuracy',)
    """

    axes: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Value], ...]
    title: str = ""
    figure: Mapping[str, Any] = field(default_factory=dict)
    told: tuple[str, ...] = ()

    @property
    def measures(self) -> tuple[str, ...]:
        """The columns of accuracies, rates and collected numbers."""
        return measures_of(self.columns, self.rows)

    def to_csv(self) -> str:
        """Return the content of ``study.csv``. A number is written so that reading it gives the same one."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_text(row[column]) for column in self.columns] for row in self.rows)
        return text.getvalue()

    def write(self, folder: Path) -> None:
        """Write ``study.csv`` whole or not at all.

        Raises:
            OSError: It cannot be written; what was there stays.
        """
        write_whole(folder / TABLE, self.to_csv())


def measures_of(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return which columns of a table are accuracies, rates and collected numbers: of those after the seed.

    Example:
        >>> measures_of(["width", "seed", "status", "clean_accuracy", "clean_low", "loss"], [{"loss": 0.5}])
        ('clean_accuracy', 'loss')
    """
    texts = {column for row in rows for column, value in row.items() if isinstance(value, str)}
    after = columns[columns.index("seed") + 1 :] if "seed" in columns else columns
    return tuple(c for c in after if c != "status" and c not in texts and not _NO_MEASURE.fullmatch(c))


def check_columns(axes: Iterable[str], stages: Mapping[str, str], collect: Iterable[str]) -> None:
    """Check that no two columns of a study's table would have one name.

    Args:
        axes: The columns of what varies.
        stages: The command of each stage, by its name.
        collect: The columns of what is collected.

    Raises:
        UsageError: Two would.

    Example:
        >>> check_columns(["seed"], {"fit": "fit"}, [])
        Traceback (most recent call last):
        lightning_adv.core.errors.UsageError: grid: a column of the table is named 'seed' already: name what varies ...
    """
    taken = {*_FIXED, *expected_measures(stages), *(f"{stage}_seconds" for stage in stages)}
    for key, names in (("grid", axes), ("collect", collect)):
        for name in names:
            if name in taken:
                what = "what varies" if key == "grid" else "what is collected"
                raise UsageError(f"a column of the table is named {name!r} already: name {what} otherwise.", key=key)
            taken.add(name)


def expected_measures(stages: Mapping[str, str], collect: Iterable[str] = ()) -> list[str]:
    """Return the measures that a study's table has whatever comes out, for a check before anything is trained.

    Args:
        stages: The command of each stage, by its name.
        collect: The columns of what is collected.

    Example:
        >>> expected_measures({"fit": "fit", "attacked": "evaluate"})[2:]
        ['attacked_clean_accuracy', 'attacked_robust_accuracy']
    """
    measures = [f"{kind}_accuracy" for kind in KINDS]
    for stage, command in stages.items():
        names = {
            "fit": (),
            "evaluate": ("clean_accuracy", "robust_accuracy"),
            "transfer": ("black_box_rate", "white_box_rate"),
        }[command]
        measures += [f"{stage}_{name}" for name in names]
    return [*measures, *collect]


def interval_columns(measure: str) -> tuple[str, str] | None:
    """Return the columns of the two ends of a measure's interval; None for what is not an accuracy.

    Example:
        >>> interval_columns("attacked_robust_accuracy_Linf_8/255")
        ('attacked_robust_low_Linf_8/255', 'attacked_robust_high_Linf_8/255')
    """
    found = re.fullmatch(r"((?:.*_)?(?:clean|robust))_accuracy(_.*)?", measure)
    return None if found is None else (f"{found[1]}_low{found[2] or ''}", f"{found[1]}_high{found[2] or ''}")


def _text(value: Value) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


# Reading --------------------------------------------------------------------------------------------------------------


def read_study_folder(folder: str | Path) -> StudyTable:
    r"""Read the table of a study, also of one that is not finished.

    Args:
        folder: A folder of ``lightning-adv study``.

    Returns:
        The table; what cannot be read of it is told. Columns of what varies are text, others numbers where all that
        stands in them are numbers.

    Raises:
        UsageError: There is no table of a study.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "study.csv").write_text("eps,seed,status,clean_accuracy\n0.1,0,done,0.75\n")
        ...     read_study_folder(folder).rows
        ({'eps': '0.1', 'seed': 0, 'status': 'done', 'clean_accuracy': 0.75},)
    """
    folder = Path(folder)
    try:
        rows, columns, told = _read_rows(folder / TABLE)
    except UsageError as error:
        raise UsageError(f"{folder / TABLE} is not the table of a study: {error}.") from error
    said: dict[str, Any] = {}
    if (folder / DESCRIPTION).exists():
        try:
            content = read_json(folder / DESCRIPTION)
            said = content if isinstance(content, dict) else {}
        except UsageError as error:
            told.add(f"{DESCRIPTION} cannot be read ({error})", str(folder))
    title, figure = said.get("title"), said.get("figure")
    return StudyTable(
        axes=tuple(columns[: columns.index("seed")]),
        columns=tuple(columns),
        rows=tuple(rows),
        title=title if isinstance(title, str) else "",
        figure=figure if isinstance(figure, dict) else {},
        told=tuple(told.clauses()),
    )


def _read_rows(path: Path) -> tuple[list[dict[str, Value]], list[str], Problems]:
    table = read_csv(path)
    if table is None:
        raise UsageError("it is empty")
    columns = table.columns
    if not {"seed", "status"} <= set(columns) or len(set(columns)) < len(columns):
        raise UsageError("it has no columns seed and status, or has a column twice")
    told = Problems(table.damage)
    cells: list[list[str]] = []
    for number, line in table.rows:
        if len(line) == len(columns):
            cells.append(line)
        else:
            told.add(WIDTH, f"in line {number}")
    texts = {*columns[: columns.index("seed")], "status", "run"}
    by_column = zip(*cells, strict=True) if cells else ([] for _ in columns)
    typed = [_typed(values, text=name in texts) for name, values in zip(columns, by_column, strict=True)]
    return [dict(zip(columns, row, strict=True)) for row in zip(*typed, strict=True)], columns, told


def _typed(values: Iterable[str], *, text: bool) -> list[Value]:
    values = list(values)
    if not text:
        for kind in (int, float):
            try:
                return [kind(value) if value else None for value in values]
            except ValueError:
                continue
    return [value or None for value in values]
