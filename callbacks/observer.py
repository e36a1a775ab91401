"""What every observer shares: when it looks, under which conditions, and where what it saw goes."""

from __future__ import annotations

import io
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from lightning_adv.analysis.table import Record, Row, append_rows, read_table
from lightning_adv.callbacks.sending import send_figure, send_table
from lightning_adv.files import set_aside, write_whole
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

    Args:
        every_n_epochs: Look at the end of every this many training epochs, after validation. This is the default, with
            1, where neither is given.
        every_n_steps: Look after every this many optimizer steps instead.
        figures_every_n_looks: Draw at the first look and then at every this many; at the end of training always.

    Attributes:
        seconds: Wall time that the looks took so far, drawing and writing included, over resumed runs too.

    Raises:
        ValueError: An argument is out of its range, or two are given that exclude each other.
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
            raise ValueError(
                f"{self.analysis}.every_n_epochs and {self.analysis}.every_n_steps exclude each other, got "
                f"{every_n_epochs} and {every_n_steps}."
            )
        self.every_n_epochs = 1 if every_n_epochs is None and every_n_steps is None else every_n_epochs
        self.every_n_steps = every_n_steps
        self.figures_every_n_looks = figures_every_n_looks
        self.seconds = 0.0
        self._looks = 0
        self._last_step = -1
        self._drawn = True
        self._begun = False
        self._folder: Path | None = None

    @classmethod
    def check_positive(cls, **arguments: int | None) -> None:
        """Check that each argument is None or an integer of at least 1.

        Raises:
            ValueError: One is not.
        """
        for name, number in arguments.items():
            if number is not None and (not isinstance(number, int) or number < 1):
                raise ValueError(f"{cls.analysis}.{name} must be an integer of at least 1, got {number!r}.")

    # To override --------------------------------------------------------------------------------------------------

    def prepare(self, trainer: Trainer, regime: Regime) -> None:
        """Check what was asked for against the network and the data, and take the images of the looks.

        Called on every process before the first step. Override it.

        Raises:
            ValueError: It cannot be looked at.
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
            ValueError: What was asked for cannot be looked at.
        """
        if not isinstance(pl_module, Regime):
            raise ValueError(f"{type(self).__name__} looks at a Regime, got a {type(pl_module).__name__}.")
        folder = trainer.log_dir  # a collective call: on every process
        self._folder = None if folder is None or trainer.fast_dev_run else Path(folder)  # type: ignore[attr-defined]
        self._begun, self._drawn = False, True
        self._last_step = min(self._last_step, trainer.global_step - 1)
        self.prepare(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look after some steps (a Lightning hook)."""
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
        self.release()
        if self._folder is None or not self._begun or not trainer.is_global_zero:
            return
        rows = read_table(self.table)
        if not self._drawn:
            self._draw(trainer, rows)
        send_table(trainer.loggers, f"{self.analysis}/table", rows)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run goes on with, for the checkpoint."""
        own = {"seconds": self.seconds, "looks": self._looks, "last_step": self._last_step}
        return {**own, "state": self.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's looks."""
        self.seconds = state_dict["seconds"]
        self._looks = state_dict["looks"]
        self._last_step = state_dict["last_step"]
        self.load_state(state_dict["state"])

    # Where what was seen goes -------------------------------------------------------------------------------------

    @property
    def table(self) -> Path:
        """The file of the table, once training has started.

        Raises:
            ValueError: There is no run folder.
        """
        if self._folder is None:
            raise ValueError(f"{type(self).__name__} has no run folder: training has not started, or is a dry run.")
        return self._folder / "analyses" / f"{self.analysis}.csv"

    def _see(self, trainer: Trainer, regime: Regime) -> dict[str, float]:
        """Look, write down and draw; return the headline numbers by their full names."""
        start = time.perf_counter()
        with seeing(trainer, regime):
            seen = self.look(trainer, regime)
        step = trainer.global_step - 1  # from 0, as Lightning's loggers count
        rows = [Row(trainer.current_epoch, step, *record) for record in seen.records]
        self._looks += 1
        if self._folder is not None and trainer.is_global_zero:
            if not self._begun:
                _continue_table(self.table, self._last_step)
                self._begun = True
            append_rows(self.table, rows)
            self._drawn = False
            if (self._looks - 1) % self.figures_every_n_looks == 0:
                self._draw(trainer, read_table(self.table))
        self._last_step = step
        self.seconds += time.perf_counter() - start
        return {f"{self.analysis}/{name}": value for name, value in seen.scalars.items()}

    def _draw(self, trainer: Trainer, rows: Sequence[Row]) -> None:
        folder = cast(Path, self._folder)
        for name, figure in self.draw(rows).items():
            png = folder / "figures" / f"{self.analysis}_{name}.png"
            write_whole(png, _png(figure))
            send_figure(trainer.loggers, f"{self.analysis}/{name}", png, trainer.global_step - 1)
        self._drawn = True


@contextmanager
def seeing(trainer: Trainer, regime: Regime) -> Iterator[None]:
    """The conditions of a look: the Trainer's precision, no compiled graphs, and one set of buffers for all processes.

    Hooks in a compiled network are not called, and a look's shapes are not worth a graph. Without synchronised
    BatchNorm each process has running statistics of its own, until the next forward pass of training. Random states
    are put back, whatever a user's attack draws from.
    """
    with (
        isolate_rng(),
        trainer.precision_plugin.forward_context(),
        torch.compiler.set_stance("force_eager"),
        _buffers_of_first_process(trainer, regime.network),
    ):
        yield


@contextmanager
def _buffers_of_first_process(trainer: Trainer, network: nn.Module) -> Iterator[None]:
    if trainer.world_size == 1:
        yield
        return
    buffers = dict(network.named_buffers())
    own = {name: buffer.clone() for name, buffer in buffers.items()}
    theirs = trainer.strategy.broadcast({name: buffer.cpu() for name, buffer in own.items()})
    with torch.no_grad():
        try:
            for name, buffer in buffers.items():
                buffer.copy_(theirs[name])
            yield
        finally:
            for name, buffer in buffers.items():
                buffer.copy_(own[name])


def _continue_table(path: Path, last_step: int) -> None:
    """Keep the rows up to the last look that the run remembers: what comes after it is seen again.

    The file is set aside first if it holds anything else, so that nothing is lost.
    """
    if not path.is_file():
        return
    text = path.read_text()
    rows = read_table(path)
    kept = [row for row in rows if row.step <= last_step]
    if len(kept) < len(rows) or not text.endswith("\n"):
        set_aside(path)
        append_rows(path, kept)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
