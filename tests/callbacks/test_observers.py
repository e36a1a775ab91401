"""Observers change nothing: weights, optimizer state, buffers, random state, flags, losses, with and without them."""

import csv
import random

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import CSVLogger

from lightning_adv.callbacks import (
    BatchNormDrift,
    BestCheckpoint,
    EarlyWarning,
    LastCheckpoint,
    LocalResponse,
    RunningVsBatch,
    Throughput,
    TrainingCurves,
    WeightSmoothness,
)
from lightning_adv.regimes import AdvPropTraining, MadryTraining
from tests.regimes.toy import ATTACK, BACKBONE, Graphs, ToyData, quiet_trainer

ANALYSES = {
    "bn_drift": BatchNormDrift,
    "bn_gap": lambda **when: RunningVsBatch(batch_size=8, **when),
    "smoothness": WeightSmoothness,
    "local_response": lambda **when: LocalResponse(images=20, **when),
}
OTHERS = {
    "throughput": Throughput,
    "curves": TrainingCurves,
    "best": BestCheckpoint,
    "last": lambda: LastCheckpoint(every_n_train_steps=3),
    "early_warning": lambda: EarlyWarning(images=20),
}
EACH_EPOCH = {**ANALYSES, **OTHERS}
EACH_STEP = {f"{name}_each_step": lambda make=make: make(every_n_steps=1) for name, make in ANALYSES.items()}
SEEN = ("early_warning", *ANALYSES)


CONDITIONS = {
    "plain": {},
    "domains": {"regime": AdvPropTraining},
    "accumulation": {"trainer": {"accumulate_grad_batches": 2}},
    "averaging": {"callbacks": lambda: [EMAWeightAveraging(decay=0.5)]},
    "held": {"arguments": {"running_statistics_epochs": 1}},
    "bf16": {"trainer": {"precision": "bf16-mixed"}},
    "compiled": {"arguments": {"compile": True}},
    "compiled_domains": {"regime": AdvPropTraining, "arguments": {"compile": True}},
}


def logged(folder):
    """Everything that was logged but what the observers saw, row by row."""
    with (folder / "run/version_0/metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            kept = {name: value for name, value in row.items() if value and not name.startswith(SEEN)}
            if kept.keys() - {"epoch", "step"}:
                yield tuple(sorted(kept.items()))


def end_of_training(folder, observers, condition, monkeypatch):
    """Train for two epochs; return all that could have changed."""
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(0)
    setting, graphs = CONDITIONS[condition], Graphs()
    torch._dynamo.reset()
    original = torch.nn.Module.compile
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Module, "compile", lambda self: original(self, backend=graphs, fullgraph=True))
        module = setting.get("regime", MadryTraining)(
            BACKBONE, num_classes=2, attack=ATTACK, evaluation_attack=ATTACK, **setting.get("arguments", {})
        )
        options = {"logger": CSVLogger(folder, name="run", version=0), "max_epochs": 2, "log_every_n_steps": 1}
        callbacks = [*observers, *setting.get("callbacks", list)()]
        trainer = quiet_trainer(
            folder, callbacks=callbacks, enable_checkpointing=True, **options, **setting.get("trainer", {})
        )
        trainer.fit(module, ToyData())
    assert (graphs.count > 0) == condition.startswith("compiled")
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in module.modules())
    optimizer = [s["momentum_buffer"] for s in trainer.optimizers[0].state_dict()["state"].values()]
    draws = (torch.rand(3), torch.from_numpy(np.random.rand(3)), torch.tensor(random.random()))
    metrics = sorted(item for item in trainer.callback_metrics.items() if not item[0].startswith(SEEN))
    flags = torch.tensor([submodule.training for submodule in module.modules()])
    gradients = torch.tensor([parameter.requires_grad for parameter in module.parameters()])
    tensors = [*module.state_dict().values(), *optimizer, *draws, *(value for _, value in metrics), flags, gradients]
    return [tensor.clone() for tensor in tensors], list(logged(folder)), (hooks, graphs.count)


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    """What training ends in without observers, once for each condition."""
    known = {}

    def end(condition):
        if condition not in known:
            folder = tmp_path_factory.mktemp(condition)
            with pytest.MonkeyPatch.context() as monkeypatch:
                known[condition] = end_of_training(folder, [], condition, monkeypatch)
        return known[condition]

    return end


def assert_nothing_changed(before, after):
    assert len(before[0]) == len(after[0])
    assert all(torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True))
    assert before[1] == after[1]
    assert before[1], "nothing was logged"
    assert before[2] == after[2], "hooks or graphs"


@pytest.mark.parametrize("name", {**EACH_EPOCH, **EACH_STEP})
def test_training_is_bit_identical(tmp_path, monkeypatch, without, name):
    observer = {**EACH_EPOCH, **EACH_STEP}[name]()
    assert_nothing_changed(without("plain"), end_of_training(tmp_path, [observer], "plain", monkeypatch))


@pytest.mark.parametrize("condition", [condition for condition in CONDITIONS if condition != "plain"])
def test_training_is_bit_identical_on_every_axis(tmp_path, monkeypatch, without, condition):
    """All analyses in one run: what any of them changed would show."""
    observers = [make(every_n_steps=3) for make in ANALYSES.values()]
    assert_nothing_changed(without(condition), end_of_training(tmp_path, observers, condition, monkeypatch))


@pytest.mark.parametrize("condition", ["plain", "compiled_domains"])
def test_all_of_them_together(tmp_path, monkeypatch, without, condition):
    observers = [make() for make in EACH_EPOCH.values()]
    assert_nothing_changed(without(condition), end_of_training(tmp_path, observers, condition, monkeypatch))


def test_a_change_would_show(tmp_path, monkeypatch, without):
    class Meddles(WeightSmoothness):
        def look(self, trainer, regime):
            regime.network.eval()
            return super().look(trainer, regime)

    changed = end_of_training(tmp_path, [Meddles(every_n_steps=3)], "plain", monkeypatch)
    with pytest.raises(AssertionError):
        assert_nothing_changed(without("plain"), changed)
