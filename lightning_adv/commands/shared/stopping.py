"""What happens when a command is stopped: its exit status, and a sentence on how to go on."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_adv.commands.shared.processes import keep_together


def stopping_signal(error: BaseException) -> signal.Signals | None:
    """Return the signal that an exception comes from; None if it comes from none.

    Lightning makes a SystemExit of a KeyboardInterrupt, with status 1.
    """
    if isinstance(error, SIGTERMException):
        return signal.SIGTERM
    interrupted = isinstance(error, KeyboardInterrupt) or (
        isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt)
    )
    return signal.SIGINT if interrupted else None


def how_to_go_on(folder: Path | None) -> str:
    """Return a sentence with the command that goes on with a run; nothing where there is nothing to go on with.

    Args:
        folder: The run folder.
    """
    if folder is None or not (folder / "checkpoints" / "last.ckpt").is_file():
        return ""
    configs = [folder / name for name in ("config-resumed.yaml", "config.yaml")]
    config = next((path for path in configs if path.is_file()), None)
    if config is None:
        return ""
    given = f"--config {shlex.quote(str(config))} --ckpt_path {shlex.quote(str(folder / 'checkpoints' / 'last.ckpt'))}"
    return f" To go on: lightning-adv fit {given}"


@contextmanager
def stoppable(stopped: str) -> Iterator[None]:
    """End the command after Ctrl-C or a SIGTERM with a sentence on the standard error.

    Args:
        stopped: The sentence.

    Raises:
        SystemExit: With status 130 after Ctrl-C, 143 after a SIGTERM.
    """
    try:
        with _sigterm_interrupts():
            yield
    except KeyboardInterrupt as interrupt:
        sys.stderr.write(f"{stopped}\n")
        number = signal.SIGTERM if isinstance(interrupt, _Terminated) else signal.SIGINT
        raise SystemExit(128 + number) from interrupt


class _Terminated(KeyboardInterrupt):
    """A SIGTERM, which ends a command as Ctrl-C does."""


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():  # only there can a signal be taken
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Together(Callback):
    """Ends all processes of a run when one of them has ended or is stopped.

    Each hook is the first of one of the Trainer's loops: Lightning takes the signals shortly before.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ask for the run folder, which all processes must do together (a Lightning hook)."""
        folder = trainer.log_dir if stage == "fit" else None
        self._folder = None if folder is None else Path(folder)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin (a Lightning hook)."""
        if trainer.world_size > 1:
            keep_together(getattr(trainer.strategy.launcher, "procs", []), lambda: how_to_go_on(self._folder))

    on_validation_start = on_test_start = on_predict_start = on_train_start
