"""The ``metrics.csv`` of a run, which a full disk or a folder that vanishes does not take the training with."""

from __future__ import annotations

import csv
import io
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from jsonargparse import Namespace, dict_to_namespace
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only

from lightning_adv.core.files import write_whole

_log = logging.getLogger("lightning_adv")

DEFAULT_LOGGER: dict[str, Any] = {
    "class_path": "lightning.pytorch.loggers.CSVLogger",
    "init_args": {"save_dir": "runs", "name": "run"},
}


class RunLogger(CSVLogger):
    """Lightning's CSVLogger; where the file cannot be written, it says so once and tries again with the next rows.

    Its columns are widened whole or not at all: Lightning 2.6 empties the file first.

    Attributes:
        lost: What is missing of the file, for the end of the run; None if nothing is.
    """

    lost: str | None = None
    _begun = _gone = False

    @rank_zero_only
    def save(self) -> None:
        """Write the rows that wait (Lightning's interface)."""
        path = Path(self.experiment.metrics_file_path)
        self._gone = self._gone or (self._begun and not path.is_file())
        size: int | None = None
        try:
            self._widen(path)
            size = path.stat().st_size if path.is_file() else 0
            super().save()
            self._begun = self._begun or path.is_file()
            self.lost = f"{path} (it was removed while the run went on)" if self._gone else None
        except OSError as error:
            with suppress(OSError):  # rows that are written later must not go on in the middle of a line
                if size == 0:
                    path.unlink()
                elif size is not None:
                    os.truncate(path, size)
            if self.lost is None:
                _log.warning(f"{path} cannot be written ({error.strerror}): training goes on, and its rows wait.")
            self.lost = f"{path} ({error.strerror})"

    def _widen(self, path: Path) -> None:
        """Give the file the columns of the rows that wait."""
        experiment = self.experiment
        new = set().union(*experiment.metrics) - set(experiment.metrics_keys)
        if not new or not path.is_file():
            return
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        keys = sorted({*experiment.metrics_keys, *new})
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=keys)
        writer.writeheader()
        writer.writerows(rows)
        write_whole(path, text.getvalue())
        experiment.metrics_keys = keys


def first_csv_logger(config: Any) -> Any:
    """Return the configuration of the CSVLogger that keeps the run folder, after putting it before other loggers.

    The Trainer's folder is that of its first logger, and not every logger has one for each run.
    """
    given = config.trainer.logger
    loggers = given if isinstance(given, list) else [given] if isinstance(given, Namespace) else []
    ours = [logger for logger in loggers if logger.class_path.endswith("CSVLogger")]
    if not ours:
        ours = [dict_to_namespace(DEFAULT_LOGGER)]
    config.trainer.logger = ours[:1] + [logger for logger in loggers if logger is not ours[0]]
    return ours[0]
