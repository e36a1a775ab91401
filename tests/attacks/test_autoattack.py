"""AutoAttack against the package's own evaluation, and the promises that the package alone does not keep."""

import copy
import logging
import subprocess
import sys

import numpy as np
import pyautoattack
import pytest
import torch
from torch import nn

from lightning_adv.attacks import PGD, AutoAttack
from lightning_adv.testing import check_attack
from tests.seeded import is_correct, seeded

TWO = ["apgd-ce", "apgd-t"]
# The package's components with fewer steps; in L1 APGD counts its steps by the other name.
STEPS = {"n_iter": 10, "n_iter_orig": 10}
SHORT = {"apgd": STEPS, "apgd_targeted": STEPS, "fab": {"n_iter": 5}, "square": {"n_queries": 100}}


def _shorten(library, short=SHORT):
    for component, settings in short.items():
        vars(getattr(library, component)).update(settings)
    return library


class Short(AutoAttack):
    """AutoAttack of fewer steps."""

    def _library(self, *arguments):
        return _shorten(super()._library(*arguments))


@pytest.fixture(scope="module")
def setup(digits, train):
    """A network trained adversarially on 1,500 digits, and others, of which one has a wrong label."""
    x, y = digits
    attack = PGD(eps=0.2, steps=5, step_size=0.06)
    network = train(x[:1500], y[:1500], epochs=5, attack=attack)
    x, y = x[1500:1524], y[1500:1524].clone()
    y[3] = (y[3] + 1) % 10
    return network, x, y


def _by_the_package(network, x, y, norm, eps, attacks, batch_size, seed, short=SHORT):
    norm = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]
    library = pyautoattack.AutoAttack(copy.deepcopy(network), norm=norm, eps=eps, seed=seed, version="standard")
    library.attacks_to_run = list(attacks)
    with torch.random.fork_rng():
        return _shorten(library, short).run_standard_evaluation(x, y, batch_size=batch_size)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("norm", "eps", "attacks"),
    [
        ("linf", 0.2, ["apgd-ce", "apgd-t", "fab-t", "square"]),
        ("linf", 0.2, ["fab", "apgd-dlr"]),
        ("linf", 0.3, ["square"]),
        ("l2", 0.7, ["apgd-ce", "apgd-t", "fab-t", "square"]),
        ("l2", 1.5, ["square"]),
        ("l1", 1.0, ["apgd-ce", "apgd-t", "fab-t", "square"]),
        ("l1", 3.0, ["square"]),
    ],
)
def test_as_the_package_evaluates(setup, norm, eps, attacks):
    network, x, y = setup
    ours = Short(eps, norm=norm, attacks=attacks, batch_size=10)(network, x, y, generator=seeded(7))
    seed = int(torch.randint(2**31, (), generator=seeded(7)))
    theirs = _by_the_package(network, x, y, norm, eps, attacks, 10, seed)
    # The package's L1 projection leaves the ball by a rounding.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6 if norm == "l1" else 0)
    correct = is_correct(network, ours, y)
    assert (correct == is_correct(network, theirs, y)).all()
    assert 0 < correct.sum() < is_correct(network, x, y).sum()


@pytest.mark.slow
def test_as_the_package_evaluates_at_full_length(setup):
    network, x, y = (value[:4] if isinstance(value, torch.Tensor) else value for value in setup)
    attack = AutoAttack(0.2, batch_size=3)
    ours = attack(network, x, y, generator=seeded(7))
    seed = int(torch.randint(2**31, (), generator=seeded(7)))
    theirs = _by_the_package(network, x, y, "linf", 0.2, attack.attacks, 3, seed, short={})
    assert torch.equal(ours, theirs)
    assert 0 < is_correct(network, ours, y).sum() < is_correct(network, x, y).sum()


@pytest.mark.slow
def test_unbroken_and_misclassified_samples_are_returned_clean(setup):
    network, x, y = setup
    x_adv = Short(0.15, attacks=TWO)(network, x, y, generator=seeded())
    kept = (x_adv == x).flatten(1).all(1)
    clean, correct = is_correct(network, x, y), is_correct(network, x_adv, y)
    assert (kept == (~clean | correct)).all()
    assert (~clean).any()
    assert 0 < correct.sum() < clean.sum()


