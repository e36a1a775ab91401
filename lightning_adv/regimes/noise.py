"""Seeds for the randomness of a run, so that a resumed run draws what one that never stopped would have drawn."""

from __future__ import annotations

import hashlib
import os

import torch


def run_seed() -> int:
    """Return the seed of ``lightning.seed_everything``, or torch's own where that was not called."""
    given = os.environ.get("PL_GLOBAL_SEED")
    return torch.initial_seed() if given is None else int(given)


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that depends on every part: run, purpose, epoch, batch, rank.

    A hash, since sums of small numbers would give (epoch 1, batch 0) and (epoch 0, batch 1) the same noise.

    Example:
        >>> derive_seed(0, "train", 1, 0) == derive_seed(0, "train", 0, 1)
        False
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
