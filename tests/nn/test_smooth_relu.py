"""SmoothReLU against 60 decimal digits, and its α."""

import copy
from decimal import Decimal, localcontext

import pytest
import torch
from torch.func import functional_call

from lightning_adv.nn.smooth_relu import SmoothReLU


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
    by_x, by_raw = torch.autograd.grad(y, [x, activation.raw_alpha])
    raw_to_alpha = torch.autograd.grad(alpha, activation.raw_alpha)[0]
    return [value.item() for value in (y, by_x, by_raw / raw_to_alpha)]


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

    def call(x, raw_alpha):
        return functional_call(activation, {"raw_alpha": raw_alpha}, x)

    x = torch.tensor([-1.0, -0.1, 1e-3, 0.05, 0.16, 0.17, 0.9, 5.0], dtype=torch.float64, requires_grad=True)
    raw_alpha = activation.raw_alpha.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(call, (x, raw_alpha))
    assert torch.autograd.gradgradcheck(call, (x, raw_alpha))


def test_alpha_starts_where_it_is_told_to():
    assert SmoothReLU().alpha.item() == 400.0
    for alpha in (1e-3, 0.5, 1.0, 19.0, 21.0, 1e5):
        assert SmoothReLU(alpha).alpha.item() == pytest.approx(alpha, rel=3e-7)
    assert "alpha=400" in repr(SmoothReLU())
    (parameter,) = SmoothReLU().parameters()  # one, for all channels
    assert parameter.shape == ()


def test_alpha_stays_positive_whatever_the_optimizer_does():
    x = torch.tensor([-2.0, 0.0, 1e-7, 3.0], requires_grad=True)
    for raw_alpha in (-1e30, -200.0, -20.0, 0.0, 1e5):
        activation = SmoothReLU()
        with torch.no_grad():
            activation.raw_alpha.fill_(raw_alpha)
        assert activation.alpha > 0
        y = activation(x)
        gradients = torch.autograd.grad(y.sum(), [x, activation.raw_alpha])
        assert all(tensor.isfinite().all() for tensor in (y, *gradients))


def test_alpha_is_learned():
    activation, x = SmoothReLU(1.0), torch.linspace(-1, 3, 50)
    optimizer = torch.optim.SGD(activation.parameters(), lr=20.0)
    start = (activation(x) - x.relu()).square().mean().item()
    for _ in range(100):
        optimizer.zero_grad()
        (activation(x) - x.relu()).square().mean().backward()  # ReLU is the limit of large α
        optimizer.step()
    assert activation.alpha > 3
    assert (activation(x) - x.relu()).square().mean() < start / 3


def test_the_gradient_by_alpha_is_summed_over_all_features():
    activation, x = SmoothReLU(2.0), torch.rand(2, 3, 4, 4)
    (total,) = torch.autograd.grad(activation(x).sum(), activation.raw_alpha)
    each = [torch.autograd.grad(activation(value), activation.raw_alpha)[0] for value in x.flatten()]
    torch.testing.assert_close(total, torch.stack(each).sum())


def test_a_copy_has_an_alpha_of_its_own():
    activation = SmoothReLU(2.0)
    twin = copy.deepcopy(activation)
    with torch.no_grad():
        twin.raw_alpha.fill_(7.0)
    assert activation.alpha.item() == pytest.approx(2.0)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("inf"), float("nan")])
def test_a_bad_alpha(alpha):
    with pytest.raises(ValueError, match=r"alpha of an activation must be a positive number, got"):
        SmoothReLU(alpha)
