"""The LightningCLI of the project: ``fit``, ``validate``, ``test`` and ``predict``."""

from __future__ import annotations

import csv
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace, dict_to_namespace
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger

import lightning_adv.data  # noqa: F401 (what is imported can be named by its class name alone)
from lightning_adv.callbacks import BestCheckpoint, LastCheckpoint, Throughput, TrainingCurves
from lightning_adv.nn.checkpoints import read_checkpoint
from lightning_adv.regimes import Regime
from lightning_adv.run.configs import resolve_configs
from lightning_adv.run.folder import check_run_checkpoint, check_writable, continue_metrics, run_folder_of
from lightning_adv.run.parser import Parser
from lightning_adv.run.results import collect_results, print_results, write_results

_LOGGER: dict[str, Any] = {
    "class_path": "lightning.pytorch.loggers.CSVLogger",
    "init_args": {"save_dir": "runs", "name": "run"},
}


class AdversarialCLI(LightningCLI):
    """Trains a regime, tests its best checkpoint, and leaves everything in one run folder.

    Args:
        args: The command line without the program's name.
    """

    def __init__(self, args: Sequence[str]) -> None:
        super().__init__(
            model_class=Regime,
            datamodule_class=LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            parser_class=Parser,
            # Without this, --trainer.max_epoch would be taken for --trainer.max_epochs.
            parser_kwargs={"prog": "lightning-adv", "allow_abbrev": False},
            trainer_defaults={"logger": _LOGGER},
            args=list(args),
        )

    # Arguments ----------------------------------------------------------------------------------------------------

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the two checkpoints, so that a configuration can set when they are written."""
        parser.add_lightning_class_args(BestCheckpoint, "best_checkpoint")
        parser.add_lightning_class_args(LastCheckpoint, "last_checkpoint")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the arguments given; LightningCLI's own method warns whenever ``sys.argv`` is there too."""
        self.config = parser.parse_args(args)  # type: ignore[arg-type]  # a list: see __init__

    def _parse_ckpt_path(self) -> None:
        """Leave the configuration alone: LightningCLI lets a checkpoint's arguments override what the user typed."""

    def before_instantiate_classes(self) -> None:
        """Check the checkpoint's path, and go on in its run folder when a run is resumed."""
        config = self.config[self.subcommand]
        path = config.get("ckpt_path")
        # Checkpoints are data: nothing that is loaded may run code.
        config["weights_only"] = True
        csv_logger = _first_csv_logger(config)
        if path is None:
            return
        check_run_checkpoint(path)
        folder = run_folder_of(path)
        if self.subcommand == "fit" and folder is not None:
            for key, value in {"save_dir": str(folder.parent), "name": "", "version": folder.name}.items():
                csv_logger.init_args[key] = value
            self.save_config_kwargs = {"config_filename": "config-resumed.yaml", "overwrite": True}

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Add the observers that every run has."""
        if self.subcommand == "fit":
            own = [Throughput(), TrainingCurves(), LearningRateMonitor(logging_interval="epoch")]
            self.trainer_defaults["callbacks"] = own
        return super().instantiate_trainer(**kwargs)

    # Subcommands --------------------------------------------------------------------------------------------------

    def before_fit(self) -> None:
        """Make sure that the run folder can be written before anything is computed."""
        path = self.config["fit"].get("ckpt_path")
        folder = self.trainer.log_dir  # a collective call: on every process
        if not self.trainer.is_global_zero or folder is None or self._is_dry():
            return
        check_writable(Path(folder))
        for logger in self.trainer.loggers[:1]:
            if isinstance(logger, CSVLogger) and path is not None and run_folder_of(path) is not None:
                continue_metrics(logger, path)

    def after_fit(self) -> None:
        """Test the best checkpoint and report it."""
        if self._is_dry() or self.trainer.interrupted:
            return
        best = next(callback for callback in self.trainer.checkpoint_callbacks if isinstance(callback, BestCheckpoint))
        if best.best_model_path:
            # Not by test's ckpt_path: weight averaging would put the weights before averaging in their place.
            content = read_checkpoint(best.best_model_path, argument="best_checkpoint")
            self.model.load_state_dict(content["state_dict"])
        metrics = self.trainer.test(self.model, datamodule=self.datamodule, verbose=False)
        self._report(metrics[0])

    def test(self, **kwargs: Any) -> None:
        """Test and report a checkpoint."""
        self._report(self.trainer.test(**kwargs | {"verbose": False})[0])

    def predict(self, **kwargs: Any) -> None:
        """Write the class probabilities of the test images to ``predictions.csv`` in the run folder."""
        batches = self.trainer.predict(**kwargs)
        folder = self.trainer.log_dir
        if folder is None or batches is None:
            return
        rank = f"-{self.trainer.global_rank}" if self.trainer.world_size > 1 else ""
        path = Path(folder) / f"predictions{rank}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            rows = [row for batch in batches for row in batch.tolist()]  # type: ignore[union-attr]
            writer.writerow(["predicted", *(f"probability_{k}" for k in range(len(rows[0]) if rows else 0))])
            writer.writerows([max(range(len(row)), key=row.__getitem__), *row] for row in rows)
        print(f"{len(rows)} predictions are in {path}")

    def _is_dry(self) -> bool:
        """Whether this is a ``fast_dev_run``, which writes nothing."""
        return bool(self.config[self.subcommand]["trainer"]["fast_dev_run"])

    def _report(self, metrics: Any) -> None:
        folder = self.trainer.log_dir
        seed = self.config[self.subcommand]["seed_everything"]
        results = collect_results(self.trainer, self.model, self.datamodule, metrics, seed)
        if self.trainer.is_global_zero:
            if folder is not None:
                write_results(results, Path(folder))
            print_results(results, None if folder is None else Path(folder))


def _first_csv_logger(config: Any) -> Any:
    """Return the configuration of the CSVLogger that keeps the run folder, after putting it before other loggers.

    The Trainer's folder is that of its first logger, and not every logger has one for each run.
    """
    given = config.trainer.logger
    loggers = given if isinstance(given, list) else [given] if isinstance(given, Namespace) else []
    ours = [logger for logger in loggers if logger.class_path.endswith("CSVLogger")]
    if not ours:
        ours = [dict_to_namespace(_LOGGER)]
    config.trainer.logger = ours[:1] + [logger for logger in loggers if logger is not ours[0]]
    return ours[0]


def run(arguments: Sequence[str]) -> AdversarialCLI:
    """Run one command.

    Raises:
        SystemExit: With status 1 for a mistake of the user's, told in one line; 2 where the arguments do not parse.
    """
    try:
        return AdversarialCLI(resolve_configs(arguments))
    except (ValueError, FloatingPointError) as error:
        told = _told_by_us(error)
        if told is None:
            raise
        sys.stderr.write(f"lightning-adv: error: {told}\n")
        raise SystemExit(1) from error


def _told_by_us(error: BaseException) -> BaseException | None:
    """Return the error of ours that this one is, or wraps; None for a library's, whose traceback is needed.

    Ours are written for the user. jsonargparse wraps those of constructors in its own.
    """
    inner: BaseException | None = error
    while inner is not None:
        frames = list(traceback.walk_tb(inner.__traceback__))
        if frames and str(frames[-1][0].f_globals.get("__name__", "")).startswith("lightning_adv."):
            return inner
        inner = inner.__cause__
    return None
