"""The benchmark runs, its table has the promised form, and what it times is what it says. No time is asserted."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
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
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        yield importlib.import_module("attack_step")


@pytest.fixture(scope="module")
def workload(benchmark):
    return replace(benchmark.WORKLOADS["small_cnn"], batch_size=4, steps=2)


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


def test_the_bound_is_k_evaluations_and_one_training_pass(benchmark, workload):
    """Counted by a hook: as many forwards in eval mode as the attack has steps, one in train mode."""
    forwards: list[bool] = []
    network = workload.regime().network
    network.network.fc.register_forward_hook(lambda module, *_: forwards.append(module.training))
    attack = benchmark.gradients_alone(network, replace(workload, steps=3).attack(), workload.batch()[0])
    benchmark.loop_of(lambda x, y: cross_entropy(network(attack(x, y)), y), network)([workload.batch()])
    assert forwards == [False, False, False, True]


def test_the_update_has_gradients_but_moves_no_weight(benchmark, workload):
    network = workload.regime().network
    before = [parameter.clone() for parameter in network.parameters()]
    benchmark.loop_of(lambda x, y: cross_entropy(network(x), y), network)([workload.batch()])
    for parameter, old in zip(network.parameters(), before, strict=True):
        assert parameter.grad is not None
        assert torch.equal(parameter, old)


def test_a_call_is_one_step_of_the_trainer(benchmark, workload):
    ended: list[int] = []

    class Count(Callback):
        def on_train_batch_end(self, trainer, *_):
            ended.append(trainer.global_step)

    contender = benchmark.Contender(workload, partial(quiet_trainer(Count()).fit, workload.regime()))
    for calls in (1, 2, 3):
        assert contender() > 0
        assert ended == list(range(1, calls + 1))
    contender.close()
    assert ended == [1, 2, 3]


def test_an_error_inside_a_loop_reaches_the_caller(benchmark, workload):
    class Fail(Callback):
        def on_train_batch_end(self, *_):
            raise RuntimeError("told")

    contender = benchmark.Contender(workload, partial(quiet_trainer(Fail()).fit, workload.regime()))
    with pytest.raises(RuntimeError, match="told"):
        contender()
    contender.close()


def quiet_trainer(callback):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(accelerator="cpu", max_epochs=1, enable_model_summary=False, callbacks=[callback], **quiet)


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
