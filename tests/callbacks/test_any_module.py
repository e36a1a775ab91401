"""Observers of any LightningModule: the same promises, and one clear error where it cannot be observed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel
from torch import nn

from lightning_adv.attacks import FGSM, PGD
from lightning_adv.callbacks import (
    AdversarialBatches,
    BatchNormDrift,
    EarlyWarning,
    FlightRecorder,
    LocalResponse,
    RunningVsBatch,
    SaliencyMaps,
    TrainingCurves,
    WeightSmoothness,
)
from lightning_adv.cli import main
from lightning_adv.core.table import read_table
from lightning_adv.nn import Backbone
from lightning_adv.regimes import StandardTraining
from lightning_adv.testing import SmallImages, check_observer
from tests.callbacks.any_module_ddp_worker import ATTACKS, train
from tests.callbacks.foreign import MEAN, STD, Task, images, small_network
from tests.regimes.toy import ATTACK, BACKBONE, ToyData, quiet_trainer

ROOT = Path(__file__).parents[2]
PARTS = {"network": "model", "batch": ["image", "label"], "evaluation_attack": ATTACK}


class Observed(Task):
    """Validates, so that there are validation images; keeps no batch."""

    def training_step(self, batch, batch_idx):
        loss = self.criterion(self.model(batch["image"]), batch["label"])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.criterion(self.model(batch["image"]), batch["label"]))


class DictImages(SmallImages):
    """Batches {"image", "label"}, of normalised images where asked."""

    def __init__(self, normalised=False):
        super().__init__(1, 2)
        self.normalised = normalised

    def on_before_batch_transfer(self, batch, dataloader_idx):
        x, y = batch
        return {"image": (x - MEAN[0]) / STD[0] if self.normalised else x, "label": y}


def fit(folder, observer, module=None, data=None, **options):
    module = Observed() if module is None else module
    trainer = quiet_trainer(folder, callbacks=[observer], **{"max_epochs": 1, "num_sanity_val_steps": 0} | options)
    trainer.fit(module, DictImages() if data is None else data)
    return module


OBSERVERS = {
    "bn_drift": BatchNormDrift(network="model"),
    "bn_gap": RunningVsBatch(batch_size=8, **PARTS),
    "smoothness": WeightSmoothness(),
    "local_response": LocalResponse(layers="*", images=20, **PARTS),
    "flight_recorder": FlightRecorder(images=20, **PARTS),
    "saliency_maps": SaliencyMaps(images=6, samples=3, **PARTS),
    "early_warning": EarlyWarning(images=20, **PARTS),
    "curves": TrainingCurves(),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OBSERVERS)
def test_promises(name):
    check_observer(OBSERVERS[name], Observed(), DictImages())


@pytest.mark.slow
def test_promises_beside_an_adversary_in_mixed_precision_with_accumulated_gradients():
    adversary = AdversarialBatches(ATTACK, network="model", batch=["image", "label"])
    observer = LocalResponse(layers="*", images=20, every_n_steps=2, **PARTS)
    options = {"precision": "bf16-mixed", "accumulate_grad_batches": 2}
    check_observer(observer, Observed(), DictImages(), callbacks=[adversary], **options)


def table_of(folder, observer, module, data):
    fit(folder, observer, module, data)
    return read_table(observer.table)


@pytest.mark.slow
def test_it_sees_what_it_sees_of_a_regime(tmp_path):
    """The same network, images, noise and updates, as a regime and as a module of somebody else."""
    torch.manual_seed(0)
    regime = StandardTraining(
        Backbone("small_cnn", in_channels=1, mean=MEAN, std=STD, options={"width": 4}),
        num_classes=2,
        evaluation_attack=ATTACK,
    )
    regime.seed = torch.initial_seed()

    class Somebodys(Observed):
        def __init__(self):
            super().__init__()
            self.model = regime.backbone.build(2).network
            self.model.load_state_dict(regime.network.network.state_dict())

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)

    module = Somebodys()
    own, told = LocalResponse(layers="*", images=20), LocalResponse(layers="*", images=20, mean=MEAN, std=STD, **PARTS)
    expected = table_of(tmp_path / "regime", own, regime, SmallImages(1, 2))
    torch.manual_seed(0)
    found = table_of(tmp_path / "module", told, module, DictImages(normalised=True))
    assert [row[:5] for row in found] == [row[:5] for row in expected]
    assert [row.value for row in found] == pytest.approx([row.value for row in expected], rel=2e-3, abs=1e-4)


def test_frozen_batchnorms_are_seen_as_they_train(tmp_path):
    """What stays in eval mode normalises by its running statistics in the look, too: then there is no gap behind it."""

    class Frozen(Observed):
        def on_train_epoch_start(self):
            self.model[1].eval()

    kept = RunningVsBatch(batches=1, batch_size=8, layers="1", **PARTS)
    held = []
    observe = kept.observe
    kept.observe = lambda trainer, module: held.extend(module.held_in_eval()) or observe(trainer, module)
    module = fit(tmp_path, kept, Frozen())
    assert held == [module.model[1]]


def test_the_headline_is_of_the_images_that_are_trained_on(tmp_path):
    clean = fit(tmp_path, RunningVsBatch(batches=1, batch_size=8, **PARTS)).trainer
    rows = read_table(clean.callbacks[0].table)
    expected = [row.value for row in rows if row.statistic == "clean_relative_mean_gap"]
    assert clean.callback_metrics["bn_gap/mean"].item() == pytest.approx(sum(expected) / len(expected))


# Bad input ----------------------------------------------------------------------------------------------------------


class Softmax(Observed):
    def __init__(self):
        super().__init__()
        self.model.append(nn.Softmax(1))


class OneLogit(Observed):
    def __init__(self):
        super().__init__(outputs=1)


class Plain(Observed):
    evaluation_attack = ATTACK


LOCAL = {"layers": "*", "images": 8}
ERRORS = {
    "no such submodule": (
        LocalResponse(**LOCAL, **PARTS | {"network": "net"}),
        Observed,
        "local_response.network is 'net', and Observed has no such submodule. It has model.",
    ),
    "no forward": (
        LocalResponse(**LOCAL, **PARTS | {"network": None}),
        Observed,
        "local_response.network must be the name of the submodule that takes images, since Observed has no forward of "
        "its own. It has model.",
    ),
    "no attack": (
        LocalResponse(**LOCAL, network="model", batch=["image", "label"]),
        Observed,
        "LocalResponse attacks the network, and Observed is no regime, which would say how: give "
        "local_response.evaluation_attack.",
    ),
    "no attack, early warning": (
        EarlyWarning(network="model"),
        Observed,
        "EarlyWarning attacks the network, and Observed is no regime, which would say how: give "
        "early_warning.evaluation_attack.",
    ),
    "no parts": (
        LocalResponse(**LOCAL, network="model"),
        Plain,
        "local_response.batch must say where a batch has its images and labels",
    ),
    "probabilities": (
        LocalResponse(**LOCAL, **PARTS),
        Softmax,
        "local_response: the network gives probabilities, which sum to 1 for each image, and not logits",
    ),
    "one logit": (
        EarlyWarning(images=8, **PARTS),
        OneLogit,
        "early_warning: The network must give logits (8, K) with K of at least 2, got a tensor of shape (8, 1).",
    ),
    "pixels are no normalised images": (
        LocalResponse(**LOCAL, **PARTS, mean=MEAN, std=[4.0]),
        Observed,
        "local_response.mean and local_response.std are others than the data's.",
    ),
    "no validation step": (
        FlightRecorder(images=8, **PARTS),
        Task,
        "flight_recorder needs validation images, and the Trainer has no validation loader that gives any: Lightning "
        "reads none for a module without a validation_step.",
    ),
    "labels of another network": (
        RunningVsBatch(batches=1, batch_size=8, **PARTS),
        lambda: Observed(outputs=2),
        "bn_gap: y must lie in [0, 2), got labels from 0 to 2.",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_bad_input_is_told_before_training(tmp_path, name):
    observer, module, message = ERRORS[name]
    module, data = module(), DictImages()
    if "labels" in name:
        data.y = torch.arange(32) % 3
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ValueError, match=re.escape(message)):
        fit(tmp_path, observer, module, data)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_normalised_images_without_mean_and_std(tmp_path):
    message = (
        r"local_response: the images must lie in \[0, 1\], .* go from -.* to .*: give the mean and the std by which the"
    )
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, LocalResponse(**LOCAL, **PARTS), data=DictImages(normalised=True))


def test_a_regime_says_by_itself_what_it_is(tmp_path):
    message = (
        "^local_response.network is for a LightningModule that is no regime, and StandardTraining says by itself what "
        "its network, batches and evaluation_attack are: leave it out.$"
    )
    regime = StandardTraining(BACKBONE, num_classes=2, evaluation_attack=ATTACK)
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, LocalResponse(**LOCAL, network="network"), regime, ToyData())


@pytest.mark.slow
def test_the_command_says_who_trains_such_a_module(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--config=digits/standard", "--model=tests.callbacks.foreign.Task"])
    told = "'Task' is a LightningModule, and this command trains a Regime: give the module to Lightning's Trainer or"
    assert told in capsys.readouterr().err


@pytest.mark.slow
def test_lightnings_own_command_line_takes_the_callbacks(tmp_path):
    attack = {"class_path": "lightning_adv.attacks.PGD", "init_args": {"eps": "4/255"}}
    init = {
        "AdversarialBatches": {"attack": attack, "loss": {"class_path": "torch.nn.MSELoss"}, "batch": ["image", 2]},
        "LocalResponse": {
            "network": "model",
            "batch": [0, 1],
            "mean": [0.5],
            "std": [0.5],
            "evaluation_attack": attack,
        },
        "EarlyWarning": {"network": "model", "batch": ["image", "label"], "evaluation_attack": attack},
    }
    callbacks = [{"class_path": f"lightning_adv.callbacks.{name}", "init_args": args} for name, args in init.items()]
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"trainer": {"logger": False, "callbacks": callbacks}}))
    command = LightningCLI(BoringModel, BoringDataModule, run=False, args=["--config", str(tmp_path / "run.yaml")])
    adversary = next(each for each in command.trainer.callbacks if isinstance(each, AdversarialBatches))
    assert isinstance(adversary.loss, nn.MSELoss)
    assert adversary.attack.to_config() == PGD(eps="4/255").to_config()


# Two processes ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes(tmp_path, monkeypatch):
    """Weights, and what is seen, are those of one process with batches of twice the size; each has noise of its own."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    worker = [*launch, "-m", "tests.callbacks.any_module_ddp_worker", str(tmp_path)]
    ended = subprocess.run(worker, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr[-4000:]
    results = {
        start: [torch.load(tmp_path / f"{start}-{rank}.pt", weights_only=True) for rank in (0, 1)] for start in ATTACKS
    }
    monkeypatch.setattr("lightning_adv.callbacks.local_response.BATCH_SIZE", 3)
    alone = train(tmp_path / "alone", "zero", batch_size=4, max_epochs=1)
    for name, value in alone["weights"].items():
        first, second = (result["weights"][name] for result in results["zero"])
        assert torch.equal(first, second)
        assert torch.allclose(first, value, atol=1e-6), name
    tables = [read_table(tmp_path / run / "run/version_0/analyses/local_response.csv") for run in ("zero", "alone")]
    assert [row[2:5] for row in tables[0]] == [row[2:5] for row in tables[1]]
    assert [row.value for row in tables[0]] == pytest.approx([row.value for row in tables[1]], rel=1e-3, abs=1e-5)
    starts = [result["seen"][0] - images()[rank:4:2] for rank, result in enumerate(results["uniform"])]
    assert not torch.equal(*(start.abs() for start in starts))


# Modules of other people --------------------------------------------------------------------------------------------


def optimizer(network):
    return torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)


