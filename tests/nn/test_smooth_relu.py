"""SmoothReLU against 60 decimal digits, and its α."""

import math
from decimal import Decimal, localcontext

import pytest
import torch
from torch.func import functional_call

from lightning_adv.nn.smooth_relu import SmoothReLU, renew_alpha
from lightning_adv.nn.weights.load import load_weights


def _exact(x, alpha):
    """Equation 5.4 and its derivatives by x (equation 5.5) and by α, for floats that are taken as they are."""
    with localcontext() as context:
        context.prec = 60
        x, alpha = Decimal(x), Decimal(alpha)
        if x < 0:
            return [0.0, 0.0, 0.0]
        z = alpha * x
        by_alpha = ((1 + z).ln() - z / (1 + z)) / alpha**2
        return [float(value) for value in (x - (1 + z).ln() / alpha, z / (1 + z), by_alpha)]


def _computed(activation, x):
    x = x.clone().requires_grad_()
    alpha = activation.alpha
    y = activation(x)
    by_x, by_beta = torch.autograd.grad(y, [x, activation.beta])
    beta_to_alpha = torch.autograd.grad(alpha, activation.beta)[0]
    return [value.item() for value in (y, by_x, by_beta / beta_to_alpha)]


# from where α·x is 1e-6 and x - log(1 + αx) / α has lost every digit of float32, through the seam at α·x = 1/2, to 1e6
POINTS = [-1e4, -1.0, -1e-8, 0.0, 1e-8, 1e-6, 1e-4, 1e-3, 0.00124999, 0.00125001, 0.01, 0.5, 1.0, 30.0, 1e4]


@pytest.mark.parametrize("alpha", [0.01, 1.0, 400.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equations_5_4_and_5_5_to_rounding(dtype, alpha):
    activation = SmoothReLU(alpha).to(dtype)
    for point in POINTS:
        x = torch.tensor(point, dtype=dtype)
        expected = _exact(x.item(), activation.alpha.item())
        assert _computed(activation, x) == pytest.approx(expected, rel=16 * torch.finfo(dtype).eps, abs=1e-37)


def test_bfloat16_features_cost_only_their_own_rounding():
    activation = SmoothReLU()
    for point in POINTS:
        x = torch.tensor(point, dtype=torch.bfloat16)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y, by_x, by_alpha = _computed(activation, x)
            assert activation(x).dtype == torch.bfloat16
        expected = _exact(x.item(), 400.0)
        assert [y, by_x] == pytest.approx(expected[:2], rel=2**-8, abs=1e-37)
        assert by_alpha == pytest.approx(expected[2], rel=1e-6, abs=1e-37)


def test_gradcheck_by_features_and_by_alpha():
    activation = SmoothReLU(3.0).double()

    def call(x, beta):
        return functional_call(activation, {"beta": beta}, x)

    x = torch.tensor([-1.0, -0.1, 1e-3, 0.05, 0.16, 0.17, 0.9, 5.0], dtype=torch.float64, requires_grad=True)
    beta = activation.beta.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(call, (x, beta))
    assert torch.autograd.gradgradcheck(call, (x, beta))


def test_alpha_starts_where_it_is_told_to():
    assert SmoothReLU().alpha.item() == 400.0
    for alpha in (1e-3, 0.5, 1.0, 19.0, 21.0, 1e5):
        assert SmoothReLU(alpha).alpha.item() == pytest.approx(alpha, rel=3e-7)
    assert "alpha=400" in repr(SmoothReLU())
    (parameter,) = SmoothReLU().parameters()  # one, for all channels
    assert parameter.shape == ()


def test_alpha_stays_positive_whatever_the_optimizer_does():
    x = torch.tensor([-2.0, 0.0, 1e-7, 3.0], requires_grad=True)
    for beta in (-1e18, -200.0, -1e-9, 0.0, 1e5):
        activation = SmoothReLU()
        with torch.no_grad():
            activation.beta.fill_(beta)
        assert activation.alpha > 0
        y = activation(x)
        gradients = torch.autograd.grad(y.sum(), [x, activation.beta])
        assert all(tensor.isfinite().all() for tensor in (y, *gradients))


def test_alpha_moves_by_gradients_that_are_too_small_for_a_number_of_400():
    """Where α is 400 a ResNet's gradients by it are 1e-10 to 1e-6 (here 1e-6): steps of 1e-7 leave 400.0 as it is."""
    activation = SmoothReLU()
    optimizer = torch.optim.SGD(activation.parameters(), lr=0.1)
    direct = torch.tensor(400.0)
    for _ in range(100):
        optimizer.zero_grad()
        (activation.alpha * 1e-6).backward()
        optimizer.step()
        direct -= 0.1 * 1e-6
    assert direct.item() == 400.0
    # dβ = -lr 2β g, and so dα = -4 α lr g a step
    assert activation.alpha.item() == pytest.approx(400 * (1 - 4e-7) ** 100, abs=2e-3)
    assert activation.alpha.item() < 399.99


OLD_STATES = [400.0, 399.99997, 1.5, -3.0, -30.0, 1e5]


@pytest.mark.parametrize("raw_alpha", OLD_STATES)
def test_a_state_dict_of_before_loads_with_the_same_alpha(raw_alpha):
    old = {"1.raw_alpha": torch.tensor(raw_alpha), "0.weight": torch.eye(2)}
    expected = max(math.log1p(math.exp(raw_alpha)) if raw_alpha < 50 else raw_alpha, SmoothReLU.SMALLEST)
    network = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), SmoothReLU(7.0))
    network.load_state_dict(old)
    assert network[1].alpha.item() == pytest.approx(expected, rel=3e-7)
    assert list(old) == ["1.raw_alpha", "0.weight"]  # what was given is not changed


def test_a_weights_file_of_before_is_read(tmp_path):
    """By the loader that compares the keys first; a network with a raw_alpha of its own keeps it."""
    network = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), SmoothReLU(7.0))
    torch.save({"state_dict": {"1.raw_alpha": torch.tensor(400.0), "0.weight": torch.eye(2)}}, tmp_path / "old.pth")
    load_weights(network, tmp_path / "old.pth")
    assert network[1].alpha.item() == 400.0
    state = {"raw_alpha": torch.tensor(1.0)}
    assert renew_alpha(state, {"raw_alpha", "beta"}) == state
