"""The seed of a run, from which a resumed run draws what one that never stopped would have drawn."""

from __future__ import annotations

import os

import torch


def run_seed() -> int:
    """Return the seed of ``lightning.seed_everything``, or torch's own where that was not called."""
    given = os.environ.get("PL_GLOBAL_SEED")
    return torch.initial_seed() if given is None else int(given)
