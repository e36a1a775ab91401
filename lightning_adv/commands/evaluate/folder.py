"""The folder of an evaluation: what is known of each chunk, written as soon as it is, so that a kill loses little."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_adv.core.errors import UsageError
from lightning_adv.core.files import clear_unfinished, to_json, write_whole
from lightning_adv.core.reading import MEGABYTE, read_json, shorten
from lightning_adv.evaluation import ChunkVerdicts
from lightning_adv.evaluation.written import is_whole

RESULT = "evaluation.json"
_SETTINGS = "settings.json"
_OWN = re.compile(r"(settings|suspicions|\d{6,})\.json(\.[0-9a-f]{8})?(\.part)?")


class EvaluationFolder:
    """A folder with the settings of an evaluation, the chunks that are done, and in the end its results.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parts = path / "parts"

    def begin(self, settings: Mapping[str, Any], *, overwrite: bool) -> bool:
        """Make the folder ready for an evaluation, or for going on with one that was stopped.

        Args:
            settings: All that the numbers depend on, as plain data.
            overwrite: Whether an evaluation that is there may be replaced.

        Returns:
            Whether there is something to go on with.

        Raises:
            UsageError: It holds a finished evaluation or one with other settings, or cannot be written.
        """
        told = json.loads(json.dumps(settings))
        begun = self._parts / _SETTINGS
        try:
            if overwrite:
                (self.path / RESULT).unlink(missing_ok=True)
                self._remove_parts()
            clear_unfinished(self.path)
            clear_unfinished(self._parts)
            if (self.path / RESULT).exists():
                self._remove_parts()  # a kill after the results were written
                raise UsageError(
                    f"output: {self.path} holds a finished evaluation: give another --output, or --overwrite."
                )
            if begun.is_file():
                known = self._read(begun)
                if not isinstance(known, dict):
                    raise self._damaged(begun)
                self._check_same(known, told)
                return True
            write_whole(begun, json.dumps(told, indent=2))
        except OSError as error:
            raise UsageError(f"output: {self.path} cannot be written ({os.strerror(error.errno or 0)}).") from error
        return False

    def read(self, number: int) -> ChunkVerdicts | None:
        """Return what is known of a chunk; None if nothing is.

        Raises:
            UsageError: Its file is damaged.
        """
        path = self._path(number)
        if not path.is_file():
            return None
        plain = self._read(path)
        try:
            chunk = ChunkVerdicts.from_plain(plain)
            whole = chunk.chunk == number and is_whole(chunk)
        except (KeyError, TypeError, AttributeError):
            raise self._damaged(path) from None
        if not whole:
            raise self._damaged(path)
        return chunk

    def read_all(self, count: int) -> list[ChunkVerdicts]:
        """Return what is known of all of a number of chunks.

        Raises:
            UsageError: A chunk is missing: the accuracy of the others would pass for that of all.
        """
        chunks = [self.read(number) for number in range(count)]
        missing = [str(self._path(number)) for number, chunk in enumerate(chunks) if chunk is None]
        if missing:
            raise UsageError(
                f"output: {len(missing)} of {count} parts of the evaluation are missing, such as {missing[0]}: all "
                "processes must share the folder; run the same command again to go on."
            )
        return [chunk for chunk in chunks if chunk is not None]

    def write(self, chunk: ChunkVerdicts) -> None:
        """Write down what is known of a chunk, whole or not at all."""
        write_whole(self._path(chunk.chunk), json.dumps(asdict(chunk)))

    def remember(
        self, name: str, compute: Callable[[], list[dict[str, Any]]], is_whole: Callable[[Any], bool]
    ) -> list[dict[str, Any]]:
        """Return what was computed and written down before, or compute it and write it down.

        Args:
            name: What to call it.
            compute: Makes it.
            is_whole: Tells one entry of the list, as it was written down, from a damaged one.

        Raises:
            UsageError: What was written down is damaged.
        """
        path = self._parts / f"{name}.json"
        if not path.is_file():
            write_whole(path, json.dumps(compute()))
        known: list[dict[str, Any]] = self._read(path)
        if not isinstance(known, list) or not all(map(is_whole, known)):
            raise self._damaged(path)
        return known

    def finish(self, results: Mapping[str, Any]) -> None:
        """Write the results, and remove what was only needed to go on."""
        write_whole(self.path / RESULT, to_json(results))
        self._remove_parts()

    def _remove_parts(self) -> None:
        """Remove the files of this class alone: a folder that is given may hold a ``parts`` of somebody else's."""
        if not (self._parts / _SETTINGS).is_file():
            return
        for path in self._parts.iterdir():
            if _OWN.fullmatch(path.name) and path.name != _SETTINGS:
                path.unlink()
        (self._parts / _SETTINGS).unlink()  # the last: it says whose files these are
        with contextlib.suppress(OSError):  # not empty
            self._parts.rmdir()

    def _read(self, path: Path) -> Any:
        try:
            return read_json(path, most=1000 * MEGABYTE)
        except UsageError as error:
            raise self._damaged(path) from error

    def _damaged(self, path: Path) -> UsageError:
        return UsageError(
            f"output: {path} is damaged: remove it, and what it held is computed again, or begin anew with --overwrite "
            "true."
        )

    def _path(self, number: int) -> Path:
        return self._parts / f"{number:06d}.json"

    def _check_same(self, begun: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        other = [name for name in {**begun, **now} if begun.get(name) != now.get(name)]
        if other:
            name = other[0]
            raise UsageError(
                f"output: {self.path} holds an unfinished evaluation with {shorten(name)} {_short(begun.get(name))}, "
                f"and now it is {_short(now.get(name))}: give another --output, or --overwrite to begin anew."
            )


def _short(value: Any) -> str:
    return shorten(json.dumps(value), 200)
