"""The promises of attacks on networks of several families, on views, and in numbers.

tests/testing has each attack on one network. AutoAttack's are in test_autoattack: it returns clean what it does not
break.
"""

import copy
from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_adv.attacks import (
    APGD,
    FGSM,
    PGD,
    CarliniWagner,
    StAdv,
    held_still,
)
from lightning_adv.nn.view.attack_view import attack_view
from lightning_adv.testing import check_attack
from tests.seeded import seeded

DIVERSE = {"diversity_probability": 1, "diversity_scale": 0.8}  # below 1: a ViT takes one size only
# So large a constant that few steps succeed; from the predicted label, as a wrong sample would not move.
NEAREST = {"steps": 10, "learning_rate": 0.05, "initial_const": 1e3, "binary_search_steps": 2, "label": "predicted"}
# For each attack how it is built, the order of its norm, and how far it may go.
ATTACKS = {
    "linf": (lambda: PGD(eps=0.03, steps=2, step_size=0.02), np.inf, 0.03),
    "l2": (lambda: PGD(eps=0.5, steps=2, step_size=0.3, norm="l2"), 2, 0.5),
    "l1": (lambda: PGD(eps=4, steps=2, step_size=3, norm="l1"), 1, 4),
    "CarliniWagner": (lambda: CarliniWagner(eps=9, **NEAREST), 2, 9),
    "D-C&W": (lambda: CarliniWagner(eps=9, **DIVERSE | {"diversity_probability": 0.5}, **NEAREST), 2, 9),
    "APGD": (lambda: APGD(eps=0.03, steps=3), np.inf, 0.03),
    "APGD l2": (lambda: APGD(eps=0.5, steps=3, norm="l2", loss="dlr", restarts=2), 2, 0.5),
}  # fmt: skip
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def _autocast(precision):
    return torch.autocast("cpu", PRECISIONS[precision], enabled=precision != "fp32")


def _assert_inside(x, x_adv, order, radius):
    delta = (x_adv.double() - x.double()).flatten(1).numpy()
    # What adding a perturbation to an image below 1 may round, in fp32, in each pixel.
    rounding = np.linalg.norm(np.full(delta.shape[1], 2.0**-25), order) + radius * 2.0**-22
    assert np.linalg.norm(delta, order, axis=1).max() <= radius + rounding
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet", "efficientnet", "vit"])
def test_networks_of_several_families(build, images, name):
    check_attack(PGD(eps=0.03, steps=2, step_size=0.02), build(name), *images)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("network", ["cnn", "efficientnet"])
@pytest.mark.parametrize("attack", ["linf", "D-C&W", "APGD l2"])
def test_on_a_view_of_the_network(build, images, mixed, state_of, attack, network, dtype):
    (build_attack, order, radius), (x, y) = ATTACKS[attack], images
    network = mixed(build(network))
    before, view = state_of(network), attack_view(network, dtype=dtype)
    x_adv = build_attack()(view, x, y, generator=seeded())
    assert state_of(network) == before
    _assert_inside(x, x_adv, order, radius)
    assert (x_adv.dtype, x_adv.requires_grad) == (x.dtype, False)
    assert (x_adv != x).flatten(1).any(1).all()
    assert not any(parameter.requires_grad for parameter in view.parameters())
    assert not any(module.training for module in view.modules())


# 1. The result


