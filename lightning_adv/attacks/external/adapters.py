"""What the adapters of other packages' attacks share."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lightning_adv.attacks.balls import Ball, bring_inside
from lightning_adv.attacks.forward import at_least_fp32, check_gradient, round_towards
from lightning_adv.core.errors import UsageError


def check_installed(package: str, attack: str, install: str) -> None:
    """Check that a package can be imported, without importing it.

    Raises:
        UsageError: It is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise UsageError(f"{attack} needs the package {package}, which is not installed: pip install '{install}'.")


def draw_seed(generator: torch.Generator) -> int:
    """Return a seed for a package that takes no generator."""
    return int(torch.randint(2**31, (), generator=generator, device=generator.device))


@contextmanager
def own_random_state(seed: int) -> Iterator[None]:
    """Seed every global random state, and give all of them back as they were."""
    import numpy as np

    # All devices: torch.manual_seed, which the packages call, seeds each of them.
    accelerator = torch.accelerator.current_accelerator()
    devices = range(torch.accelerator.device_count()) if accelerator is not None else ()
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def single_precision() -> Iterator[None]:
    """Let tensors of no given dtype be fp32, as the packages expect; Lightning's 64-true makes them fp64."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)


@contextmanager
def missing_gradient_told(forward: Callable[[Tensor], Tensor], images: Tensor) -> Iterator[None]:
    """Say what torch's error means where a package asks for a gradient that there is not.

    Raises:
        NoGradientError: The logits have no gradient to the images (N, ...).
    """
    try:
        yield
    except (AssertionError, RuntimeError):  # Foolbox asserts
        check_gradient(forward, images)
        raise


def inside_as_given(ball: Ball, x: Tensor, adversarial: Tensor, eps: float) -> Tensor:
    """Return ``adversarial`` (N, ...) in the ball around ``x`` (N, ...) and in [0, 1], in ``x``'s dtype."""
    clean = at_least_fp32(x)
    return round_towards(x, bring_inside(ball, clean, adversarial.to(clean.dtype), eps))
