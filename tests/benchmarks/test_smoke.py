"""Every script runs, with tiny settings, and prints its table. No time is asserted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.commands.shortened import fit

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SMALL = ["--networks", "small_cnn", "--batch-size", "4", "--steps", "2", "--rounds", "2"]
RUNS = {
    "attack_step.py": (SMALL, "| MadryTraining as in lightning-adv fit | "),
    "advprop_step.py": ([*SMALL, "--clock", "cpu"], "| AdvPropTraining in a Trainer | "),
    "memory.py": (["--networks", "small_cnn", "--batch-size", "4"], "| view | "),
    "observers.py": (["--network", "small_cnn", "--batch-size", "4", "--rounds", "1"], "| all | "),
    "evaluation.py": (["--steps=1", "--rounds=1"], "| lightning_adv PGD |"),
    "packing.py": (["--networks=2", "--widths=4", "--rounds=1"], "| width 4 | "),
    "studies.py": (
        ["--cells=1", "--rounds=1", "--contenders", "fit commands in a loop", "study, one worker"],
        "| study, one worker |",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_script_prints_its_table(name, tmp_path):
    arguments, row = RUNS[name]
    results = tmp_path / "results.json"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(FOLDER.parent)}
    command = [sys.executable, str(FOLDER / name), *arguments, "--json", str(results)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert row in run.stdout
    assert json.loads(results.read_text())
    assert list(tmp_path.iterdir()) == [results]  # the Trainers' run folders are gone


@pytest.mark.slow
def test_a_checkpoint_is_evaluated_in_both_ways(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    checkpoint = str(fit() / "checkpoints" / "best.ckpt")
    settings = ["--images=40", "--batch-size=30", "--rounds=2", "--eps", "0.1"]
    script("evaluation").main([checkpoint, "--config=evaluation/quick", *settings])
    script("evaluation").main([checkpoint, "--early-stop", "--steps=4", *settings])
    assert len([line for line in capsys.readouterr().out.splitlines() if line.startswith("| runs")]) == 2


@pytest.mark.slow
def test_two_checkouts_take_turns(script, monkeypatch, tmp_path, capsys):
    """The same one twice, with a command that ends at once."""
    benchmark = script("startup")
    monkeypatch.setattr(benchmark, "make_run", lambda checkout, folder: None)
    benchmark.main([f"--before={FOLDER.parent}", "--rounds=1", "--commands", "a misspelled command"])
    assert capsys.readouterr().out.count("| a misspelled command | ") == 1


@pytest.mark.slow
def test_training_on_a_gpu_is_measured_but_for_its_calls_of_cuda(script, workload, monkeypatch):
    benchmark = script("gpu_training")
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: None)
    monkeypatch.setattr(benchmark, "matmul_peak", lambda device: 1e12)
    found = benchmark.measure(replace(workload, rounds=2), torch.device("cpu"), steps=1, images=8)
    printed = benchmark.tables(found)
    assert all(f"| {name} | " in printed for name in benchmark.VARIANTS)


def test_without_a_gpu_it_says_so(script, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"^gpu_training\.py measures on a CUDA GPU, and torch finds none"):
        script("gpu_training").main([])
