import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_adv import attacks
from lightning_adv.attacks import (
    APGD,
    DIFGSM,
    FGSM,
    GD,
    IFGSM,
    L1,
    MDIFGSM,
    MIFGSM,
    PGD,
    Attack,
    Ball,
    CarliniWagner,
    CarliniWagnerLinf,
    DCarliniWagner,
    RandomNoise,
)
from lightning_adv.core.moved import new_class_path
from lightning_adv.core.recipe import Recipe, check_class_paths, find_class, import_class, public_path

RECIPES = [
    PGD(eps="4/255", steps=3, step_size="1/255", momentum=0.5, restarts=2, batchnorm="batch", label="predicted"),
    PGD(norm=L1(density=0.2), eps=12, project=False, clean_start_probability=0.2, loss="margin"),
    FGSM(eps=0.1, norm="l2"),
    IFGSM(eps="8/255"),
    MIFGSM(eps="8/255", momentum=0.9),
    DIFGSM(diversity_probability=0.3),
    MDIFGSM(diversity_scale=0.9),
    GD(steps=2),
    CarliniWagner(eps="128/255", confidence=5, abort_early=False, initial_const=0.1),
    DCarliniWagner(binary_search_steps=3, label="random"),
    CarliniWagnerLinf(eps="4/255", restarts=2, diversity_probability=0.5),
    APGD("8/255", steps=20, norm="l2", loss="dlr", restarts=2, batchnorm="batch"),
    RandomNoise(eps="8/255", draws=7, norm="l2", batchnorm="batch"),
    L1(density=0.05),
]


class Pair(Recipe):
    """A recipe made of others."""

    def __init__(self, first, second=(), table=None):
        self.first, self.second, self.table = first, second, table


def _attributes(value):
    """All that a recipe holds, to any depth."""
    if isinstance(value, Recipe):
        return type(value), {name: _attributes(held) for name, held in vars(value).items()}
    return value


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
def test_a_recipe_survives_plain_data(recipe, tmp_path):
    config = recipe.to_config()
    torch.save(config, tmp_path / "config.pt")
    for copy in (json.loads(json.dumps(config)), torch.load(tmp_path / "config.pt", weights_only=True)):
        rebuilt = Recipe.from_config(copy)
        assert _attributes(rebuilt) == _attributes(recipe)
        assert rebuilt.to_config() == config


def test_what_a_config_looks_like():
    assert L1(density=0.2).to_config() == {
        "class_path": "lightning_adv.attacks.L1",
        "init_args": {"density": 0.2},
    }
    assert FGSM(eps="51/255").to_config() == {
        "class_path": "lightning_adv.attacks.FGSM",
        "init_args": {
            "eps": 0.2,
            "norm": {"class_path": "lightning_adv.attacks.Linf", "init_args": {}},
            "label": "true",
            "batchnorm": "eval",
        },
    }


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
def test_a_recipe_is_shown_as_the_call_that_makes_it(recipe):
    again = eval(repr(recipe), dict(vars(attacks)))
    assert again.to_config() == recipe.to_config()


def test_recipes_in_containers():
    init_args = Pair(L1(), (FGSM(), 1, None), {"a": GD()}).to_config()["init_args"]
    assert init_args["first"] == L1().to_config()
    assert init_args["second"] == [FGSM().to_config(), 1, None]
    assert init_args["table"] == {"a": GD().to_config()}


@pytest.mark.parametrize("value", [np.float64(0.5), torch.tensor(1.0), object(), {1, 2}, lambda x: x])
def test_what_a_checkpoint_cannot_hold(value):
    with pytest.raises(ValueError, match=r"Pair.first is .*, which a checkpoint cannot hold as plain data"):
        Pair(value).to_config()


def test_a_recipe_is_its_own_config():
    attack = PGD()
    assert Attack.from_config(attack) is attack


def test_a_fixed_class_is_written_by_its_arguments_alone():
    assert L1.from_config({"density": 0.3}).density == 0.3


def test_missing_arguments_are_the_defaults():
    assert Attack.from_config({"class_path": "lightning_adv.attacks.PGD"}).steps == 7
    assert Attack.from_config({"class_path": "lightning_adv.attacks.PGD", "init_args": None}).steps == 7


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("PGD", "Expected a Attack or its class_path and init_args, got 'PGD'"),
        (None, "Expected a Attack"),
        (L1(), "Expected a Attack"),
        ({"class_path": "lightning_adv.attacks.L1"}, r"lightning_adv\.attacks\.L1 is not a Attack"),
        ({"class_path": "lightning_adv.attacks.PDG"}, r"'lightning_adv\.attacks\.PDG' cannot be imported"),
        ({"class_path": "PGD"}, "'PGD' cannot be imported"),
    ],
)
def test_configs_of_something_else(config, message):
    with pytest.raises(ValueError, match=message):
        Attack.from_config(config)


def test_import_class():
    assert import_class("lightning_adv.attacks.Ball") is Ball
    for path in ("no_such_module.Thing", "lightning_adv.attacks.", ".PGD", "", "torch.nn.functional.relu"):
        with pytest.raises(ValueError, match="class_path"):
            import_class(path)


OLD_PATHS = (Path(__file__).parents[1] / "fixtures/v0.1.0/class_paths.txt").read_text().split()


@pytest.mark.parametrize("path", OLD_PATHS)
def test_every_class_is_found_by_the_paths_that_files_of_version_0_1_0_name_it_by(path):
    found = find_class(path, object)
    assert found.__name__ == new_class_path(path).rpartition(".")[2]
    assert find_class(public_path(found), object) is found


def test_a_class_is_written_down_by_the_path_that_users_import_it_by():
    assert public_path(PGD) == "lightning_adv.attacks.PGD"
    assert public_path(Recipe) == "lightning_adv.core.recipe.Recipe"  # in no package that offers it
    assert public_path(Pair) == f"{__name__}.Pair"
    assert find_class(f"{__name__}.Pair", Recipe) is Pair  # imported: pytest did


def test_nothing_is_imported_because_a_file_names_it(tmp_path, monkeypatch):
    (tmp_path / "beside.py").write_text("raise SystemExit('the file ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="was not imported: nothing is imported because a file names it"):
        Attack.from_config({"class_path": "beside.Attack"})
    with pytest.raises(ValueError, match="must be the dotted path of a class, got 3"):
        Attack.from_config({"class_path": 3})
    with pytest.raises(ValueError, match=r"beside was not imported"):
        check_class_paths({"a": [{"b": {"class_path": "beside.Attack", "init_args": {}}}]})
    check_class_paths({"a": {"class_path": "timm.optim.AdamP"}, "b": {"class_path": "Short"}})


def test_an_argument_without_annotation_is_told():
    """A command gives it what its parser read, as it is."""
    with pytest.raises(ValueError, match=r"Expected a PGD .* Annotate the argument that takes it: PGD\."):
        PGD.from_config(Namespace(class_path="PGD", init_args=Namespace()))
