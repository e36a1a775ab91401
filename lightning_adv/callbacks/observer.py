"""What every observer shares: when it looks, under which conditions, and where what it saw goes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_adv.attacks import Attack
from lightning_adv.callbacks.any_module import ModuleParts, Parts
from lightning_adv.callbacks.batch_parts import BatchChoice
from lightning_adv.callbacks.given import check_apart, check_name, given_attacks, name_of_class, tell_shortfalls
from lightning_adv.callbacks.looks import Look, Progress, plain_record
from lightning_adv.callbacks.observed import ObservedModule, headline_domain
from lightning_adv.callbacks.output import Output, run_folder
from lightning_adv.callbacks.undisturbed import undisturbed
from lightning_adv.core.errors import UsageError
from lightning_adv.core.seeds import run_seed
from lightning_adv.core.table import Record, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ObserverParts(Parts, total=False):
    """What every observer takes by keyword, whatever it looks at."""

    name: str | None


class Observer(Callback, ABC):
    """Looks at a network while it trains, and changes nothing: training is the same to the last bit.

    A subclass writes :meth:`observe`, which returns numbers as rows of a table. It may add :meth:`prepare` (what is
    done once, before the first step), :meth:`headline` (which numbers are logged) and :meth:`draw` (the figures).

    * The headline numbers go to the Trainer's loggers, as ``<analysis>/<name>``,
    * every number to ``analyses/<analysis>.csv`` in the run folder, which can be read while the run goes on, and which
      ``lightning-adv report`` draws,
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
        name: What its table, scalars and figures are called, so that several observers of one class can be in one run;
            None is the class's ``analysis``.
        network: In a LightningModule that is no regime, the name of the submodule that maps images to logits, such as
            ``model``; None is the module itself.
        batch: Where its batches have images and labels, such as ``[image, label]`` or ``[0, 1]``, or a function of a
            batch; None: they are pairs.
        mean: The mean of each channel by which its images are normalised; None where they lie in [0, 1].
        std: The standard deviation of each channel.
        evaluation_attack: The attack of observers that are not given one, for modules that have none themselves.

    Raises:
        UsageError: An argument is out of its range, or two are given that exclude each other.

    Example:
        >>> class WeightNorm(Observer):
        ...     needs = ("network",)
        ...
        ...     def observe(self, trainer, module):
        ...         for name, weight in module.network.named_parameters():
        ...             yield Record(name, "", "norm", weight.norm().item())
        >>> WeightNorm(every_n_epochs=2).analysis
        'weight_norm'
    """

    analysis: str
    """The name of the table, and what the names of scalars and figures begin with; the class's in lower case, with
    underscores, where a subclass gives none. An observer that is given a ``name`` has that one."""

    needs: ClassVar[Sequence[str]] = ("network", "domains", "inference_domain", "evaluation_attack")
    """The attributes of :class:`~lightning_adv.callbacks.observed.ObservedModule` that it uses."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "look" in cls.__dict__ and cls.observe is Observer.observe:
            cls.observe = _observe_by_look  # type: ignore[method-assign]
        family = getattr(cls.observe, "__isabstractmethod__", False)  # has no table: its subclasses have
        if not family and not hasattr(cls, "analysis"):
            cls.analysis = name_of_class(cls)

    def __init__(
        self,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        figures_every_n_looks: int = 10,
        *,
        name: str | None = None,
        network: str | None = None,
        batch: BatchChoice = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        evaluation_attack: Attack | None = None,
    ) -> None:
        check_name(name, self.analysis)
        self.name = name
        self.analysis = type(self).analysis if name is None else name
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
        self._progress = Progress()
        self._parts = ModuleParts(self.analysis, network, batch, mean, std, evaluation_attack)
        self._observed: ObservedModule | None = None
        self._seed: int | None = None
        self._resumed = self._begun = False
        self._output: Output | None = None

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

    def prepare(self, trainer: Trainer, module: ObservedModule) -> None:
        """Check what was asked for against the network and the data, and take the images of the looks.

        Called on every process before the first step. Override it.

        Raises:
            UsageError: It cannot be looked at.
        """

    @abstractmethod
    def observe(self, trainer: Trainer, module: ObservedModule) -> Iterable[Record]:
        """Return the numbers of now, as ``Record(name, domain, statistic, value)``. Override it.

        The name is that of a layer, or empty where a number is about the whole network; the domain is that of its
        BatchNorm, or empty. Called on every process, where it must return the same: that of one process with all of the
        images.
        """

    def headline(self, module: ObservedModule, records: Sequence[Record]) -> Mapping[str, float]:
        """Return the numbers for the loggers, by name; here those of the whole network, in the domain of inference.

        Override it for others.
        """
        domains = ("", headline_domain(module))
        return {each.statistic: each.value for each in records if each.name == "" and each.domain in domains}

    def look(self, trainer: Trainer, module: ObservedModule) -> Look:
        """Return all of it: what :meth:`observe` finds, and its :meth:`headline`.

        Raises:
            TypeError: :meth:`observe` gave something else than records.
        """
        found = self.observe(trainer, module)
        if not isinstance(found, Iterable):
            raise TypeError(f"{type(self).__name__}.observe must yield each Record, got a {type(found).__name__}.")
        records = [plain_record(record, f"{type(self).__name__}.observe") for record in found]
        return Look(self.headline(module, records), records)

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

    def get_ready(self, trainer: Trainer, module: ObservedModule) -> None:
        """Do what a family of observers does before each of them prepares itself; such a family overrides it."""

    def remarks(self) -> Iterable[Record]:
        """Return what a family of observers adds to the table of each look; such a family overrides it."""
        return ()

    # When (Lightning's hooks) -------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare the looks (a Lightning hook).

        Raises:
            UsageError: What was asked for cannot be looked at, or written where it belongs.
        """
        if not self._resumed or self._seed is None:  # processes that nobody seeded have a seed each
            self._seed = trainer.strategy.broadcast(run_seed())
        given = given_attacks(vars(self))
        own_attack = any(name.partition(".")[0] in ("attack", "attacks") for name in given)
        needs = [name for name in self.needs if not (own_attack and name == "evaluation_attack")]
        module = self._observed = self._parts.of(pl_module, type(self).__name__, needs, self._seed)
        observers = [callback for callback in trainer.callbacks if isinstance(callback, Observer)]  # type: ignore[attr-defined]
        check_apart(self.analysis, [observer.analysis for observer in observers])
        if not self._resumed:  # a state that was loaded knows better, also that there was no look yet
            if trainer.global_step == 0:
                self._progress = Progress()
            self._progress.last_step = trainer.global_step - 1
        self._resumed = self._begun = False
        folder = run_folder(trainer)
        keeps = folder is not None and trainer.is_global_zero
        self._output = Output(cast(Path, folder), self.analysis, self.draw) if keeps else None
        problem = trainer.strategy.broadcast(None if self._output is None else self._output.problem())
        if problem is not None:
            raise UsageError(problem)
        tell_shortfalls(given, self.analysis)  # a regime speaks for its own
        with self._progress.clock(pl_module.device):
            self.get_ready(trainer, module)
            self.prepare(trainer, module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look after some steps (a Lightning hook)."""
        if not self._begun and self._output is not None:
            self._output.begin(self._progress.last_step)  # only now: a resume that is refused changes no file
        self._begun = True
        step = trainer.global_step
        stepped = step - 1 > self._progress.last_step  # while gradients accumulate, the number stays the same
        if stepped and self.should_look(step=step):
            scalars = self._see(trainer, pl_module)
            for logger in trainer.loggers:  # Lightning's own log would wait for a multiple of log_every_n_steps
                logger.log_metrics(scalars, step=step - 1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look after some epochs (a Lightning hook)."""
        if self.should_look(epoch=trainer.current_epoch + 1):
            scalars = self._see(trainer, pl_module)
            # All processes have the same numbers; without sync_dist Lightning would warn that they may not.
            pl_module.log_dict(scalars, sync_dist=True, batch_size=1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw once more, and hand over the table (a Lightning hook)."""
        with self._progress.clock(pl_module.device):
            if self._output is not None and self._begun:
                self._output.finish(trainer)
            self.release()
        self._observed = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let go of what was taken (a Lightning hook)."""
        self.release()
        self._observed = None

    @property
    def state_key(self) -> str:
        """What a checkpoint keeps its state by: that of its class, and its name where it has one."""
        return super().state_key if self.name is None else self._generate_state_key(name=self.name)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run goes on with, for the checkpoint."""
        return {**vars(self._progress), "seed": self._seed, "state": self.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's looks."""
        self._progress = Progress(**{name: state_dict[name] for name in vars(self._progress)})
        self._seed = state_dict.get("seed")  # earlier versions kept none
        self._resumed = True
        self.load_state(state_dict["state"])

    # The look -----------------------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Wall time that it took so far, drawing and writing included, over resumed runs too."""
        return self._progress.seconds

    @property
    def lost(self) -> str | None:
        """What could not be written, for the end of a run; None if nothing is missing."""
        return None if self._output is None else self._output.lost

    @property
    def table(self) -> Path:
        """The file of the table, once training has started; on the first process.

        Raises:
            UsageError: There is no run folder.
        """
        if self._output is None:
            raise UsageError(f"{type(self).__name__} has no run folder: training has not started, or is a dry run.")
        return self._output.table

    def _see(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        """Look, write down and draw; return the headline numbers by their full names."""
        module = cast(ObservedModule, self._observed)
        with self._progress.clock(pl_module.device):
            with undisturbed(trainer, module.network):
                seen = self.look(trainer, module)
            step = trainer.global_step - 1  # from 0, as Lightning's loggers count
            draws = self._progress.counts(step, self.figures_every_n_looks)
            if self._output is not None:
                records = [*seen.records, *self.remarks()]
                self._output.append([Row(trainer.current_epoch, step, *record) for record in records])
                if draws:
                    self._output.draw(trainer)
        return {f"{self.analysis}/{name}": value for name, value in seen.scalars.items()}


def _observe_by_look(self: Observer, trainer: Trainer, module: ObservedModule) -> Iterable[Record]:
    """Return the numbers of an observer that writes :meth:`Observer.look` instead."""
    return self.look(trainer, module).records
