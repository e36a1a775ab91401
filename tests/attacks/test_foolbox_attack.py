"""FoolboxAttack against Foolbox itself, and the promises that Foolbox alone does not keep."""

import copy
import random
import sys

import foolbox
import numpy as np
import pytest
import torch
from torch import nn

from lightning_adv.attacks import FoolboxAttack
from tests.seeded import is_correct, seeded

ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}
# name, norm, eps, options
ATTACKS = [
    ("LinfDeepFoolAttack", "linf", 0.1, None),
    ("L2DeepFoolAttack", "l2", 0.5, None),
    ("LinfPGD", "linf", 0.1, {"steps": 20}),
    ("L2AdditiveGaussianNoiseAttack", "l2", 4.0, None),
    ("SparseL1DescentAttack", "l1", 3.0, {"steps": 5}),
    ("L1FMNAttack", "l1", 3.0, {"steps": 10}),
    ("InversionAttack", "l2", 3.0, {"distance": "l2"}),
    ("BoundaryAttack", "l2", 2.0, {"steps": 10}),
]


@pytest.fixture(scope="module")
def setup(digits, train):
    """A network trained on 1,500 digits, and 40 others."""
    x, y = digits
    return train(x[:1500], y[:1500], epochs=5), x[1500:1540], y[1500:1540]


def _by_foolbox(network, x, y, name, eps, options, seed):
    options = dict(options or {})
    if "distance" in options:
        options["distance"] = getattr(foolbox.distances, options["distance"])
    model = foolbox.PyTorchModel(copy.deepcopy(network), bounds=(0, 1), device="cpu")
    numpy, python = np.random.get_state(), random.getstate()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        clipped = getattr(foolbox.attacks, name)(**options)(model, x, foolbox.Misclassification(y), epsilons=eps)[1]
    np.random.set_state(numpy)
    random.setstate(python)
    return clipped


@pytest.mark.slow
@pytest.mark.parametrize(("name", "norm", "eps", "options"), ATTACKS, ids=lambda value: str(value)[:20])
def test_as_foolbox_clips_it(setup, name, norm, eps, options):
    network, x, y = setup
    attack = FoolboxAttack(name, eps, options=options)
    ours = attack(network, x, y, generator=seeded(7))
    theirs = _by_foolbox(network, x, y, name, eps, options, int(torch.randint(2**31, (), generator=seeded(7)))).detach()
    torch.testing.assert_close(ours, theirs.clamp(0, 1), rtol=0, atol=1e-6)
    assert attack.norm.name == norm
    assert (ours - x).flatten(1).norm(ORDERS[norm], 1).max() <= eps * (1 + 1e-5)
    assert is_correct(network, ours, y).sum() < is_correct(network, x, y).sum()


@pytest.mark.slow
def test_in_l0_an_example_beyond_eps_is_returned_clean(setup):
    network, x, y = setup
    attack = FoolboxAttack("L0FMNAttack", 3, options={"steps": 30})
    x_adv = attack(network, x, y, generator=seeded())
    seed = int(torch.randint(2**31, (), generator=seeded()))
    nearest = _by_foolbox(network, x, y, "L0FMNAttack", None, {"steps": 30}, seed)
    changed = (nearest != x).flatten(1).sum(1)
    assert attack.norm is None
    assert (changed > 3).any()
    assert (changed <= 3).any()
    assert torch.equal(x_adv, torch.where((changed <= 3).view(-1, 1, 1, 1), nearest, x))


class NotANumber(nn.Module):
    """A network whose gradient is not a number where the first pixel is 0.25."""

    def forward(self, x):
        first, rest = x.flatten(1).split([1, 3], dim=1)
        return rest + 0 * (first - 0.25).abs().sqrt()  # the slope of the root is infinite at 0


def test_what_is_not_a_number_is_returned_clean():
    x = torch.full((2, 1, 2, 2), 0.25)
    x[0, 0, 0, 0] = 0.75
    y = NotANumber().eval()(x).argmax(1)
    raw = _by_foolbox(NotANumber().eval(), x, y, "L2FastGradientAttack", 1.0, None, 0)
    assert raw.isnan().flatten(1).any(1).tolist() == [False, True]
    x_adv = FoolboxAttack("L2FastGradientAttack", 1.0)(NotANumber().eval(), x, y)
    assert torch.equal(x_adv[1], x[1])
    assert not torch.equal(x_adv[0], x[0])