@pytest.fixture
def routines():
    return pytest.importorskip("torch_uncertainty.routines")  # takes seconds


@pytest.mark.slow
def test_the_classification_of_torch_uncertainty(tmp_path, routines):
    """Unchanged: trained against an adversary it withstands more, and observers see it."""

    def trained(*callbacks):
        module = routines.ClassificationRoutine(
            small_network(), num_classes=2, loss=nn.CrossEntropyLoss(), optim_recipe=optimizer
        )
        torch.manual_seed(0)
        observer = EarlyWarning(images=32, network="model", evaluation_attack=PGD(eps=0.1, steps=5))
        drift = BatchNormDrift(network="model")
        trainer = quiet_trainer(tmp_path, callbacks=[*callbacks, observer, drift], max_epochs=15)
        trainer.fit(module, SmallImages(1, 2))
        assert {row.name for row in read_table(drift.table)} == {"1"}
        assert trainer.callback_metrics["val/cls/Acc"] > 0.9
        return trainer.callback_metrics["early_warning/robust_accuracy"].item()

    without = trained()
    against = trained(AdversarialBatches(PGD(eps=0.1, steps=5), network="model"))
    assert against > without + 0.2


@pytest.mark.slow
def test_it_keeps_the_promises_with_the_classification_of_torch_uncertainty(routines):
    module = routines.ClassificationRoutine(
        small_network(), num_classes=2, loss=nn.CrossEntropyLoss(), optim_recipe=optimizer
    )
    check_observer(LocalResponse(layers="*", images=20, network="model", attack=ATTACK), module, SmallImages(1, 2))


