import json
import threading
import time
from pathlib import Path

import pytest

from lightning_adv.core.errors import UsageError
from lightning_adv.core.locks import alone
from lightning_adv.studies.attempts import Failure, lock_of, read_failure, result_of, write_failure
from lightning_adv.studies.cells import Cell
from lightning_adv.studies.engines.base import Engine, WorkerLostError
from lightning_adv.studies.scheduling import run_cells

# d needs b and c, which need a; e needs nothing
NEEDS = {"a": "", "b": "a", "c": "a", "d": "bc", "e": ""}


def make(tmp_path, needs=NEEDS):
    cells = []
    for name, needed in needs.items():
        (folder := tmp_path / name).mkdir()
        cells.append(Cell(name, "fit", "fit", {"seed": name}, folder, tuple(needed), {}, 1))
    return cells


def finish(folder):
    path = result_of(folder, "fit")
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}")


class Simulated(Engine):
    """Runs cells when they are waited for, the last that was submitted first.

    Args:
        does: By cell what happens each time: it is done, it fails, or an exception.
    """

    slots = 2

    def __init__(self, does=()):
        self.does = {name: list(each) for name, each in dict(does).items()}
        self.running, self.ran, self.most = [], [], 0

    def open(self, work, *, workers, threads): ...

    def submit(self, folder):
        self.running.append(folder)
        self.most = max(self.most, len(self.running))

    def wait(self, seconds):
        folder = self.running.pop()
        name = folder.rpartition("/")[2]
        self.ran.append(name)
        happens = self.does[name].pop(0) if self.does.get(name) else "done"
        if isinstance(happens, BaseException):
            return [(folder, happens)]
        if happens == "done":
            finish(Path(folder))
        else:
            write_failure(Path(folder), Failure(happens))
        return [(folder, None)]

    def close(self): ...


def run(cells, engine, **options):
    events = []
    failures = run_cells(cells, engine, on_event=lambda event: events.append((event.kind, event.cell.id)), **options)
    return failures, events


def test_each_cell_runs_once_after_those_that_it_needs(tmp_path):
    engine = Simulated()
    failures, events = run(make(tmp_path), engine)
    assert failures == {}
    assert sorted(engine.ran) == list(NEEDS)
    assert all(engine.ran.index(needed) < engine.ran.index(name) for name, needs in NEEDS.items() for needed in needs)
    assert engine.most == 2
    for name in NEEDS:
        assert [kind for kind, cell in events if cell == name] == ["began", "done"]
    assert run(make_again(tmp_path), Simulated()) == ({}, []), "what is done is not done twice"


def make_again(tmp_path):
    return [Cell(name, "fit", "fit", {}, tmp_path / name, tuple(needs), {}, 1) for name, needs in NEEDS.items()]


def test_a_failed_cell_stops_only_those_that_need_it(tmp_path):
    engine = Simulated({"b": ["eps must be at least 0."]})
    failures, events = run(make(tmp_path), engine)
    assert failures == {"b": "eps must be at least 0."}
    assert sorted(engine.ran) == ["a", "b", "c", "e"]
    assert ("failed", "b") in events
    assert ("waits", "d") in events
    again = Simulated()
    failures, events = run(make_again(tmp_path), again)
    assert (failures, again.ran) == ({"b": "eps must be at least 0."}, []), "not again, unless it is asked for"
    assert ("waits", "d") in events
    assert run(make_again(tmp_path), retried := Simulated(), retry=True)[0] == {}
    assert retried.ran == ["b", "d"]


def test_a_damaged_result_is_a_failure_that_is_run_again_when_that_is_asked_for(tmp_path):
    assert run(make(tmp_path), Simulated())[0] == {}
    result_of(tmp_path / "b", "fit").write_text("{")
    result_of(tmp_path / "d", "fit").unlink()
    failures, events = run(make_again(tmp_path), engine := Simulated())
    assert list(failures) == ["b"]
    assert failures["b"].startswith("results.json cannot be read: it is no JSON")
    assert (engine.ran, events[1:]) == ([], [("waits", "d")])
    assert run(make_again(tmp_path), retried := Simulated(), retry=True)[0] == {}
    assert retried.ran == ["b", "d"]


def test_what_a_worker_lost_is_given_to_another_three_times(tmp_path):
    lost = WorkerLostError("the worker ended by SIGKILL")
    engine = Simulated({"a": [lost] * 3, "e": [lost] * 4})
    failures, events = run(make(tmp_path), engine)
    assert failures == {"e": "it has lost 4 workers; of the last: the worker ended by SIGKILL"}
    assert engine.ran.count("a") == 4
    assert [kind for kind, cell in events if cell == "e"] == [*["began", "lost"] * 3, "began", "failed"]
    assert read_failure(tmp_path / "e", "fit") == Failure(failures["e"], attempts=4)


def test_a_worker_that_dies_after_the_result_was_written_has_done_its_cell(tmp_path):
    class Late(Simulated):
        def wait(self, seconds):
            [(folder, _)] = super().wait(seconds)
            return [(folder, WorkerLostError("late"))]

    failures, _ = run(make(tmp_path), engine := Late())
    assert failures == {}
    assert len(engine.ran) == 5


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device", "cells/e/log.txt"), "cells/e/log.txt: No space left on device."),
        (UsageError("no room"), "no room"),
    ],
)
def test_a_cell_that_cannot_be_written_is_told(tmp_path, error, told):
    failures, events = run(make(tmp_path), Simulated({"e": [error]}))
    assert failures == {"e": told}
    assert ("done", "d") in events


@pytest.mark.slow
def test_a_cell_that_another_study_runs_is_waited_for_and_taken(tmp_path):
    cells = make(tmp_path)
    engine = Simulated()
    begun = threading.Event()

    def other():
        with alone(lock_of(tmp_path / "a"), "a", instead="wait"):
            begun.set()
            while "e" not in engine.ran:  # there is something else to do meanwhile
                time.sleep(0.01)
            finish(tmp_path / "a")

    thread = threading.Thread(target=other)
    thread.start()
    begun.wait()
    failures, events = run(cells, engine)
    thread.join()
    assert failures == {}
    assert [kind for kind, cell in events if cell == "a"] == ["held", "done"]
    assert sorted(engine.ran) == ["b", "c", "d", "e"]
    assert json.loads(result_of(tmp_path / "d", "fit").read_text()) == {}


@pytest.mark.slow
def test_what_failed_in_another_study_meanwhile_is_not_tried_again(tmp_path):
    cells = make(tmp_path)
    engine = Simulated()
    begun = threading.Event()

    def other():
        with alone(lock_of(tmp_path / "a"), "a", instead="wait"):
            begun.set()
            while "e" not in engine.ran:
                time.sleep(0.01)
            write_failure(tmp_path / "a", Failure("no"))

    thread = threading.Thread(target=other)
    thread.start()
    begun.wait()
    failures, _ = run(cells, engine)
    thread.join()
    assert failures == {"a": "no"}
    assert engine.ran == ["e"]
