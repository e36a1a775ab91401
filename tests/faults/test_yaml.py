"""Mistakes in a YAML file: which key, what stands there, what belongs there."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_adv.commands.shared.configs import find_config
from tests.faults.told import check_readable, told

pytestmark = pytest.mark.usefixtures("without_training")

CONFIGS = ("advprop", "blockwise", "madry", "sat", "standard", "trades")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def fit(text: str) -> str:
    """Add a file to a run; return what is said of it."""
    Path("mine.yaml").write_text(text)
    status, said = told("fit", "--config", "digits/madry", "--config", "mine.yaml", "--print_config")
    assert status in (1, 2), "it was taken"
    check_readable(status, said)
    return said.splitlines()[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "words"),
    [
        # a misspelled class: the key, the name, what is near, what is taken
        ("model: MadryTrainin", ["model: ", "'MadryTrainin'", "'MadryTraining'", "Regime"]),
        ("model: {class_path: lightning_adv.regimes.MadryTrainin}", ["'MadryTrainin' in lightning_adv.regimes"]),
        ("data: {class_path: DigitDataModule}", ["data: ", "'DigitsDataModule'", "LightningDataModule"]),
        ("model: {init_args: {attack: {class_path: PDG}}}", ["attack: ", "'PDG'", "'PGD'", "Attack"]),
        ("model: {init_args: {optimizer: {class_path: SDG}}}", ["optimizer: ", "'SDG'", "'SGD'", "Optimizer"]),
        ("model: {init_args: {optimizer: {class_path: torch.optm.SGD}}}", ["no module 'torch.optm'", "'SGD'"]),
        ("model: {init_args: {scheduler: {class_path: StepLRR}}}", ["scheduler: ", "'StepLR'", "LRScheduler"]),
        ("trainer: {callbacks: [{class_path: EarlyWarnin}]}", ["trainer.callbacks[0]: ", "'EarlyWarning'"]),
        ("trainer: {callbacks+: [{class_path: EarlyWarnin}]}", ["trainer.callbacks[0]: ", "'EarlyWarning'"]),
        ("trainer: {logger: {class_path: CSVLoger}}", ["trainer.logger: ", "'CSVLogger'"]),
        ("model: {init_args: {attack: {class_path: Zzz}}}", ["'Zzz'", "an Attack: APGD, AutoAttack"]),
        ("model: {init_args: {attack: {class_path: Attack}}}", ["'Attack' is the base", "PGD"]),
        # a class of another kind
        ("model: {init_args: {objective: PGD}}", ["'PGD' is not of a class", "CrossEntropy, MART, TRADES"]),
        ("trainer: {plugins: torch.nn.Linear}", ["trainer.plugins: 'Linear'", "Precision"]),
        # what stands where a part is due
        ("data: 5", ["data: it must be a LightningDataModule by class_path", "got 5"]),
        ("model: [1]", ["model: it must be a Regime", "got [1]"]),
        ("model: {init_args: {attack: 0.1}}", ["attack: it must be an Attack", "got 0.1"]),
        ("model: {init_args: {scheduler: {milestone: [3]}}}", ["MultiStepLR: there is no option", "'milestones'"]),
        ("model: {init_args: 3}", ["MadryTraining: init_args must be a mapping", "got 3"]),
        ("data: {class_path: DigitsDataModule, init_args: [1]}", ["init_args must be a mapping", "got [1]"]),
        ("data: {class_path: [DigitsDataModule]}", ["data.class_path: it must be the name of a class"]),
        ("data: {class_path: DigitsDataModule, batch_size: 3}", ["'batch_size' stands beside class_path", "init_args"]),
        ("model: {init_args: {attack: {clas_path: A, init_args: {}}}}", ["'clas_path' stands beside", "class_path"]),
        ("trainer: 5", ["trainer: it must be a mapping of keys, such as accelerator, got 5"]),
        ("data: {class_path: DigitsDataModule, dict_kwargs: {batch_siz: 1}}", ["'batch_siz'", "'batch_size'"]),
        ("trainer: {logger: [{class_path: CSVLogger, dict_kwargs: {x: 1}}]}", ["CSVLogger: there is no option 'x'"]),
        ("model: {dict_kwargs: {attack: {class_path: PDG}}}", ["attack: ", "'PDG'", "'PGD'"]),
        # misspelled keys
        ("modle: {class_path: MadryTraining}", ["no key 'modle'", "'model'"]),
        ("trainr: {max_epochs: 3}", ["no key 'trainr'", "'trainer'"]),
        ("trainr: {}", ["no key 'trainr'", "'trainer'"]),
        ("max_epochs: 3", ["no key 'max_epochs'", "'trainer.max_epochs'"]),
        ("trainer: {max_epoch: {}}", ["no key 'trainer.max_epoch'", "'trainer.max_epochs'"]),
        ("model: {init_args: {label_smothing: 0.1}}", ["no option 'label_smothing'", "'label_smoothing'"]),
        ("model: {init_args: {eval_attack: {}}}", ["no option 'eval_attack'", "'evaluation_attack'"]),
        ("model: {init_args: {optimizer: {init_args: {learning_rate: 1}}}}", ["SGD: there is no option"]),
        # values
        ("trainer: {max_epochs: many}", ["trainer.max_epochs: it must be of type int, got many"]),
        ("model: {init_args: {attack: {init_args: {start: one}}}}", ["start: it must be one of 'uniform'", "got one"]),
        ("model: {init_args: {backbone: {std: [null]}}}", ["std: it must be of type Sequence[float], got [None]"]),
    ],
)  # fmt: skip
def test_the_commonest_mistakes(text, words):
    said = fit(text)
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"model: {}\n---\ndata: {}\n", ["a second document", "from line 3"]),
        (b"model:\n  init_args: {}\ndata: {}\nmodel: {}\n", ["the key model is given twice", "line 1 and line 4"]),
        (
            b"model:\n  init_args:\n    attack: PGD\n    attack: FGSM\n",
            ["the key attack is given twice", "line 3 and line 4"],
        ),
        ("model: {}\n".encode("utf-16"), ["mine.yaml cannot be read: it is not UTF-8"]),
        (bytes(range(256)), ["mine.yaml cannot be read: it is not UTF-8"]),
        (b"# nothing\n", ["mine.yaml must be a mapping of keys", "is empty"]),
        (b"- model\n", ["must be a mapping of keys", "a list"]),
        (b"a: &a [1, 1]\nb: &b [*a, *a]\nc: &c [*b, *b]\nmodel: *model\n", ["it is no YAML", "line 4"]),
        (b"model: &model\n  attack: *model\n", ["it refers to itself"]),
        (b"[" * 5000, ["nest"]),
        (b"model: [1\n", ["it is no YAML", "line 2"]),
    ],
)
@pytest.mark.parametrize("command", ["fit", "evaluate"])
def test_files_that_are_no_configuration(command, content, words):
    Path("mine.yaml").write_bytes(content)
    status, said = told(command, "--config", "mine.yaml")
    assert status == 1
    check_readable(status, said)
    assert all(word in said for word in ["--config", *words]), said


def test_a_folder_in_place_of_a_file():
    Path("run").mkdir()
    Path("run/config.yaml").touch()
    status, said = told("fit", "--config", "run")
    assert (status, "Did you mean 'run/config.yaml'" in said) == (1, True)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("", ["there is no class 'Own' in own"]),
        ("import numpy\n1 / 0\n", ["ZeroDivisionError: division by zero", "own.py, line 2"]),
        ("import not_installed\n", ["No module named 'not_installed'", "own.py, line 1"]),
        ("def (:\n", ["SyntaxError", "own.py, line 1"]),
        (None, ["'own.Own' cannot be imported: there is no module 'own'"]),
    ],
)
def test_a_module_of_the_users_that_does_not_import(module, words, monkeypatch):
    monkeypatch.delitem(__import__("sys").modules, "own", raising=False)
    if module is not None:
        Path("own.py").write_text(module)
    said = fit("model: {init_args: {attack: {class_path: own.Own}}}")
    assert all(word in said for word in words), said


@pytest.mark.slow
def test_null_of_an_option_is_null():
    """The command line's null reaches an option of a part as null."""
    status, said = told("fit", "--config", "digits/madry", "--model.init_args.backbone.mean", "null", "--print_config")
    assert (status, said) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "key"),
    [
        ("madry", "optimizer"),
        ("madry", "backbone"),
        ("madry", "attack"),
        ("trades", "objective"),
        ("advprop", "attack"),
        ("sat", "attack"),  # handed on to MadryTraining
        ("standard", "evaluation_attack"),
    ],
)
def test_null_where_a_part_is_due(config, key):
    Path("mine.yaml").write_text(yaml.safe_dump({"model": {"init_args": {key: None}}}))
    status, said = told("fit", "--config", f"digits/{config}", "--config", "mine.yaml")
    check_readable(status, said)
    assert status
    assert key in said
    assert "null" in said
    assert not Path("runs").exists()


