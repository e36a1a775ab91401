import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax
from torch import nn

from lightning_adv.attacks import APGD, PGD, Loss
from lightning_adv.attacks.losses import cross_entropy, dlr, get_loss, kl, log_odds, margin
from lightning_adv.core.errors import UsageError
from lightning_adv.core.threat_model import ThreatModel
from lightning_adv.evaluation.plan import fit_attack


@pytest.fixture
def logits():
    return 3 * torch.randn(50, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def y():
    return torch.arange(50) % 7


def test_cross_entropy(logits, y):
    expected = [-log_softmax(row)[label] for row, label in zip(logits.numpy(), y.tolist(), strict=True)]
    np.testing.assert_allclose(cross_entropy(logits, y).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("lead", [-30.0, 0.0, 5.0, 15.0, 25.0, 40.0, 80.0])
def test_gradient_of_the_cross_entropy_is_exact_where_the_network_is_confident(lead):
    # By hand in fp64: p_j for the other classes, minus their sum for the own.
    row = np.array([lead, 0.0, -1.0, 0.5])
    others = np.exp(row[1:]) / np.exp(row).sum()
    logits = torch.tensor(row[None], dtype=torch.float32, requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([0]))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    np.testing.assert_allclose(gradient[0].numpy(), [-others.sum(), *others], rtol=1e-5)
    np.testing.assert_allclose(loss.item(), np.log1p(np.exp(row[1:] - lead).sum()), rtol=1e-5)


def test_margin(logits, y):
    expected = [
        max(value for other, value in enumerate(row) if other != label) - row[label]
        for row, label in zip(logits.tolist(), y.tolist(), strict=True)
    ]
    np.testing.assert_allclose(margin(logits, y).numpy(), expected, rtol=1e-12)


def test_dlr_is_equation_6(logits, y):
    expected = []
    for row, label in zip(logits.tolist(), y.tolist(), strict=True):
        first, _, third = sorted(row, reverse=True)[:3]
        best_other = max(value for other, value in enumerate(row) if other != label)
        expected.append(-(row[label] - best_other) / (first - third))
    np.testing.assert_allclose(dlr(logits, y).numpy(), expected, rtol=1e-12)


def test_dlr_and_its_direction_do_not_change_with_the_scale(logits, y):
    torch.testing.assert_close(dlr(1e3 * logits - 5, y), dlr(logits, y))
    gradient = get_loss("dlr").alone_gradient
    torch.testing.assert_close(1e3 * gradient(1e3 * logits - 5, y), gradient(logits, y))


def test_dlr_needs_three_classes():
    with pytest.raises(ValueError, match="loss='dlr' compares three classes, and the network has 2"):
        dlr(torch.zeros(1, 2), torch.tensor([0]))


def test_dlr_of_three_equal_logits_is_finite():
    logits, y = torch.tensor([[1.0, 1.0, 1.0, 0.0]]), torch.tensor([1])
    assert dlr(logits, y).tolist() == [0]
    assert get_loss("dlr").alone_gradient(logits, y).isfinite().all()


def test_kl(logits):
    clean = logits.flip(0)
    expected = rel_entr(softmax(clean.numpy(), axis=1), softmax(logits.numpy(), axis=1)).sum(1)
    np.testing.assert_allclose(kl(logits, clean).numpy(), expected, rtol=1e-10)
    np.testing.assert_allclose(kl(clean, clean).numpy(), 0, atol=1e-12)


@pytest.mark.parametrize("name", ["cross_entropy", "margin", "dlr", "kl"])
def test_losses_of_extreme_logits_are_finite(name):
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]])
    loss = get_loss(name)
    value = loss(logits, torch.tensor([0, 0]) if loss.target == "labels" else logits.flip(0))
    assert value.shape == (2,)
    assert value.isfinite().all()


class OwnLoss(Loss):
    """The margin, without its closed form."""

    def __call__(self, logits, y):
        return margin(logits, y)


@pytest.mark.parametrize("attack", [PGD, APGD])
@pytest.mark.parametrize("loss", [OwnLoss(), margin], ids=["class", "function"])
@pytest.mark.parametrize("batchnorm", ["eval", "batch"])
def test_a_loss_of_ones_own_is_climbed_as_ours_is(attack, loss, batchnorm):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
    x, y = torch.rand(8, 3, 2, 2), torch.arange(8) % 4
    ours = get_loss("margin")
    settings = {"eps": 0.1, "steps": 4, "batchnorm": batchnorm, "restarts": 2}
    found = attack(loss=loss, **settings)(network, x, y, generator=torch.Generator().manual_seed(0))
    expected = attack(loss=ours, **settings)(network, x, y, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found, expected)


def test_a_loss_of_ones_own_in_a_file():
    kept = PGD(loss=OwnLoss()).to_config()
    assert kept["init_args"]["loss"] == {"class_path": f"{__name__}.OwnLoss", "init_args": {}}
    assert isinstance(PGD.from_config(kept).loss, OwnLoss)
    attack = PGD(loss=lambda logits, y: margin(logits, y))
    with pytest.raises(ValueError, match=r"PGD.loss is <function .*, which a checkpoint cannot hold as plain data"):
        attack.to_config()
    assert fit_attack(attack, ThreatModel("linf", 0.1)).loss is attack.loss  # an evaluation stores nothing


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (
            torch.nn.functional.cross_entropy,
            r"one number for each sample, shape \(2,\), got shape \(\): leave out its mean",
        ),
        (lambda logits, y: 1.0, r"one number for each sample, shape \(2,\), got float"),
        (lambda logits, y: logits.detach().amax(1), "loss has no gradient to the logits"),
    ],
)
def test_a_loss_that_is_not_one_number_for_each_sample(loss, told):
    with pytest.raises(UsageError, match=told):
        PGD(loss=loss)(nn.Flatten(), torch.rand(2, 3, 1, 1), torch.tensor([0, 1]))


@pytest.mark.parametrize("loss", [3, OwnLoss])
def test_what_is_not_a_loss(loss):
    with pytest.raises(UsageError, match=r"loss must be one of cross_entropy, .*, a Loss, or a function"):
        PGD(loss=loss)


def test_a_loss_that_does_not_exist():
    with pytest.raises(ValueError, match=r"loss must be one of cross_entropy, margin, dlr, kl, got 'mse'"):
        get_loss("mse")


def test_log_odds_against_probabilities():
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.arange(50) % 7
    p = logits.softmax(1)[torch.arange(50), y]
    torch.testing.assert_close(log_odds(logits, y), torch.log((1 - p) / p))


@pytest.mark.parametrize("name", ["cross_entropy", "margin", "dlr", "kl"])
def test_closed_form_gradients_are_those_of_autograd(name, logits, y):
    loss, target = get_loss(name), y if name != "kl" else logits.flip(0)
    leaf = logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss.alone(leaf, target).sum(), leaf)
    torch.testing.assert_close(loss.alone_gradient(logits, target), expected, rtol=1e-10, atol=1e-12)
