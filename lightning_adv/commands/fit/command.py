"""The LightningCLI of the project: ``fit``, ``validate``, ``test`` and ``predict``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only

import lightning_adv.data  # noqa: F401 (what is imported can be named by its class name alone)
from lightning_adv.callbacks import BestCheckpoint, InitialCheckpoint, LastCheckpoint
from lightning_adv.commands.fit.finders import use_finders
from lightning_adv.commands.fit.logger import first_csv_logger
from lightning_adv.commands.fit.placing import Held, check_resumable, check_vacant, holding, place_of, taking_a_version
from lightning_adv.commands.fit.reporting import ReportingCLI
from lightning_adv.commands.fit.settings import own_settings
from lightning_adv.commands.fit.trainer_parts import GIVEN, own_callbacks, own_options
from lightning_adv.commands.fit.trainer_values import check_trainer, check_values, write_out_defaults
from lightning_adv.commands.fit.unlabelled import UnlabelledFolder
from lightning_adv.commands.shared.configs import resolve_configs
from lightning_adv.commands.shared.held_out import HeldOutCheck, check_gives
from lightning_adv.commands.shared.mistakes import check_parsed
from lightning_adv.commands.shared.parser import read_files_as_data
from lightning_adv.commands.shared.run_folder import (
    RunFolderRollback,
    check_epochs,
    check_run_checkpoint,
    continue_metrics,
    run_folder_of,
)
from lightning_adv.commands.shared.stopping import how_to_go_on, stopping_signal
from lightning_adv.commands.shared.telling import told_in_one_line
from lightning_adv.commands.shared.trusting import add_trust, trust_given
from lightning_adv.core.errors import UsageError
from lightning_adv.core.files import set_aside
from lightning_adv.nn.weights.load import read_checkpoint


class AdversarialCLI(ReportingCLI):
    """Trains a regime, tests its best checkpoint, and leaves everything in one run folder.

    A program of one's own derives from it as from LightningCLI: :meth:`add_arguments_to_parser`, ``before_fit`` and the
    others call ``super()``.

    Args:
        args: The command line without the program's name; None takes that of the process. Configurations may be given
            by their names, such as ``digits/madry``.
        run: Whether a command is run, which the line begins with. False only builds ``model``, ``datamodule`` and
            ``trainer`` from the options of ``fit``; their run folder is made when the Trainer fits.
        **options: Further arguments of LightningCLI, such as ``trainer_defaults``, which are added to this package's.

    Example:
        >>> line = ["--config", "digits/standard", "--trainer.logger", "false", "--trainer.max_epochs", "1"]
        >>> cli = AdversarialCLI(line, run=False)
        >>> type(cli.model).__name__, cli.datamodule.batch_size, cli.trainer.max_epochs
        ('StandardTraining', 64, 1)
    """

    def __init__(self, args: Sequence[str] | None = None, *, run: bool = True, **options: Any) -> None:
        read_files_as_data()
        self._rollback = RunFolderRollback()
        self._held_out = HeldOutCheck()
        self._held = Held()
        line = resolve_configs(sys.argv[1:] if args is None else args)
        self._asked = line[0] if line else None
        try:
            super().__init__(args=line, run=run, **own_settings(options))
        except BaseException as error:  # an interrupt too
            self._rollback.undo()
            number = stopping_signal(error)
            if number is None:
                if isinstance(error, OSError):  # other errors advise what to change
                    error.add_note(how_to_go_on(self._rollback.folder))
                raise
            rank_zero_only(sys.stderr.write)(f"Stopped by {number.name}.{how_to_go_on(self._rollback.folder)}\n")
            raise SystemExit(128 + number) from error
        else:
            self._tell_what_is_lost()
        finally:
            self._held.close()

    def _tell_what_is_lost(self) -> None:
        """End with a failing status where training went on without a file that it could not write.

        Raises:
            SystemExit: With status 1, after a sentence that names them.
        """
        writers = [*self.trainer.loggers, *self.trainer.callbacks] if hasattr(self, "trainer") else []  # type: ignore[attr-defined]
        lost = [told for writer in writers if isinstance(told := getattr(writer, "lost", None), str)]
        if lost:
            rank_zero_only(sys.stderr.write)(
                f"lightning-adv: error: Not everything could be written: {', '.join(lost)}.\n"
            )
            raise SystemExit(1)

    # Arguments ----------------------------------------------------------------------------------------------------

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning's is static, and asked of self
        """Return the subcommand that is asked for, or all where an option comes first: each gets a parser built."""
        known = LightningCLI.subcommands()
        return {name: skipped for name, skipped in known.items() if name == self._asked} or known

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the checkpoints, so that a configuration can set when they are written, and whom files may name."""
        parser.add_lightning_class_args(BestCheckpoint, "best_checkpoint")
        parser.add_lightning_class_args(LastCheckpoint, "last_checkpoint")
        parser.add_lightning_class_args(InitialCheckpoint, "initial_checkpoint")
        add_trust(parser)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Let ``predict`` take a folder of images."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "predict":
            parser.add_argument(
                "--folder",
                type=str,
                help="A folder of images without labels to predict, in place of the data module's images.",
            )
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the arguments given; LightningCLI's own method warns whenever ``sys.argv`` is there too."""
        self.config = parser.parse_args(args)  # type: ignore[arg-type]  # a list: see __init__
        self.subcommand = self.config.get("subcommand")  # Lightning sets it later
        write_out_defaults(self._run_config)
        check_values(self._run_config)  # before the seed is set

    def _parse_ckpt_path(self) -> None:
        """Leave the configuration alone: LightningCLI lets a checkpoint's arguments override what the user typed."""

    def before_instantiate_classes(self) -> None:
        """Check what would fail late, and go on in the run folder of a run that is resumed.

        Raises:
            UsageError: The Trainer is set up in a way that a run cannot end in, the regime lacks a part, or the
                checkpoint is none of a run.
        """
        config, parser = self._run_config, self._parser(self.subcommand)
        trust_given(config.get("trust"))
        check_trainer(config.trainer)
        check_parsed(parser, config)
        path = config.get("ckpt_path")
        if self.subcommand is not None:  # Checkpoints are data: nothing that is loaded may run code.
            config["weights_only"] = True
        logger = first_csv_logger(config).init_args
        if path is not None:
            check_run_checkpoint(path, resumes=self.subcommand == "fit")
        if path is not None and self.subcommand == "fit":
            check_epochs(path, config.trainer.max_epochs)
        if path is not None and config.get("folder") is not None:  # of which nobody can say how many classes there are
            arguments = config.model.get("init_args") or {}
            if "num_classes" in arguments and arguments["num_classes"] is None:
                arguments["num_classes"] = _trained(path, "hyper_parameters", "num_classes")
        folder = None if path is None else run_folder_of(path)
        if self.subcommand == "fit" and folder is not None:
            above = folder.parent if Path(path).is_absolute() else Path(os.path.relpath(folder.parent))
            vars(logger).update({"save_dir": str(above), "name": "", "version": folder.name})
            self.save_config_kwargs = {"config_filename": "config-resumed.yaml"}
        self._given_place = vars(logger).copy()
        if self.subcommand not in (None, "fit"):
            vars(logger).update(place_of(str(self.subcommand), vars(logger), path))
        self._has_version = logger.get("version") is not None
        use_finders(config, parser, resumed=path is not None, trains=self.subcommand in (None, "fit"))
        vars(self).pop("config_dump", None)  # Lightning's copy of the configuration, made while the finders looked

    def after_instantiate_classes(self) -> None:
        """Let the configuration that is saved name the place that was given, and take a folder in place of the data."""
        config = self._run_config
        vars(first_csv_logger(config).init_args).update(self._given_place)
        if (folder := config.get("folder")) is not None:
            path = config.get("ckpt_path")
            shape = None if path is None else _trained(path, "regime", "image_shape")
            self.datamodule = UnlabelledFolder(folder, self.datamodule, shape)

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Add the observers that every run has."""
        given = {name: self._get(self.config_init, f"trainer.{name}") for name in GIVEN}
        checks = [self._rollback, self._held_out]
        users = self.trainer_defaults.get("callbacks", [])
        own = own_callbacks(self.subcommand or "fit", given, checks)
        self.trainer_defaults["callbacks"] = [*(users if isinstance(users, list) else [users]), *own]
        kwargs |= own_options(self._run_config.trainer, given)
        try:
            return super().instantiate_trainer(**kwargs)
        except (ValueError, TypeError, MisconfigurationException) as error:  # Lightning's, of its values
            raise UsageError(f"trainer cannot be built: {' '.join(str(error).split())}") from error

    # Subcommands --------------------------------------------------------------------------------------------------

    def before_fit(self) -> None:
        """Make sure that the run folder can be written before anything is computed."""
        path = self.config["fit"].get("ckpt_path")
        resumed = None if path is None else run_folder_of(path)
        if resumed is not None and self.trainer.is_global_zero and not self._is_dry():
            check_resumable(resumed)
        folder = self._prepare_folder()
        if folder is None:
            return
        if path is None or resumed is None:
            check_vacant(folder)
            return
        set_aside(folder / "results.json")  # they are of the run before: this one may be killed before it has its own
        for logger in self.trainer.loggers[:1]:
            if isinstance(logger, CSVLogger):
                continue_metrics(logger, path)

    def before_validate(self) -> None:
        """Make sure that there are images, and that the run folder can be written."""
        check_gives(self.datamodule, {"validate": "val"}.get(str(self.subcommand), str(self.subcommand)))
        self._prepare_folder()

    before_test = before_predict = before_validate

    def _prepare_folder(self) -> Path | None:
        """Return the run folder, which can be written; None where it is not up to this process, or there is none."""
        if not self.trainer.is_global_zero or self._is_dry():
            return None
        logger = self.trainer.loggers[0]  # no other process asks for its folder yet: see first_csv_logger
        if self._has_version:
            new = not os.path.exists(str(logger.log_dir))  # False of a path that is too long, where Path raises
        else:
            with taking_a_version(Path(str(logger.root_dir))):
                folder = Path(str(logger.log_dir))  # CSVLogger chooses the version now
                folder.mkdir()
            new = True
        folder = Path(str(logger.log_dir))
        self._held.enter_context(holding(folder))
        self._rollback.remember(folder, new=new)
        return folder


def _trained(path: str, *keys: str) -> Any:
    """Return what a checkpoint says under some keys; None if it says nothing."""
    content: Any = read_checkpoint(path, argument="ckpt_path")
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content


def run(arguments: Sequence[str], cli: type[AdversarialCLI] | None = None) -> AdversarialCLI:
    """Run one command.

    Args:
        arguments: The command line without the program's name, with the configurations' paths in place of their names.
        cli: The class that runs it; None is :class:`AdversarialCLI`.

    Raises:
        SystemExit: With status 1 for a mistake of the user's, told in one line; 2 where the arguments do not parse; 128
            and the signal's number after SIGTERM and Ctrl-C.
    """
    # The latter is Lightning's for what the user has set, found when the data are there.
    with told_in_one_line("lightning-adv", also=(MisconfigurationException,)):
        return (AdversarialCLI if cli is None else cli)(arguments)
