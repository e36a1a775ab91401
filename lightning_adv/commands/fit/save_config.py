"""The configuration of a run: in its folder, and with every logger that keeps hyper-parameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger

from lightning_adv.core.files import write_whole


class SaveConfig(SaveConfigCallback):
    """Saves the resolved configuration in the run folder, and sends it to the loggers beside the CSVLogger.

    They get it as it is in ``config.yaml``, nested and with every default: ``wandb.config["model"]["class_path"]`` in
    W&B, ``model/class_path`` among TensorBoard's hyper-parameters. The CSVLogger's folder has the file already.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.save_to_log_dir = False  # Lightning's way is cut by a kill

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write and send the configuration; called on the first process only (a Lightning hook)."""
        folder = trainer.loggers[0].log_dir  # the Trainer's is a collective call
        write_whole(Path(str(folder)) / self.config_filename, self.parser.dump(self.config, skip_unset=False))
        others = [logger for logger in trainer.loggers if not isinstance(logger, CSVLogger)]
        if not others:  # a dump takes a tenth of a second
            return
        config = json.loads(self.parser.dump(self.config, format="json", skip_unset=False))
        for logger in others:
            logger.log_hyperparams(config)
