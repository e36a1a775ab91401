"""SIGKILL in the middle of a study, of all its processes and of workers: its table is that of one never stopped."""

import csv
import os
import signal
import time
from pathlib import Path

import pytest
import yaml

from tests.commands.study.small import SMALL
from tests.faults.commands import Command

pytestmark = pytest.mark.slow

STUDY = {
    "stages": {
        "train": {"config": "digits/madry", "set": {"last_checkpoint.every_n_train_steps": 1}},
        "measured": {"command": "evaluate", "config": "evaluation/quick",
            "set": {"checkpoint": "{train}/checkpoints/best.ckpt", "images": 64, "accelerator": "cpu"}},
    },
    "seeds": [0, 1],
    "set": {**SMALL, "trainer.max_epochs": 4, "model.init_args.attack.init_args.steps": 3},
    "threads": 1,
}  # fmt: skip
RUN = ["study", "--config=study.yaml", "-o=out", "--workers=2"]


def descendants(pid):
    """Return the processes that a process has started, and those that they have."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
    found = {pid}
    while new := {child for child, parent in parents.items() if parent in found} - found:
        found |= new
    return found - {pid}


def start(folder):
    folder.mkdir(exist_ok=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    return Command(folder, *RUN)


def wait_for(command, pattern, folder):
    """Wait for a file; fail where the command has ended before it is there."""
    until = time.monotonic() + 300
    while not list(folder.glob(pattern)):
        assert command.process.is_alive(), command.wait()
        assert time.monotonic() < until
        time.sleep(0.005)


def table(folder):
    with (folder / "out" / "study.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    return [{name: text for name, text in row.items() if not name.endswith("_seconds")} for row in rows]


def test_the_table_is_that_of_a_study_that_was_never_killed(tmp_path):
    status, said = start(tmp_path / "whole").wait()
    assert status == 0, said
    expected = table(tmp_path / "whole")
    assert [row["status"] for row in expected] == ["done"] * 2
    assert all(0 <= float(row["measured_robust_accuracy"]) <= 1 for row in expected)

    folder = tmp_path / "killed"
    command = start(folder)
    wait_for(command, "out/cells/train-*/version_0/checkpoints/last.ckpt", folder)
    everyone = [command.process.pid, *descendants(command.process.pid)]
    assert len(everyone) >= 3, "the command and two workers"
    for pid in everyone:
        os.kill(pid, signal.SIGKILL)
    command.wait()
    assert len(list(folder.glob("out/cells/*/version_0/results.json"))) < 2

    command = start(folder)
    wait_for(command, "out/cells/measured-*/log.txt", folder)
    leaders = {pid for pid in descendants(command.process.pid) if os.getpgid(pid) == pid}
    assert len(leaders) == 2, "the workers"
    for pid in leaders:
        os.kill(pid, signal.SIGKILL)
    status, said = command.wait()
    assert status == 0, said
    assert table(folder) == expected
    assert "--ckpt_path" in "".join(path.read_text() for path in folder.glob("out/cells/train-*/log.txt"))
    assert not list(folder.rglob("*.part"))
    assert not list(folder.rglob("*.lock"))
    assert not (folder / "out" / ".trial").exists()


def test_a_study_that_is_stopped_ends_its_workers_and_says_how_to_go_on(tmp_path):
    command = start(tmp_path)
    wait_for(command, "out/cells/train-*/version_0/checkpoints/last.ckpt", tmp_path)
    workers = descendants(command.process.pid)
    assert workers
    os.kill(command.process.pid, signal.SIGTERM)
    status, said = command.wait()
    assert status == 128 + signal.SIGTERM
    assert said.rstrip().endswith("The same command again goes on from here.")
    assert not any(lives(pid) for pid in workers)
    assert "begun" in {row["status"] for row in table(tmp_path)}


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
