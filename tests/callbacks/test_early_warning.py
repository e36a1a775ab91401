"""The early warning in runs whose overfitting is known, since their networks are made for it."""

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lightning_adv.analysis.training_curves import read_metrics
from lightning_adv.attacks import FGSM
from lightning_adv.callbacks import BestCheckpoint, EarlyWarning, LastCheckpoint
from lightning_adv.nn.batchnorm import convert_batchnorm
from lightning_adv.regimes import MadryTraining, StandardTraining
from tests.callbacks.overfitting import (
    NAMES,
    STRONG,
    WEAK,
    Brightness,
    BrightnessTraining,
    Folded,
    GridData,
    Recorder,
    States,
    equal,
    run,
)
from tests.regimes.toy import ATTACK, BACKBONE, ToyData, quiet_trainer


@pytest.mark.slow
def test_a_masked_gradient_is_catastrophic_overfitting(tmp_path):
    trainer, _, told = run(tmp_path, [EarlyWarning(images=20)])
    assert told == [
        "Catastrophic overfitting after epoch 2: 0.0% of 20 validation images withstand PGD, but 100.0% withstand FGSM."
    ]
    assert trainer.current_epoch == 5
    assert {name: trainer.callback_metrics[f"early_warning/{name}"].item() for name in NAMES} == {
        "fgsm_accuracy": 1,
        "robust_accuracy": 0,
        "train_robust_accuracy": 0,
        "catastrophic_gap": 1,
        "robust_gap": 0,
    }


@pytest.mark.slow
def test_training_that_does_not_generalise_is_robust_overfitting(tmp_path):
    """A quarter of the validation labels is wrong. After the first look robust accuracy rises no more."""
    module = BrightnessTraining(attack=WEAK, lr=0.0)
    trainer, _, told = run(tmp_path, [EarlyWarning(images=100)], module, GridData(wrong=0.25))
    assert told == [
        "Robust overfitting after epoch 1: 75.0% of 32 validation images withstand PGD, but 100.0% of 32 training "
        "images do."
    ]
    assert trainer.callback_metrics["early_warning/robust_gap"] == 0.25


@pytest.mark.slow
def test_a_gap_within_its_limit_is_none(tmp_path):
    module = BrightnessTraining(attack=WEAK, lr=0.0)
    assert run(tmp_path, [EarlyWarning(overfitting_gap=0.25)], module, GridData(wrong=0.25))[2] == []
    assert run(tmp_path, [EarlyWarning(catastrophic_gap=1.0)])[2] == []


@pytest.mark.slow
def test_another_onset_is_told_again(tmp_path):
    class Flickering(BrightnessTraining):
        def on_train_epoch_start(self):
            self.network.masked = self.current_epoch in (1, 2, 4)

    told = run(tmp_path, [EarlyWarning(images=20)], Flickering())[2]
    assert [message[:39] for message in told] == [f"Catastrophic overfitting after epoch {e}:" for e in (1, 4)]


@pytest.mark.parametrize("warmup", [0, 5])
def test_a_loss_that_peaks_on_the_way_is_told_during_the_warm_up_too(tmp_path, warmup):
    module = BrightnessTraining(lr=0.0)
    module.network, module.eps_warmup_epochs = Folded(), warmup
    warning, states = EarlyWarning(images=20, loss_peaks=0.5, catastrophic_gap=1.0, action="restore"), States()
    trainer, _, told = run(tmp_path, [states, warning], module)
    assert told == [
        "Catastrophic overfitting may follow epoch 2: for 100.0% of 20 validation images the loss peaks on the way to "
        "the FGSM example. Training stops with the weights of epoch 1, the last good look."
    ]
    assert trainer.current_epoch == 3
    assert trainer.callback_metrics["early_warning/loss_peaks"] == 1
    assert warning.state_dict()["peaking"]


def test_peaks_within_their_limit_are_none(tmp_path):
    module = BrightnessTraining(lr=0.0)
    module.network = Folded()
    trainer, _, told = run(tmp_path, [EarlyWarning(images=20, loss_peaks=1.0, catastrophic_gap=1.0)], module)
    assert told == []
    assert trainer.current_epoch == 5


