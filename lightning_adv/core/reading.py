"""Reading files that anybody may have written: in bounded time and memory, with one sentence for what is wrong.

Each function raises ``ValueError`` with a reason that does not name the file (``it is no JSON: ...``), so that who asks
can say what the file was for. None follows a pipe or a device, and none runs what a file says.
"""

from __future__ import annotations

import csv
import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lightning_adv.core.errors import UsageError

MEGABYTE = 1_000_000
_DEEPEST, _MOST_VALUES = 100, 200_000  # of YAML; a configuration has a dozen levels and some hundred values


def read_bytes(path: Path, *, most: int = 16 * MEGABYTE) -> bytes:
    """Return what is in a file.

    Args:
        path: The file. A link is followed.
        most: How many bytes it may have.

    Raises:
        UsageError: It is missing, is no file, is larger, or cannot be read.
    """
    try:
        # A pipe without a writer would hold up an open that waits.
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"it is {_kind(status.st_mode)}, not a file")
            content = file.read(most + 1) if status.st_size <= most else None
    except OSError as error:
        raise UsageError(_reason(error)) from error
    if content is None or len(content) > most:  # the second: it grew
        raise UsageError(f"it is larger than {most / MEGABYTE:g} MB")
    return content


def read_text(path: Path, *, most: int = 16 * MEGABYTE) -> str:
    """Return the text in a file in UTF-8, with or without a byte-order mark.

    Raises:
        UsageError: As :func:`read_bytes` does, or it is not UTF-8.
    """
    return _decode(read_bytes(path, most=most))


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"it is not UTF-8: its byte {error.start} is 0x{content[error.start]:02x}") from error


def read_json(path: Path, *, most: int = 16 * MEGABYTE) -> Any:
    """Return what a JSON file holds; NaN and Infinity too, which Python writes though JSON has none.

    Raises:
        UsageError: As :func:`read_text` does, it is no JSON, is nested too deeply, or gives a key of a mapping twice.
    """
    text = read_text(path, most=most)
    try:
        return json.loads(text, object_pairs_hook=_mapping)
    except RecursionError as error:
        raise UsageError("it is nested too deeply") from error
    except _Refused:
        raise
    except json.JSONDecodeError as error:
        raise UsageError(f"it is no JSON: {error}") from error
    except ValueError as error:
        raise UsageError("it has a number of too many digits") from error


def read_yaml(path: Path, *, most: int = MEGABYTE) -> Any:
    """Return what a YAML file holds, as plain data. Values that are named and referred to again are allowed.

    Raises:
        UsageError: As :func:`read_text` does, it is no YAML or more than one document, gives a key of a mapping twice,
            is nested too deeply, refers to itself, or is too large with all references written out.
    """
    text = read_text(path, most=most)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)  # ten times quicker, where libyaml is there
    try:
        if not loader.check_node():
            return None
        node = loader.get_node()
        if loader.check_node():
            line = loader.get_node().start_mark.line + 1
            raise _Refused(f"it has a second document, from line {line}: a file is one, without a line of ---")
        _check_node(node)
        return loader.construct_document(node)
    except RecursionError as error:
        raise UsageError("it is nested too deeply") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
        raise UsageError(f"it is no YAML: {shorten(error.problem)}{where}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"it is no YAML: {shorten(' '.join(str(error).split()))}") from error
    except _Refused:
        raise
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        # PyYAML's own, of a value that is not what its tag says: !!bool maybe, !!timestamp soon, 2026-13-01
        raise UsageError("it is no YAML: a value is not of the kind that it is marked as") from error
    finally:
        loader.dispose()


class CsvFile(NamedTuple):
    """A table of text.

    Attributes:
        columns: The names in the first line.
        rows: The cells of each further line that is not blank, with the line's number, from 2. A byte that is not
            UTF-8 is the replacement character.
        damage: What is wrong with the bytes, as a clause; None if nothing is.
    """

    columns: list[str]
    rows: Iterator[tuple[int, list[str]]]
    damage: str | None = None


def read_csv(path: Path, *, most: int = 1000 * MEGABYTE) -> CsvFile | None:
    """Return the lines of a CSV file, also of one that is being written: an unfinished last line is left out.

    Each line is a row of its own, so that a quotation mark or a byte too many costs one row, not all that follow.

    Returns:
        The table; None where there is no whole line.

    Raises:
        UsageError: As :func:`read_bytes` does, or the first line is not UTF-8.
    """
    content, damage = read_bytes(path, most=most), None
    try:
        text = _decode(content)
    except UsageError as error:
        _decode(content.partition(b"\n")[0])
        text, damage = content.decode("utf-8-sig", "replace"), str(error)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = enumerate(_whole_lines(text), start=1)
    first = next(lines, None)
    if first is None:
        return None
    return CsvFile(_cells(first[1]), ((number, _cells(line)) for number, line in lines if line), damage)


WIDTH = "rows with more or fewer cells than there are columns are left out"
"""What a reader of :func:`read_csv` says of such rows, to :class:`Problems`."""


class Problems:
    """What is wrong in a file, kind by kind: how often, and where first. A damaged file may have a million faults.

    Args:
        first: A clause to begin with.

    Example:
        >>> problems = Problems()
        >>> for line in (3, 8):
        ...     problems.add("empty rows are left out", f"in line {line}")
        >>> problems.clauses()
        ['empty rows are left out: 2, the first in line 3']
    """

    def __init__(self, first: str | None = None) -> None:
        self._first = [] if first is None else [first]
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, kind: str, where: str) -> None:
        """Note one.

        Args:
            kind: A clause, of several.
            where: Where it is.
        """
        count, first = self._found.get(kind, (0, where))
        self._found[kind] = (count + 1, first)

    def clauses(self) -> list[str]:
        """Return one clause for each kind, in the order in which they were found."""
        return self._first + [
            f"{kind}: {count:,}, {'the first ' if count > 1 else ''}{shorten(first)}"
            for kind, (count, first) in self._found.items()
        ]


