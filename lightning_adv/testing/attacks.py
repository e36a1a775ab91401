"""What every attack promises, as one check: for attacks of one's own, and for those of this package."""

from __future__ import annotations

import copy
import random
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_adv.attacks import Attack
from lightning_adv.nn.batchnorm import active_domain, convert_batchnorm, without_domain
from lightning_adv.testing.surroundings import compiled, distributed
from lightning_adv.testing.untouched import Snapshot

Promise: TypeAlias = Literal[
    "result", "network", "independence", "precision", "surroundings", "randomness", "batchnorm"
]
_CLASSES = 5


def check_attack(
    attack: Attack,
    network: nn.Module | None = None,
    x: Tensor | None = None,
    y: Tensor | None = None,
    *,
    leave_out: Collection[Promise] = (),
) -> None:
    """Check that an attack keeps what every attack promises, by some twenty runs on a few images.

    1. ``result``: it is detached, has the dtype and device of the images, and lies in [0, 1] and in the ball.
    2. ``network``: it is left as it was, also where the attack fails midway, and so are the images.
    3. ``independence``: a sample's result does not depend on the others of its batch; parameters have no gradient.
       ``precision``: gradients do not underflow in fp16.
    4. ``surroundings``: it works within ``no_grad`` and ``inference_mode``, under DDP and on a compiled network.
    5. ``randomness``: what is drawn depends on ``generator`` only, and global random states are left alone.
    6. ``batchnorm``: its mode and its domain are those that are asked for.

    And it is a recipe: built again of the arguments that it keeps, it gives the same.

    Args:
        attack: The attack, with as few steps as do.
        network: Maps images (N, C, H, W) to logits (N, K), on the CPU; None is a small one with BatchNorm and Dropout,
            of images (3, 8, 8) and 5 classes. It is copied.
        x: Images (N, C, H, W) in [0, 1]; None are 6 that fit the small network.
        y: Their labels (N,).
        leave_out: Promises that are not checked, such as ``["independence"]`` of an attack of another package, whose
            noise depends on how many samples are left.

    Raises:
        AssertionError: A promise is broken; the message says which.

    Example:
        >>> from lightning_adv.attacks import FGSM
        >>> check_attack(FGSM(eps=0.1))
    """
    if network is None:
        network = _small_network()
    if x is None or y is None:
        x = torch.rand(6, 3, 8, 8, generator=_noise()).mul(1.2).sub(0.1).clamp(0, 1)
        y = torch.arange(6) % _CLASSES
    trial = _Trial(attack, network, x, y)
    checks = {
        "result": _check_result,
        "network": _check_network,
        "randomness": _check_randomness,  # before those that compare runs
        "independence": _check_independence,
        "precision": _check_precision,
        "surroundings": _check_surroundings,
        "batchnorm": _check_batchnorm,
    }
    for promise, check in checks.items():
        if promise not in leave_out:
            check(trial)
    trial.require(
        trial.same(trial.run(type(attack)(**attack.arguments())), trial.run()),
        "recipe",
        "built again of the arguments that it keeps, it gives something else: keep each in an attribute of its name",
    )


class _Trial:
    """An attack, and what it is run on: copies, so that one check does not disturb another."""

    def __init__(self, attack: Attack, network: nn.Module, x: Tensor, y: Tensor) -> None:
        self.attack = attack
        self.x, self.y = x, y
        self._network = network

    def require(self, kept: bool, promise: str, told: str) -> None:
        if not kept:
            raise AssertionError(f"{type(self.attack).__name__} breaks the promise {promise!r}: {told}.")

    def network(self) -> nn.Module:
        """Return a copy in a mixed state: some modules in eval mode, some parameters frozen, some with a gradient."""
        network = copy.deepcopy(self._network).train()
        for number, module in enumerate(network.modules()):
            if number % 3 == 1:
                module.training = False
        for number, parameter in enumerate(network.parameters()):
            parameter.requires_grad_(number % 4 != 1)
            parameter.grad = torch.ones_like(parameter) if number % 2 else None
        return network

    def run(
        self,
        attack: Attack | None = None,
        network: nn.Module | None = None,
        x: Tensor | None = None,
        *,
        domain: str | None = None,
    ) -> Tensor:
        """Return what the attack gives, always with the same noise."""
        attack = self.attack if attack is None else attack
        network = self.network() if network is None else network
        return attack(network, self.x if x is None else x, self.y, domain=domain, generator=_noise())

    def same(self, first: Tensor, second: Tensor) -> bool:
        """Tell whether two results agree, but for entries whose gradient is near zero."""
        return bool(((first.double() - second.double()).abs() < 1e-4).double().mean() > 0.98)


