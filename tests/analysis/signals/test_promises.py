"""What every signal promises: any network, left as it was, whatever surrounds the call and in whatever parts."""

import copy

import pytest
import timm
import torch
from torch import nn

from lightning_adv.analysis import signals
from lightning_adv.nn import InDomain, convert_batchnorm
from lightning_adv.testing.surroundings import compiled, distributed
from lightning_adv.testing.untouched import Snapshot


def generator():
    return torch.Generator().manual_seed(7)


def line(network, x, y, **settings):
    return signals.loss_along_line(network, x, moved(x), y, points=3, **settings).losses


def moved(x):
    """Images nearby, which are the same whatever was drawn before."""
    noise = torch.rand(x.shape, generator=generator(), dtype=torch.float64).to(x.dtype)
    return (x + 0.1 * (noise - 0.5)).clamp(0, 1)


SIGNALS = {
    "input_gradient_norm": signals.input_gradient_norm,
    "gradient_alignment": lambda *a, **k: signals.gradient_alignment(*a, 0.1, generator=generator(), **k),
    "elle": lambda *a, **k: signals.elle(*a, 0.1, generator=generator(), **k),
    "direction_agreement": lambda n, x, y, **k: signals.direction_agreement(n, x, moved(x), y, 0.1, **k),
    "loss_along_line": line,
    "dead_units": lambda n, x, y, **k: torch.cat(list(signals.dead_units(n, x, **k).values())).float(),
}
BY_THEIR_BATCHES = {  # what these give depends on the batches
    "gradient_moments": lambda *a: torch.tensor(
        signals.gradient_noise(signals.gradient_moments(*a, micro_batch=2))[:3]  # the noise scale may be infinite
    ),
    "largest_hessian_eigenvalue": lambda *a: torch.tensor(
        signals.largest_hessian_eigenvalue(*a, generator=generator(), tolerance=1e-4)
    ),
    "layer_similarity": lambda n, x, y: torch.tensor(
        [each.cka for each in signals.layer_similarity(n, x, moved(x), signals.relu_layers(n)).values()]
    ),
}
ALL = {**SIGNALS, **BY_THEIR_BATCHES}
each_of_all = pytest.mark.parametrize("signal", ALL.values(), ids=ALL)
each_signal = pytest.mark.parametrize("signal", SIGNALS.values(), ids=SIGNALS)


@pytest.fixture
def network():
    """A network in train mode, a part of it frozen in eval mode, with gradients and dropout."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4),
        nn.ReLU(inplace=True), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3),
    )  # fmt: skip
    for _ in range(3):
        network(torch.rand(8, 3, 8, 8)).square().sum().backward()
    network[1].eval()
    network[0].weight.requires_grad_(False)
    return network


@pytest.fixture
def images():
    return torch.rand(5, 3, 8, 8), torch.tensor([0, 1, 2, 0, 1])


def close(found, expected, **tolerances):
    """Numbers, tensors, or either by name."""
    torch.testing.assert_close(found, expected, equal_nan=True, **tolerances)


@each_of_all
def test_the_network_is_left_as_it_was(signal, network, images):
    before, state = Snapshot(network), torch.get_rng_state()
    signal(network, *images)
    assert before.difference() is None
    assert torch.get_rng_state().equal(state)


@each_signal
def test_parts_give_the_same(signal, network, images):
    close(signal(network, *images, batch_size=2), signal(network, *images))


@each_of_all
def test_within_inference_mode_no_grad_and_autocast(signal, network, images):
    expected = signal(network, *images)
    with torch.no_grad():
        close(signal(network, *images), expected)
    with torch.inference_mode():
        close(signal(network, *(each.clone() for each in images)), expected)
    with torch.autocast("cpu", torch.bfloat16):
        low = signal(network, *images)
    assert low.dtype == torch.float32
    close(low, expected, rtol=0.3, atol=0.2)


@each_of_all
def test_through_a_domain(signal, network, images):
    """The domain's own BatchNorms decide, and the other's are not touched."""
    plain = copy.deepcopy(network)
    convert_batchnorm(network)
    for norm in network[1].norms, network[4].norms:
        norm["main"].running_mean += 1.0
    expected = signal(plain, *images)
    before = Snapshot(network)
    close(signal(InDomain(network, "adversarial"), *images), expected)
    assert not torch.allclose(signal(network, *images), expected), "the active domain is main"
    assert before.difference() is None


@pytest.mark.slow
def test_in_ddp_and_compiled(network, images):
    expected = {name: signal(network, *images) for name, signal in ALL.items()}
    with distributed(network) as (wrapped, uses):
        close({name: signal(wrapped, *images) for name, signal in ALL.items()}, expected)
        assert not uses, "through the wrapper a reduction of gradients would start"
    with compiled(network) as wrapped:
        close({name: signal(wrapped, *images) for name, signal in ALL.items()}, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"), [("test_resnet", {}), ("test_efficientnet", {}), ("test_vit", {"img_size": 32})]
)
def test_networks_of_timm(name, settings):
    network = timm.create_model(name, num_classes=3, **settings)
    x, y = torch.rand(4, 3, 32, 32), torch.tensor([0, 2, 1, 0])
    before, relus = Snapshot(network), signals.relu_layers(network)
    assert bool(relus) == (name == "test_resnet")
    for signal, measure in ALL.items():
        if relus or signal not in ("dead_units", "layer_similarity"):  # these two look at ReLUs here
            assert torch.isfinite(measure(network, x, y)).all()
    assert before.difference() is None