@pytest.mark.slow
def test_stop(tmp_path):
    states = States()
    trainer, module, told = run(tmp_path, [states, EarlyWarning(action="stop")])
    assert trainer.current_epoch == 3
    assert told[0].endswith("withstand FGSM. Training stops.")
    assert equal(module.state_dict(), states.states[2])


@pytest.mark.slow
def test_restore_goes_back_to_the_last_good_look(tmp_path):
    states, last = States(), LastCheckpoint()
    options = {"enable_checkpointing": True, "logger": CSVLogger(tmp_path, name="run", version=0)}
    trainer, module, told = run(tmp_path, [states, EarlyWarning(action="restore"), last], **options)
    assert trainer.current_epoch == 3
    assert told[0].endswith("Training stops with the weights of epoch 1, the last good look.")
    assert equal(module.state_dict(), states.states[1])
    assert not equal(states.states[1], states.states[2])
    saved = torch.load(tmp_path / "run/version_0/checkpoints/last.ckpt", weights_only=True)
    assert equal(saved["state_dict"], states.states[1])


@pytest.mark.slow
def test_restore_covers_buffers(tmp_path):
    """A whole network with BatchNorm, which a wrong look at every epoch but the first two sends back."""

    class Alarming(EarlyWarning):
        def _look(self, trainer, regime):
            look = super()._look(trainer, regime)
            bad = trainer.current_epoch >= 2
            return type(look)(0.9, 0.1, 0.1) if bad else type(look)(0.5, 0.5, 0.5)

    states = States()
    module = MadryTraining(BACKBONE, num_classes=2, attack=ATTACK, evaluation_attack=ATTACK)
    run(tmp_path, [states, Alarming(images=8, action="restore")], module)
    assert any(name.endswith("running_mean") for name in module.state_dict())
    assert equal(module.state_dict(), states.states[1])


def test_restore_without_a_good_look_keeps_the_weights(tmp_path):
    states = States()
    trainer, module, told = run(tmp_path, [states, EarlyWarning(action="restore")], BrightnessTraining(masked_from=0))
    assert trainer.current_epoch == 1
    assert told[0].endswith("no look before was a good one.")
    assert equal(module.state_dict(), states.states[0])


@pytest.mark.slow
def test_resumed_run_ends_as_if_it_never_stopped(tmp_path):
    def callbacks():
        return [EarlyWarning(images=20, action="restore"), LastCheckpoint()]

    def logger(name):
        return {"logger": CSVLogger(tmp_path, name=name, version=0), "enable_checkpointing": True}

    whole, first, second = callbacks(), callbacks(), callbacks()
    straight = run(tmp_path, whole, **logger("whole"))[1]
    run(tmp_path, first, max_epochs=2, **logger("parts"))
    assert first[0].state_dict()["good"]["epoch"] == 1
    checkpoint = tmp_path / "parts/version_0/checkpoints/last.ckpt"
    resumed = BrightnessTraining()
    trainer = quiet_trainer(tmp_path, callbacks=second, max_epochs=5, **logger("parts"))
    with pytest.warns(UserWarning, match="after epoch 2: .* with the weights of epoch 1"):
        trainer.fit(resumed, GridData(), ckpt_path=checkpoint, weights_only=True)
    states = [callback[0].state_dict() for callback in (whole, second)]
    assert states[1].pop("seconds") > first[0].seconds > 0
    assert states[0].pop("seconds") > 0
    states[0].pop("seed")  # of a run of its own
    assert states[1].pop("seed") == first[0].state_dict()["seed"]
    assert equal(*(state.pop("good")["weights"] for state in states))
    assert states[0] == states[1] == {"best": 0.0, "catastrophic": True, "robust": False}
    assert equal(straight.state_dict(), resumed.state_dict())


