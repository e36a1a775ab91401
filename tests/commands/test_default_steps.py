"""Steps of attacks in configurations: what is not given follows eps, what is given stays, and none falls short."""

import logging
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from lightning_adv import attacks
from lightning_adv.attacks import PGD
from lightning_adv.attacks.describe import shortfall
from lightning_adv.commands.shared.configs import config_names, find_config, preset_names
from lightning_adv.regimes import MadryTraining, Regime
from tests.regimes.toy import BACKBONE


@pytest.fixture(scope="module")
def parser():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Regime, "model")
    return parser


def built(parser, regime="MadryTraining", **arguments):
    config = {"class_path": regime, "init_args": {"backbone": {"name": "small_cnn"}, **arguments}}
    return parser.instantiate(parser.parse_object({"model": config})).model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("regime", "argument", "steps", "step_size"),
    [
        ("MadryTraining", "evaluation_attack", 20, 0.025),
        ("MadryTraining", "attack", 10, 0.05),
        ("AdvPropTraining", "attack", 5, 0.05),
        ("BlockwiseRetraining", "attack", 7, 0.05),
        ("SmoothAdversarialTraining", "evaluation_attack", 20, 0.025),
    ],
)
def test_eps_alone_over_a_regimes_own_attack(parser, regime, argument, steps, step_size):
    """Jsonargparse merges what is given into the arguments of the default."""
    given = {argument: {"class_path": "PGD", "init_args": {"eps": 0.2}}}
    attack = getattr(built(parser, regime, **given), argument)
    assert (attack.eps, attack.steps) == (0.2, steps)
    assert attack.step_size == pytest.approx(step_size)


def test_a_step_that_is_given_stays(parser):
    given = {"evaluation_attack": {"class_path": "PGD", "init_args": {"eps": 0.2, "step_size": "1/255"}}}
    assert built(parser, **given).evaluation_attack.step_size == 1 / 255


@pytest.mark.parametrize("kind", ["MIFGSM", "IFGSM", "CarliniWagnerLinf"])
def test_another_attack_in_place_of_the_default(parser, kind):
    """The steps of the default come along where the class takes them: they too reach the edge."""
    given = {"evaluation_attack": {"class_path": kind, "init_args": {"eps": 0.2}}}
    assert shortfall(built(parser, **given).evaluation_attack, "evaluation_attack") is None


def test_the_defaults_of_before(parser):
    regime = built(parser)
    assert regime.evaluation_attack.to_config() == PGD("8/255", 20, "1/255").to_config()
    assert regime.attack.to_config() == PGD("8/255", 10, "2/255").to_config()


def attacks_in(config):
    if isinstance(config, dict):
        if hasattr(attacks, str(config.get("class_path"))):
            yield config
        for value in config.values():
            yield from attacks_in(value)
    elif isinstance(config, list):
        for value in config:
            yield from attacks_in(value)


@pytest.mark.parametrize("name", [*config_names(), *preset_names("evaluation"), *preset_names("transfer")])
def test_no_shipped_attack_falls_short(name):
    config = yaml.safe_load(Path(find_config(name)).read_text())
    curve = config.pop("steps_curve", None)
    for given in attacks_in(config):
        attack = getattr(attacks, given["class_path"])(**given.get("init_args", {}))
        assert shortfall(attack, name) is None
    if curve is not None:
        assert shortfall(PGD(**curve["attack"]["init_args"]), name, steps=max(curve["steps"])) is None


def test_a_regime_says_it_once_before_it_trains(caplog):
    short = PGD(eps=0.2, steps=2, step_size="1/255")
    regime = MadryTraining(BACKBONE, num_classes=2, attack=short, evaluation_attack=PGD(eps=0.2, steps=3))
    with caplog.at_level(logging.WARNING, "lightning_adv"):
        regime.configure_model()
        regime.configure_model()  # as Lightning does before the test
    (record,) = caplog.records
    assert record.message.startswith("attack: PGD-2 cannot reach the edge of its ball: 2 steps go 2/255 far at most")
