"""Runs of the real command line that end in seconds."""

from __future__ import annotations

import json
from pathlib import Path

from lightning_adv.cli import main

SHORT = [
    "--trainer.max_epochs=2",
    "--trainer.limit_train_batches=3",
    "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=1",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.enable_progress_bar=false",
    "--trainer.accelerator=cpu",
]
FAST_ATTACK = ["--model.init_args.evaluation_attack.init_args.steps=2"]


def fit(*arguments: str, config: str = "digits/madry", version: int = 0) -> Path:
    """Run ``fit`` in the working directory; return the run folder."""
    main(["fit", "--config", config, *SHORT, *FAST_ATTACK, *arguments])
    return Path("runs") / config.replace("/", "-") / f"version_{version}"


def results(run: Path) -> dict:
    return json.loads((run / "results.json").read_text())
