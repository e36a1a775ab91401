"""A cell is the command that it is: the same numbers, the same files, the same errors."""

import json
from contextlib import closing

import pytest
import torch
import yaml

from lightning_adv.commands.study.work import needs_own_process, run_cell
from lightning_adv.studies.attempts import read_failure, read_seconds
from lightning_adv.studies.engines.local import LocalEngine
from lightning_adv.studies.scheduling import run_cells
from tests.commands.study.here import InThisProcess
from tests.commands.study.small import make_cells, result, without_times
from tests.faults.commands import Command
from tests.faults.disk import small_disk

pytestmark = pytest.mark.slow

STANDARD = {"config": "digits/standard"}
PGD = {"class_path": "PGD", "init_args": {"eps": 0.2, "steps": 2, "step_size": 0.1}}
CHAIN = {
    "stages": {"train": STANDARD, "measured": {"command": "evaluate", "config": "evaluation/quick",
        "set": {"checkpoint": "{train}/checkpoints/best.ckpt", "images": 16, "accelerator": "cpu"}}},
    "grid": {"regime": {
        # settings of the whole process, which must not be the next one's
        "standard": {"train/trainer.deterministic": True, "train/trainer.benchmark": True, "measured": None},
        "madry": {"train/model.class_path": "MadryTraining", "train/model.init_args.attack": PGD},
    }},
}  # fmt: skip


def states(cell):
    return torch.load(cell.folder / "version_0/checkpoints/last.ckpt", weights_only=True)["state_dict"]


def check_same(cell, other):
    ours, theirs = result(cell), result(other)
    if cell.command == "evaluate":  # of a file that another run has written
        assert ours["settings"].pop("network").keys() == theirs["settings"].pop("network").keys()
    assert ours == theirs
    if cell.command == "fit":
        ours, theirs = states(cell), states(other)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


@pytest.fixture(scope="module")
def by_command(tmp_path_factory):
    """The cells by commands in processes of their own."""
    folder = tmp_path_factory.mktemp("commands")
    cells = make_cells(folder / "cells", CHAIN)
    for cell in cells:
        status, said = Command(folder, cell.command, f"--config={cell.folder / 'config.yaml'}").wait()
        assert status == 0, said
    return cells


def test_the_numbers_of_one_worker_are_those_of_commands_in_either_order(tmp_path, by_command):
    forwards = make_cells(tmp_path / "forwards", CHAIN)
    with closing(LocalEngine()) as engine:
        engine.open(run_cell, workers=1, threads=1)
        assert run_cells(forwards, engine) == {}
    backwards = make_cells(tmp_path / "backwards", CHAIN)
    for number in (1, 2, 0):
        run_cell(str(backwards[number].folder))
    for command, *cells in zip(by_command, forwards, backwards, strict=True):
        for cell in cells:
            check_same(cell, command)
            assert "lightning-adv" in (cell.folder / "log.txt").read_text()
            assert read_seconds(cell.folder) > 0
    # the run's configuration repeats it: the next is version_1, with the same numbers
    run = forwards[0].folder / "version_0"
    status, said = Command(tmp_path, "fit", f"--config={run / 'config.yaml'}").wait()
    assert status == 0, said
    again = json.loads((forwards[0].folder / "version_1/results.json").read_text())
    assert without_times(again) == result(by_command[0])


def test_a_cell_that_was_killed_goes_on(tmp_path, by_command):
    cell = make_cells(tmp_path / "cells", CHAIN)[0]
    run_cell(str(cell.folder))
    check_same(cell, by_command[0])
    run = cell.folder / "version_0"
    # between the training and the results
    (run / "results.json").unlink()
    run_cell(str(cell.folder))
    check_same(cell, by_command[0])
    # before any checkpoint
    for name in ("results.json", "checkpoints/last.ckpt"):
        (run / name).unlink()
    run_cell(str(cell.folder))
    check_same(cell, by_command[0])
    assert not (cell.folder / "version_1").exists()
    log = (cell.folder / "log.txt").read_text()
    assert log.count("$ lightning-adv fit") == 3
    assert log.count("--ckpt_path") == 1


