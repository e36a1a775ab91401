"""Paths that are longer than the system's names may be: one sentence, which does not repeat them wholly."""

import re

import pytest

from lightning_adv.core.suggestions import bounded
from tests.faults.told import told

LONG = "x" * 5000
DRY = ["fit", "--config", "digits/madry"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["fit", "--config", LONG], "--config: there is no file"),
        ([*DRY, f"--trainer.logger.init_args.name={LONG}"], "The run folder .* cannot be written"),
        ([*DRY, f"--trainer.logger.init_args.save_dir={LONG}"], "The run folder .* cannot be written"),
        ([*DRY, f"--trainer.logger.init_args.version={LONG}"], "The run folder .* cannot be written"),
        ([*DRY, "--ckpt_path", LONG], "ckpt_path: there is no file"),
        ([*DRY, "--model.backbone.checkpoint", LONG], "backbone.checkpoint: there is no file"),
        (["evaluate", "--checkpoint", LONG], "checkpoint: there is no file"),
        (["export", "--checkpoint", LONG], "--checkpoint: there is no file"),
        (["report", ".", "-o", LONG], "--output: .* cannot be written"),
        (["report", LONG], "RUN: .* cannot be read"),
        ([LONG], "there is no command"),
    ],
    ids=lambda value: " ".join(value).replace(LONG, "LONG") if isinstance(value, list) else "",
)
def test_a_path_that_is_too_long_is_one_sentence(arguments, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, said = told(*arguments)
    error = next(line for line in said.splitlines() if "error: " in line)
    assert status in (1, 2)
    assert re.search(name, error), error
    assert len(error) < 1000  # the names of all configurations take most of it
    assert LONG[:200] not in said
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_has_room_is_told_as_it_is():
    assert bounded("a path: " + "/folder" * 70 + ".") == "a path: " + "/folder" * 70 + "."
    assert len(bounded("word " * 10_000)) < 3010
