"""The benchmark runs, its tables have the promised form, and what it times is what it says. No time is asserted."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from lightning_adv.regimes import AdvPropTraining

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "advprop_step.py"
RATIO = r"\d+\.\d{3}"
MEASURED = re.compile(rf"\| \d+\.\d \| {RATIO} \| {RATIO} to {RATIO} \|$")


@pytest.fixture(scope="module")
def benchmark(script):
    return script("advprop_step")


def test_the_script_prints_both_tables(tmp_path):
    results = tmp_path / "results.json"
    settings = ["--networks", "small_cnn", "--batch-size", "4", "--steps", "2", "--rounds", "2", "--clock", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[1])}
    run = subprocess.run(
        [sys.executable, str(SCRIPT), *settings, "--json", str(results)],
        capture_output=True, text=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "small_cnn, 4×1×8×8, PGD-2, 2 rounds of 20 steps, cpu time" in run.stdout
    lines = [line for line in run.stdout.splitlines() if line.startswith("|") and "---" not in line]
    rows = {line.split("|")[1].strip(): "|" + line.split("|", 2)[2] for line in lines}
    assert list(rows) == [
        "contender", "eager bound", "eager bound, again", "AdvPropTraining", "AdvPropTraining in a Trainer",
        "in a Trainer", "MadryTraining", "MadryTraining with TRADES", "MadryTraining with AWP",
    ]  # fmt: skip
    for name, heading in (("contender", "over the bound"), ("in a Trainer", "over MadryTraining")):
        assert heading in rows.pop(name)
    for row in rows.values():
        assert MEASURED.match(row), row
    for reference in ("eager bound", "MadryTraining"):
        assert rows[reference].endswith(" 1.000 | 1.000 to 1.000 |")
    written = json.loads(results.read_text())["small_cnn"]
    assert {name: len(seconds) for name, seconds in written.items()} == dict.fromkeys(rows, 2)
    assert list(tmp_path.iterdir()) == [results]  # the Trainers' run folders are gone


def test_the_bound_and_the_regime_make_the_same_forwards(benchmark, timing, workload):
    """Counted at the layer that ends all networks: in eval mode one for each step, in train mode one a domain."""
    forwards: list[bool] = []

    def count(module, *_):
        if isinstance(module, torch.nn.Linear):
            forwards.append(module.training)

    step = timing.regime_loop(workload.regime(AdvPropTraining))
    step([workload.batch()])  # in which the view that is attacked is prepared
    with torch.nn.modules.module.register_module_forward_hook(count):
        benchmark.bound_loop(benchmark.pair(workload.regime().network), workload)([workload.batch()])
        assert forwards == [False, False, True, True]
        step([workload.batch()])
    assert forwards == 2 * [False, False, True, True]


def test_the_bound_trains_what_the_regime_trains(benchmark, workload):
    """As many numbers; on equal networks the shared weights get twice the gradient of one, each BatchNorm its own."""
    plain, batch = workload.regime().network, workload.batch()
    networks = benchmark.pair(workload.regime().network)
    sizes = [sum(p.numel() for p in module.parameters()) for module in (networks, workload.regime(AdvPropTraining))]
    assert sizes[0] == sizes[1]
    benchmark.bound_loop(networks, workload)([batch])
    cross_entropy(plain(batch[0]), batch[1]).backward()
    owned = 0
    for expected, main, auxiliary in zip(*(list(n.named_parameters()) for n in (plain, *networks)), strict=True):
        name, one = expected[0], expected[1].grad
        is_own = main[1] is not auxiliary[1]
        owned += is_own
        for gradient in (main[1].grad, auxiliary[1].grad):
            torch.testing.assert_close(gradient, one if is_own else 2 * one, msg=name)
    norms = [module for module in plain.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert owned == 2 * len(norms) > 0  # a weight and a bias each


def test_the_auxiliary_statistics_move_by_themselves(benchmark, workload):
    """Running means are the batch's, in each network after one pass: neither is moved twice, or by the attack."""
    networks, batch = benchmark.pair(workload.regime().network), workload.batch()
    benchmark.bound_loop(networks, workload)([batch])
    counts = [int(buffer) for name, buffer in networks.named_buffers() if name.endswith("num_batches_tracked")]
    norms = [module for module in networks.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert counts == [1] * len(norms)


def test_the_record_is_of_what_its_names_say(benchmark, workload):
    regimes = benchmark.regimes(workload)
    madry, trades, awp = (regimes[name] for name in (benchmark.MADRY, benchmark.WITH_TRADES, benchmark.WITH_AWP))
    assert [type(regime.objective).__name__ for regime in (madry, trades, awp)] == [
        "CrossEntropy",
        "TRADES",
        "CrossEntropy",
    ]
    assert [regime.weight_perturbation is None for regime in (madry, trades, awp)] == [True, True, False]
    assert trades.attack.loss == "kl"
    assert {regime.attack.steps for regime in regimes.values()} == {workload.steps}
