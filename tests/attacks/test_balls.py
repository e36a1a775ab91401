import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_adv.attacks import L1, L2, Linf
from lightning_adv.attacks.balls import get_ball
from tests.seeded import seeded

BALLS = {"linf": Linf(), "l2": L2(), "l1": L1()}
ORDER = {"linf": np.inf, "l2": 2, "l1": 1}


@pytest.fixture(params=BALLS)
def name(request):
    return request.param


def _extreme_points(name, dimension):
    """Points (M, d) of the unit ball whose convex hull is the ball (L2: densely many)."""
    if name == "linf":
        return np.array(list(itertools.product([-1.0, 1.0], repeat=dimension)))
    if name == "l1":
        return np.concatenate([np.eye(dimension), -np.eye(dimension)])
    points = np.random.default_rng(0).normal(size=(20_000, dimension))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def test_norm(name):
    delta = torch.randn(5, 3, 4, 4, generator=seeded(), dtype=torch.float64)
    expected = [np.linalg.norm(sample.numpy().ravel(), ORDER[name]) for sample in delta]
    np.testing.assert_allclose(BALLS[name].norm(delta).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("eps", [0.3, 2.0])
def test_projection_is_the_nearest_point(name, eps):
    # p is the nearest point of a convex set to z exactly if it lies in it and <z - p, q - p> <= 0 for all its points
    # q; checking the extreme points is enough.
    delta = 2 * torch.randn(50, 6, generator=seeded(), dtype=torch.float64)
    delta[:10] *= 0.01  # inside already
    projected = BALLS[name].project(delta, eps)
    z, p, points = delta.numpy(), projected.numpy(), eps * _extreme_points(name, 6)
    norms = np.linalg.norm(p, ORDER[name], axis=1)
    assert norms.max() <= eps * (1 + 1e-12)
    assert (((z - p) @ points.T).max(1) <= ((z - p) * p).sum(1) + 1e-12).all()
    inside = np.linalg.norm(z, ORDER[name], axis=1) <= eps
    assert inside.any()
    assert not inside.all()
    torch.testing.assert_close(projected[inside], delta[inside], rtol=0, atol=0)


def test_l1_projection_against_bisection_in_fp32():
    delta = torch.randn(8, 3, 16, 16, generator=seeded())
    magnitude, eps = np.abs(delta.flatten(1).double().numpy()), 12.0
    low, high = np.zeros((8, 1)), magnitude.max(1, keepdims=True)
    for _ in range(100):
        middle = (low + high) / 2
        too_long = np.maximum(magnitude - middle, 0).sum(1, keepdims=True) > eps
        low, high = np.where(too_long, middle, low), np.where(too_long, high, middle)
    expected = np.sign(delta.flatten(1).numpy()) * np.maximum(magnitude - high, 0)
    np.testing.assert_allclose(L1().project(delta, eps).flatten(1).numpy(), expected, atol=2e-6)


def test_a_ball_of_radius_zero_is_a_point(name):
    delta = torch.randn(5, 3, 4, 4, generator=seeded())
    delta[0] = 0
    assert (BALLS[name].project(delta, 0.0) == 0).all()
    assert (BALLS[name].sample(delta, 0.0, seeded()) == 0).all()


def test_samples_are_uniform(name):
    eps, dimension = 0.4, 3
    points = BALLS[name].sample(torch.empty(4000, 1, 1, dimension), eps, seeded()).flatten(1).double().numpy()
    radius = np.linalg.norm(points, ORDER[name], axis=1)
    assert radius.max() <= eps * (1 + 1e-6)
    # Volume grows as radius^d, whatever the norm.
    assert stats.kstest((radius / eps) ** dimension, "uniform").pvalue > 0.01
    for coordinate in points.T:
        if name == "linf":
            assert stats.kstest(coordinate / eps / 2 + 0.5, "uniform").pvalue > 0.01
        if name == "l2":  # Archimedes: a coordinate of a point of the sphere is uniform in three dimensions
            assert stats.kstest(coordinate / radius / 2 + 0.5, "uniform").pvalue > 0.01
        if name == "l1":  # shares of a uniform point of the simplex are Beta(1, d - 1)
            assert stats.kstest(np.abs(coordinate) / radius, stats.beta(1, dimension - 1).cdf).pvalue > 0.01
    octants = np.bincount((points > 0) @ [1, 2, 4], minlength=8)
    assert stats.chisquare(octants).pvalue > 0.01


def test_an_empty_batch_has_no_samples(name):
    assert BALLS[name].sample(torch.empty(0, 3, 4, 4), 1.0, seeded()).shape == (0, 3, 4, 4)


@pytest.mark.parametrize(("name", "ball"), [("linf", Linf()), ("l2", L2()), ("l1", L1(density=1e-6))])
def test_steepest_maximises_a_linear_loss(name, ball):
    gradient = torch.randn(30, 6, generator=seeded(), dtype=torch.float64)
    direction = ball.steepest(gradient, torch.full_like(gradient, 0.5)).numpy()
    gained = (gradient.numpy() * direction).sum(1)
    best = (gradient.numpy() @ _extreme_points(name, 6).T).max(1)
    assert np.linalg.norm(direction, ORDER[name], axis=1).max() <= 1 + 1e-12
    assert (gained >= best - 1e-12).all()


def test_l1_steepest_moves_the_share_of_largest_gradients():
    gradient = torch.tensor([[0.1, -4.0, 3.0, 0.2, -0.3, 5.0, 0.0, 1.0]])
    inside = torch.full_like(gradient, 0.5)
    assert L1(density=0.25).steepest(gradient, inside).tolist() == [[0, -0.5, 0, 0, 0, 0.5, 0, 0]]
    assert L1(density=0.5).steepest(gradient, inside).tolist() == [[0, -0.25, 0.25, 0, 0, 0.25, 0, 0.25]]
    everything = L1(density=1.0).steepest(gradient, inside) * 8
    assert everything.tolist() == gradient.sign().tolist()


def test_l1_steepest_leaves_entries_that_cannot_move():
    gradient = torch.tensor([[5.0, -4.0, 3.0, -2.0]])
    at_edges = torch.tensor([[1.0, 0.0, 0.0, 1.0]])  # the first two push out of [0, 1], the others back in
    assert L1(density=0.5).steepest(gradient, at_edges).tolist() == [[0, 0, 0.5, -0.5]]


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_steepest_does_not_depend_on_the_gradients_length(name, scale):
    gradient = torch.randn(4, 3, 5, 5, generator=seeded())
    x = torch.rand(4, 3, 5, 5, generator=seeded())
    factor = torch.tensor([1.0, scale, 1.0, scale]).view(4, 1, 1, 1)
    expected, scaled = BALLS[name].steepest(gradient, x), BALLS[name].steepest(factor * gradient, x)
    assert (expected.flatten(1) != 0).any(1).all()
    torch.testing.assert_close(scaled, expected, rtol=1e-5, atol=0)


def test_a_zero_gradient_has_no_direction(name):
    gradient = torch.randn(3, 2, 4, 4, generator=seeded())
    gradient[1] = 0
    direction = BALLS[name].steepest(gradient, torch.full_like(gradient, 0.5))
    assert (direction[1] == 0).all()
    assert (direction[[0, 2]].flatten(1) != 0).any(1).all()


def _step_by_hand(name, clean, x, gradient, eps, step_size):
    """The written-out form in numpy and double precision, sample by sample."""
    if name == "linf":
        return np.clip(np.clip(x + step_size * np.sign(gradient), clean - eps, clean + eps), 0, 1)
    stepped = []
    for centre, point, slope in zip(clean, x, gradient, strict=True):
        delta = point + step_size * slope / np.linalg.norm(slope) - centre
        stepped.append(centre + delta * min(1, eps / np.linalg.norm(delta)))
    return np.clip(np.stack(stepped), 0, 1)


def _near(clean, delta):
    return (clean + delta).clamp(0, 1)


@pytest.mark.parametrize(
    ("name", "eps", "step_size", "error"),
    [("linf", 8 / 255, 2 / 255, 2.0**-24), ("linf", 0.3, 0.5, 2.0**-24), ("l2", 0.7, 0.4, 2.0**-22)],
)  # 2^-24 is an ulp below 1
def test_a_projected_step_is_the_written_out_form(name, eps, step_size, error):
    ball, generator = BALLS[name], seeded()
    clean = (1.5 * torch.rand(20, 3, 5, 5, generator=generator) - 0.25).clamp(0, 1)  # edges of [0, 1] included
    x = _near(clean, ball.sample(clean, eps, generator))
    gradient = torch.randn(clean.shape, generator=generator)
    gradient[:, :, 0] = 0
    step = ball.projected_step(clean, eps, step_size)
    for _ in range(4):
        before = [tensor.clone() for tensor in (clean, x, gradient)]
        stepped = step(x, gradient)
        expected = _step_by_hand(name, *(tensor.double().numpy() for tensor in before), eps, step_size)
        np.testing.assert_allclose(stepped.numpy(), expected, rtol=0, atol=error)
        for tensor, was in zip((clean, x, gradient), before, strict=True):
            assert torch.equal(tensor, was)
            assert stepped.data_ptr() != tensor.data_ptr()
        x, gradient = stepped, -gradient if step_size < eps else gradient


class Operations(TorchDispatchMode):
    """Lists what is computed."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **({} if kwargs is None else kwargs))


def test_a_linf_step_is_three_passes_over_the_images():
    clean = torch.rand(4, 3, 5, 5, generator=seeded())
    gradient, step = clean - 0.5, Linf().projected_step(clean, 0.1, 0.02)
    with Operations() as seen:
        step(clean, gradient)
    assert seen.names == ["sign", "add", "clamp_"]


class Halved(Linf):
    """Goes half as far, within a ball of half the radius."""

    def steepest(self, gradient, x):
        return gradient.sign() / 2

    def project(self, delta, eps):
        return delta.clamp(-eps / 2, eps / 2)


def test_a_ball_of_ones_own_is_stepped_in_its_own_way():
    clean, up = torch.full((2, 3), 0.5, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)
    step = Halved().projected_step(clean, 0.3, 0.1)
    assert step(clean, up).tolist() == [[0.55] * 3] * 2
    assert step(step(step(step(clean, up), up), up), up).tolist() == [[0.65] * 3] * 2


def test_get_ball():
    assert [type(get_ball(norm)) for norm in ("linf", "l2", "l1")] == [Linf, L2, L1]
    given = L1(density=0.2)
    assert get_ball(given) is given
    rebuilt = get_ball({"class_path": "lightning_adv.attacks.L1", "init_args": {"density": 0.2}})
    assert isinstance(rebuilt, L1)
    assert rebuilt.density == 0.2


def test_a_norm_without_a_ball():
    with pytest.raises(ValueError, match=r"norm must be one of linf, l2, l1.*'l3'"):
        get_ball("l3")


@pytest.mark.parametrize("density", [0.0, -0.1, 1.5, float("nan")])
def test_a_density_outside_its_range(density):
    with pytest.raises(ValueError, match="density"):
        L1(density=density)