@pytest.mark.slow
def test_looks_every_n_epochs_beside_checkpoints(tmp_path):
    callbacks = [EarlyWarning(every_n_epochs=2), BestCheckpoint(), LastCheckpoint()]
    options = {"enable_checkpointing": True, "logger": CSVLogger(tmp_path, name="run", version=0)}
    run(tmp_path, callbacks, **options)
    curves = read_metrics(tmp_path / "run/version_0/metrics.csv")
    assert curves["early_warning/fgsm_accuracy"] == [(1, 0), (3, 1)]
    assert {name for name in curves if name.startswith("early_warning")} == {f"early_warning/{n}" for n in NAMES}


@pytest.mark.slow
def test_a_checkpoint_can_be_chosen_by_what_it_logs(tmp_path):
    best = BestCheckpoint(monitor="early_warning/catastrophic_gap", mode="min")
    options = {"enable_checkpointing": True, "logger": CSVLogger(tmp_path, name="run", version=0)}
    best._save_on_train_epoch_end = True
    run(tmp_path, [EarlyWarning(), best], **options)
    assert best.best_model_score == 0


class AugmentedImages(Dataset):
    """Draws from the global generator for each image."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        return (self.x[index] + 0.1 * torch.rand(())).clamp(0, 1), self.y[index]


class AugmentedData(ToyData):
    def train_dataloader(self):
        return DataLoader(AugmentedImages(self.x, self.y), batch_size=8, shuffle=True)


def test_every_look_is_at_the_same_images_with_the_same_noise(tmp_path):
    strong = Recorder()
    run(tmp_path, [EarlyWarning(attack=strong, fgsm=FGSM(), images=12)], data=AugmentedData(), max_epochs=2)
    validation, train, *second = strong.calls
    for (x, _, noise, _, _), (x_again, _, noise_again, _, _) in zip((validation, train), second, strict=True):
        assert torch.equal(x, x_again)
        assert torch.equal(noise, noise_again)
    assert not torch.equal(validation[2], train[2])
    assert not torch.equal(validation[0], train[0])


def test_measures_in_the_trainers_precision(tmp_path):
    strong = Recorder()
    run(tmp_path, [EarlyWarning(attack=strong, fgsm=FGSM())], max_epochs=1, precision="bf16-mixed")
    assert [call[3] for call in strong.calls] == [True, True]


@pytest.mark.parametrize(("domain", "accuracy"), [("main", 1), ("adversarial", 0)])
def test_measures_through_the_inference_domain(tmp_path, domain, accuracy):
    """The adversarial BatchNorm inverts the images, and with them the answers."""
    strong, module = Recorder(), BrightnessTraining(lr=0.0)
    module.network = convert_batchnorm(nn.Sequential(nn.BatchNorm2d(1), Brightness()))
    module.network[0].norms["adversarial"].weight.data.fill_(-1)
    module.inference_domain = domain
    trainer, *_ = run(tmp_path, [EarlyWarning(attack=strong, fgsm=FGSM())], module, max_epochs=1)
    assert trainer.callback_metrics["early_warning/robust_accuracy"] == accuracy
    assert [call[1] for call in strong.calls] == [domain] * 2
    assert module.network[0].domain_switch.active == "main"


def test_validation_that_comes_later_does_not_matter(tmp_path):
    options = {"check_val_every_n_epoch": 4, "num_sanity_val_steps": 0}
    assert len(run(tmp_path, [EarlyWarning()], **options)[2]) == 1


@pytest.mark.slow
def test_standard_training_is_logged_and_not_judged(tmp_path):
    """FGSM is weaker on a network that was never robust; that is no overfitting."""
    module = StandardTraining(BACKBONE, num_classes=2, evaluation_attack=STRONG)
    module.network = Brightness(masked=True)
    trainer, _, told = run(tmp_path, [EarlyWarning()], module)
    assert trainer.callback_metrics["early_warning/catastrophic_gap"] == 1
    assert told == []


@pytest.mark.slow
def test_not_judged_during_the_warm_up_of_eps(tmp_path):
    module = BrightnessTraining(masked_from=0)
    module.eps_warmup_epochs = 3
    assert [told[:39] for told in run(tmp_path, [EarlyWarning()], module)[2]] == [
        "Catastrophic overfitting after epoch 3:"
    ]
