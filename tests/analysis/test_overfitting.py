import pytest
import torch
from torch import nn

from lightning_adv.analysis.overfitting import (
    Accuracies,
    catastrophic_overfitting,
    robust_overfitting,
    robustly_correct,
)
from lightning_adv.attacks import FGSM, PGD
from lightning_adv.nn.batchnorm import InDomain, convert_batchnorm
from lightning_adv.testing.untouched import Snapshot


def look(fgsm, robust, train):
    return Accuracies(fgsm_accuracy=fgsm, robust_accuracy=robust, train_robust_accuracy=train)


@pytest.mark.parametrize(
    ("now", "best", "already", "expected"),
    [
        (look(0.95, 0.02, 0.02), 0.45, False, True),  # the collapse of single-step training
        (look(0.56, 0.46, 0.46), 0.47, False, False),  # FGSM is a little weaker, as ever
        (look(0.40, 0.15, 0.15), 0.10, False, False),  # a young network that still becomes more robust
        (look(0.95, 0.00, 0.00), 0.00, False, True),  # collapsed before the first look
        (look(0.80, 0.50, 0.50), 0.45, True, True),  # recovers, but the gap is wide
        (look(0.60, 0.50, 0.50), 0.45, True, False),  # has recovered
    ],
)
def test_catastrophic_overfitting(now, best, already, expected):
    assert catastrophic_overfitting(now, best, gap=0.2, already=already) is expected
    assert not robust_overfitting(now, best, gap=0.2, already=already)


@pytest.mark.parametrize(
    ("now", "best", "already", "expected"),
    [
        (look(0.55, 0.44, 0.90), 0.52, False, True),  # long after the best epoch
        (look(0.60, 0.53, 0.66), 0.52, False, False),  # a gap, but validation still gains
        (look(0.60, 0.50, 0.55), 0.52, False, False),  # a fall on both
        (look(0.60, 0.53, 0.66), 0.52, True, True),  # one better epoch does not close the gap
        (look(0.60, 0.53, 0.60), 0.52, True, False),
    ],
)
def test_robust_overfitting(now, best, already, expected):
    assert robust_overfitting(now, best, gap=0.1, already=already) is expected
    assert not catastrophic_overfitting(now, best, gap=0.2, already=already)


@pytest.mark.parametrize("attack", [FGSM(eps=0.05), PGD(eps=0.05, steps=10, step_size=0.02)])
def test_against_the_closed_form_of_a_linear_network(attack):
    """Two classes, margin m(x), weight difference w: robust where m(x) > eps * |w|_1 (no pixel is near 0 or 1)."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    network[1].weight.data -= network[1].weight.data.mean(1, keepdim=True)  # brightness alone decides nothing
    x, y = 0.2 + 0.6 * torch.rand(500, 1, 4, 4), torch.randint(2, (500,))
    with torch.no_grad():
        logits = network(x)
        difference = network[1].weight[0] - network[1].weight[1]
        margin = (logits[:, 0] - logits[:, 1]) * (1 - 2 * y)
    expected = margin > 0.05 * difference.abs().sum()
    assert 0.1 < expected.float().mean() < 0.9
    assert expected.sum() < (margin > 0).sum()
    assert torch.equal(robustly_correct(network, x, y, attack), expected)


def test_through_a_domain_and_the_network_left_as_it_was():
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(2), nn.Dropout(0.5))
    convert_batchnorm(network)
    norms = network[1].norms
    norms["adversarial"].weight.data.neg_()  # answers the other class
    norms["adversarial"].running_mean.fill_(0.5)
    norms["main"].running_mean.fill_(0.5)
    network.train()
    norms["main"].eval()
    before = Snapshot(network)
    x, y = torch.tensor([[0.9, 0.1], [0.2, 0.8]]).view(2, 2, 1, 1), torch.tensor([0, 1])
    attack = FGSM(eps=0.01)
    assert robustly_correct(network, x, y, attack).tolist() == [True, True]
    assert robustly_correct(InDomain(network, "main"), x, y, attack).tolist() == [True, True]
    assert robustly_correct(InDomain(network, "adversarial"), x, y, attack).tolist() == [False, False]
    assert before.difference() is None


def test_noise_is_the_generators():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 20), nn.ReLU(), nn.Linear(20, 2))
    x, y = torch.rand(300, 1, 4, 4), torch.randint(2, (300,))
    attack = PGD(eps=0.02, steps=1, step_size=0.001)  # hardly more than the random start
    before = torch.get_rng_state()
    first, again, other = (
        robustly_correct(network, x, y, attack, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())
