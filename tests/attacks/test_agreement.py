"""Agreement with Foolbox, ART and AutoAttack's package at the same parameters, from the same start.

The peers get a copy of the network each: both leave gradients in it. What they do otherwise than this package:

* Foolbox's MI-FGSM adds up gradients as they come, without the division by their L1 norm (Dong et al. 2018,
  equation 6), so ART's is the peer here.
* Foolbox and ART project onto the L1 ball by shortening; the Euclidean projection is ART's ``projection_l1_1``. The
  projection of Foolbox's ``SparseL1DescentAttack`` leaves the ball.
"""

import copy
import functools
from functools import partial

import eagerpy
import foolbox
import numpy as np
import pytest
import torch
from art.attacks.evasion import (
    BasicIterativeMethod,
    FastGradientMethod,
    MomentumIterativeMethod,
    ProjectedGradientDescentPyTorch,
)
from art.estimators.classification import PyTorchClassifier
from art.utils import projection_l1_1
from pyautoattack.autopgd_base import APGDAttack
from torch import nn

from lightning_adv.attacks import APGD, DIFGSM, FGSM, GD, IFGSM, L1, MDIFGSM, MIFGSM, PGD, CarliniWagner
from lightning_adv.attacks.diversity import fork_to_host, resize_and_pad
from lightning_adv.attacks.labels import choose_labels
from tests.seeded import is_correct

SAMPLES = 200
# So that each attack breaks some of these digits and not others.
LINF = {"eps": 0.1, "steps": 10, "step_size": 0.02}
L2_ = {"eps": 0.6, "steps": 10, "step_size": 0.12}
L1_ = {"eps": 3.0, "steps": 10, "step_size": 0.6}
SPARSE = {"eps": 1.5, "steps": 10, "step_size": 0.3}
SEED = 3


def _generator():
    return torch.Generator().manual_seed(SEED)


@pytest.fixture(scope="module")
def setup(digits, train):
    """A network trained on 1,500 digits, and 200 other digits."""
    x, y = digits
    return train(x[:1500], y[:1500], epochs=5), x[1500 : 1500 + SAMPLES], y[1500 : 1500 + SAMPLES]


def _foolbox(attack, eps, network, x, labels, targeted=False):
    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    criterion = foolbox.criteria.TargetedMisclassification if targeted else foolbox.criteria.Misclassification
    return attack.run(model, x, criterion(labels), epsilon=eps)