def fail(cell, change):
    """Run a cell with another configuration, and return why it failed."""
    config = cell.folder / "config.yaml"
    before = config.read_text()
    content = yaml.safe_load(before)
    change(content)
    config.write_text(yaml.safe_dump(content))
    run_cell(str(cell.folder))
    config.write_text(before)
    return read_failure(cell.folder, cell.command)


BROKEN = """
from lightning_adv.regimes import StandardTraining

class Broken(StandardTraining):
    def training_step(self, batch, batch_idx):
        raise ZeroDivisionError("in a step\\nof mine")
"""


def test_a_failure_is_told_in_one_line_and_the_next_cell_is_as_if_there_had_been_none(
    tmp_path, monkeypatch, by_command
):
    (tmp_path / "broken_regime.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    cell = make_cells(tmp_path / "cells", CHAIN)[0]

    misspelled = fail(cell, lambda content: content["trainer"].update(max_epoch=1))
    assert misspelled.error == "There is no key 'trainer.max_epoch'. Did you mean 'trainer.max_epochs'?"
    assert misspelled.traceback is None

    refused = fail(
        cell, lambda content: content["model"]["init_args"]["backbone"]["init_args"].update(checkpoint="nothing.ckpt")
    )
    assert "nothing.ckpt" in refused.error
    assert "\n" not in refused.error
    assert (refused.traceback, refused.attempts) == (None, 2)

    broken = fail(cell, lambda content: content["model"].update(class_path="broken_regime.Broken"))
    told = "ZeroDivisionError: in a step of mine (broken_regime.py, line 6, in training_step)"
    assert broken.error == told
    assert "training_step" in broken.traceback
    assert broken.traceback.splitlines()[-1] == "of mine"
    assert broken.traceback in (cell.folder / "log.txt").read_text()

    run_cell(str(cell.folder))
    assert read_failure(cell.folder, cell.command) is None
    check_same(cell, by_command[0])


def test_a_cell_of_two_processes_is_a_process_of_its_own(tmp_path):
    two = {"trainer.devices": 2, "trainer.strategy": "ddp", "trainer.max_epochs": 1}
    [cell] = make_cells(tmp_path, {"stages": {"train": {**STANDARD, "set": two}}})
    run_cell(str(cell.folder))
    log = (cell.folder / "log.txt").read_text()
    assert read_failure(cell.folder, cell.command) is None, log
    assert result(cell)["processes"] == 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"devices": 1}, False),
        ({"devices": "1", "accelerator": "cpu"}, False),
        ({"devices": "auto", "accelerator": "cpu"}, False),
        ({"devices": [3]}, False),
        ({"devices": "3,"}, False),
        ({"devices": 2}, True),
        ({"devices": "2"}, True),
        ({"devices": [0, 1]}, True),
        ({"devices": "0, 1"}, True),
        ({"devices": 1, "strategy": "ddp"}, True),
        ({"devices": 1, "strategy": {"class_path": "lightning.pytorch.strategies.DDPStrategy"}}, True),
        ({"devices": 1, "num_nodes": 2}, True),
        ({"devices": "auto", "accelerator": "gpu"}, True),
        ({"devices": -1, "accelerator": "auto"}, True),
    ],
)
def test_who_starts_further_processes(given, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert needs_own_process("fit", {"trainer": given}) == expected
    if "strategy" not in given and "num_nodes" not in given:
        assert needs_own_process("evaluate", given) == expected


def test_a_full_disk_is_told_in_one_line_and_nothing_whole_is_lost(tmp_path, by_command):
    with small_disk(tmp_path / "disk") as disk:
        cell = make_cells(disk.path / "cells", CHAIN)[0]
        with closing(InThisProcess()) as engine:
            engine.open(run_cell, workers=1, threads=1)
            for room in (0, 30_000):  # not even a log; no checkpoint
                disk.fill(room)
                told = run_cells([cell], engine, retry=True)[cell.id]
                disk.empty()
                assert "No space left on device" in told or "File too large" in told
                assert "\n" not in told
            assert run_cells([cell], engine, retry=True) == {}
        check_same(cell, by_command[0])
