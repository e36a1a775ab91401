"""What every observer shares: when it looks, under which conditions, and where what it saw goes."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_adv.attacks import Attack
from lightning_adv.attacks.reach import shortfall
from lightning_adv.callbacks.conditions import seeing
from lightning_adv.callbacks.records import Records, run_folder
from lightning_adv.core.errors import UsageError
from lightning_adv.core.table import Record, Row
from lightning_adv.nn.weights.load import say
from lightning_adv.regimes import Regime

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Look(NamedTuple):
    """What an observer saw.

    Attributes:
        scalars: The few numbers that the Trainer's loggers get, without the name of the analysis before them.
        records: All numbers, for the table.
    """

    scalars: Mapping[str, float]
    records: Sequence[Record]


class Observer(Callback, ABC):
    """Looks at a regime's network while it trains, and changes nothing: training is the same to the last bit.

    A subclass says what is seen (:meth:`look`) and drawn (:meth:`draw`). What it saw goes to three places:

    * the headline numbers to the Trainer's loggers, as ``<analysis>/<name>``,
    * every number to ``analyses/<analysis>.csv`` in the run folder, which can be read while the run goes on,
    * pictures to ``figures/<analysis>_<name>.png``, and to the loggers that take pictures; loggers that take tables get
      the table when training ends.

    The network is seen as it is trained: in the Trainer's precision, with the weights of the last step and not their
    average where there is one (Lightning's ``WeightAveraging``), and with the buffers of the first process, which are
    those that a checkpoint holds. Under ``torch.compile`` it runs uncompiled, since hooks would not be called.

    A checkpoint or an early stopping can monitor a headline number if both look after the same epochs, and at the end
    of training epochs: ``ModelCheckpoint(save_on_train_epoch_end=True)``. At the end of a validation it would see the
    number of the look before. Numbers of ``every_n_steps`` cannot be monitored.

    Args:
        every_n_epochs: Look at the end of every this many training epochs, after validation. This is the default, with
            1, where neither is given.
        every_n_steps: Look after every this many optimizer steps instead.
        figures_every_n_looks: Draw at the first look and then at every this many, and at the end of training. A drawing
            takes as long as the table is: once there are many looks, a tenth more of them come between two.

    Attributes:
        seconds: Wall time that it took so far, drawing and writing included, over resumed runs too.

    Raises:
        UsageError: An argument is out of its range, or two are given that exclude each other.
    """

    analysis: ClassVar[str]
    """The name of the table, and what the names of scalars and figures begin with."""

    def __init__(
        self,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        figures_every_n_looks: int = 10,
    ) -> None:
        self.check_positive(
            every_n_epochs=every_n_epochs, every_n_steps=every_n_steps, figures_every_n_looks=figures_every_n_looks
        )
        if every_n_epochs is not None and every_n_steps is not None:
            raise UsageError(
                f"{self.analysis}.every_n_epochs and {self.analysis}.every_n_steps exclude each other, got "
                f"{every_n_epochs} and {every_n_steps}."
            )
        self.every_n_epochs = 1 if every_n_epochs is None and every_n_steps is None else every_n_epochs
        self.every_n_steps = every_n_steps
        self.figures_every_n_looks = figures_every_n_looks
        self.seconds = 0.0
        self._looks = self._drawn = 0
        self._last_step = -1
        self._resumed = self._begun = False
        self._records: Records | None = None

    @classmethod
    def check_positive(cls, **arguments: int | None) -> None:
        """Check that each argument is None or an integer of at least 1.

        Raises:
            UsageError: One is not.
        """
        for name, number in arguments.items():
            if number is not None and (not isinstance(number, int) or number < 1):
                raise UsageError(f"{cls.analysis}.{name} must be an integer of at least 1, got {number!r}.")

    # To override --------------------------------------------------------------------------------------------------

    def prepare(self, trainer: Trainer, regime: Regime) -> None:
        """Check what was asked for against the network and the data, and take the images of the looks.

        Called on every process before the first step. Override it.

        Raises:
            UsageError: It cannot be looked at.
        """

    @abstractmethod
    def look(self, trainer: Trainer, regime: Regime) -> Look:
        """Return what there is to see now.

        Called on every process, where it must return the same: that of one process with all of the images.
        """

    def draw(self, rows: Sequence[Row]) -> Mapping[str, Figure]:
        """Return the figures of a table, by name. Called on the first process. Override it."""
        return {}

    def release(self) -> None:
        """Let go of what :meth:`prepare` took. Override it."""

    def state(self) -> dict[str, Any]:
        """Return what a resumed run goes on with, as plain containers and tensors. Override it."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take what :meth:`state` returned. Override it."""

    def should_look(self, *, epoch: int | None = None, step: int | None = None) -> bool:
        """Whether to look now. Override it for another rhythm.

        Args:
            epoch: Number of training epochs that have ended, if one has just ended.
            step: Number of optimizer steps so far, if one was just made.
        """
        if self.every_n_steps is not None:
            return step is not None and step % self.every_n_steps == 0
        return epoch is not None and epoch % cast(int, self.every_n_epochs) == 0

    # When (Lightning's hooks) -------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare the looks (a Lightning hook).

        Raises:
            UsageError: What was asked for cannot be looked at, or written where it belongs.
        """
        if not isinstance(pl_module, Regime):
            raise UsageError(f"{type(self).__name__} looks at a Regime, got a {type(pl_module).__name__}.")
        observers = [callback for callback in trainer.callbacks if isinstance(callback, Observer)]  # type: ignore[attr-defined]
        if sum(observer.analysis == self.analysis for observer in observers) > 1:
            raise UsageError(
                f"trainer.callbacks has two observers whose analysis is {self.analysis!r}: they would write into one "
                "table. Give a subclass another analysis."
            )
        if not self._resumed:  # a state that was loaded knows better, also that there was no look yet
            if trainer.global_step == 0:
                self.seconds, self._looks, self._drawn = 0.0, 0, 0
            self._last_step = trainer.global_step - 1
        self._resumed = self._begun = False
        folder = run_folder(trainer)
        keeps = folder is not None and trainer.is_global_zero
        self._records = Records(cast(Path, folder), self.analysis, self.draw) if keeps else None
        problem = trainer.strategy.broadcast(None if self._records is None else self._records.problem())
        if problem is not None:
            raise UsageError(problem)
        for name in ("attack", "fgsm"):  # those that an observer is given; a regime speaks for its own
            attack = getattr(self, name, None)
            if isinstance(attack, Attack) and (short := shortfall(attack, f"{self.analysis}.{name}")) is not None:
                say(short, warn=True)
        with self._clock(pl_module):
            self.prepare(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look after some steps (a Lightning hook)."""
        if not self._begun and self._records is not None:
            self._records.begin(self._last_step)  # only now: a resume that is refused changes no file
        self._begun = True
        step = trainer.global_step
        stepped = step - 1 > self._last_step  # while gradients accumulate, the number stays the same
        if stepped and self.should_look(step=step):
            scalars = self._see(trainer, cast(Regime, pl_module))
            for logger in trainer.loggers:  # Lightning's own log would wait for a multiple of log_every_n_steps
                logger.log_metrics(scalars, step=step - 1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look after some epochs (a Lightning hook)."""
        if self.should_look(epoch=trainer.current_epoch + 1):
            scalars = self._see(trainer, cast(Regime, pl_module))
            # All processes have the same numbers; without sync_dist Lightning would warn that they may not.
            pl_module.log_dict(scalars, sync_dist=True, batch_size=1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw once more, and hand over the table (a Lightning hook)."""
        with self._clock(cast(Regime, pl_module)):
            if self._records is not None and self._begun:
                self._records.finish(trainer)
            self.release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let go of what was taken (a Lightning hook)."""
        self.release()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run goes on with, for the checkpoint."""
        own = {"seconds": self.seconds, "looks": self._looks, "drawn": self._drawn, "last_step": self._last_step}
        return {**own, "state": self.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's looks."""
        self.seconds = state_dict["seconds"]
        self._looks, self._drawn = state_dict["looks"], state_dict["drawn"]
        self._last_step = state_dict["last_step"]
        self._resumed = True
        self.load_state(state_dict["state"])

    # The look -----------------------------------------------------------------------------------------------------

    @property
    def lost(self) -> str | None:
        """What could not be written, for the end of a run; None if nothing is missing."""
        return None if self._records is None else self._records.lost

    @property
    def table(self) -> Path:
        """The file of the table, once training has started; on the first process.

        Raises:
            UsageError: There is no run folder.
        """
        if self._records is None:
            raise UsageError(f"{type(self).__name__} has no run folder: training has not started, or is a dry run.")
        return self._records.table

    def _see(self, trainer: Trainer, regime: Regime) -> dict[str, float]:
        """Look, write down and draw; return the headline numbers by their full names."""
        with self._clock(regime):
            with seeing(trainer, regime):
                seen = self.look(trainer, regime)
            self._looks += 1
            self._last_step = trainer.global_step - 1  # from 0, as Lightning's loggers count
            draws = self._drawn == 0 or self._looks - self._drawn >= max(self.figures_every_n_looks, self._looks // 10)
            if draws:
                self._drawn = self._looks
            if self._records is not None:
                self._records.append([Row(trainer.current_epoch, self._last_step, *record) for record in seen.records])
                if draws:
                    self._records.draw(trainer)
        return {f"{self.analysis}/{name}": value for name, value in seen.scalars.items()}

    @contextmanager
    def _clock(self, regime: Regime) -> Iterator[None]:
        """Add the time to what the observer took."""
        if regime.device.type != "cpu":
            torch.accelerator.synchronize(regime.device)  # else it would wait for steps that are still queued
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start