def _art(attack, network, x, labels=None, **settings):
    classifier = PyTorchClassifier(
        network,
        nn.CrossEntropyLoss(),
        input_shape=x.shape[1:],
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    settings |= {} if attack is FastGradientMethod else {"verbose": False}
    labels = None if labels is None else labels.numpy()
    return torch.tensor(attack(classifier, batch_size=SAMPLES, **settings).generate(x.numpy(), labels))


def _fb(kind, eps, steps, step_size, **options):
    return partial(_foolbox, kind(steps=steps, abs_stepsize=step_size, random_start=False, **options), eps)


def _art_loop(attack, eps, steps, step_size, **settings):
    return partial(_art, attack, eps=eps, eps_step=step_size, max_iter=steps, **settings)


class EuclideanProjection:
    """Gives a Foolbox L1 attack ART's projection."""

    def project(self, x, x0, epsilon):
        delta = (x - x0).raw
        nearest = projection_l1_1(delta.flatten(1).double().numpy(), np.full(len(delta), epsilon))
        return x0 + eagerpy.astensor(torch.tensor(nearest, dtype=delta.dtype).view_as(delta))


class FoolboxL1(EuclideanProjection, foolbox.attacks.L1ProjectedGradientDescentAttack):
    """Steps along the gradient over its L1 norm."""


class FoolboxSparseL1(EuclideanProjection, foolbox.attacks.SparseL1DescentAttack):
    """Steps along the signs of the largest gradients (SLIDE)."""


class GradientL1(L1):
    """This package's L1 ball with Foolbox's direction."""

    def steepest(self, gradient, x):
        return gradient / self.norm(gradient).clamp_min(1e-30).view(-1, 1, 1, 1)


class Diverse(nn.Module):
    """Transforms the input of each call that is differentiated with probability 0.7 (Xie et al. 2019, eq. 3.6)."""

    def __init__(self, network):
        super().__init__()
        self.network, self.generator = network, fork_to_host(_generator())

    def forward(self, x):
        if x.requires_grad and torch.rand((), generator=self.generator) < 0.7:
            x = resize_and_pad(x, 0.75, self.generator)
        return self.network(x)


def _on_diverse_input(peer, network, x, labels):
    return peer(Diverse(network).eval(), x, labels)


def _target(label, network, x, y):
    with torch.no_grad():
        return choose_labels(label, y, network(x), _generator())


def _towards(label, peer, network, x, y):
    return peer(network, x, _target(label, network, x, y), targeted=True)


fb, art = foolbox.attacks, _art_loop
DIVERSITY = {"diversity_probability": 0.7, "diversity_scale": 0.75}
ZERO = {"start": "zero"}
# ours, the peer's; what CELLS compares below is left out
PAIRS = {
    "FGSM L2, ART": (FGSM(eps=0.5, norm="l2"), partial(_art, FastGradientMethod, eps=0.5, norm=2)),
    "I-FGSM, foolbox": (IFGSM(**LINF), _fb(fb.LinfBasicIterativeAttack, **LINF)),
    "PGD L1 along the gradient, foolbox": (PGD(**L1_, norm=GradientL1(), **ZERO), _fb(FoolboxL1, **L1_)),
    "PGD L1, foolbox": (PGD(**SPARSE, norm=L1(density=4 / 64), **ZERO), _fb(FoolboxSparseL1, **SPARSE, quantile=0.95)),
    "MI-FGSM, ART": (MIFGSM(**LINF, momentum=0.9), art(MomentumIterativeMethod, **LINF, decay=0.9)),
    "MI-FGSM L2, ART": (MIFGSM(**L2_, norm="l2"), art(MomentumIterativeMethod, **L2_, norm=2)),
    "DI-FGSM, foolbox": (
        DIFGSM(**LINF, **DIVERSITY), partial(_on_diverse_input, _fb(fb.LinfBasicIterativeAttack, **LINF)),
    ),
    "M-DI-FGSM, ART": (
        MDIFGSM(**LINF, **DIVERSITY), partial(_on_diverse_input, art(MomentumIterativeMethod, **LINF)),
    ),
    "GD, foolbox": (
        GD(eps=0, steps=4, step_size=0.02), _fb(fb.LinfBasicIterativeAttack, eps=1, steps=4, step_size=0.02),
    ),
    "random target, foolbox": (
        PGD(**LINF, **ZERO, label="random"), partial(_towards, "random", _fb(fb.LinfBasicIterativeAttack, **LINF)),
    ),
    "least likely, ART": (
        IFGSM(**LINF, label="least_likely"), partial(_towards, "least_likely", art(BasicIterativeMethod, **LINF)),
    ),
    "predicted label, ART": (
        IFGSM(**LINF, label="predicted"), lambda network, x, y: art(BasicIterativeMethod, **LINF)(network, x),
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS)
def test_robust_accuracy_agrees(setup, pair):
    network, x, y = setup
    attack, peer = PAIRS[pair]
    ours = is_correct(network, attack(network, x, y, generator=_generator()), y)
    theirs = is_correct(network, peer(copy.deepcopy(network), x, y), y)
    print(
        f"{pair}: {ours.sum()} and {theirs.sum()} of {SAMPLES} stay correct, {(ours != theirs).sum()} verdicts differ"
    )
    assert 0.05 * SAMPLES < ours.sum() < 0.95 * SAMPLES
    assert abs(ours.sum() - theirs.sum()) <= 1
    assert (ours != theirs).sum() <= 1


L1_PEERS = {
    "foolbox": _fb(fb.L1ProjectedGradientDescentAttack, **SPARSE),
    "foolbox, Euclidean projection": _fb(FoolboxL1, **SPARSE),
    "ART": art(ProjectedGradientDescentPyTorch, **SPARSE, norm=1),
}


@pytest.mark.slow
@pytest.mark.parametrize("peer", L1_PEERS)
def test_the_default_l1_attack_is_not_weaker(setup, peer):
    network, x, y = setup
    ours = is_correct(network, PGD(**SPARSE, norm="l1", **ZERO)(network, x, y), y).sum()
    theirs = is_correct(network, L1_PEERS[peer](copy.deepcopy(network), x, y), y).sum()
    print(f"L1: {ours} stay correct, with {peer} {theirs}")
    assert ours <= theirs


# A standard and an adversarially trained network, several eps


def _apgd(eps, norm, network, x, y):
    # From the start that ours draws: from different ones, the package differs from itself on up to 4 % of digits.
    start = APGD(eps, norm=norm.lower())._start(x, _generator())
    attack = APGDAttack(network, norm=norm, eps=eps, device="cpu")
    attack.init_hyperparam(x)
    best, correct, _, broken = attack.attack_single_run(x, y, x_init=start)
    return torch.where(correct.view(-1, 1, 1, 1), best, broken)


def _loop(eps):
    return {"eps": eps, "steps": 20, "step_size": eps / 8}


def _foolbox_nearest(attack, eps, network, x, y):
    return attack(foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu"), x, y, epsilons=eps)[1].detach()


CW = {"steps": 60, "binary_search_steps": 6, "initial_const": 0.01}
# eps -> ours and the peer's
CELLS = {
    "FGSM": lambda eps: (FGSM(eps), partial(_foolbox, fb.LinfFastGradientAttack(), eps)),
    "PGD": lambda eps: (PGD(**_loop(eps), **ZERO), _fb(fb.LinfProjectedGradientDescentAttack, **_loop(eps))),
    "PGD L2": lambda eps: (
        PGD(**_loop(5 * eps), norm="l2", **ZERO), art(ProjectedGradientDescentPyTorch, **_loop(5 * eps), norm=2),
    ),
    "MI-FGSM": lambda eps: (MIFGSM(**_loop(eps)), art(MomentumIterativeMethod, **_loop(eps), decay=1)),
    "C&W L2": lambda eps: (
        CarliniWagner(5 * eps, learning_rate=0.05, **CW),
        partial(_foolbox_nearest, fb.L2CarliniWagnerAttack(stepsize=0.05, **CW), 5 * eps),
    ),
    "APGD-CE": lambda eps: (APGD(eps), partial(_apgd, eps, "Linf")),
    "APGD-CE L2": lambda eps: (APGD(5 * eps, norm="l2"), partial(_apgd, 5 * eps, "L2")),
}  # fmt: skip
# network, attack, eps in Linf; five times that in L2
GRID = [
    (network, attack, eps)
    for network, eps in (("standard", 0.05), ("adversarial", 0.1), ("adversarial", 0.2))
    for attack in CELLS
    if attack != "C&W L2" or eps == 0.1  # slow, and test_carlini_wagner has more
]


@pytest.fixture(scope="module")
def trained(digits, train):
    x, y = digits
    training = {"standard": None, "adversarial": PGD(eps=0.2, steps=5, step_size=0.06)}
    return functools.cache(lambda name: train(x[:1500], y[:1500], epochs=5, attack=training[name]))


@pytest.mark.slow
@pytest.mark.parametrize(("network", "attack", "eps"), GRID)
def test_at_most_one_percent_of_verdicts_differ(trained, digits, network, attack, eps):
    x, y = (part[1500 : 1500 + SAMPLES] for part in digits)
    kept, (attack, peer) = trained(network), CELLS[attack](eps)
    ours = is_correct(kept, attack(kept, x, y, generator=_generator()), y)
    theirs = is_correct(kept, peer(copy.deepcopy(kept), x, y), y)
    assert (ours != theirs).double().mean() <= 0.01
    assert 0.02 < ours.double().mean() < 0.98
