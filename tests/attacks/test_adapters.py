import random
from contextlib import suppress

import numpy as np
import pytest
import torch

from lightning_adv.attacks import AutoAttack, FoolboxAttack
from lightning_adv.attacks.balls import L1, L2, Linf
from lightning_adv.attacks.external.adapters import check_installed, draw_seed, inside_as_given, own_random_state

ORDERS = {Linf: np.inf, L2: 2, L1: 1}


def _states():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


def _draw():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()


def test_random_states_are_set_inside_and_as_before_outside_even_after_an_error():
    before = _states()
    with own_random_state(3):
        first = _draw()
    with suppress(KeyError), own_random_state(3):
        again = _draw()
        raise KeyError
    with own_random_state(4):
        other = _draw()
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))
    assert _states() == before


def test_seeds_come_from_the_generator():
    generator = torch.Generator().manual_seed(0)
    seeds = [draw_seed(generator) for _ in range(100)]
    assert len(set(seeds)) == 100
    assert all(0 <= seed < 2**32 for seed in seeds)  # what NumPy takes
    assert draw_seed(torch.Generator().manual_seed(0)) == seeds[0]


@pytest.mark.parametrize("ball", ORDERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_what_is_outside_comes_in_and_what_is_inside_stays(ball, dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 1, 3, 3, generator=generator).to(dtype)
    far = x.float() + torch.randn(40, 1, 3, 3, generator=generator)
    inside = inside_as_given(ball(), x, far, 0.5)
    assert inside.dtype == dtype
    assert (inside.double() - x.double()).flatten(1).norm(ORDERS[ball], 1).max() <= 0.5 * (1 + 1e-6)
    assert inside.min() >= 0
    assert inside.max() <= 1
    assert (inside != x).flatten(1).any(1).all()
    if dtype == torch.float32:
        assert torch.equal(inside_as_given(ball(), x, inside, 0.6), inside)


def test_a_package_that_is_not_there():
    check_installed("torch", "Ours", "torch")
    with pytest.raises(ValueError, match=r"Ours needs the package no_such_package.*pip install 'extra\[eval\]'\."):
        check_installed("no_such_package", "Ours", "extra[eval]")


@pytest.mark.slow
@pytest.mark.parametrize("attack", [AutoAttack(eps=0.1, norm="linf", attacks=["apgd-ce"]),
                                    AutoAttack(eps=1, norm="l1", attacks=["apgd-ce"]),
                                    FoolboxAttack("LinfDeepFoolAttack", eps=0.1)])  # fmt: skip
def test_a_default_dtype_of_64_bits_changes_nothing(attack):
    """Lightning's 64-true sets it; a network in fp64 is attacked in fp32 all the same."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
    x = torch.rand(6, 1, 8, 8)
    y = network(x).argmax(1)
    network, x = network.double(), x.double()
    expected = attack(network, x, y, generator=torch.Generator().manual_seed(1))
    try:
        torch.set_default_dtype(torch.float64)
        found = attack(network, x, y, generator=torch.Generator().manual_seed(1))
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert (expected != x).any()
    assert torch.equal(found, expected)