@pytest.mark.parametrize(
    ("name", "norm", "eps"), [("LinfPGD", "linf", 8 / 255), ("L2PGD", "l2", 0.5), ("L1PGD", "l1", 3)]
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_images_of_other_dtypes_stay_in_the_ball(setup, dtype, name, norm, eps):
    network, x, y = setup
    network, x = copy.deepcopy(network).to(dtype), (0.9 * x + 0.05).to(dtype)
    x_adv = FoolboxAttack(name, eps, options={"steps": 3})(network, x, y, generator=seeded())
    assert x_adv.dtype == dtype
    assert (x_adv.double() - x.double()).flatten(1).norm(ORDERS[norm], 1).max() <= eps * (1 + 1e-6)
    assert (x_adv >= 0).all()
    assert (x_adv <= 1).all()
    assert (x_adv != x).flatten(1).any(1).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LinfPGD", "SaltAndPepperNoiseAttack", "BoundaryAttack"])
def test_randomness(setup, name):
    network, x, y = setup
    x, y = x[:8], y[:8]
    options = {"steps": 50 if name == "SaltAndPepperNoiseAttack" else 3}
    attack = FoolboxAttack(name, 0.1, options=options)
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    first, second, other = (attack(network, x, y, generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert not torch.equal(attack(network, x, y), attack(network, x, y))
    after = (torch.get_rng_state(), np.random.get_state()[1], random.getstate())
    assert torch.equal(before[0], after[0])
    np.testing.assert_array_equal(before[1], after[1])
    assert before[2] == after[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "LinfDepFool"}, r"class of foolbox.attacks, got 'LinfDepFool'\. Did you mean 'LinfDeepFoolAttack'\?"),
        ({"name": "Attack"}, "class of foolbox.attacks, got 'Attack'"),
        ({"options": {"stps": 3}}, "those of Foolbox's LinfDeepFoolAttack.*unexpected keyword argument 'stps'"),
        ({"name": "VirtualAdversarialAttack"}, "VirtualAdversarialAttack.*missing 1 required .*'steps'"),
        ({"name": "InversionAttack"}, "with a distance of l0, l1, l2, linf .*pass `distance`"),
        ({"name": "InversionAttack", "options": {"distance": "l3"}}, "with a distance of l0, l1, l2, linf"),
        ({"name": "SpatialAttack"}, "SpatialAttack.*no attribute 'distance'"),
        ({"eps": -1}, "eps must be at least 0"),
        ({"batchnorm": "train"}, "batchnorm must be one of eval, batch, got 'train'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        FoolboxAttack(**arguments)


def test_without_the_package(setup, monkeypatch):
    network, x, y = setup
    monkeypatch.setitem(sys.modules, "foolbox", None)
    attack = FoolboxAttack("NoSuchAttack")  # a checkpoint that holds it can still be read
    for ask in (attack.check_available, lambda: attack.norm, lambda: attack(network, x, y)):
        with pytest.raises(ValueError, match=r"FoolboxAttack needs the package foolbox.*pip install"):
            ask()
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"class of foolbox.attacks, got 'NoSuchAttack'"):
        attack.check_available()


def test_recipe_warm_up_and_no_images(setup):
    network, x, y = setup
    attack = FoolboxAttack("LinfPGD", "8/255", options={"steps": 3}, batchnorm="batch")
    assert FoolboxAttack.from_config(attack.to_config()).to_config() == attack.to_config()
    assert attack.scaled(0.5).eps == 4 / 255
    assert attack(network, x[:0], y[:0]).shape == (0, 1, 8, 8)


class _Counted(torch.nn.Module):
    """Notes whether it was ever asked for something that has a gradient."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(64, 3)
        self.asked = False

    def forward(self, x):
        self.asked |= x.requires_grad
        return self.linear(x.flatten(1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [("LinfDeepFoolAttack", {}), ("L2FMNAttack", {"steps": 2}), ("LinfPGD", {"steps": 2}), ("NewtonFoolAttack", {}),
     ("BoundaryAttack", {"steps": 5}), ("HopSkipJumpAttack", {"steps": 1}), ("SaltAndPepperNoiseAttack", {"steps": 5}),
     ("LinearSearchBlendedUniformNoiseAttack", {"distance": "l2"}), ("L2RepeatedAdditiveGaussianNoiseAttack", {}),
     ("GaussianBlurAttack", {"distance": "l2"}), ("InversionAttack", {"distance": "l2"}),
     ("BinarySearchContrastReductionAttack", {"distance": "l2"}), ("L2ContrastReductionAttack", {})],
)  # fmt: skip
def test_a_black_box_is_what_never_asks_for_a_gradient(name, options):
    torch.manual_seed(0)
    network = _Counted()
    x = torch.rand(4, 1, 8, 8)
    attack = FoolboxAttack(name, eps=5.0, options=options)
    attack(network, x, network(x).argmax(1))
    assert attack.black_box is not network.asked
