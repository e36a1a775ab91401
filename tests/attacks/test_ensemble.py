import numpy as np
import pytest
import torch
from torch import nn

from lightning_adv.attacks import FGSM, PGD, CarliniWagner, CarliniWagnerLinf, LogitEnsemble
from lightning_adv.nn.batchnorm import convert_batchnorm, domain
from tests.seeded import seeded


class Linear(nn.Module):
    """Logits W x + b, with numbers of its own."""

    def __init__(self, seed, classes=3):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, 12, generator=seeded(seed)))
        self.bias = nn.Parameter(torch.randn(classes, generator=seeded(seed + 100)))

    def forward(self, x):
        return x.flatten(1) @ self.weight.T + self.bias


@pytest.fixture
def batch():
    return torch.rand(8, 3, 2, 2, generator=seeded(9)), torch.arange(8) % 3


@pytest.mark.parametrize(
    ("weights", "expected"), [(None, [1 / 3] * 3), ([0.5, 0.2, 0.3], [0.5, 0.2, 0.3]), ((0.98, 0.01, 0.01),) * 2]
)
def test_fusion_by_hand(batch, weights, expected):
    networks = [Linear(seed) for seed in range(3)]
    fused = sum(
        weight * (batch[0].flatten(1).double().numpy() @ n.weight.detach().double().numpy().T + n.bias.detach().numpy())
        for weight, n in zip(expected, networks, strict=True)
    )
    np.testing.assert_allclose(LogitEnsemble(networks, weights)(batch[0]).detach().numpy(), fused, rtol=0, atol=1e-5)


def test_fgsm_follows_the_weighted_gradient(batch):
    """Two classes: the loss grows along the difference of the fused weight rows, whatever its slope."""
    x = 0.2 + 0.6 * batch[0]
    networks, weights = [Linear(seed, classes=2) for seed in (1, 2)], [0.7, 0.3]
    rows = sum(w * (n.weight[1] - n.weight[0]) for w, n in zip(weights, networks, strict=True))
    x_adv = FGSM(eps=0.1)(LogitEnsemble(networks, weights), x, torch.zeros(8, dtype=torch.long))
    torch.testing.assert_close(x_adv, x + 0.1 * rows.sign().view(3, 2, 2))
    assert (rows.sign() != (networks[0].weight[1] - networks[0].weight[0]).sign()).any()
    assert (rows.sign() != (networks[1].weight[1] - networks[1].weight[0]).sign()).any()


@pytest.mark.slow
@pytest.mark.parametrize("precision", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "attack",
    [
        PGD(eps=0.03, steps=3, step_size=0.02),
        PGD(eps=0.5, steps=2, norm="l2", loss="kl", batchnorm="batch"),
        CarliniWagnerLinf(eps=0.03, steps=3),
        CarliniWagner(steps=10, learning_rate=0.02, binary_search_steps=2, initial_const=10, label="predicted"),
    ],
    ids=lambda attack: type(attack).__name__,
)
@pytest.mark.parametrize("name", ["cnn", "efficientnet"])
def test_one_network_is_itself_bit_for_bit(build, images, name, attack, precision):
    network = build(name)
    with torch.autocast("cpu", precision, enabled=precision is not None):
        expected = attack(network, *images, generator=seeded())
        assert torch.equal(attack(LogitEnsemble([network]), *images, generator=seeded()), expected)
    assert (expected != images[0]).any()


def test_the_networks_are_left_as_they_were(build, images, mixed, state_of):
    networks = [mixed(build(name)) for name in ("cnn", "resnet")]
    before = [state_of(network) for network in networks]
    ensemble = LogitEnsemble(networks)
    assert [state_of(network) for network in networks] == before
    for batchnorm in ("eval", "batch"):
        PGD(steps=2, batchnorm=batchnorm)(ensemble, *images)
    assert [state_of(network) for network in networks] == before
    assert ensemble.training


def test_a_domain_is_that_of_the_networks_that_have_it(build, images):
    plain, two = build("cnn"), convert_batchnorm(build("efficientnet"))
    for module in two.modules():
        if hasattr(module, "domain_switch"):
            nn.init.uniform_(module.norms["adversarial"].weight, 0.2, 2, generator=seeded(1))
    ensemble = LogitEnsemble([plain, two], [0.3, 0.7])
    results = {name: FGSM(eps=0.03)(ensemble, *images, domain=name) for name in ("main", "adversarial")}
    assert not torch.equal(results["main"], results["adversarial"])
    assert torch.equal(FGSM(eps=0.03)(ensemble, *images), results["main"])
    with domain(two, "adversarial"):
        assert torch.equal(FGSM(eps=0.03)(ensemble, *images), results["adversarial"])
    with pytest.raises(ValueError, match="domain must be one of main, adversarial, got 'aux'"):
        FGSM()(ensemble, *images, domain="aux")


def test_half_precision_logits_are_fused_in_fp32(batch):
    networks = [Linear(seed).bfloat16() for seed in range(2)]
    x = batch[0].bfloat16()
    fused = LogitEnsemble(networks, [0.3, 0.7])(x)
    assert fused.dtype == torch.float32
    torch.testing.assert_close(fused, 0.3 * networks[0](x).float() + 0.7 * networks[1](x).float())
    assert LogitEnsemble([n.double() for n in networks])(x.double()).dtype == torch.float64


def test_the_weights_of_the_papers_competition():
    """Section 3.4.5: seven networks of 1 / 7.25, one of 0.25 / 7.25."""
    weights = [1 / 7.25] * 7 + [0.25 / 7.25]
    assert LogitEnsemble([Linear(seed) for seed in range(8)], weights).weights == tuple(weights)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "one number for each of the 2 networks, got 1"),
        ([0.5, 0.25, 0.25], "one number for each of the 2 networks, got 3"),
        ([1.5, -0.5], "positive"), ([1.0, 0.0], "positive"), ([float("nan"), 0.5], "positive"),
        ([0.5, 0.4], "sum to 0.9"), ([float("inf"), 0.5], "sum to inf"), ([1, 1], "sum to 2"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit(weights, message):
    with pytest.raises(ValueError, match=f"weights must .*{message}"):
        LogitEnsemble([Linear(0), Linear(1)], weights)


@pytest.mark.parametrize(("networks", "message"), [([], "got none"), ([Linear(0), "resnet18"], "got str at index 1")])
def test_networks_that_are_none(networks, message):
    with pytest.raises(ValueError, match=f"networks must .*{message}"):
        LogitEnsemble(networks)


def test_classes_that_differ(batch, state_of):
    ensemble = LogitEnsemble([Linear(0), Linear(1), Linear(2, classes=4)])
    before = state_of(ensemble)
    with pytest.raises(ValueError, match=r"networks must give .* \(8, 3\) from index 0 and \(8, 4\) from index 2"):
        PGD()(ensemble, *batch)
    assert state_of(ensemble) == before