def shorten(value: object, most: int = 120) -> str:
    """Return a value as text of one line that a terminal can show: a damaged file may hold anything."""
    text = str(value)[: most + 1]
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
    return shown if len(shown) <= most else f"{shown[:most]} ..."


def _whole_lines(text: str) -> Iterator[str]:
    """Yield the lines that have ended, one by one: a list of them would hold the file a second time."""
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield text[start:end]
        start = end + 1


def _cells(line: str) -> list[str]:
    if '"' not in line:
        return line.split(",")
    try:
        return next(csv.reader((line,), strict=True))
    except csv.Error:
        return [line]


class _Refused(UsageError):  # noqa: N818 (no error of its own: the reason as it stands)
    """What the checks below found."""


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    given = Counter(key for key, _ in pairs)
    if given and max(given.values()) > 1:
        raise _Refused(f"the key {shorten(given.most_common(1)[0][0])} is given twice")
    return dict(pairs)


def _check_keys(keys: Iterable[yaml.Node]) -> None:
    """Check that no key stands twice: YAML's loaders drop the first without a word."""
    lines: dict[tuple[str, str], int] = {}
    for key in keys:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        name, line = (key.tag, key.value), key.start_mark.line + 1
        if name in lines:
            raise _Refused(
                f"the key {shorten(key.value)} is given twice in one mapping, in line {lines[name]} and line {line}"
            )
        lines[name] = line


def _check_node(root: yaml.Node) -> None:
    """Check the graph of a YAML document before anything is made of it: references make trees of any size."""
    sizes: dict[int, int] = {}  # of what a node is with its references written out; 0 while it is looked at
    depths: dict[int, int] = {}
    waiting: list[tuple[yaml.Node, bool]] = [(root, False)]
    while waiting:
        node, seen = waiting.pop()
        parts = _parts(node)
        if seen:
            sizes[id(node)] = 1 + sum(sizes[id(part)] for part in parts)
            depths[id(node)] = 1 + max((depths[id(part)] for part in parts), default=0)
            if depths[id(node)] > _DEEPEST:
                raise _Refused("it is nested too deeply")
            if sizes[id(node)] > _MOST_VALUES:
                raise _Refused(f"it has more than {_MOST_VALUES:,} values, with its references written out")
        elif sizes.get(id(node)) == 0:
            raise _Refused("it refers to itself")
        elif id(node) not in sizes:
            sizes[id(node)] = 0
            waiting.append((node, True))
            waiting += [(part, False) for part in parts]


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        _check_keys(key for key, _ in node.value)
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device or a socket"


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    if isinstance(error, IsADirectoryError):
        return "it is a folder, not a file"
    return os.strerror(error.errno or 0)