@pytest.mark.parametrize("attack", ["linf", "l2", "l1", "CarliniWagner", "APGD", "APGD l2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_images_in_half_precision(build, images, dtype, attack):
    build_attack, order, radius = ATTACKS[attack]
    x, y = images[0].to(dtype), images[1]
    x_adv = build_attack()(build("cnn").to(dtype), x, y, generator=seeded())
    assert x_adv.dtype == dtype
    _assert_inside(x, x_adv, order, radius)
    assert (x_adv != x).float().mean() > (0.005 if attack == "l1" else 0.5)


class Signs(nn.Module):
    """A linear classifier whose loss grows with the first half of the pixels and falls with the second."""

    def forward(self, x):
        up, down = x.flatten(1).chunk(2, dim=1)
        return torch.stack([(down - up).sum(1), (up - down).sum(1)], dim=1)


@pytest.mark.parametrize("eps", [1 / 255, 4 / 255, 8 / 255, 16 / 255, 0.05, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_no_number_of_a_half_precision_leaves_the_ball(dtype, eps):
    # All of [0, 1]: the numbers' bit patterns are consecutive.
    last = torch.ones((), dtype=dtype).view(torch.int16).item()
    numbers = torch.arange(last + 1, dtype=torch.int16).view(dtype)
    x = torch.cat([numbers, numbers])[None]
    x_adv = FGSM(eps=eps)(Signs(), x, torch.tensor([0]))
    assert ((x_adv.double() - x.double()).abs() <= max(eps, np.float32(eps).item())).all()
    assert ((x_adv >= 0) & (x_adv <= 1)).all()
    up, down = x_adv.chunk(2, dim=1)
    spacing = numbers.double().diff().max()
    assert (up.double() >= (numbers.double() + eps).clamp(max=1) - spacing).all()
    assert (down.double() <= (numbers.double() - eps).clamp(min=0) + spacing).all()


# 2. The model


def test_the_context_of_every_attack(build, images, mixed, state_of):
    network = mixed(build("efficientnet"))
    before = state_of(network)
    with suppress(KeyboardInterrupt), torch.inference_mode(), held_still(network, batchnorm="batch") as held:
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        assert {module.training for module in held.modules() if isinstance(module, _BatchNorm)} == {True}
        assert not any(module.training for module in held.modules() if not isinstance(module, _BatchNorm))
        held(images[0])
        raise KeyboardInterrupt
    assert state_of(network) == before


# 3. Gradients


@pytest.fixture(scope="module")
def confident(digits, train):
    """A network with a loss of 1e-7 on its 200 training images, which leave the edges of [0, 1] alone."""
    x, y = 0.8 * digits[0][:200] + 0.1, digits[1][:200]
    network = train(x, y, epochs=60)
    with torch.no_grad():
        network[-1].weight *= 1.4
    return network, x, y


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.999), ("bf16", 0.985), ("fp16", 0.995)])
def test_gradients_do_not_underflow(confident, precision, least):
    network, x, y = confident
    images = x.double().requires_grad_()
    loss = F.cross_entropy(copy.deepcopy(network).double()(images), y, reduction="none")
    reference = torch.autograd.grad(loss.sum(), images)[0].sign()
    assert loss.median() < 1e-6

    def agreement(direction):
        return (direction.sign() == reference).double().mean().item(), (direction == 0).double().mean().item()

    with _autocast(precision):
        agree, zero = agreement(FGSM(eps=0.05)(network, x, y) - x)
    assert agree > least
    assert zero < 0.001
    with _autocast(precision):  # the usual way, to see that there is something to get wrong
        images = x.clone().requires_grad_()
        loss = F.cross_entropy(network(images).float(), y)
    agree, zero = agreement(torch.autograd.grad(loss, images)[0])
    assert agree < (0.1 if precision == "fp16" else 0.95)
    assert (zero > 0.9) == (precision == "fp16")


# 5. Randomness


@pytest.mark.parametrize(
    "attack", [PGD(eps=0.1), StAdv(steps=3, label="random")], ids=lambda attack: type(attack).__name__
)
def test_without_a_generator_each_call_draws_anew(build, images, attack):
    network = build("cnn")

    def results(seed):
        built = copy.deepcopy(attack)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return [built(network, *images) for _ in range(2)]

    (first, second), again, (other, _) = results(0), results(0), results(1)
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])


class _Observes(nn.Module):
    """Widens its range in eval mode too, as a fake-quantiser does, in a buffer that it resizes."""

    def __init__(self):
        super().__init__()
        self.register_buffer("highest", torch.zeros(0))
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x):
        with torch.no_grad():
            self.highest.resize_(1).copy_(x.max().view(1))
        self.calls = self.calls + 1  # another tensor each time
        return x


def test_buffers_that_change_in_eval_mode_are_put_back():
    torch.manual_seed(0)
    observer = _Observes()
    network = nn.Sequential(observer, nn.Flatten(), nn.Linear(12, 2))
    highest, calls = observer.highest, observer.calls
    PGD(0.1, 2, 0.05)(network, torch.rand(3, 3, 2, 2), torch.tensor([0, 1, 0]))
    assert observer.highest is highest
    assert observer.calls is calls
    assert highest.shape == (0,)
    assert calls == 0


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_gradient_that_is_no_number_moves_nothing(norm):
    class Deviation(nn.Module):
        def forward(self, x):  # the square root's slope at zero is infinite, times zero
            return torch.stack([x.flatten(1).var(1).sqrt(), x.flatten(1).mean(1)], 1)

    x = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    x[0] = 0
    x_adv = PGD(0.5, 2, 0.3, norm=norm, start="zero")(Deviation(), x, torch.tensor([0, 0]))
    assert torch.equal(x_adv[0], x[0])
    assert not torch.equal(x_adv[1], x[1])
    assert not x_adv.isnan().any()
