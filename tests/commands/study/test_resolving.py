"""A cell's configuration is what ``--print_config`` says for the same settings; what it refuses is refused."""

import json

import pytest
import yaml

from lightning_adv.cli import main
from lightning_adv.commands.study.resolving import Resolver
from lightning_adv.core.errors import UsageError
from lightning_adv.core.trust import trusting_for_a_command
from lightning_adv.studies.cells import mark_of
from lightning_adv.studies.study_file import make_study

CELL = mark_of("0123456789")

STAGES = {
    "fit": {"config": "digits/blockwise"},
    "attacked": {"command": "evaluate", "config": "evaluation/quick"},
    "between": {"command": "transfer"},
}
MANY = {
    "seed_everything": 3,
    "trainer.max_epochs": 2,
    "model.init_args.backbone.checkpoint": f"{CELL}/checkpoints/best.ckpt",
    "model.init_args.backbone.options.width": 8,
    "model.init_args.cutoff": None,
    "model.init_args.blocks": ["m0", "m2"],
    "model.init_args.optimizer.init_args.lr": 1e-05,
}


@pytest.fixture(scope="module")
def resolve():
    return Resolver(make_study({"stages": STAGES}, name="n"))


def printed(capsys, command, *arguments):
    """Return what ``--print_config`` says."""
    with pytest.raises(SystemExit) as ended:
        main([command, *arguments, "--print_config"])
    assert ended.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def by_hand(settings):
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()]


FIT = ("fit", "--config", "digits/blockwise")


def test_it_is_what_print_config_says(resolve, capsys):
    found = resolve("fit", MANY)
    assert found == printed(capsys, *FIT, *by_hand(MANY))
    assert found["model"]["init_args"]["backbone"]["init_args"]["checkpoint"].startswith(f"{CELL}/")


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"model.init_args.attack": None, "model.init_args.side": "after"},
        # another class begins with the defaults of its own, and takes over what both have
        {"model.init_args.attack.class_path": "FGSM"},
        {"model": "StandardTraining"},
        {"model.init_args.attack": {"class_path": "PGD", "init_args": {"eps": "8/255", "steps": 3}}},
        {"data.init_args.batch_size": 7, "data": {"class_path": "DigitsDataModule"}},
    ],
)  # fmt: skip
def test_classes_change_as_on_the_command_line(resolve, settings, capsys):
    assert resolve("fit", settings) == printed(capsys, *FIT, *by_hand(settings))


def test_a_text_that_looks_like_a_mark_is_a_text(resolve):
    found = resolve("fit", {"model.init_args.backbone.checkpoint": f"__cell_0000000000__/{CELL}"})
    assert found["model"]["init_args"]["backbone"]["init_args"]["checkpoint"] == f"__cell_0000000000__/{CELL}"


@pytest.mark.slow
def test_settings_that_differ_in_numbers_alone_are_those_of_the_parser(resolve, capsys):
    key, other = "model.init_args.attack.init_args.eps", "trainer.max_epochs"
    for eps, epochs in ((0.1, 1), (0.25, 3), (1, 2), (1e-05, 3)):
        settings = {key: eps, other: epochs, "trainer.overfit_batches": 1 if eps == 0.25 else 2}
        assert resolve("fit", settings) == printed(capsys, *FIT, *by_hand(settings)), settings
    # a number that a class replaces afterwards, by the same number at first
    pgd = {"class_path": "PGD", "init_args": {"eps": 0.3, "steps": 3, "step_size": 0.1}}
    for eps in (0.3, 0.2):
        settings = {key: eps, "model.init_args.attack": pgd}
        assert resolve("fit", settings)["model"]["init_args"]["attack"]["init_args"]["eps"] == 0.3
    with pytest.raises(UsageError, match=r"^stages\.fit: trainer\.max_epochs must be at least 0, or -1"):
        resolve("fit", {key: 0.1, other: -2, "trainer.overfit_batches": 2})


def test_evaluate_and_transfer_are_resolved_by_their_own_parsers(resolve, capsys):
    settings = {"checkpoint": f"{CELL}/checkpoints/best.ckpt", "eps.linf": [0.1], "images": 5}
    quick = ("evaluate", "--config", "evaluation/quick")
    assert resolve("attacked", settings) == printed(capsys, *quick, *by_hand(settings))
    settings = {"networks": {"a": f"{CELL}/x", "b": "y"}, "eps": "1/10"}
    named = ("transfer", "--config", "transfer/fgsm_family")  # which transfer takes where no attack is given
    assert resolve("between", settings) == printed(capsys, *named, *by_hand(settings))


def test_seeds_and_cells_that_it_stands_on_are_put_in_afterwards(resolve):
    first, second = (
        resolve("fit", {**MANY, "seed_everything": seed, "model.init_args.backbone.checkpoint": f"__cell_{cell}__/x"})
        for seed, cell in ((4, "a" * 10), (5, "b" * 10))
    )
    assert (first["seed_everything"], second["seed_everything"]) == (4, 5)
    for configuration, cell in ((first, "a" * 10), (second, "b" * 10)):
        assert configuration["model"]["init_args"]["backbone"]["init_args"].pop("checkpoint") == f"__cell_{cell}__/x"
    assert {**first, "seed_everything": 5} == second


@pytest.mark.parametrize(
    ("stage", "settings", "told"),
    [
        ("fit", {"trainer.max_epoch": 1}, "There is no key 'trainer.max_epoch'. Did you mean 'trainer.max_epochs'?"),
        ("fit", {"model.init_args.cutof": "m1"}, "model > BlockwiseRetraining: there is no option 'cutof'"),
        ("fit", {"trainer.max_epochs": "many"}, "trainer.max_epochs: it must be of type int, got many."),
        ("fit", {"trainer.max_epochs": -7}, "trainer.max_epochs must be at least 0, or -1 for no limit, got -7."),
        ("fit", {"model": "PDG"}, "model: there is no class 'PDG'."),
        ("attacked", {"imges": 3}, "There is no key 'imges'. Did you mean 'images'?"),
        ("fit", {"model.init_args.attack": {"class_path": "os.system"}}, "model > BlockwiseRetraining > attack"),
    ],
)  # fmt: skip
def test_a_key_that_does_not_exist_or_does_not_take_its_value_is_one_sentence(resolve, stage, settings, told):
    with pytest.raises(UsageError) as error:
        resolve(stage, settings)
    assert str(error.value).startswith(f"stages.{stage}: {told}")
    assert len(str(error.value)) < 600


def test_a_base_configuration_that_is_none_is_told_by_its_stage():
    with pytest.raises(
        UsageError, match=r"^stages\.fit\.config: there is no file 'digits/madri', .* Did you mean 'digits/madry'"
    ):
        Resolver(make_study({"config": "digits/madri"}, name="n"))


def test_what_is_trusted_goes_into_every_configuration():
    with trusting_for_a_command():
        found = Resolver(make_study({"config": "digits/madry"}, name="n"), ["my_package"])("fit", {})
    assert found["trust"] == ["my_package"]
