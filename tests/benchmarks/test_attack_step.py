"""The benchmark runs, its table has the promised form, and what it times is what it says. No time is asserted."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from lightning_adv.nn.view.weights import Links

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "attack_step.py"
RATIO = r"(?:≈ )?\d+\.\d{3}"
ONE = rf" \d+\.\d \| {RATIO} \| \d+\.\d{{3}} to \d+\.\d{{3}} \|"
MEASURED = re.compile(rf"{ONE}{ONE} [a-z_, ]*\|$")
PEERS = {
    "torchattacks PGD": "torchattacks",
    "foolbox LinfPGD": "foolbox",
    "ART ProjectedGradientDescentPyTorch": "art",
}


@pytest.fixture(scope="module")
def benchmark(script):
    return script("attack_step")


OURS = [
    "lightning_adv PGD", "MadryTraining, view: off", "MadryTraining", "MadryTraining, channels_last",
    "MadryTraining, attack_precision: bf16", "MadryTraining in bf16-mixed",
    "MadryTraining in bf16-mixed, channels_last", "MadryTraining in a Trainer",
    "MadryTraining as in lightning-adv fit",
]  # fmt: skip


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
    lines = [line for line in run.stdout.splitlines() if line.startswith("|") and "---" not in line]
    end = next(number for number, line in enumerate(lines) if line.startswith("| over the fastest"))
    rows = {line.split("|")[1].strip(): line.split("|", 2)[2] for line in lines[1:end]}
    assert list(rows) == [
        "plain loop", "plain loop, again", "eager bound", "robustness-style loop", "loop with loss.backward()",
        *PEERS, *OURS,
    ]  # fmt: skip
    for name, row in rows.items():
        if name in PEERS and importlib.util.find_spec(PEERS[name]) is None:
            assert row.startswith(" not installed ")
        else:
            assert MEASURED.match(row), row
    assert rows["plain loop"].count(" 1.000 | 1.000 to 1.000 |") == 2
    assert rows["plain loop"].endswith("| train flags |")
    assert rows["loop with loss.backward()"].endswith("| gradients, train flags |")
    assert all(rows[name].endswith("| nothing |") for name in OURS[:5])
    over_peers = {line.split("|")[1].strip(): line.split("|")[2:4] for line in lines[end + 1 :]}
    assert list(over_peers) == OURS
    assert all(re.fullmatch(RATIO, cell.strip()) for row in over_peers.values() for cell in row)
    written = json.loads(results.read_text())["small_cnn"]["seconds"]
    assert {len(rounds) for rounds in written.values()} == {2}
    assert all(step > attack > 0 for rounds in written.values() for step, attack in rounds)
    assert list(tmp_path.iterdir()) == [results]  # the Trainers' run folders are gone


def test_a_ratio_within_the_noise_is_marked(benchmark):
    """By hand: the second measurement strays by 0.1, so 1.08 says nothing, and 0.85 and 1.2 do."""
    seconds = {"a": [1.0, 1.0, 1.0], "a again": [0.9, 1.05, 1.0], "b": [1.08, 1.0, 1.2], "c": [0.85, 0.85, 2.0]}
    column = benchmark.Column(seconds, "a", "a again")
    assert column.noise == pytest.approx(0.1)
    assert [column.ratio(name) for name in seconds] == ["1.000", "≈ 1.000", "≈ 1.080", "0.850"]
    assert column.ratio("a", over="c") == "1.176"
    assert column.cells("b") == "1080.0 | ≈ 1.080 | 1.000 to 1.200"


def test_what_an_attack_leaves_behind_is_found(benchmark, workload):
    def careless(network):
        def attack(x, y):
            network.train()  # wakes the frozen BatchNorm, whose running statistics the forward then moves
            cross_entropy(network(x), y).backward()
            return x

        return attack

    network = workload.regime().network
    assert benchmark.left_behind(network, careless(network), workload) == "gradients, train flags, buffers"
    network = workload.regime().network
    assert benchmark.left_behind(network, lambda x, y: x, workload) == "nothing"


def test_the_fastest_of_the_others_is_the_reference(benchmark):
    step = {name: [2.0] for name in (*benchmark.HAND_WRITTEN, *benchmark.ATTACKS, *benchmark.REGIMES)}
    step |= {benchmark.TRAINER: [3.0], benchmark.FIT: [4.0], "foolbox LinfPGD": [1.0]}
    del step["torchattacks PGD"]  # not installed
    attack = {**step, "foolbox LinfPGD": [2.0], "robustness-style loop": [0.5]}
    columns = [benchmark.Column(seconds, benchmark.PLAIN, benchmark.AGAIN) for seconds in (step, attack)]
    lines = benchmark.against_peers(*columns)
    assert (
        lines[0] == "| over the fastest of the others | step (foolbox LinfPGD) | attack alone (robustness-style loop) |"
    )
    assert "| MadryTraining as in lightning-adv fit | 4.000 | 8.000 |" in lines


def test_mixed_precision_is_that_of_attack_and_update(benchmark, timing, workload):
    """What the network's first layer computes, in train mode and under attack."""
    for name, expected in (("MadryTraining in bf16-mixed", torch.bfloat16), ("MadryTraining", torch.float32)):
        seen = set()

        def note(module, inputs, output, seen=seen):
            if isinstance(module, torch.nn.Conv2d):
                seen.add((module.training, output.dtype))

        entry = benchmark.with_regime(name, workload, timing.Stopwatch(workload.clock))
        entry.loop([workload.batch()])  # in which the view is prepared
        with torch.nn.modules.module.register_module_forward_hook(note):
            entry.loop([workload.batch()])
        assert seen == {(True, expected), (False, expected)}


def test_what_a_view_takes_to_prepare(benchmark, workload, monkeypatch):
    """The view has new weights to take over in each round, or there would be nothing to measure."""
    refreshed, refresh = [], Links.refresh
    monkeypatch.setattr(Links, "refresh", lambda links: (refreshed.append(1), refresh(links)))
    prepared, passed = benchmark.compare_preparing(workload, rounds=3)
    assert (len(prepared), len(passed)) == (3, 3)
    assert min(*prepared, *passed) > 0
    assert len(refreshed) == 2 + 3  # two for the trial, then one in each round
    told = benchmark.preparing([0.002, 0.001, 0.003], [0.02, 0.01, 0.03])
    assert told == "A view takes over new weights in 2.00 ms, 0.1000 of a forward pass of the batch."


def test_trades_is_set_against_its_naive_loop(benchmark, workload):
    found = benchmark.compare_trades(replace(workload, passes=1, rounds=2))
    printed = benchmark.trades_table(found)
    for name in ("naive loop", "naive loop, again", *OURS[1:3], OURS[4]):
        assert f"| {name} | " in printed
    assert len(found) == 5
    assert {len(rounds) for rounds in found.values()} == {2}
