"""Each of our observers keeps its promises, under every condition of training."""

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging

from lightning_adv.callbacks import (
    BatchNormDrift,
    BestCheckpoint,
    EarlyWarning,
    FlightRecorder,
    FrequencyCurve,
    LastCheckpoint,
    LocalResponse,
    PerturbationView,
    RunningVsBatch,
    SaliencyMaps,
    Throughput,
    TrainingCurves,
    WeightSmoothness,
)
from lightning_adv.nn.layers import named_batchnorms
from lightning_adv.regimes import AdvPropTraining, MadryTraining
from lightning_adv.testing import check_observer
from tests.regimes.toy import ATTACK, BACKBONE, Graphs


def batches(**when):
    return RunningVsBatch(batch_size=8, **when)


def responses(**when):
    return LocalResponse(images=20, **when)


class HeldStill(MadryTraining):
    """From the second epoch on BatchNorm normalises by its running statistics."""

    def held_in_eval(self):
        return named_batchnorms(self.network).values() if self.current_epoch else []


OBSERVERS = {
    "bn_drift": BatchNormDrift(),
    "bn_gap": batches(),
    "smoothness": WeightSmoothness(),
    "local_response": responses(),
    "flight_recorder": FlightRecorder(images=20),
    "frequency_curve": FrequencyCurve(images=20, radii=[0.5, 1.0]),
    "perturbation_view": PerturbationView(images=20, shown=2),
    "saliency_maps": SaliencyMaps(images=6, samples=3),
    "early_warning": EarlyWarning(images=20),
    "throughput": Throughput(),
    "curves": TrainingCurves(),
    "best": BestCheckpoint(),
    "last": LastCheckpoint(every_n_train_steps=3),
}
CONDITIONS = {
    "domains": (AdvPropTraining, {}, responses, {}),
    "domains, recorder": (AdvPropTraining, {}, lambda **when: FlightRecorder(images=20, **when), {}),
    "domains, saliency": (AdvPropTraining, {}, lambda **when: SaliencyMaps(images=6, samples=3, **when), {}),
    "domains, drift": (AdvPropTraining, {}, BatchNormDrift, {}),
    "accumulated gradients": (MadryTraining, {}, WeightSmoothness, {"accumulate_grad_batches": 2}),
    "averaged weights": (MadryTraining, {}, responses, {"callbacks": [EMAWeightAveraging(decay=0.5)]}),
    "BatchNorm held still": (HeldStill, {}, batches, {}),
    "bf16": (MadryTraining, {}, responses, {"precision": "bf16-mixed"}),
    "compiled, domains": (AdvPropTraining, {"compile": True}, batches, {}),
}


FAST = ("bn_gap", "early_warning", "domains")  # one with images, one with weights to restore, one with domains


def each(names):
    return pytest.mark.parametrize(
        "name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in names]
    )


@pytest.mark.slow
@each(OBSERVERS)
def test_promises(name):
    check_observer(OBSERVERS[name])


@pytest.mark.slow
@each(CONDITIONS)
def test_promises_under_a_condition(monkeypatch, name):
    kind, arguments, observer, options = CONDITIONS[name]
    graphs, compile_network = Graphs(), torch.nn.Module.compile
    torch._dynamo.reset()
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compile_network(self, backend=graphs, fullgraph=True))
    module = kind(BACKBONE, num_classes=2, attack=ATTACK, evaluation_attack=ATTACK, **arguments)
    check_observer(observer(every_n_steps=3), module, **options)
    assert (graphs.count > 0) == ("compile" in arguments)
