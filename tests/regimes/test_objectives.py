"""The objectives against the papers' formulas, written with probabilities in float64 and loops."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from lightning_adv.regimes import MART, TRADES, CrossEntropy, MadryTraining
from lightning_adv.regimes.objectives import boosted_cross_entropy, divergence, pairing_distance
from tests.regimes.toy import BACKBONE, ToyData


def logits(seed, n=6, k=4):
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed)) * 3


Y = torch.tensor([0, 1, 2, 3, 0, 1])


def probabilities(z):
    exponentials = [[math.exp(v) for v in row] for row in z.tolist()]
    return [[v / sum(row) for v in row] for row in exponentials]


def test_divergence():
    p, q = probabilities(logits(0)), probabilities(logits(1))
    expected = [sum(a * math.log(a / b) for a, b in zip(r, s, strict=True)) for r, s in zip(p, q, strict=True)]
    torch.testing.assert_close(divergence(logits(0), logits(1)), torch.tensor(expected))


def test_divergence_has_gradients_to_both_sides():
    clean, adversarial = logits(0).requires_grad_(), logits(1).requires_grad_()
    divergence(clean, adversarial).sum().backward()
    assert clean.grad.abs().min() > 0
    assert adversarial.grad.abs().min() > 0


def test_boosted_cross_entropy():
    expected = []
    for row, label in zip(probabilities(logits(2)), Y.tolist(), strict=True):
        runner_up = max(value for k, value in enumerate(row) if k != label)
        expected.append(-math.log(row[label]) - math.log(1 - runner_up))
    torch.testing.assert_close(boosted_cross_entropy(logits(2), Y), torch.tensor(expected))


def test_boosted_cross_entropy_of_a_confident_mistake():
    """1 - p rounds to zero in fp32 here, and its logarithm would be infinite."""
    z = torch.tensor([[0.0, 60.0, 1.0]], requires_grad=True)
    loss = boosted_cross_entropy(z, torch.tensor([0]))
    # -log p_0 = 60; 1 - p_1 is exp(-60) + exp(-59)
    assert loss.item() == pytest.approx(60 + 60 - math.log(1 + math.e), rel=1e-6)
    loss.sum().backward()
    assert torch.isfinite(z.grad).all()


def test_pairing_distance():
    a, b = logits(0), logits(1)
    expected = sum((a[i, j] - b[i, j]) ** 2 for i in range(6) for j in range(4)) / 24
    torch.testing.assert_close(pairing_distance(a, b), expected)


def parts(objective, criterion=F.cross_entropy):
    """Run an objective on a linear network; return it with the logits that the formulas are about."""
    weight = torch.randn(12, 4, generator=torch.Generator().manual_seed(5))
    x, x_adv = (torch.rand(6, 3, 2, 2, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))

    def forward(images):
        return images.flatten(1) @ weight

    return objective(forward, x, x_adv, Y, criterion), forward(x), forward(x_adv)


@pytest.mark.parametrize("beta", [0.0, 6.0])
def test_trades(beta):
    value, clean, adversarial = parts(TRADES(beta))
    p, q = probabilities(clean), probabilities(adversarial)
    accuracy = sum(-math.log(row[label]) for row, label in zip(p, Y.tolist(), strict=True)) / 6
    robustness = sum(a * math.log(a / b) for r, s in zip(p, q, strict=True) for a, b in zip(r, s, strict=True)) / 6
    assert value.item() == pytest.approx(accuracy + beta * robustness, rel=1e-5)


def test_mart():
    value, clean, adversarial = parts(MART(5.0))
    total = 0.0
    for p, q, label in zip(probabilities(clean), probabilities(adversarial), Y.tolist(), strict=True):
        runner_up = max(v for k, v in enumerate(q) if k != label)
        kl = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        total += -math.log(q[label]) - math.log(1 - runner_up) + 5 * kl * (1 - p[label])
    assert value.item() == pytest.approx(total / 6, rel=1e-5)


def test_cross_entropy_with_pairs():
    value, clean, adversarial = parts(CrossEntropy(clean_fraction=0.5, logit_pairing=0.3))
    images = [*zip(adversarial, Y, strict=True), *zip(clean[:3], Y[:3], strict=True)]
    expected = sum(F.cross_entropy(z[None], y[None]).item() for z, y in images) / 9
    expected += 0.3 * ((clean[:3] - adversarial[:3]) ** 2).mean().item()
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_label_smoothing_goes_through_the_criterion():
    value, clean, adversarial = parts(TRADES(1.0), lambda z, y: F.cross_entropy(z, y, label_smoothing=0.2))
    expected = F.cross_entropy(clean, Y, label_smoothing=0.2) + divergence(clean, adversarial).mean()
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TRADES(-1.0), "beta must be at least 0 and finite, got -1.0"),
        (lambda: MART(float("nan")), "weight must be at least 0 and finite, got nan"),
        (lambda: CrossEntropy(clean_fraction=1.5), r"clean_fraction must lie in \[0, 1\], got 1.5"),
        (lambda: CrossEntropy(logit_pairing=0.5), "logit_pairing is 0.5, but clean_fraction is 0"),
        (lambda: MadryTraining(BACKBONE, objective=MART(), label_smoothing=0.1), "MART has no smoothed form"),
    ],
)
def test_arguments_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
@pytest.mark.parametrize("objective", [TRADES(beta=2.5), MART(weight=3.0), CrossEntropy(0.5, 0.25)])
def test_survives_the_checkpoint(tmp_path, objective):
    from tests.regimes.toy import quiet_trainer

    sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.25)
    module = MadryTraining(BACKBONE, num_classes=2, objective=objective, optimizer=sgd)
    trainer = quiet_trainer(tmp_path, limit_train_batches=1, limit_val_batches=0)
    trainer.fit(module, ToyData())
    trainer.save_checkpoint(tmp_path / "it.ckpt")
    loaded = MadryTraining.load_from_checkpoint(tmp_path / "it.ckpt", weights_only=True)
    assert type(loaded.objective) is type(objective)
    assert vars(loaded.objective) == vars(objective)
    assert loaded.attack.to_config() == module.attack.to_config()
    assert loaded.configure_optimizers()["optimizer"].defaults["momentum"] == 0.25
