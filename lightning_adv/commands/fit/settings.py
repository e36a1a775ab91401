"""What makes LightningCLI the command line of this package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningDataModule

from lightning_adv.commands.fit.logger import DEFAULT_LOGGER
from lightning_adv.commands.fit.save_config import SaveConfig
from lightning_adv.commands.shared.parser import Parser
from lightning_adv.regimes import Regime


def own_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that LightningCLI gets: this package's, and over them those given.

    Args:
        given: Arguments of LightningCLI. Its two dictionaries, ``parser_kwargs`` and ``trainer_defaults``, are merged.
    """
    own: dict[str, Any] = {
        "model_class": Regime,
        "datamodule_class": LightningDataModule,
        "subclass_mode_model": True,
        "subclass_mode_data": True,
        "auto_configure_optimizers": False,
        "save_config_callback": SaveConfig,
        "seed_everything_default": 0,
        "parser_class": Parser,
        # Without this, --trainer.max_epoch would be taken for --trainer.max_epochs.
        "parser_kwargs": {"prog": "lightning-adv", "allow_abbrev": False},
        # One whole batch says before training whether validation works and fits into memory. Lightning's second would
        # say nothing more, and costs as much as several training steps: it is attacked too.
        "trainer_defaults": {"logger": DEFAULT_LOGGER, "num_sanity_val_steps": 1},
    }
    merged = {name: {**own[name], **given.get(name, {})} for name in ("parser_kwargs", "trainer_defaults")}
    return {**own, **given, **merged}
