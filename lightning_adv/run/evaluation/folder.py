"""The folder of an evaluation: what is known of each chunk, written as soon as it is, so that a kill loses little."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_adv.evaluation import ChunkVerdicts
from lightning_adv.files import write_whole

RESULT = "evaluation.json"


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
            ValueError: It holds a finished evaluation or one with other settings, or cannot be written.
        """
        told = json.loads(json.dumps(settings))
        begun = self._parts / "settings.json"
        try:
            if overwrite:
                (self.path / RESULT).unlink(missing_ok=True)
                shutil.rmtree(self._parts, ignore_errors=True)
            if (self.path / RESULT).exists():
                raise ValueError(
                    f"output: {self.path} holds a finished evaluation: give another --output, or --overwrite."
                )
            if begun.is_file():
                self._check_same(json.loads(begun.read_text(encoding="utf-8")), told)
                return True
            write_whole(begun, json.dumps(told, indent=2))
        except OSError as error:
            raise ValueError(f"output: {self.path} cannot be written ({os.strerror(error.errno or 0)}).") from error
        return False

    def read(self, number: int) -> ChunkVerdicts | None:
        """Return what is known of a chunk."""
        path = self._path(number)
        return ChunkVerdicts.from_plain(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def write(self, chunk: ChunkVerdicts) -> None:
        """Write down what is known of a chunk, whole or not at all."""
        write_whole(self._path(chunk.chunk), json.dumps(asdict(chunk)))

    def remember(self, name: str, compute: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """Return what was computed and written down before, or compute it and write it down."""
        path = self._parts / f"{name}.json"
        if not path.is_file():
            write_whole(path, json.dumps(compute()))
        known: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return known

    def finish(self, results: Mapping[str, Any]) -> None:
        """Write the results, and remove what was only needed to go on."""
        write_whole(self.path / RESULT, json.dumps(results, indent=2, ensure_ascii=False) + "\n")
        shutil.rmtree(self._parts)

    def _path(self, number: int) -> Path:
        return self._parts / f"{number:06d}.json"

    def _check_same(self, begun: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        other = [name for name in {**begun, **now} if begun.get(name) != now.get(name)]
        if other:
            name = other[0]
            raise ValueError(
                f"output: {self.path} holds an unfinished evaluation with {name} {_short(begun.get(name))}, and now "
                f"it is {_short(now.get(name))}: give another --output, or --overwrite to begin anew."
            )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else text[:200] + " ..."
