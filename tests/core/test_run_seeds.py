import itertools

import torch

from lightning_adv.core.seeds import derive_seed, run_seed


def test_every_part_changes_the_seed():
    seeds = {derive_seed(*parts) for parts in itertools.product((0, 1), ("train", "val"), range(10), range(10), (0, 1))}
    assert len(seeds) == 2 * 2 * 10 * 10 * 2
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seed_of_the_run(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert run_seed() == 7
    monkeypatch.delenv("PL_GLOBAL_SEED")
    assert run_seed() == torch.initial_seed()
