import csv
import errno
import os
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger

from lightning_adv.commands.fit.logger import RunLogger
from lightning_adv.commands.fit.placing import check_resumable, check_vacant, holding, place_of, taking_a_version
from lightning_adv.commands.shared.run_folder import RunFolderRollback, check_epochs
from tests.faults.disk import full_disk


def a_run(folder, **place):
    """A run folder whose configuration has a logger at a place."""
    (folder / "checkpoints").mkdir(parents=True)
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": place}
    (folder / "config.yaml").write_text(yaml.safe_dump({"trainer": {"logger": [logger]}}))
    return str(folder / "checkpoints" / "best.ckpt")


@pytest.mark.parametrize("version", [None, "seed0", 3])
def test_what_is_done_with_a_run_goes_below_it_also_where_it_has_moved(tmp_path, version):
    place = {"save_dir": "runs", "name": "digits", "version": version}
    checkpoint = a_run(tmp_path / "moved", **place)
    told = {"save_dir": str(tmp_path / "moved"), "name": "test", "version": None}
    assert place_of("test", place, checkpoint) == told


def test_a_path_that_was_given_from_here_stays_so(tmp_path, monkeypatch):
    place = {"save_dir": "runs", "name": "digits", "version": None}
    checkpoint = a_run(tmp_path / "runs/digits/version_0", **place)
    monkeypatch.chdir(tmp_path)
    told = {"save_dir": "runs/digits/version_0", "name": "test", "version": None}
    assert place_of("test", place, os.path.relpath(checkpoint)) == told


def test_a_place_that_is_given_is_taken(tmp_path):
    own = {"save_dir": "runs", "name": "digits", "version": "seed0"}
    checkpoint = a_run(tmp_path / "run", **own)
    assert place_of("test", own | {"version": "mine"}, checkpoint) == own | {"version": "mine"}
    elsewhere = own | {"save_dir": "elsewhere", "version": None}
    assert place_of("test", elsewhere, checkpoint) == elsewhere | {"name": "digits/test"}
    assert place_of("predict", elsewhere, None) == elsewhere | {"name": "digits/predict"}
    assert place_of("predict", elsewhere | {"name": ""}, None)["name"] == "predict"


@pytest.mark.slow
def test_starts_at_the_same_moment_have_versions_of_their_own(tmp_path):
    """Each process takes one folder, and asks only when it holds the lock; here four forked ones."""
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            with taking_a_version(tmp_path):
                logger = CSVLogger(tmp_path, name="")
                Path(logger.log_dir).mkdir()
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"version_{number}" for number in range(4)]


def test_a_start_that_is_refused_leaves_the_folder_of_the_other_alone(tmp_path):
    folder = tmp_path / "version_0"
    folder.mkdir()
    with holding(folder):
        (folder / "config.yaml").write_text("of the other")
        refused = RunFolderRollback()
        words = rf"version_0 is being written by process {os.getpid()} on .*another version"
        with pytest.raises(ValueError, match=words), holding(folder):
            refused.remember(folder, new=False)
        refused.undo()
    assert (folder / "config.yaml").read_text() == "of the other"
    assert [path.name for path in tmp_path.iterdir()] == ["version_0"]


def test_a_folder_with_a_run_is_refused_and_one_without_anything_saved_is_begun_anew(tmp_path):
    a_run(tmp_path)
    (tmp_path / "metrics.csv").write_text("of the first epoch")
    check_vacant(tmp_path)
    assert (tmp_path / "metrics-until-resume-1.csv").read_text() == "of the first epoch"
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(ValueError, match=r"holds a run already.*To go on: lightning-adv fit .*last\.ckpt"):
        check_vacant(tmp_path)


def rows(path):
    with path.open(newline="") as file:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]


def test_a_run_whose_folder_cannot_be_written_is_not_sent_to_another(tmp_path, monkeypatch):
    """It goes on in its own, whatever the logger's save_dir is."""

    def read_only(**kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("lightning_adv.commands.shared.run_folder.tempfile.TemporaryFile", read_only)
    words = r"^ckpt_path: \S+ cannot be written \(Read-only file system\)\. A run goes on in its own folder: copy it"
    with pytest.raises(ValueError, match=words):
        check_resumable(tmp_path)


def test_after_a_full_disk_the_metrics_are_whole(tmp_path, caplog):
    logger, plain = RunLogger(tmp_path, name="", version="a"), CSVLogger(tmp_path, name="", version="b")
    path = tmp_path / "a" / "metrics.csv"
    for one in (logger, plain):
        one.log_metrics({"loss": 1.0}, step=0)
        one.save()
    for step in range(1, 4):
        with full_disk(path.stat().st_size + 3):
            logger.log_metrics({"loss": 1.0 / step}, step=step)
            logger.save()
        plain.log_metrics({"loss": 1.0 / step}, step=step)
    assert rows(path) == [{"loss": "1.0", "step": "0"}]
    assert "metrics.csv (File too large)" in logger.lost
    for one in (logger, plain):
        one.log_metrics({"accuracy": 0.5}, step=4)  # a new column
        one.save()
    assert logger.lost is None
    assert path.read_bytes() == (tmp_path / "b" / "metrics.csv").read_bytes()


def test_metrics_whose_folder_vanishes_are_lost_and_told(tmp_path):
    logger = RunLogger(tmp_path, name="", version="a")
    logger.log_metrics({"loss": 1.0}, step=0)
    logger.save()
    (tmp_path / "a" / "metrics.csv").unlink()
    (tmp_path / "a").rmdir()
    for step in (1, 2):
        logger.log_metrics({"loss": 1.0}, step=step)
        logger.save()
        (tmp_path / "a").mkdir(exist_ok=True)
    assert [row["step"] for row in rows(tmp_path / "a" / "metrics.csv")] == ["1", "2"]
    assert "removed while the run went on" in logger.lost


def test_fewer_epochs_than_there_are(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"loops": {"fit_loop": {"epoch_progress": {"current": {"processed": 5}}}}}, path)
    with pytest.raises(ValueError, match=r"max_epochs must be at least the 5 epochs .*last\.ckpt.*got 2"):
        check_epochs(path, 2)
    for allowed in (5, -1, None):
        check_epochs(path, allowed)
