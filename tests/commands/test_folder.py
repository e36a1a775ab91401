import csv
import os
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from lightning_adv.commands.shared.run_folder import RunFolderRollback, check_writable, continue_metrics, run_folder_of
from lightning_adv.core.files import set_aside
from lightning_adv.core.table import Row, append_rows


def run_folder(tmp_path, step):
    """A run that logged steps 0 to 9 and has a checkpoint at ``step``."""
    logger = CSVLogger(tmp_path, name="", version="run")
    for at in range(10):
        logger.log_metrics({"epoch": at // 5, "loss": float(at)}, step=at)
    logger.save()
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir()
    (folder / "config.yaml").touch()
    torch.save({"global_step": step}, folder / "checkpoints" / "last.ckpt")
    return folder


def steps(path):
    with path.open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def test_metrics_go_on_and_nothing_is_lost(tmp_path):
    folder = run_folder(tmp_path, step=7)
    logger = CSVLogger(tmp_path, name="", version="run")
    continue_metrics(logger, folder / "checkpoints" / "last.ckpt")
    assert steps(folder / "metrics.csv") == list(range(7))
    logger.log_metrics({"epoch": 1, "loss": 7.5, "new": 1.0}, step=7)
    logger.save()
    assert steps(folder / "metrics.csv") == list(range(8))
    assert steps(folder / "metrics-until-resume-1.csv") == list(range(10))


def test_a_resume_that_was_killed_at_once_loses_no_metrics(tmp_path):
    """It had set the file aside, and not yet written back what goes on."""
    folder = run_folder(tmp_path, step=7)
    set_aside(folder / "metrics.csv")
    continue_metrics(CSVLogger(tmp_path, name="", version="run"), folder / "checkpoints" / "last.ckpt")
    assert steps(folder / "metrics.csv") == list(range(7))
    assert steps(folder / "metrics-until-resume-1.csv") == list(range(10))


def test_run_folder_of_a_checkpoint(tmp_path):
    folder = run_folder(tmp_path, step=7)
    assert run_folder_of(folder / "checkpoints" / "last.ckpt") == folder
    torch.save({}, tmp_path / "loose.ckpt")
    assert run_folder_of(tmp_path / "loose.ckpt") is None


@pytest.mark.parametrize("below", ["file/run", "file", "long" * 100])
@pytest.mark.parametrize(("argument", "told"), [(None, "The run folder "), ("output", "output: ")])
def test_folder_that_cannot_be_written(tmp_path, below, argument, told):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=f"^{told}.*cannot be written"):
        check_writable(tmp_path / below, argument=argument)


def test_checking_leaves_nothing_behind(tmp_path):
    check_writable(tmp_path / "new" / "run")
    assert os.listdir(tmp_path / "new" / "run") == []
    check_writable(tmp_path / "new" / "run", keep=False)  # was there before
    check_writable(tmp_path / "new" / "other" / "below", keep=False)
    assert os.listdir(tmp_path / "new") == ["run"]


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def started(folder):
    """A resume that has written what it writes before it trains."""
    start = RunFolderRollback()
    start.remember(folder, new=False)
    set_aside(folder / "results.json")
    continue_metrics(CSVLogger(folder.parent, name="", version=folder.name), folder / "checkpoints" / "last.ckpt")
    (folder / "config-resumed.yaml").write_text("new")
    return start


@pytest.mark.parametrize("resumed_before", [False, True])
def test_start_that_failed_is_taken_back(tmp_path, resumed_before):
    folder = run_folder(tmp_path, step=7)
    (folder / "results.json").write_text("old")
    (folder / "notes.txt").write_text("the user's own")
    if resumed_before:
        (folder / "config-resumed.yaml").write_text("old")
        (folder / "metrics-until-resume-1.csv").write_text("older")
    before = contents(folder)
    start = started(folder)
    assert "results.json" not in contents(folder)
    (folder / "more notes.txt").write_text("")
    start.undo()
    assert contents(folder) == before | {"more notes.txt": ""}
    assert (folder / "checkpoints" / "last.ckpt").is_file()


def test_start_after_which_a_batch_was_trained_stays(tmp_path):
    folder = run_folder(tmp_path, step=7)
    start = started(folder)
    start.on_train_batch_end(SimpleNamespace(global_step=8))
    before = contents(folder)
    start.undo()
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("files", "stays"),
    [
        (["config.yaml"], False),
        ([], False),
        (["config.yaml", "x.csv"], True),
        (["config.yaml", "checkpoints/init.ckpt"], False),
        (["config.yaml", "checkpoints/init.ckpt", "checkpoints/last.ckpt"], True),
    ],
)
def test_new_folder_goes_unless_it_holds_more_than_a_configuration(tmp_path, files, stays):
    start = RunFolderRollback()
    start.remember(tmp_path / "version_0", new=True)
    check_writable(tmp_path / "version_0")
    for name in files:
        (tmp_path / "version_0" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "version_0" / name).touch()
    start.undo()
    assert (tmp_path / "version_0").exists() == stays


def test_nothing_to_take_back(tmp_path):
    start = RunFolderRollback()
    start.undo()
    start.remember(tmp_path / "never made", new=True)
    start.undo()
    assert list(tmp_path.iterdir()) == []


def test_tables_of_analyses_end_where_a_run_goes_on_without_them(tmp_path):
    folder = run_folder(tmp_path, step=7)
    table = folder / "analyses" / "smoothness.csv"
    append_rows(table, [Row(0, step, "", "", "norm", 1.0) for step in range(10)])
    (folder / "analyses" / "notes.csv").write_text("mine\n")
    start = started(folder)
    assert steps(table) == list(range(10))  # a resume that is refused changes nothing
    for step in (8, 9, 10):
        start.on_train_batch_end(SimpleNamespace(global_step=step))
    assert steps(table) == list(range(8))
    assert steps(table.with_name("smoothness-until-resume-1.csv")) == list(range(10))
    assert (folder / "analyses" / "notes.csv").read_text() == "mine\n"
    assert len(list((folder / "analyses").iterdir())) == 3
