"""Seeds derived from seeds, so that independent streams of noise never share one."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that depends on every part, such as run, purpose, epoch, batch and rank.

    A hash, since sums of small numbers would give (epoch 1, batch 0) and (epoch 0, batch 1) the same noise.

    Example:
        >>> derive_seed(0, "train", 1, 0) == derive_seed(0, "train", 0, 1)
        False
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
