"""The activations of chapter 5 against their closed forms, and ReLU with a smooth gradient."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from lightning_adv.nn.activations import (
    ACTIVATIONS,
    ParametricSoftplus,
    SmoothBackwardReLU,
    SmoothReLU,
    smooth_backward,
)

SMOOTH = [name for name in ACTIVATIONS if name != "smooth_backward_relu"]

X = [-40.0, -6.0, -1.0, -0.3, -1e-3, 1e-3, 0.2, 1.0, 3.0, 25.0, 50.0]


def _normal_cdf(x):
    return math.erfc(-x / math.sqrt(2)) / 2


def _sigmoid(x):
    return 1 / (1 + math.exp(-x))


# f and f', as the paper writes them
CLOSED_FORMS = {
    ("softplus", ()): (lambda x: math.log1p(math.exp(x)), _sigmoid),
    ("parametric_softplus", ()): (lambda x: math.log1p(math.exp(10 * x)) / 10, lambda x: _sigmoid(10 * x)),
    ("parametric_softplus", (2.5,)): (lambda x: math.log1p(math.exp(2.5 * x)) / 2.5, lambda x: _sigmoid(2.5 * x)),
    ("silu", ()): (lambda x: x * _sigmoid(x), lambda x: _sigmoid(x) * (1 + x * (1 - _sigmoid(x)))),
    ("gelu", ()): (
        lambda x: x * _normal_cdf(x),
        lambda x: _normal_cdf(x) + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi),
    ),
    ("elu", ()): (lambda x: x if x >= 0 else math.exp(x) - 1, lambda x: 1 if x >= 0 else math.exp(x)),
    ("elu", (1.6,)): (lambda x: x if x >= 0 else 1.6 * (math.exp(x) - 1), lambda x: 1 if x >= 0 else 1.6 * math.exp(x)),
    ("celu", ()): (lambda x: x if x >= 0 else math.exp(x) - 1, lambda x: 1 if x >= 0 else math.exp(x)),
    ("celu", (2.0,)): (  # torch takes 1 / α in float32
        lambda x: x if x >= 0 else 2 * (math.exp(x / 2) - 1),
        lambda x: 1 if x >= 0 else math.exp(x / 2),
    ),
    ("smooth_relu", ()): (
        lambda x: x - math.log(400 * x + 1) / 400 if x >= 0 else 0,
        lambda x: 400 * x / (1 + 400 * x) if x >= 0 else 0,
    ),
}


def _value_and_slope(activation, x):
    x = x.clone().requires_grad_()
    y = activation(x)
    return y.detach(), torch.autograd.grad(y.sum(), x)[0]


@pytest.mark.parametrize("case", CLOSED_FORMS, ids=str)
def test_closed_forms(case):
    name, settings = case
    activation = ACTIVATIONS[name](*settings).double()
    x = torch.tensor(X, dtype=torch.float64)
    y, slope = _value_and_slope(activation, x)
    function, derivative = CLOSED_FORMS[case]
    torch.testing.assert_close(y, torch.tensor([function(v) for v in X], dtype=torch.float64), rtol=1e-9, atol=1e-15)
    expected = torch.tensor([derivative(v) for v in X], dtype=torch.float64)
    torch.testing.assert_close(slope, expected, rtol=1e-9, atol=1e-15)


def _slopes_around_zero(activation):
    step = 1e-9
    return _value_and_slope(activation.double(), torch.tensor([-step, step], dtype=torch.float64))[1].tolist()


@pytest.mark.parametrize("alpha", [0.5, 1.5, 2.0])
def test_settings_that_keep_it_continuous_and_one_that_does_not(alpha):
    for name in ("celu", "parametric_softplus", "smooth_relu"):
        left, right = _slopes_around_zero(ACTIVATIONS[name](alpha))
        assert left == pytest.approx(right, abs=1e-6)
    left, right = _slopes_around_zero(ACTIVATIONS["elu"](alpha))
    assert (left, right) == pytest.approx((alpha, 1.0), abs=1e-6)  # equation 5.6
    assert _slopes_around_zero(nn.ReLU()) == [0.0, 1.0]


def test_softplus_has_no_seam():
    # torch's threshold of 20 would put a step of 2e-9 here
    for beta in (1.0, 10.0):
        seams = torch.tensor([20.0, 40.0], dtype=torch.float64) / beta
        below, above = seams * (1 - 1e-15), seams * (1 + 1e-15)
        activation = ParametricSoftplus(beta)
        for one, other in zip(_value_and_slope(activation, below), _value_and_slope(activation, above), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-14, atol=0)
    far = torch.tensor([1e4, -1e4], requires_grad=True)
    assert ParametricSoftplus()(far).tolist() == [1e4, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_parametric_softplus_in_other_precisions(dtype):
    x = torch.linspace(-3, 6, 200).to(dtype)
    y, slope = _value_and_slope(ParametricSoftplus(), x)
    exact, exact_slope = _value_and_slope(ParametricSoftplus(), x.double())
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(y.double(), exact, rtol=30 * eps if dtype == torch.float32 else eps, atol=1e-30)
    torch.testing.assert_close(slope.double(), exact_slope, rtol=30 * eps, atol=1e-30)


@pytest.mark.parametrize("make", [ParametricSoftplus, SmoothBackwardReLU, SmoothReLU])
@pytest.mark.parametrize("alpha", [0.0, -10.0, float("nan"), float("inf")])
def test_a_bad_alpha(make, alpha):
    with pytest.raises(ValueError, match="alpha of an activation must be a positive number, got"):
        make(alpha)


# ReLU forward, smooth backward (section 5.3)


class _Network(nn.Module):
    def __init__(self, activation=None):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)
        self.activation = SmoothBackwardReLU() if activation is None else activation

    def forward(self, x):
        return self.second(self.activation(self.first(x)))


@pytest.fixture
def x():
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(1), requires_grad=True)


SPECIAL = [-0.0, 0.0, 1e-45, -1e-45, 5.0, 7.0, float("inf"), -float("inf"), float("nan")]


@pytest.mark.parametrize("cap", [None, 6.0])
@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_the_output_is_relus_to_the_last_bit(dtype, smooth, cap):
    x = torch.cat([torch.randn(1000) * 4, torch.tensor(SPECIAL)]).to(dtype)
    activation, relu = SmoothBackwardReLU(cap=cap), nn.ReLU() if cap is None else nn.ReLU6()
    if smooth:
        with smooth_backward(activation):
            y = activation(x)
    else:
        y = activation(x)
    view = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    assert y.dtype == dtype
    assert torch.equal(y.view(view), relu(x).view(view))


def test_the_gradient_inside_and_outside():
    x = torch.tensor([-1.0, -0.1, 0.0, 0.05, 2.0, 7.0])
    for cap, relu in ((None, nn.ReLU()), (6.0, nn.ReLU6())):
        activation = SmoothBackwardReLU(cap=cap)
        assert torch.equal(_value_and_slope(activation, x)[1], _value_and_slope(relu, x)[1])
        with smooth_backward(activation):
            slope = _value_and_slope(activation, x)[1]
        expected = [_sigmoid(10 * v) - (0 if cap is None else _sigmoid(10 * (v - cap))) for v in x.tolist()]
        assert slope.tolist() == pytest.approx(expected, abs=1e-6)
        assert torch.equal(_value_and_slope(activation, x)[1], _value_and_slope(relu, x)[1])


def test_the_gradient_is_decided_by_the_forward_pass(x):
    network = _Network()
    outside = network(x)
    with smooth_backward(network):
        inside = network(x)
        (rough,) = torch.autograd.grad(outside.sum(), x)
    (smooth,) = torch.autograd.grad(inside.sum(), x)
    assert torch.equal(rough, torch.autograd.grad(_Network(nn.ReLU())(x).sum(), x)[0])
    assert not torch.allclose(smooth, rough)


def test_the_second_derivative():
    activation = SmoothBackwardReLU(2.0)
    x = torch.tensor([-0.5, 0.3], dtype=torch.float64, requires_grad=True)
    with smooth_backward(activation):
        (slope,) = torch.autograd.grad(activation(x).sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    expected = [2 * _sigmoid(2 * v) * (1 - _sigmoid(2 * v)) for v in x.tolist()]
    assert curvature.tolist() == pytest.approx(expected)


def test_contexts_nest_and_survive_exceptions():
    network = _Network()
    switch = network.activation.gradient_switch
    with smooth_backward(network):
        with smooth_backward(network):
            assert switch.smooth
        assert switch.smooth
    assert not switch.smooth
    with pytest.raises(RuntimeError, match="stop"), smooth_backward(network):
        raise RuntimeError("stop")
    assert not switch.smooth


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_has_a_switch_of_its_own(copied):
    network = _Network()
    twin = copied(network)
    with smooth_backward(network):
        assert not twin.activation.gradient_switch.smooth
    with smooth_backward(twin):
        assert not network.activation.gradient_switch.smooth


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", ["smooth_backward_relu", "smooth_relu", "parametric_softplus"])
def test_compiled(name, backend, x):
    torch._dynamo.reset()
    network = _Network(ACTIVATIONS[name]())
    compiled = torch.compile(network, backend=backend, fullgraph=True)
    has_switch = name == "smooth_backward_relu"
    results = []
    for smooth in (False, True, False, True) if has_switch else (False, False):
        pair = []
        for function in (network, compiled):
            if smooth:
                with smooth_backward(compiled):
                    y = function(x)
            else:
                y = function(x)
            pair.append((y, torch.autograd.grad(y.sum(), x)[0]))
        torch.testing.assert_close(pair[0], pair[1])
        results.append(pair[1][1])
    assert torch.allclose(results[0], results[1]) is not has_switch


def test_a_model_without_it():
    with (
        pytest.raises(ValueError, match="needs a model whose activation is 'smooth_backward_relu', and it has none"),
        smooth_backward(nn.Sequential(nn.ReLU())),
    ):
        pass


def test_gradient_checkpointing_is_refused():
    network = _Network()
    network.grad_checkpointing = True
    with (
        pytest.raises(ValueError, match="does not work with gradient checkpointing"),
        smooth_backward(network),
    ):
        pass
    assert not network.activation.gradient_switch.smooth