def _check_result(trial: _Trial) -> None:
    attack, x = trial.attack, trial.x
    threat, ball = attack.threat_model, attack.ball
    half = trial.network().to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = trial.run()
    for clean, found in ((x, trial.run()), (x, mixed), (x.bfloat16(), trial.run(network=half, x=x.bfloat16()))):
        told = f"for {clean.dtype} images of shape {tuple(clean.shape)} it gives"
        trial.require(isinstance(found, Tensor) and found.shape == clean.shape, "result", f"{told} something else")
        trial.require(found.dtype == clean.dtype, "result", f"{told} {found.dtype}")
        trial.require(not found.requires_grad, "result", "it is attached to a graph; detach it")
        inside = bool((found >= 0).all() and (found <= 1).all())
        trial.require(inside, "result", f"it leaves [0, 1], from {found.min():g} to {found.max():g}")
        if ball is None or threat.eps is None:
            continue
        length = ball.norm(found.double() - clean.double()).max()
        slack = 4 * torch.finfo(torch.float32).eps * ball.norm(torch.ones_like(clean[:1], dtype=torch.float64)).max()
        trial.require(bool(length <= threat.eps + slack), "result", f"it is {length:g} away, and eps is {threat.eps:g}")


def _check_network(trial: _Trial) -> None:
    network, calls = trial.network(), 0
    before, x, y = Snapshot(network), trial.x.clone(), trial.y.clone()
    grad: list[bool] = []
    parameters = list(network.parameters())

    def look(module: nn.Module, arguments: object, output: object) -> None:
        nonlocal calls
        calls += 1
        grad.extend(parameter.requires_grad for parameter in parameters)

    handle = network.register_forward_hook(look)
    trial.run(network=network)
    handle.remove()
    trial.require((told := before.difference()) is None, "network", f"after the attack {told}")
    trial.require(torch.equal(x, trial.x) and torch.equal(y, trial.y), "network", "it writes to the images or labels")
    trial.require(not any(grad), "independence", "parameters require a gradient during the attack: hold them still")

    def fail(module: nn.Module, arguments: object, output: object) -> None:
        nonlocal calls
        calls -= 1
        if calls <= 1:  # at the last call, or the one before it
            raise _StoppedError

    handle = network.register_forward_hook(fail)
    try:
        trial.run(network=network)
    except _StoppedError:
        pass
    finally:
        handle.remove()
    trial.require((told := before.difference()) is None, "network", f"after an attack that failed midway {told}")


def _check_independence(trial: _Trial) -> None:
    if trial.attack.batchnorm != "eval" or len(trial.x) < 2:
        return
    others = torch.cat([trial.x[:1], 1 - trial.x[1:]])
    kept = trial.same(trial.run()[:1], trial.run(x=others)[:1])
    trial.require(kept, "independence", "a sample's result depends on the others of its batch: sum losses, mix nothing")
    noise, half = _noise(), len(trial.x) // 2
    whole = trial.attack(trial.network(), trial.x, trial.y, generator=noise)
    if torch.equal(noise.get_state(), _noise().get_state()):  # what is drawn may depend on the number of samples
        part = trial.attack(trial.network(), trial.x[:half], trial.y[:half], generator=_noise())
        kept = trial.same(part, whole[:half])
        trial.require(kept, "independence", "a result depends on how many samples there are: sum losses, no mean")


def _check_precision(trial: _Trial) -> None:
    if trial.attack.black_box:
        return
    network = _confident(trial.network(), trial.x, trial.y)
    whole = (trial.run(network=network) != trial.x).double().mean()
    with torch.autocast("cpu", torch.float16):
        half = (trial.run(network=network) != trial.x).double().mean()
    told = f"on a confident network it changes {100 * whole:.0f} % of the pixels, and in fp16 {100 * half:.0f} %"
    trial.require(bool(half >= 0.9 * whole), "precision", f"{told}: its gradients underflow")