# A fuzz ---------------------------------------------------------------------------------------------------------

OTHERS: tuple[Any, ...] = (
    None, 5, -1, 0.5, True, "", "nonsense", [], [1, 2], {}, {"a": 1}, {"class_path": "PGD"}, {"class_path": None},
    {"class_path": "torch.nn.Linear"}, [[[]]], float("nan"), "1e400", "a.b.c", "é\u2028", "x" * 300,
)  # fmt: skip


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every mapping or list of a tree with each of its keys."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield tree, key
        yield from places(value)


def misspelled(text: str, draw: random.Random) -> str:
    """Leave out, turn round or put in a letter."""
    at = draw.randrange(max(1, len(text) - 1))
    swapped = text[:at] + text[at + 1 : at + 2] + text[at : at + 1] + text[at + 2 :]
    return draw.choice([text[:at] + text[at + 1 :], swapped, f"{text[:at]}q{text[at:]}", text.upper()])


def mutated(tree: Any, draw: random.Random) -> Any:
    """One mistake in a configuration."""
    tree = copy.deepcopy(tree)
    parent, key = draw.choice(list(places(tree)))
    value = parent[key]
    kind = draw.choice(["drop", "misspell", "other", "nest", "unnest", "swap", "unknown"])
    if kind == "drop":
        del parent[key]
    elif kind == "misspell" and isinstance(parent, dict) and draw.random() < 0.5:
        parent[misspelled(str(key), draw)] = parent.pop(key)
    elif kind == "misspell" and not isinstance(value, dict | list):
        parent[key] = misspelled(str(value), draw)
    elif kind == "nest":
        parent[key] = draw.choice([{str(key): value}, [value], {"init_args": value}, {"class_path": value}])
    elif kind == "unnest" and isinstance(value, dict) and value:
        parent[key] = draw.choice(list(value.values()))
    elif kind == "swap":
        other, name = draw.choice(list(places(tree)))
        parent[key] = copy.deepcopy(other[name])
    elif kind == "unknown" and isinstance(parent, dict):
        parent["unknown_key"] = draw.choice(OTHERS)
    else:
        parent[key] = draw.choice(OTHERS)
    return tree


def mistaken(seed: int) -> None:
    """Parse and build what a mutated configuration names."""
    draw = random.Random(seed)
    name = draw.choice(CONFIGS)
    tree = mutated(yaml.safe_load(Path(find_config(f"digits/{name}")).read_text()), draw)
    Path("mine.yaml").write_text(yaml.safe_dump(tree, allow_unicode=True))
    check_readable(*told("fit", "--config", "mine.yaml"))


@pytest.mark.slow
def test_mutated_configurations():
    for seed in range(4):
        mistaken(seed)


@pytest.mark.slow
def test_many_mutated_configurations():
    for seed in range(100, 140):
        mistaken(seed)
