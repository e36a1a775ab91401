"""The run folder: configuration, metrics, checkpoints, figures and results of one run, also when it is resumed."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import shutil
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_warn

from lightning_adv.core.errors import UsageError
from lightning_adv.core.files import set_aside, write_whole
from lightning_adv.core.locks import alone
from lightning_adv.core.reading import read_csv
from lightning_adv.core.table import continue_table
from lightning_adv.nn.weights.checkpoint_form import RESUMABLE, TESTABLE, check_keepers
from lightning_adv.nn.weights.form import check_form
from lightning_adv.nn.weights.load import read_checkpoint
from lightning_adv.nn.weights.runs import INITIAL


def check_writable(folder: Path, *, argument: str | None = None, keep: bool = True) -> None:
    """Check that results can be written before they are computed: make the folder and write a byte into it.

    Args:
        folder: The folder.
        argument: The argument that named it, for the error; None for a run folder, which the logger names.
        keep: Whether a folder that was not there stays. Otherwise it is removed, and those above it that were made too.

    Raises:
        UsageError: It cannot be made or written.
    """
    made: list[Path] = []
    try:
        made += [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(b"\0")  # a full disk takes the file, but no byte
    except OSError as error:
        if argument is not None:
            raise UsageError(f"{argument}: {folder} cannot be written ({error.strerror}).") from error
        raise UsageError(
            f"The run folder {folder} cannot be written ({error.strerror}). Set the logger's save_dir "
            "(--trainer.logger.init_args.save_dir) to a folder that can."
        ) from error
    finally:
        for path in () if keep else made:
            with contextlib.suppress(OSError):
                path.rmdir()


def writing_alone(folder: Path) -> AbstractContextManager[None]:
    """Hold the folder that ``output`` names, while a command writes into it.

    Raises:
        UsageError: It cannot be written, or another process writes there.
    """
    check_writable(folder, argument="output", keep=False)
    return alone(folder / ".lightning-adv.lock", f"output: {folder}", instead="give another --output")


class RunFolderRollback(Callback):
    """Puts a run folder back as it was where a command fails before anything was trained.

    A refused resume leaves the run as it was, and a new folder that would hold nothing but a configuration is removed.
    As a callback it learns when training has begun.

    Attributes:
        began: Whether a training batch has ended.
        folder: The run folder, once it is known; on the first process.
    """

    _WRITTEN = ("config-resumed.yaml", "metrics.csv", "results.json")

    def __init__(self) -> None:
        self.began = False
        self.folder: Path | None = None
        self._files: set[str] | None = None
        self._contents: dict[str, bytes] = {}

    def remember(self, folder: Path, *, new: bool) -> None:
        """Take down what is in the folder, before the command writes into it; only while nobody else writes there.

        Args:
            folder: The run folder.
            new: Whether this command has made it.
        """
        self.folder = folder
        if not new:
            self._files = {path.name for path in folder.iterdir()}
            written = [name for name in self._WRITTEN if name in self._files]
            self._contents = {name: (folder / name).read_bytes() for name in written}

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Note that training has begun (a Lightning hook).

        Tables of analyses that this run was resumed without end where it goes on, as its metrics do.
        """
        if not self.began and self.folder is not None:
            tables = [path for path in (self.folder / "analyses").glob("*.csv") if "-until-resume-" not in path.name]
            for table in tables:
                with contextlib.suppress(UsageError):  # a file of the user's own
                    continue_table(table, trainer.global_step - 1)
        self.began = True

    def undo(self) -> None:
        """Put the folder back as it was, if training has not begun."""
        if self.folder is None or not self.folder.is_dir() or self.began:
            return
        now = {path.name: path for path in self.folder.iterdir()}
        if self._files is None:
            if now.keys() <= {"config.yaml", "checkpoints"} and not saved_checkpoints(self.folder):
                shutil.rmtree(self.folder)
            return
        for name, path in now.items():
            if name not in self._files and (name in self._WRITTEN or "-until-resume-" in name):
                path.unlink()
        for name, content in self._contents.items():
            write_whole(self.folder / name, content)


