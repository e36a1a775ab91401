import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from lightning_adv.studies.engines.base import WorkerLostError
from lightning_adv.studies.engines.local import LocalEngine, visible_gpus
from tests.studies.engines import works

ROOT = Path(__file__).parents[3]


@pytest.fixture
def engine(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))  # where workers find the module above
    with closing(LocalEngine()) as engine:
        yield engine


def folders(path, *names):
    for name in names:
        (path / name).mkdir()
    return [str(path / name) for name in names]


def run(engine, given):
    """Submit cells, and return the error of each."""
    for folder in given:
        engine.submit(folder)
    ended = {}
    while len(ended) < len(given):
        new = engine.wait(60)
        assert new, "nothing ended in a minute"
        assert not ended.keys() & dict(new).keys()
        ended |= dict(new)
    return ended


def wait_until(happened, seconds=30):
    until = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def pids_in(folder):
    wait_until(lambda: Path(folder, "pids").exists())
    return [int(pid) for pid in Path(folder, "pids").read_text().split()]


@pytest.mark.slow
def test_threads_and_gpus_are_divided_before_anything_is_imported(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5a, 7")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    engine.open(works.write_environment, workers=2, threads=2)
    assert engine.slots == 2
    given = folders(tmp_path, *"abcd")
    assert run(engine, given) == dict.fromkeys(given)
    told = [json.loads((tmp_path / name / "told.json").read_text()) for name in "abcd"]
    assert {one["OMP_NUM_THREADS"] for one in told} == {"2"}
    assert {one["CUDA_VISIBLE_DEVICES"] for one in told} == {"3,7", "GPU-5a"}
    assert len({one["pid"] for one in told}) == 2, "each worker runs many cells"
    assert not any(one["torch"] for one in told), "torch would have read the number of threads already"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3, GPU-5a, 7"
    assert os.environ["OMP_NUM_THREADS"] == "5"


def test_gpus_are_those_that_the_driver_lists_where_nobody_says(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == []
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: H200 (UUID: a)'\necho 'GPU 1: H200 (UUID: b)'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == [], "the user wants none"


def test_an_error_of_the_work_is_returned_and_the_worker_goes_on(engine, tmp_path):
    engine.open(works.fail, workers=1, threads=1)
    given = folders(tmp_path, "value", "own", "exit")
    ended = run(engine, given)
    assert isinstance(ended[given[0]], ValueError)
    assert str(ended[given[1]]) == "UnpicklableError: 1 and 2"
    assert isinstance(ended[given[2]], SystemExit)


def test_a_worker_that_dies_is_told_and_replaced(engine, tmp_path):
    engine.open(works.die_once, workers=1, threads=1)
    [folder] = folders(tmp_path, "a")
    error = run(engine, [folder])[folder]
    assert isinstance(error, WorkerLostError)
    assert str(error) == "the worker ended by SIGABRT"
    assert run(engine, [folder]) == {folder: None}
    assert Path(folder, "lived").exists()


def test_nothing_runs_for_longer_than_it_is_waited_for(engine, tmp_path):
    engine.open(works.hang, workers=1, threads=1)
    engine.submit(*folders(tmp_path, "a"))
    began = time.monotonic()
    assert engine.wait(0.1) == []
    assert time.monotonic() - began < 5


def test_closing_ends_workers_in_the_middle_of_cells_with_all_that_they_started(engine, tmp_path):
    engine.open(works.hang, workers=2, threads=1)
    given = folders(tmp_path, "a", "b", "c")
    for folder in given:
        engine.submit(folder)
    pids = [pid for folder in given[:2] for pid in pids_in(folder)]
    assert all(lives(pid) for pid in pids)
    engine.close()
    wait_until(lambda: not any(lives(pid) for pid in pids))
    assert not Path(given[2], "pids").exists()


PROGRAM = """
import sys
from lightning_adv.studies.engines.local import LocalEngine, visible_gpus
from tests.studies.engines import works
if __name__ == "__main__":
    engine = LocalEngine()
    engine.open(works.hang, workers=2, threads=1)
    engine.submit(sys.argv[1])
    engine.submit(sys.argv[2])
    if sys.argv[3] == "wait":
        engine.wait(1000)
    while not all((__import__("pathlib").Path(folder) / "pids").exists() for folder in sys.argv[1:3]):
        engine.wait(0.1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "ended", "interrupted"])
def test_workers_end_with_the_process_that_started_them(how, tmp_path):
    (program := tmp_path / "program.py").write_text(PROGRAM)
    given = folders(tmp_path, "a", "b")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, str(program), *given, "end" if how == "ended" else "wait"]
    process = subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL)
    pids = [pid for folder in given for pid in pids_in(folder)]
    assert len(pids) == 4
    if how != "ended":
        process.send_signal(signal.SIGKILL if how == "killed" else signal.SIGINT)
    process.wait(30)
    wait_until(lambda: not any(lives(pid) for pid in pids))
