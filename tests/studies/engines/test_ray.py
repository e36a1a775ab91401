"""Ray for real: a cluster of the engine's own, and two nodes on this machine, one of which is killed."""

import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from lightning_adv.cli import main
from lightning_adv.core.errors import UsageError
from lightning_adv.studies.engines import ray as engine_of_ray
from lightning_adv.studies.engines.ray import RayEngine
from lightning_adv.testing import check_engine
from tests.studies.engines.test_local import lives, wait_until

ROOT = Path(__file__).parents[3]
STUDY = """
title: Tiny
config: digits/madry
set:
  model.init_args.backbone.options: {width: 4}
  model.init_args.evaluation_attack.init_args.steps: 2
  trainer: {max_epochs: 12, limit_train_batches: 4, limit_val_batches: 1, num_sanity_val_steps: 0, accelerator: cpu}
seeds: [0, 1]
threads: 1
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty home folder, and no variable that speaks of a cluster."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path / "home"


@pytest.fixture
def temporary(monkeypatch):
    """Where Ray writes: its sockets need a short path."""
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")
    monkeypatch.setenv("RAY_TMPDIR", folder)
    yield Path(folder)
    shutil.rmtree(folder)


def processes_with(text):
    """The ids of the processes whose command line has a text."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if text in (folder / "cmdline").read_text():
                found.append(int(folder.name))
        except (OSError, UnicodeDecodeError):  # it has ended
            continue
    return found


@pytest.mark.slow
def test_a_cluster_of_its_own_keeps_the_promises_and_leaves_nothing(home, temporary, tmp_path):
    handler = signal.getsignal(signal.SIGTERM)
    (tmp_path / "cells").mkdir()
    check_engine(RayEngine(), tmp_path / "cells")
    assert signal.getsignal(signal.SIGTERM) is handler
    assert list(temporary.iterdir()) == []
    assert not processes_with(str(temporary))
    assert list(home.iterdir()) == []


KILLED = """
from lightning_adv.studies.engines.ray import RayEngine
from tests.studies.engines.works import hang
engine = RayEngine()
engine.open(hang, workers=1, threads=1)
engine.submit({folder!r})
engine.wait(600)
"""


@pytest.mark.slow
def test_workers_end_with_a_command_that_is_killed(temporary, tmp_path):
    pids = tmp_path / "pids"
    with subprocess.Popen([sys.executable, "-c", KILLED.format(folder=str(tmp_path))], cwd=ROOT) as command:
        try:
            wait_until(pids.exists, 120)
        finally:
            command.kill()
    wait_until(lambda: not lives(int(pids.read_text().split()[0])))
    with suppress(ProcessLookupError):  # what a worker has started may have ended with it
        os.kill(int(pids.read_text().split()[1]), signal.SIGKILL)
    wait_until(lambda: not any(lives(pid) for pid in processes_with(str(temporary))), 120)


@contextmanager
def node(log, *arguments):
    """A node of a cluster, whose processes end with the one that is yielded."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", "--num-gpus=0"]
    command += ["--object-store-memory=80000000", "--disable-usage-stats", "--min-worker-port=0", "--max-worker-port=0"]
    with log.open("w") as output, subprocess.Popen([*command, *arguments], stdout=output, stderr=output) as process:
        try:
            wait_until(lambda: "Ray runtime started" in log.read_text(), 240)
            yield process
        finally:
            process.kill()


def table(folder):
    with (folder / "study.csv").open() as file:
        return [{key: value for key, value in row.items() if "seconds" not in key} for row in csv.DictReader(file)]


def run_of_study(folder, *arguments):
    return ["study", "--config", str(folder.parent / "tiny.yaml"), "-o", str(folder), "--workers", "2", *arguments]


@pytest.mark.slow
def test_the_table_is_the_same_on_every_engine_and_when_a_node_is_killed(temporary, tmp_path, monkeypatch):
    (tmp_path / "tiny.yaml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    main(run_of_study(tmp_path / "local"))
    main(run_of_study(tmp_path / "slurm", "--engine", "slurm", "--engine.cluster", "local"))
    expected = table(tmp_path / "local")
    assert [row["status"] for row in expected] == ["done", "done"]
    assert table(tmp_path / "slurm") == expected
    assert list((tmp_path / "slurm" / "cells").glob("*/slurm/*_log.out"))

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    head = ("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={temporary}/h")
    with ExitStack() as nodes:
        first = nodes.enter_context(node(tmp_path / "head.log", *head))
        address = f"127.0.0.1:{port}"
        nodes.enter_context(node(tmp_path / "second.log", f"--address={address}", f"--temp-dir={temporary}/s"))
        with closing(RayEngine(address, gpus_per_cell=1)) as engine, pytest.raises(UsageError, match="1 GPUs"):
            engine.open(print, workers=1, threads=1)
        arguments = run_of_study(tmp_path / "ray", "--engine", "ray", "--engine.address", address)
        with (tmp_path / "out").open("w") as output:
            command = subprocess.Popen(
                [sys.executable, "-m", "lightning_adv", *arguments], stdout=output, stderr=output
            )
        wait_until(lambda: len(list((tmp_path / "ray" / "cells").glob("*/log.txt"))) == 2, 240)
        for pid in processes_with(f"{temporary}/s"):  # its raylet too, which would let the cell come to its end
            os.kill(pid, signal.SIGKILL)
        assert command.wait(240) == 0, (tmp_path / "out").read_text()
        assert first.poll() is None
    assert "another worker goes on with it" in (tmp_path / "out").read_text()
    assert table(tmp_path / "ray") == expected
    wait_until(lambda: not any(lives(pid) for pid in processes_with(str(temporary))), 120)


@pytest.mark.slow
@pytest.mark.parametrize("address", ["127.0.0.1:1", "cluster", "ray://127.0.0.1:10001", "auto"])
def test_a_cluster_that_is_not_there_is_told_within_seconds(temporary, address):
    begun = time.monotonic()
    with pytest.raises(UsageError, match="there is no cluster of Ray"):
        RayEngine(address).open(print, workers=1, threads=1)
    assert time.monotonic() - begun < 30


@pytest.mark.slow
def test_something_else_that_listens_is_told(monkeypatch):
    monkeypatch.setattr(engine_of_ray, "_ANSWER", 4)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UsageError, match="does not answer as Ray does within 4 seconds"):
            RayEngine(f"127.0.0.1:{other.getsockname()[1]}").open(print, workers=1, threads=1)


def test_a_missing_package_and_gpus_that_ray_does_not_divide_are_told(monkeypatch):
    with pytest.raises(UsageError, match=r"engine.gpus_per_cell: .* got 1.5"):
        RayEngine(gpus_per_cell=1.5).open(print, workers=1, threads=1)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'lightning-adv\[ray\]'"):
        RayEngine().open(print, workers=1, threads=1)