def check_run_checkpoint(path: str | Path, *, resumes: bool) -> None:
    """Check that a file is the checkpoint of a run.

    Args:
        path: The file.
        resumes: Whether training is to go on from it, which takes more than its network.

    Raises:
        UsageError: It is missing, cannot be read, holds something else, or lacks what a run goes on with.
    """
    content = read_checkpoint(path, argument="ckpt_path")
    if not isinstance(content, dict) or not {"state_dict", "global_step", "loops"} <= content.keys():
        raise UsageError(
            f"ckpt_path: {path} is not the checkpoint of a run. To begin with weights from elsewhere, give the file as "
            "model.init_args.backbone.checkpoint."
        )
    check_form(content, RESUMABLE if resumes else TESTABLE, source=f"ckpt_path: {path}")
    check_keepers(content.get("callbacks", {}), source=f"ckpt_path: {path}")


def check_epochs(path: str | Path, max_epochs: int | None) -> None:
    """Check that a run that goes on is not asked for fewer epochs than it has.

    Raises:
        UsageError: It is.
    """
    progress = read_checkpoint(path, argument="ckpt_path")["loops"]
    for key in ("fit_loop", "epoch_progress", "current", "processed"):
        progress = progress.get(key) if isinstance(progress, dict) else None
    if isinstance(progress, int) and max_epochs is not None and -1 < max_epochs < progress:
        raise UsageError(
            f"trainer.max_epochs must be at least the {progress} epochs that ckpt_path ({path}) has, got {max_epochs}."
        )


def saved_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a run folder that hold what was trained: those that a new run must not replace."""
    return [path for path in (folder / "checkpoints").glob("*.ckpt") if path.name != INITIAL]


def run_folder_of(checkpoint: str | Path) -> Path | None:
    """Return the run folder that a checkpoint lies in, as an absolute path, or None where it lies elsewhere."""
    path = Path(os.path.abspath(Path(checkpoint).expanduser()))  # of a link, the folder that it lies in
    folder = path.parent.parent
    return folder if path.parent.name == "checkpoints" and (folder / "config.yaml").is_file() else None


def continue_metrics(logger: CSVLogger, checkpoint: str | Path) -> None:
    """Let a resumed run go on in the ``metrics.csv`` of the run that stopped.

    CSVLogger deletes the file of a folder that it opens again. The old file is set aside first, as
    ``metrics-until-resume-N.csv``; its rows up to the checkpoint's step are written back, since those after it will
    be logged again.

    Args:
        logger: A logger whose ``experiment`` nobody has asked for yet.
        checkpoint: The checkpoint that the run resumes from.
    """
    path = Path(logger.log_dir) / "metrics.csv"
    aside = set_aside(path) or _newest_aside(path)
    if aside is None:
        return
    step = read_checkpoint(checkpoint, argument="ckpt_path")["global_step"]
    try:
        names, rows = _rows_before(aside, step)
    except UsageError as error:
        rank_zero_warn(f"metrics.csv begins anew: the one that was there cannot be read ({error}). It is {aside}.")
        return
    experiment = logger.experiment
    experiment.metrics_keys = names
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=names)
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue())


def _rows_before(path: Path, step: int) -> tuple[list[str], list[dict[str, str]]]:
    """Return the columns of a ``metrics.csv`` and its rows of earlier steps; rows that are damaged are left out."""
    table = read_csv(path)
    if table is None:
        raise UsageError("it has no whole line")
    if len(set(table.columns)) < len(table.columns):
        raise UsageError("it has a column twice")
    rows = [
        dict(zip(table.columns, cells, strict=False)) for _, cells in table.rows if len(cells) == len(table.columns)
    ]
    return table.columns, [row for row in rows if row.get("step", "").isdecimal() and int(row["step"]) < step]


def _newest_aside(path: Path) -> Path | None:
    """Return what was set aside last: a resume that was killed at once has not written its rows back."""
    before = f"{path.stem}-until-resume-"
    asides = [found for found in path.parent.glob(f"{before}*{path.suffix}") if found.stem[len(before) :].isdigit()]
    return max(asides, key=lambda aside: int(aside.stem[len(before) :]), default=None)
