"""The benchmark of the start runs, and counts what a process takes. No time of a command is asserted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def benchmark(script):
    return script("startup")


def test_two_checkouts_take_turns(benchmark, monkeypatch, tmp_path, capsys):
    """The same one twice, with the commands that end at once."""
    made, order = [], []
    monkeypatch.setattr(benchmark, "make_run", lambda checkout, folder: made.append(folder.name))
    spend = benchmark.spend
    monkeypatch.setattr(benchmark, "spend", lambda *given: order.append(given[2].name) or spend(*given))
    root = Path(benchmark.__file__).parents[1]
    out = tmp_path / "out.json"
    commands = ["--commands", "lightning-adv --help", "a misspelled command"]
    benchmark.main([f"--before={root}", "--rounds=3", f"--json={out}", *commands])
    assert made == ["0", "1"]
    assert "".join(order) == "01011010" * 2, "the first round warms up"
    printed = capsys.readouterr().out
    assert "| | CPU s, before | CPU s, now | wall s, before | wall s, now |" in printed
    assert printed.count("| a misspelled command | ") == 1
    costs = json.loads(out.read_text())
    assert {name: len(rounds) for name, rounds in costs.items()} == {
        f"{label}: {name}": 3 for label in ("before", "now") for name in commands[1:]
    }


def test_cpu_time_is_that_of_the_process(benchmark, tmp_path):
    busy = "import time\nwhile time.process_time() < 0.5: pass"
    assert benchmark.spend(benchmark.Command(["-c", busy]), tmp_path, tmp_path).cpu >= 0.5
    asleep = benchmark.spend(benchmark.Command(["-c", "import time; time.sleep(1)"]), tmp_path, tmp_path)
    assert asleep.cpu < 0.5 < 1 <= asleep.wall


def test_a_command_that_ends_otherwise_is_an_error(benchmark, tmp_path):
    with pytest.raises(RuntimeError, match=r"ended with 3 instead of 0"):
        benchmark.spend(benchmark.Command(["-c", "raise SystemExit(3)"]), tmp_path, tmp_path)


def test_fit_ends_at_its_first_step(benchmark, script, monkeypatch):
    callback = script("first_step")
    assert callback.REACHED == benchmark.REACHED
    assert all(command.status == benchmark.REACHED for name, command in benchmark.COMMANDS.items() if "step" in name)
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    callback.EndAfterFirstStep().on_train_batch_end(None, None)
    assert ended == [benchmark.REACHED]


def test_the_cell_has_median_lowest_and_highest(benchmark):
    assert benchmark.cell([3.0, 1.0, 2.5]) == "2.50 (1.00 to 3.00)"
