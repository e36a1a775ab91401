"""Seeds derived from seeds, so that independent streams of random numbers never share one."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import torch

# The streams of a data module. The order of the images and their augmentation must not be correlated.
ORDER = 0
AUGMENTATION = 1
EVALUATION = 2


def run_seed() -> int:
    """Return the seed of ``lightning.seed_everything``, or torch's own where that was not called.

    A resumed run draws from it what one that never stopped would have drawn.
    """
    given = os.environ.get("PL_GLOBAL_SEED")
    return torch.initial_seed() if given is None else int(given)


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that depends on every part, such as run, purpose, epoch, batch and rank.

    A hash, since sums of small numbers would give (epoch 1, batch 0) and (epoch 0, batch 1) the same noise.

    Example:
        >>> derive_seed(0, "train", 1, 0) == derive_seed(0, "train", 0, 1)
        False
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def derive_data_seed(*keys: int) -> int:
    """Return one seed for a tuple of integers, such as (seed, stream, epoch, image).

    It mixes them as :func:`derive_seed` does, but by NumPy's ``SeedSequence``: the order and the augmentation of the
    images of runs of version 0.1 depend on it.

    Args:
        keys: Integers >= 0.

    Returns:
        An integer in [0, 2**63).

    Example:
        >>> derive_data_seed(0, ORDER, 1) == derive_data_seed(1, ORDER, 0)
        False
    """
    return int(np.random.SeedSequence(keys).generate_state(1, np.uint64)[0]) >> 1
