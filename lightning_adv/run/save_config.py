"""The configuration of a run: in its folder, and with every logger that keeps hyper-parameters."""

from __future__ import annotations

import json

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger


class SaveConfig(SaveConfigCallback):
    """Saves the resolved configuration in the run folder, and sends it to the loggers beside the CSVLogger.

    They get it as it is in ``config.yaml``, nested and with every default: ``wandb.config["model"]["class_path"]`` in
    W&B, ``model/class_path`` among TensorBoard's hyper-parameters. The CSVLogger's folder has the file already.
    """

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Send the configuration; called on the first process only (a Lightning hook)."""
        others = [logger for logger in trainer.loggers if not isinstance(logger, CSVLogger)]
        if not others:  # a dump takes a tenth of a second
            return
        config = json.loads(self.parser.dump(self.config, format="json", skip_unset=False))
        for logger in others:
            logger.log_hyperparams(config)
