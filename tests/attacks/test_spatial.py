import copy
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from scipy.optimize import minimize
from torch.nn import functional as F

from lightning_adv.attacks import spatial
from lightning_adv.attacks.spatial import StAdv, flow_smoothness, warp
from tests.seeded import classes_of, seeded


def _random(*shape, seed=0, dtype=torch.float32):
    return torch.rand(*shape, generator=seeded(seed), dtype=dtype)


@pytest.fixture(scope="module")
def setup(digits, train):
    """A network trained on 1,500 digits, and 60 other digits that it classifies correctly."""
    x, y = digits
    network = train(x[:1500], y[:1500], epochs=5)
    correct = classes_of(network, x[1500:]) == y[1500:]
    return network, x[1500:][correct][:60], y[1500:][correct][:60]


# Moving pixels


@pytest.mark.parametrize("shape", [(3, 3, 7, 5), (2, 1, 1, 6), (2, 1, 6, 1), (1, 2, 1, 1), (0, 3, 4, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_no_flow_is_the_same_image_to_the_last_bit(shape, dtype):
    x = _random(*shape).to(dtype)
    moved = warp(x, torch.zeros(len(x), 2, *shape[2:]))
    assert moved.dtype == dtype
    assert torch.equal(moved, x)


@pytest.mark.parametrize(("down", "right"), [(1, 0), (0, 1), (-2, 1), (2, -3), (0, -1)])
def test_whole_pixels_are_rolled_and_edges_repeat(down, right):
    x = _random(2, 3, 7, 8)
    flow = torch.tensor([float(down), float(right)]).view(1, 2, 1, 1).expand(2, 2, 7, 8)
    moved = warp(x, flow)
    rolled = torch.roll(x, (-down, -right), (2, 3))
    inside = (..., slice(max(0, -down), 7 - max(0, down)), slice(max(0, -right), 8 - max(0, right)))
    assert torch.equal(moved[inside], rolled[inside])
    padded = F.pad(x, (3, 3, 3, 3), mode="replicate")
    assert torch.equal(moved, padded[..., 3 + down : 10 + down, 3 + right : 11 + right])


@pytest.mark.parametrize("reach", [0.3, 4.0])
def test_against_scipy_and_grid_sample(reach):
    x = _random(3, 2, 6, 9, dtype=torch.float64)
    flow = reach * (2 * _random(3, 2, 6, 9, seed=1, dtype=torch.float64) - 1)
    moved = warp(x, flow)
    rows, columns = np.mgrid[:6, :9]
    for i in range(3):
        places = [rows + flow[i, 0].numpy(), columns + flow[i, 1].numpy()]
        for channel in range(2):
            expected = map_coordinates(x[i, channel].numpy(), places, order=1, mode="nearest")
            np.testing.assert_allclose(moved[i, channel].numpy(), expected, atol=1e-12)
    grid = torch.stack([torch.tensor(columns) + flow[:, 1], torch.tensor(rows) + flow[:, 0]], dim=-1)
    grid = 2 * grid / torch.tensor([8.0, 5.0]) - 1
    sampled = F.grid_sample(x, grid, padding_mode="border", align_corners=True)
    torch.testing.assert_close(moved, sampled, rtol=0, atol=1e-12)
    assert ((moved - x).abs() > 0.01).float().mean() > 0.5


def test_values_stay_between_those_that_they_are_read_from():
    # Only 0, 1 and their neighbours in fp32: the first to leave [0, 1] if anything does.
    edges = torch.tensor([0.0, 1.0, 2.0**-149, 1 - 2.0**-24])
    x = edges[torch.randint(4, (50, 3, 16, 16), generator=seeded())]
    moved = warp(x, torch.randn(50, 2, 16, 16, generator=seeded(1)))
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert (warp(torch.ones(5, 1, 9, 9), 3 * _random(5, 2, 9, 9)) == 1).all()


def test_the_gradient_to_the_flow():
    x = _random(2, 3, 4, 5, dtype=torch.float64)
    flow = (0.2 + 0.6 * _random(2, 2, 4, 5, seed=1, dtype=torch.float64)).requires_grad_()  # away from the kinks
    flow = (flow - torch.tensor([0.0, 1.0]).view(2, 1, 1)).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda flow: warp(x, flow), flow)
    # From rest every pixel can move, those of the last row and column too.
    still = torch.zeros(2, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(warp(x, still).sum(), still)
    assert (gradient != 0).all()


def test_smoothness_against_a_loop_over_pixels():
    flow = torch.randn(3, 2, 4, 5, generator=seeded(), dtype=torch.float64)
    expected = [0.0, 0.0, 0.0]
    for i in range(3):
        for row in range(4):
            for column in range(5):
                for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                    if 0 <= row + down < 4 and 0 <= column + right < 5:
                        p, q = flow[i, :, row, column], flow[i, :, row + down, column + right]
                        expected[i] += math.hypot(*(p - q).tolist())
    torch.testing.assert_close(flow_smoothness(flow), torch.tensor(expected, dtype=torch.float64))
    same = flow[:, :, :1, :1].expand(-1, -1, 4, 5).clone().requires_grad_()
    assert flow_smoothness(same).tolist() == [0, 0, 0]
    (gradient,) = torch.autograd.grad(flow_smoothness(same).sum(), same)
    assert (gradient == 0).all(), "no NaN at the kink"


# What the attack does


@pytest.mark.slow
def test_a_standard_network_breaks_where_noise_and_random_flows_as_large_do_not(setup):
    network, x, y = setup
    attack = StAdv()
    flow = attack.flow(network, x, y)
    x_adv = attack(network, x, y)
    assert torch.equal(x_adv, warp(x, flow))
    broken = (classes_of(network, x_adv) != y).float().mean()
    length = (x_adv - x).flatten(1).norm(dim=1)
    noise = torch.randn(x.shape, generator=seeded())
    noise *= (length / noise.flatten(1).norm(dim=1)).view(-1, 1, 1, 1)
    by_noise = (classes_of(network, (x + noise).clamp(0, 1)) != y).float().mean()
    order = torch.randperm(64, generator=seeded())
    by_chance = (classes_of(network, warp(x, flow.flatten(2)[..., order].view_as(flow))) != y).float().mean()
    print(f"stAdv {broken:.3f}, noise of that length {by_noise:.3f}, the flow in another order {by_chance:.3f}")
    assert broken > 0.97
    assert by_noise < 0.2
    assert by_chance < 0.35
    assert flow.abs().flatten(1).amax(1).median() < 1, "less than a pixel"


@pytest.mark.slow
@pytest.mark.parametrize("label", ["random", "least_likely"])
def test_targets(setup, label):
    network, x, y = setup
    x_adv = StAdv(200, label=label)(network, x, y, generator=seeded())
    if label == "random":
        target = (y + torch.randint(1, 10, y.shape, generator=seeded())) % 10
    else:
        with torch.no_grad():
            target = network(x).argmin(1)
    assert (classes_of(network, x_adv) == target).float().mean() > 0.9
    assert (target != y).all()


@pytest.mark.slow
def test_confidence_and_weight(setup):
    network, x, y = setup

    def roughness_and_margin(**settings):
        attack = StAdv(150, **settings)
        flow = attack.flow(network, x, y)
        with torch.no_grad():
            logits = network(warp(x, flow))
        return flow_smoothness(flow).median(), _leads(logits, y)

    plain, lead = roughness_and_margin()
    assert (lead > 0).float().mean() > 0.95
    assert lead.median() < 0.5
    sure, lead = roughness_and_margin(confidence=3.0)
    assert (lead > 3).float().mean() > 0.9
    assert sure > plain
    loose, _ = roughness_and_margin(tau=0.002)
    assert loose > 1.5 * plain


@pytest.mark.slow
def test_no_rougher_than_l_bfgs_on_each_sample(setup):
    """The paper's optimiser, which knows one sample: scipy's, from a small random flow as zero is a kink."""
    network, x, y = copy.deepcopy(setup[0]).double(), setup[1][:12].double(), setup[2][:12]

    def objective(i):
        def value(numbers):
            flow = torch.tensor(numbers).view(1, 2, 8, 8).requires_grad_()
            logits = network(warp(x[i : i + 1], flow))
            lead = logits[0, y[i]] - logits[0].masked_fill(F.one_hot(y[i], 10).bool(), -math.inf).amax()
            loss = F.relu(lead + 0.1) + 0.05 * flow_smoothness(flow)[0]
            return loss.item(), torch.autograd.grad(loss, flow)[0].flatten().numpy()

        return value

    starts = 0.01 * np.random.default_rng(0).standard_normal((len(x), 128))
    theirs = [minimize(objective(i), start, jac=True, method="L-BFGS-B") for i, start in enumerate(starts)]
    ours = StAdv(confidence=0.1).flow(network, x, y).flatten(1).numpy()
    losses = np.array([[objective(i)(flow)[0], theirs[i].fun] for i, flow in enumerate(ours)])
    print("median loss", np.median(losses, axis=0), "won", (losses[:, 0] < losses[:, 1]).sum(), "of", len(x))
    assert np.median(losses[:, 0]) <= np.median(losses[:, 1])
    assert (classes_of(network, warp(x, torch.tensor(ours).view(-1, 2, 8, 8))) != y).all()


def _leads(logits, y):
    return logits.scatter(1, y[:, None], -math.inf).amax(1) - logits.gather(1, y[:, None])[:, 0]


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "least", "most"), [(30, 0.9, 1), (4, 0.1, 0.9)])
def test_of_successes_the_smoothest_is_kept_and_of_failures_the_nearest(setup, monkeypatch, steps, least, most):
    network, x, y = setup
    flows, leads = [], [_leads(network(x), y).detach()]

    def record(x, flow):
        flows.append(flow.detach().clone())
        moved = warp(x, flow)
        leads.append(_leads(network(moved), y).detach())
        return moved

    monkeypatch.setattr(spatial, "warp", record)
    found = StAdv(steps, learning_rate=0.1).flow(network, x, y)
    assert len(flows) == steps + 1
    flows, leads = torch.stack([torch.zeros_like(found), *flows]), torch.stack(leads)
    roughness = torch.stack([flow_smoothness(flow) for flow in flows])
    won = (leads > 0).any(0)
    chosen = torch.where(won, torch.where(leads > 0, roughness, math.inf).argmin(0), leads.argmax(0))
    assert torch.equal(found, flows[chosen, torch.arange(len(x))])
    assert least <= won.float().mean() <= most
    assert (chosen < steps).any(), "the last is not always the best"


def test_a_sample_that_is_wrong_already_comes_back_clean(setup):
    network, x, y = setup
    wrong = y.clone()
    wrong[::3] = (wrong[::3] + 1) % 10
    x_adv = StAdv(10)(network, x, wrong)
    assert torch.equal(x_adv[::3], x[::3])
    assert (x_adv[1::3] != x[1::3]).flatten(1).any(1).all()


@pytest.mark.slow
def test_the_bound(setup):
    network, x, y = setup
    flow = StAdv(60, max_flow=0.2, tau=0).flow(network, x, y)
    assert flow.abs().max() <= 0.2
    assert (flow.abs() == 0.2).float().mean() > 0.1
    assert torch.equal(StAdv(20, max_flow=0.4).scaled(0.5)(network, x, y), StAdv(20, max_flow=0.2)(network, x, y))
    assert torch.equal(StAdv(20, max_flow=0)(network, x, y), x)
    with pytest.raises(ValueError, match="max_flow must be a number of pixels to be scaled, got None"):
        StAdv().scaled(0.5)


# Its parts


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_examples_are_those_that_the_network_saw(setup, dtype):
    network, x, y = copy.deepcopy(setup[0]).to(dtype), setup[1].to(dtype), setup[2]
    x_adv = StAdv(label="predicted")(network, x, y)
    assert x_adv.dtype == dtype
    assert (classes_of(network, x_adv) != classes_of(network, x)).float().mean() > 0.95


def test_batch_statistics_are_those_of_the_whole_batch(setup):
    """Against plain descent in train mode, its loss a sum of what autograd makes of it."""
    network, x, y = copy.deepcopy(setup[0]).double(), setup[1][:6].double(), setup[2][:6]
    plain = copy.deepcopy(network).train()
    flow = torch.zeros(6, 2, 8, 8, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([flow], lr=0.05)
    for step in range(5):
        logits = plain(warp(x, flow))
        others = logits.masked_fill(F.one_hot(y, 10).bool(), -math.inf).amax(1)
        loss = F.relu(logits.gather(1, y[:, None])[:, 0] - others + 100).sum() + 0.02 * flow_smoothness(flow).sum()
        adam.zero_grad()
        loss.backward()
        adam.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * step / 5)) / 2
        adam.step()
    # No sample reaches a confidence of 100: the field of the largest margin is returned, the last one.
    found = StAdv(5, tau=0.02, confidence=100, batchnorm="batch").flow(network, x, y)
    torch.testing.assert_close(found, flow.detach(), rtol=0, atol=1e-9)


