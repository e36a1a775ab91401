"""What a command gives to the Trainer beside what the user has set: observers, a logger, a way to synchronise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

from lightning_adv.callbacks import Throughput, TrainingCurves
from lightning_adv.callbacks.learning_rate import LearningRate
from lightning_adv.commands.fit.epoch_lines import EpochLines, wants_lines
from lightning_adv.commands.fit.logger import RunLogger
from lightning_adv.commands.fit.predictions import PredictionTable
from lightning_adv.commands.shared.stopping import Together

GIVEN = ("enable_progress_bar", "callbacks", "plugins", "logger")
"""The Trainer's arguments, as objects, that the functions below look at."""


def own_callbacks(command: str, given: Mapping[str, Any], checks: Sequence[Callback]) -> list[Callback]:
    """Return the observers that every run has.

    Args:
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        given: The arguments :data:`GIVEN`.
        checks: What looks at a run that trains.
    """
    own: dict[str, list[Callback]] = {
        "fit": [Throughput(), TrainingCurves(), LearningRate(logging_interval="epoch"), *checks],
        "predict": [PredictionTable()],
    }
    lines = [EpochLines()] if wants_lines(given["enable_progress_bar"], given["callbacks"]) else []
    return [*own.get(command, []), Together(), *lines]


def own_options(config: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the Trainer that are other than the user's.

    Args:
        config: The Trainer's configuration.
        given: The arguments :data:`GIVEN`.
    """
    options: dict[str, Any] = {}
    if config.get("sync_batchnorm"):
        from lightning_adv.regimes.sync_batchnorm import TimmSyncBatchNorm  # imports timm

        # torch's converter, the default, loses the activation of timm's BatchNormAct2d
        others = given["plugins"]
        others = others if isinstance(others, list) else [] if others is None else [others]
        options["plugins"] = [*others, TimmSyncBatchNorm()]
    loggers = given["logger"]
    if type(loggers[0]) is CSVLogger:  # not one of the user's own
        options["logger"] = [RunLogger(**vars(config.logger[0].init_args)), *loggers[1:]]
    if wants_lines(given["enable_progress_bar"], given["callbacks"]):
        options["enable_progress_bar"] = False
    return options
