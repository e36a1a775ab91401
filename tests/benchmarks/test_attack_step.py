"""The benchmark runs, its table has the promised form, and what it times is what it says. No time is asserted."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from torch.nn.functional import cross_entropy

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "attack_step.py"
RATIO = r"\d+\.\d{3}"
MEASURED = re.compile(rf"\| \d+\.\d \| {RATIO} \| {RATIO} to {RATIO} \| [a-z_, ]*\|$")
PEERS = {
    "torchattacks PGD": "torchattacks",
    "foolbox LinfPGD": "foolbox",
    "ART ProjectedGradientDescentPyTorch": "art",
}


@pytest.fixture(scope="module")
def benchmark(script):
    return script("attack_step")


def test_the_script_prints_one_row_for_each_contender(tmp_path):
    results = tmp_path / "results.json"
    settings = ["--networks", "small_cnn", "--batch-size", "4", "--steps", "2", "--rounds", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[1])}
    run = subprocess.run(
        [sys.executable, str(SCRIPT), *settings, "--json", str(results)],
        capture_output=True, text=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "small_cnn, 4×1×8×8, PGD-2, 2 rounds" in run.stdout
    table = [line for line in run.stdout.splitlines() if line.startswith("|")][2:]
    rows = {line.split("|")[1].strip(): line.split("|", 2)[2] for line in table}
    assert list(rows) == [
        "eager bound", "eager bound, again", "lightning_adv PGD", *PEERS,
        "MadryTraining", "MadryTraining in a Trainer", "MadryTraining as in lightning-adv fit",
    ]  # fmt: skip
    for name, row in rows.items():
        if name in PEERS and importlib.util.find_spec(PEERS[name]) is None:
            assert row.startswith(" not installed ")
        else:
            assert MEASURED.match("|" + row), row
    assert " 1.000 | 1.000 to 1.000 | nothing |" in rows["eager bound"]
    assert rows["lightning_adv PGD"].endswith(" nothing |")
    assert run.stdout.splitlines()[-1].startswith("The Trainer adds to the step of MadryTraining ")
    written = json.loads(results.read_text())["small_cnn"]
    assert {len(row["seconds"]) for row in written.values() if row} == {2}
    assert list(tmp_path.iterdir()) == [results]  # the Trainers' run folders are gone


def test_what_an_attack_leaves_behind_is_found(benchmark, workload, monkeypatch):
    def careless(network, pgd, images):
        def attack(x, y):
            network.train()  # wakes the frozen BatchNorm, whose running statistics the forward then moves
            cross_entropy(network(x), y).backward()
            return x

        return attack

    monkeypatch.setitem(benchmark.ATTACKS, "careless", careless)
    assert benchmark.left_behind("careless", workload) == "gradients, train flags, buffers"
    assert benchmark.left_behind("lightning_adv PGD", workload) == "nothing"