# Settings


def test_a_recipe_of_plain_values():
    config = StAdv(7, 0.2, tau=0.01, max_flow=1.5, label="random").to_config()
    assert config["class_path"] == "lightning_adv.attacks.StAdv"
    assert StAdv.from_config(config).to_config() == config
    built = StAdv()
    assert (built.tau, built.confidence, built.max_flow) == (0.05, 0, None)  # the paper's
    assert built.norm is None, "it stays in no ball"


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("steps", 0), ("steps", 2.5), ("learning_rate", 0), ("learning_rate", float("nan")), ("tau", -1),
        ("tau", float("inf")), ("confidence", -0.1), ("max_flow", -1), ("max_flow", float("nan")), ("label", "wrong"),
        ("label", False), ("batchnorm", "train"),
    ],
)  # fmt: skip
def test_arguments_outside_their_range(argument, value):
    with pytest.raises(ValueError, match=argument):
        StAdv(**{argument: value})


def test_bad_images_and_labels(setup):
    network, x, y = setup
    flat = ((x.flatten(1), y), r"x must be images \(N, C, H, W\) to be transformed in space")
    bad_ones = [((x + 1, y), "x must lie in"), ((x, y[:-1]), "y must be integer"), ((x, y + 10), "y must lie"), flat]
    for bad, message in bad_ones:
        with pytest.raises(ValueError, match=message):
            StAdv(2)(network, *bad)


def test_an_empty_batch(setup):
    network, x, y = setup
    assert StAdv(2, label="random")(network, x[:0], y[:0]).shape == (0, 1, 8, 8)