def test_statistics_of_a_batch_that_shrinks(build, images):
    network, (x, y) = build("cnn").eval(), images
    sizes = []
    handle = network.register_forward_hook(lambda module, arguments, output: sizes.append(len(arguments[0])))
    Short(0.01, attacks=TWO, batch_size=4, batchnorm="batch")(network, x, y, generator=seeded())
    handle.remove()
    assert set(sizes) == {4}


@pytest.mark.slow
def test_a_component_attacks_what_those_before_left(setup):
    network, x, y = setup
    seen = []
    handle = network.register_forward_hook(lambda module, arguments, output: seen.append(len(arguments[0])))
    attack = Short(0.2, attacks=TWO, batch_size=50)
    first, second = attack.stages()
    survivors = is_correct(network, first(network, x, y, generator=seeded()), y)
    seen.clear()
    attack(network, x, y, generator=seeded())
    handle.remove()
    assert seen[0] == len(x)
    assert seen[1] == is_correct(network, x, y).sum()
    assert survivors.sum() in seen
    assert min(seen) < survivors.sum()
    assert [list(stage.attacks) for stage in (first, second)] == [["apgd-ce"], ["apgd-t"]]
    assert {(stage.eps, stage.batch_size, stage.norm.name) for stage in (first, second)} == {(0.2, 50, "linf")}


@pytest.mark.slow
def test_more_classes_than_targets_and_fewer(setup, images, build):
    # 5 classes: of 9 targets the package would take a class that is not there.
    network, x = build("cnn").eval(), images[0]
    y = network(x).argmax(1)
    x_adv = Short(0.01, attacks=["apgd-t", "fab-t"])(network, x, y, generator=seeded())
    assert is_correct(network, x_adv, y).sum() < 6
    with pytest.raises(IndexError):
        _by_the_package(network, x, y, "linf", 1e-6, ["apgd-t"], 10, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("classes", "attack", "works"),
    [(3, "apgd-t", False), (2, "apgd-dlr", False), (3, "apgd-dlr", True), (2, "fab-t", True), (2, "apgd-ce", True)],
)
def test_few_classes(setup, classes, attack, works):
    _, x, y = setup
    network, y = nn.Sequential(nn.Flatten(), nn.Linear(64, classes)), y % classes
    if works:
        assert is_correct(network, Short(0.3, attacks=[attack])(network, x, y), y).sum() < len(x) / 2
    else:
        with pytest.raises(ValueError, match=f"{attack}.*needs at least {classes + 1} classes.*has {classes}"):
            Short(attacks=["apgd-ce", attack])(network, x, y)


# The promises