def _check_surroundings(trial: _Trial) -> None:
    expected = trial.run()
    for name, context in (("no_grad", torch.no_grad), ("inference_mode", torch.inference_mode)):
        network = trial.network()
        with _told(trial, "surroundings", f"within {name}"), context():
            found = trial.run(network=network, x=trial.x.clone())
        trial.require(trial.same(found, expected), "surroundings", f"within {name} it gives something else")
    with _told(trial, "surroundings", "on a compiled network"), compiled(trial.network()) as network:
        found = trial.run(network=network)
    trial.require(trial.same(found, expected), "surroundings", "on a compiled network it gives something else")
    with _told(trial, "surroundings", "under DDP"), distributed(trial.network()) as (network, uses):
        found = trial.run(network=network)
    trial.require(not uses, "surroundings", "under DDP it goes through the wrapper, which reduces gradients")
    trial.require(trial.same(found, expected), "surroundings", "under DDP it gives something else")


def _check_randomness(trial: _Trial) -> None:
    with torch.random.fork_rng(devices=[]):
        results = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            before = _random_states()
            results.append(trial.run())
            trial.attack(trial.network(), trial.x, trial.y)
            told = "it moves a global random state: draw from the generator"
            trial.require(_random_states() == before, "randomness", told)
    kept = torch.equal(*results)
    trial.require(kept, "randomness", "of the same generator it gives something else: it draws elsewhere, too")


def _check_batchnorm(trial: _Trial) -> None:
    plain, _ = without_domain(trial.network())
    if not any(isinstance(module, _BatchNorm) for module in plain.modules()):
        return
    network = convert_batchnorm(plain) if active_domain(plain) is None else plain
    seen: list[tuple[str | None, set[bool]]] = []
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    network.register_forward_hook(lambda *_: seen.append((active_domain(network), {norm.training for norm in norms})))
    modes: tuple[Literal["eval", "batch"], ...] = ("eval", "batch")
    for mode in modes if trial.attack.says("batchnorm") else (trial.attack.batchnorm,):
        attack = copy.copy(trial.attack)
        attack.batchnorm = mode
        for domain in ("main", "adversarial"):
            seen.clear()
            trial.run(attack, network, domain=domain)
            domains, training = {name for name, _ in seen}, {flag for _, flags in seen for flag in flags}
            if not seen:  # an attack that looks at no network
                continue
            trial.require(domains == {domain}, "batchnorm", f"asked for domain {domain!r}, it goes through {domains}")
            kept = training == {mode == "batch"}
            trial.require(kept, "batchnorm", f"with batchnorm={mode!r} BatchNorms have training flags {training}")
    trial.require(active_domain(network) == "main", "batchnorm", "the network is left in another domain")


class _StoppedError(Exception):
    """What makes an attack fail midway."""


@contextmanager
def _told(trial: _Trial, promise: str, where: str) -> Iterator[None]:
    try:
        yield
    except (AttributeError, RuntimeError) as error:
        trial.require(False, promise, f"{where} it fails: {error}")


def _noise() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _random_states() -> tuple[bytes, str, str]:
    return torch.get_rng_state().numpy().tobytes(), str(np.random.get_state()), str(random.getstate())


def _small_network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2),
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, _CLASSES),
        )  # fmt: skip
        with torch.no_grad():
            for _ in range(3):
                network(torch.rand(16, 3, 8, 8))
    return network


def _confident(network: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    """Return a network that gives the labels (N,) of images (N, ...) as they are, with losses of about 1e-6."""
    return _AddedLogits(network, 14 * nn.functional.one_hot(y, network.eval()(x).shape[1]))


class _AddedLogits(nn.Module):
    """Adds to the logits (N, K) of a network what makes it certain of N images; of other numbers of them, nothing."""

    def __init__(self, network: nn.Module, added: Tensor) -> None:
        super().__init__()
        self.network, self.added = network, added

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits + self.added.to(logits.dtype) if len(images) == len(self.added) else logits
