import re
from pathlib import Path

import pytest

from lightning_adv.commands.study.trial import try_first
from lightning_adv.commands.study.work import run_cell
from lightning_adv.core.errors import UsageError
from lightning_adv.studies.attempts import Failure, is_done, result_of, write_failure
from lightning_adv.studies.cells import Cell
from tests.commands.study.here import InThisProcess
from tests.commands.study.small import make_cells

BEST = "{train}/checkpoints/best.ckpt"
STAGES = {
    "train": {"config": "digits/standard", "set": {
        # what a batch is not enough for
        "trainer.min_epochs": 2, "trainer.check_val_every_n_epoch": 2, "best_checkpoint.every_n_epochs": 2,
        "trainer.val_check_interval": 3, "trainer.limit_train_batches": 5}},
    # whose best checkpoint is one of the later epochs
    "again": {"config": "digits/madry", "set": {
        "model.init_args.backbone.checkpoint": BEST, "model.init_args.clean_after_epochs": 1}},
    "measured": {"command": "evaluate", "config": "evaluation/quick",
        "set": {"checkpoint": "{again}/checkpoints/last.ckpt", "accelerator": "cpu", "images": 300}},
    "moved": {"command": "transfer", "config": "transfer/fgsm_family",
        "set": {"networks": {"one": BEST, "other": "{again}/checkpoints/best.ckpt"}, "eps": 0.2, "accelerator": "cpu"}},
}  # fmt: skip


def tried(engine):
    return [Path(folder).name.partition("-")[0] for folder in engine.submitted]


@pytest.fixture
def engine():
    engine = InThisProcess()
    engine.open(run_cell, workers=1, threads=1)
    return engine


@pytest.mark.slow
def test_every_stage_is_tried_on_the_trials_of_those_before_it_and_nothing_is_left(tmp_path, engine):
    cells = make_cells(tmp_path / "cells", {"stages": STAGES, "seeds": [0, 1]})
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / ".trial" / "of-a-study-that-was-killed").mkdir(parents=True)
    try_first(cells, engine, tmp_path)
    assert tried(engine) == list(STAGES)
    assert sorted(tmp_path.rglob("*")) == before
    for folder in engine.submitted:
        assert Path(folder).parent == tmp_path / ".trial"


MEASURED = {**STAGES["measured"], "set": {"checkpoint": BEST, "accelerator": "cpu"}}
BROKEN = """
from lightning_adv.regimes import StandardTraining

class Broken(StandardTraining):
    def validation_step(self, batch, batch_idx):
        raise ZeroDivisionError("in my step")
"""


@pytest.mark.slow
def test_what_fails_in_its_first_step_is_one_sentence_and_nothing_is_left(tmp_path, engine, monkeypatch):
    (tmp_path / "broken_validation.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    broken = {"config": "digits/standard", "set": {"model.class_path": "broken_validation.Broken"}}
    cells = make_cells(tmp_path / "cells", {"stages": {"train": broken, "measured": MEASURED}})
    told = "stages.train: its first cell fails in a trial of one batch: ZeroDivisionError: in my step (broken_"
    with pytest.raises(UsageError, match=re.escape(told)):
        try_first(cells, engine, tmp_path)
    assert tried(engine) == ["train"]
    assert not (tmp_path / ".trial").exists()


def cells_of(tmp_path):
    """Two chains of three stages."""
    needs = {"a1": "", "b1": "a1", "c1": "b1", "a2": "", "b2": "a2", "c2": "b2"}
    stages = {"a": "fit", "b": "fit", "c": "evaluate"}
    configuration = {"trainer": {}, "best_checkpoint": {}, "last_checkpoint": {}, "images": None}
    return {
        name: Cell(name, name[0], stages[name[0]], {}, tmp_path / name, tuple(filter(None, [needed])), configuration, 1)
        for name, needed in needs.items()
    }


def done(cell):
    path = result_of(cell.folder, cell.command)
    path.parent.mkdir(parents=True)
    path.write_text("{}")


def begun(cell):
    path = cell.folder / "version_0" / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    path.touch()


def failed(cell):
    write_failure(cell.folder, Failure("no"))


@pytest.mark.parametrize(
    ("known", "retry", "expected"),
    [
        ({}, False, ["a1", "b1", "c1"]),
        ({"a1": done, "b1": done, "c1": done}, False, []),
        ({"a1": done, "b2": done, "a2": done, "c2": done}, False, []),
        ({"a1": done}, False, ["b1", "c1"]),
        ({"a2": done}, False, ["a1", "b1", "c1"]),  # b1 stands on a1, which is not done
        ({"a1": done, "b1": begun}, False, ["b1", "c1"]),
        ({"a1": begun, "b1": begun, "c1": done}, False, []),
        ({"a1": failed}, False, ["a2", "b2", "c2"]),
        ({"a1": failed}, True, ["a1", "b1", "c1"]),
        ({"a1": failed, "a2": failed}, False, []),
        ({"a1": done, "b1": failed, "a2": done}, False, ["b2", "c2"]),
    ],
)
def test_which_cells_are_tried(tmp_path, known, retry, expected):
    cells = cells_of(tmp_path)
    for name, happened in known.items():
        happened(cells[name])
    engine = InThisProcess()
    engine.open(lambda folder: done(trial_of(folder)), workers=1, threads=1)
    try_first(list(cells.values()), engine, tmp_path, retry=retry)
    assert [Path(folder).name for folder in engine.submitted] == expected
    assert not is_done(cells["c1"].folder, "evaluate") or "c1" in known


def trial_of(folder):
    name = Path(folder).name
    return Cell(name, name[0], "evaluate" if name[0] == "c" else "fit", {}, Path(folder), (), {}, 1)


def test_an_interrupt_ends_the_workers_before_their_folder_is_removed(tmp_path, monkeypatch):
    class Interrupted(InThisProcess):
        def wait(self, seconds):
            raise KeyboardInterrupt

        def close(self):
            self.there_was = (tmp_path / ".trial").is_dir()

    engine = Interrupted()
    engine.open(lambda folder: None, workers=1, threads=1)
    with pytest.raises(KeyboardInterrupt):
        try_first(list(cells_of(tmp_path).values()), engine, tmp_path)
    assert engine.there_was
    assert not (tmp_path / ".trial").exists()
