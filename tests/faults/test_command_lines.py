"""Mutated command lines: each is taken, or refused in one sentence."""

from __future__ import annotations

import random

import pytest

from tests.faults.test_yaml import misspelled
from tests.faults.told import check_readable, told

LINES = (
    ["fit", "--config", "digits/madry", "--trainer.max_epochs=3", "--model.init_args.attack.init_args.eps=0.1"],
    ["fit", "--config", "digits/sat", "--model.init_args.optimizer=Adam", "--seed_everything", "1"],
    ["fit", "-c", "digits/standard", "-c", "analyses", "--trainer.callbacks+=EarlyWarning", "--data.batch_size", "32"],
    ["test", "--config", "digits/madry", "--ckpt_path=best.ckpt", "--trainer.logger=CSVLogger"],
    ["evaluate", "--config", "evaluation/quick", "--checkpoint=best.ckpt", "--images=8", "--eps.linf=[0.1]"],
    ["transfer", "--networks={a: a.ckpt, b: b.ckpt}", "--eps=0.1", "--attacks=[{class_path: PGD}]"],
    ["interpret", "--networks={a: a.ckpt, b: b.ckpt}", "--attacks={pgd: PGD}", "--sections=[LocalProperties]"],
    ["export", "best.ckpt"],
    ["report", "runs", "-o", "page.html"],
)
VALUES = ("", "null", "-1", "nan", "{}", "[", "{a: 1}", "[[1]]", "x" * 300, "é", "--", "@", "~", "1e999", "os.system")


def mutated(line: list[str], draw: random.Random) -> list[str]:
    line = list(line)
    at = draw.randrange(len(line))
    kind = draw.choice(["drop", "twice", "misspell", "value", "swap", "cut"])
    if kind == "drop":
        del line[at]
    elif kind == "twice":
        line.insert(draw.randrange(len(line)), line[at])
    elif kind == "misspell":
        line[at] = misspelled(line[at], draw)
    elif kind == "value":
        name, equals, _ = line[at].partition("=")
        line[at] = f"{name}={draw.choice(VALUES)}" if equals else draw.choice(VALUES)
    elif kind == "swap":
        other = draw.randrange(len(line))
        line[at], line[other] = line[other], line[at]
    else:
        line[at] = line[at][: draw.randrange(len(line[at]) + 1)]
    return line


def mistyped(seed: int) -> None:
    """Parse and build what a mutated command line names."""
    draw = random.Random(seed)
    status, said = told(*mutated(draw.choice(LINES), draw))
    assert status in (0, 1, 2)
    if "error: " in said or status:
        check_readable(status, said)


@pytest.fixture
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("_in_an_empty_folder", "without_training")
def test_mutated_command_lines():
    for seed in range(4):
        mistyped(seed)


@pytest.mark.slow
@pytest.mark.usefixtures("_in_an_empty_folder", "without_training")
def test_many_mutated_command_lines():
    for seed in range(100, 140):
        mistyped(seed)