@pytest.mark.slow
def test_the_regression_of_torch_uncertainty(tmp_path, routines):
    """Unchanged: its loss is raised by what it is trained on, as by a step along the sign of the gradient."""
    heights = images().mean((1, 2, 3))
    logged = []
    for adversary in ([], [AdversarialBatches(FGSM(eps=0.1), loss=F.mse_loss)]):
        module = routines.RegressionRoutine(small_network(1), output_dim=1, loss=nn.MSELoss(), optim_recipe=optimizer)
        pairs = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images(), heights), batch_size=16)
        trainer = quiet_trainer(tmp_path, callbacks=adversary, max_steps=1)
        trainer.fit(module, pairs)
        logged.append(trainer.callback_metrics["train_loss"].item())
    network = small_network(1).eval()
    leaf = images().requires_grad_()
    gradient = torch.autograd.grad(((network(leaf)[:, 0] - heights) ** 2).sum(), leaf)[0]
    moved = (leaf.detach() + 0.1 * gradient.sign()).clamp(0, 1)
    network.train()
    expected = [F.mse_loss(network(x)[:, 0], heights).item() for x in (images(), moved)]
    assert logged == pytest.approx(expected, rel=1e-5)
    assert logged[1] > logged[0]


@pytest.mark.slow
def test_the_segmentation_of_torch_uncertainty(tmp_path, routines):
    """Unchanged: one class for each pixel, by the same loss that it is trained on."""
    masks = (images()[:, 0] > 0.5).long()
    network = nn.Conv2d(1, 2, 3, padding=1)
    start = {name: value.clone() for name, value in network.state_dict().items()}
    module = routines.SegmentationRoutine(network, num_classes=2, loss=nn.CrossEntropyLoss(), optim_recipe=optimizer)
    pairs = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images(), masks), batch_size=16)
    trainer = quiet_trainer(tmp_path, callbacks=[AdversarialBatches(FGSM(eps=0.1), loss=F.cross_entropy)], max_steps=1)
    trainer.fit(module, pairs)
    network.load_state_dict(start)
    leaf = images().requires_grad_()
    gradient = torch.autograd.grad(F.cross_entropy(network(leaf), masks), leaf)[0]
    moved = (leaf.detach() + 0.1 * gradient.sign()).clamp(0, 1)
    expected = F.cross_entropy(network(moved), masks).item()
    assert trainer.callback_metrics["train_loss"].item() == pytest.approx(expected, rel=1e-5)
    assert expected > F.cross_entropy(network(images()), masks).item()
