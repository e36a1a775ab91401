"""What every test finds: one thread, a random state that depends on no other test, and nothing that another left."""

import os

# On small networks several threads are slower, far slower beside other tests. Processes that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # otherwise each test process starts a pool of compilers
os.environ.setdefault("WANDB_MODE", "offline")

import logging
import random
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

torch.set_num_threads(1)

# seed_everything leaves its seeds in the environment, and a strategy of several processes the place where they met.
LEFT_BEHIND = (
    "PL_GLOBAL_SEED", "PL_SEED_WORKERS", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "RANK", "LOCAL_RANK", "WORLD_SIZE",
)  # fmt: skip


def seed(number: int) -> None:
    """Seed all that draws: which tests ran before in this process is chance where several processes share them."""
    for seed_it in (torch.manual_seed, np.random.seed, random.seed):
        seed_it(number)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> None:
    """Seed a fixture by its name, so that two do not draw the same."""
    seed(zlib.crc32(fixturedef.argname.encode()))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """Seed a test or doctest."""
    seed(0)


@pytest.fixture(autouse=True)
def _nothing_of_another_test() -> Iterator[None]:
    logger = logging.getLogger("lightning_adv")  # which the commands give a handler of their own for a time
    logger.propagate, logger.disabled = True, False
    logger.setLevel(logging.NOTSET)
    yield
    for name in LEFT_BEHIND:
        os.environ.pop(name, None)
