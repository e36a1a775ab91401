"""Seeds derived from seeds, so that independent streams of random numbers never share one."""

from __future__ import annotations

import numpy as np

# The streams of a data module. The order of the images and their augmentation must not be correlated.
ORDER = 0
AUGMENTATION = 1
EVALUATION = 2


def derived_seed(*keys: int) -> int:
    """Return one seed for a tuple of integers, such as (seed, stream, epoch, image).

    Sums of seeds would make epoch 1 of seed 0 the same as epoch 0 of seed 1; NumPy's ``SeedSequence`` mixes them.

    Args:
        keys: Integers >= 0.

    Returns:
        An integer in [0, 2**63).

    Example:
        >>> derived_seed(0, ORDER, 1) == derived_seed(1, ORDER, 0)
        False
    """
    return int(np.random.SeedSequence(keys).generate_state(1, np.uint64)[0]) >> 1