@pytest.mark.slow
@pytest.mark.parametrize("batchnorm", ["eval", "batch"])
def test_the_promises_of_every_attack(build, images, batchnorm):
    """On labels that the network gives: what is misclassified already is returned clean."""
    network, x = build("cnn"), images[0]
    attack = Short(0.01, attacks=["apgd-ce", "fab-t"], batch_size=6, batchnorm=batchnorm)
    check_attack(attack, network, x, build("cnn").eval()(x).argmax(1))


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "order", "eps"), [("linf", np.inf, 0.03), ("l2", 2, 0.3), ("l1", 1, 3)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_images_of_other_dtypes_stay_in_the_ball(setup, dtype, norm, order, eps):
    network, x, _ = setup
    network, x = copy.deepcopy(network).to(dtype), (0.9 * x + 0.05).to(dtype)
    y = network(x).argmax(1)
    x_adv = Short(eps, norm=norm, attacks=["apgd-ce", "fab-t"])(network, x, y, generator=seeded())
    assert x_adv.dtype == dtype
    delta = (x_adv.double() - x.double()).flatten(1)
    assert delta.norm(order, 1).max() <= eps * (1 + 1e-6)
    assert (x_adv >= 0).all()
    assert (x_adv <= 1).all()
    assert is_correct(network, x_adv, y).sum() < len(x)


@pytest.mark.slow
def test_images_in_channels_last(build, images):
    x = images[0].to(memory_format=torch.channels_last)
    network = build("cnn").eval().to(memory_format=torch.channels_last)
    y = network(x).argmax(1)
    for norm, eps in (("linf", 0.01), ("l2", 0.3), ("l1", 3)):
        attack = Short(eps, norm=norm, attacks=["apgd-ce", "fab-t"])
        assert is_correct(network, attack(network, x, y, generator=seeded()), y).sum() < 6


@pytest.mark.slow
def test_a_seed_decides_the_result(setup):
    network, x, y = setup
    attack = Short(0.2, attacks=TWO)
    first, second, other = (attack(network, x, y, generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [Short(0.2, attacks=TWO)(network, x, y) for _ in range(2)]
        again = [attack(network, x, y) for _ in range(2)]
    assert torch.equal(*drawn)
    assert torch.equal(again[0], drawn[0])
    assert not torch.equal(*again)


def test_a_debugger_keeps_its_place(setup):
    network, x, y = setup

    def trace(frame, event, argument):
        return None

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        Short(0.2, attacks=["apgd-ce"])(network, x[:2], y[:2])
        found = sys.gettrace()
    finally:
        sys.settrace(previous)
    assert found is trace


class NoGradient(nn.Module):
    def forward(self, x):
        return (100 * x.flatten(1)[:, :10]).round()


@pytest.mark.slow
def test_zero_gradients_are_told_once_and_nothing_else(setup, caplog):
    network, x, y = setup
    caplog.set_level(logging.DEBUG)
    Short(0.2, attacks=TWO)(network, x, y)
    assert not caplog.records
    attack, flat = Short(0.01, attacks=["apgd-ce", "apgd-t"]), NoGradient()
    y = flat(x).argmax(1)
    attack(flat, x, y)
    attack(flat, x, y)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("lightning_adv", logging.WARNING)
    assert "zero gradient" in record.message
    assert not logging.getLogger("auto-attack").filters


# What is asked of it, and what it is asked with


def test_bad_arguments(setup):
    with pytest.raises(ValueError, match=r"apgd-ce, .*square; got 'apgd-tt'\. Did you mean 'apgd-t'\?"):
        AutoAttack(attacks=["apgd-ce", "apgd-tt"])
    for attacks in ("apgd-ce", []):
        with pytest.raises(ValueError, match="attacks must be a list of apgd-ce"):
            AutoAttack(attacks=attacks)
    with pytest.raises(ValueError, match="norm must be one of linf, l2, l1"):
        AutoAttack(norm="l0")
    with pytest.raises(ValueError, match="eps must be between 0 and 1, got 8"):
        AutoAttack(8)
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1, got 0"):
        AutoAttack(batch_size=0)
    with pytest.raises(ValueError, match="batchnorm must be one of eval, batch"):
        AutoAttack(batchnorm="train")
    network, x, y = setup
    with pytest.raises(ValueError, match=r"y must lie in \[0, 10\)"):
        AutoAttack()(network, x, y + 5)
    with pytest.raises(ValueError, match=r"at least 5 x 5 pixels, got the shape \(1, 4, 8\)"):
        AutoAttack(norm="l2", attacks=["square"])(nn.Sequential(nn.Flatten(), nn.Linear(32, 10)), x[:, :, :4], y)


def test_without_the_package(setup, monkeypatch):
    network, x, y = setup
    attack = AutoAttack()
    attack.check_available()
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    for ask in (attack.check_available, lambda: attack(network, x, y)):
        with pytest.raises(ValueError, match=r"AutoAttack needs .*pip install 'lightning-adv\[eval\]'"):
            ask()
    AutoAttack.from_config(attack.to_config())


@pytest.mark.slow
def test_the_packages_are_imported_late():
    code = (
        "import sys; from lightning_adv.attacks import AutoAttack, FoolboxAttack; AutoAttack().check_available(); "
        "print([name for name in ('pyautoattack', 'foolbox') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_recipe_and_warm_up():
    attack = AutoAttack("8/255", norm="l2", attacks=TWO, batch_size=7, batchnorm="batch")
    assert AutoAttack.from_config(attack.to_config()).to_config() == attack.to_config()
    assert attack.scaled(0.5).eps == 4 / 255
