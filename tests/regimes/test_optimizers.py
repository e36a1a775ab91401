import csv
import re
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.cli import ReduceLROnPlateau
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from lightning_adv.callbacks import LastCheckpoint
from lightning_adv.regimes import StandardTraining
from lightning_adv.regimes.optimizers import callable_from_config, callable_to_config, configure, parameter_groups
from tests.regimes.toy import ATTACK, BACKBONE, ResumableToyData, quiet_trainer


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def test_weight_decay_leaves_norm_and_bias_alone():
    """One SGD step on zero gradients moves exactly what is decayed."""
    model = network()
    nn.init.ones_(model[0].bias)
    nn.init.ones_(model[3].bias)
    before = {name: value.clone() for name, value in model.named_parameters()}
    sgd = partial(torch.optim.SGD, lr=0.5, weight_decay=0.1)
    optimizer = configure(model, sgd, None, "epoch", decay_norm_and_bias=False)["optimizer"]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in model.named_parameters():
        factor = 0.95 if name in ("0.weight", "3.weight") else 1.0
        torch.testing.assert_close(value, factor * before[name])


def test_every_parameter_is_decayed_by_default():
    (group,) = parameter_groups(network(), decay_norm_and_bias=True)
    assert len(group["params"]) == 6


def test_schedule_and_interval():
    sgd, step = partial(torch.optim.SGD, lr=0.1), partial(torch.optim.lr_scheduler.StepLR, step_size=3)
    config = configure(network(), sgd, step, "step", decay_norm_and_bias=True)
    assert config["lr_scheduler"]["interval"] == "step"
    assert config["lr_scheduler"]["scheduler"].optimizer is config["optimizer"]


def test_lambda_cannot_be_written_down():
    assert callable_to_config(lambda p: torch.optim.SGD(p, lr=0.1)) is None


def test_only_optimizers_and_schedules_are_built_from_a_checkpoint():
    with pytest.raises(ValueError, match="neither an optimizer nor"):
        callable_from_config({"class_path": "subprocess.Popen", "init_args": {"args": ["true"]}})


# A schedule that looks at a metric ------------------------------------------------------------------------------

# The accuracy does not fall below what it was for long: with mode "min" nearly every look is one without progress.
PLATEAU = partial(ReduceLROnPlateau, monitor="val/clean_accuracy", mode="min", patience=0, factor=0.5)


def plateau_run(folder, stop, resume=None, schedule=PLATEAU, **kwargs):
    """Train with a plateau schedule on 4 steps an epoch; return the checkpoint of the end and the rates by epoch."""
    torch.manual_seed(0)
    rates = []

    class Rates(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    logger = CSVLogger(folder, name="", version="run")
    callbacks = [LastCheckpoint(every_n_train_steps=1), Rates()]
    trainer = quiet_trainer(folder, callbacks=callbacks, logger=logger, enable_checkpointing=True, **kwargs, **stop)
    sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    regime = StandardTraining(BACKBONE, evaluation_attack=ATTACK, optimizer=sgd, scheduler=schedule)
    trainer.fit(regime, ResumableToyData(), ckpt_path=resume, weights_only=True)
    last = folder / "run" / "checkpoints" / "last.ckpt"
    return torch.load(last, weights_only=True), rates


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """The end of a run that never stopped."""
    whole, rates = plateau_run(tmp_path_factory.mktemp("whole"), {"max_epochs": 5})
    assert len(rates) == 5
    assert len(set(rates)) >= 3, "the schedule did nothing that could be lost"
    return whole


@pytest.mark.slow
@pytest.mark.parametrize("stop", [{"max_epochs": 2}, {"max_steps": 10}, {"max_steps": 15}])
def test_plateau_resumes_bit_identical(whole_run, tmp_path, stop):
    """At the end of an epoch, in the middle of one, and before its last step."""
    plateau_run(tmp_path, {"max_epochs": 9, **stop})
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    resumed, _ = plateau_run(tmp_path, {"max_epochs": 5}, resume=last)
    assert resumed["global_step"] == whole_run["global_step"] == 20
    for name, value in whole_run["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], value), name
    assert resumed["optimizer_states"][0]["param_groups"] == whole_run["optimizer_states"][0]["param_groups"]
    assert resumed["lr_schedulers"] == whole_run["lr_schedulers"]


@pytest.mark.slow
def test_plateau_on_the_training_loss_resumes_too(tmp_path):
    schedule = partial(PLATEAU, monitor="train/loss", mode="max")
    whole, rates = plateau_run(tmp_path / "whole", {"max_epochs": 4}, schedule=schedule)
    assert len(set(rates)) >= 3
    plateau_run(tmp_path / "stopped", {"max_epochs": 2}, schedule=schedule)
    last = tmp_path / "stopped" / "run" / "checkpoints" / "last.ckpt"
    resumed, _ = plateau_run(tmp_path / "stopped", {"max_epochs": 4}, last, schedule)
    assert all(torch.equal(resumed["state_dict"][name], value) for name, value in whole["state_dict"].items())
    assert resumed["lr_schedulers"] == whole["lr_schedulers"]
    assert whole["lr_schedulers"][0]["last_epoch"] == 4, "one step an epoch"


@pytest.mark.slow
def test_plateau_looks_once_for_each_validation(tmp_path):
    """Validation every second epoch: the rate can fall after the second, fourth and sixth epoch only."""
    _, rates = plateau_run(tmp_path, {"max_epochs": 7}, check_val_every_n_epoch=2)
    assert rates[0] == rates[1] == rates[2] == rates[3] == 0.1, "the first look is the best so far"
    assert rates[4] == rates[5] == 0.05
    assert rates[6] == 0.025


@pytest.mark.slow
def test_plateau_agrees_with_the_schedule_stepped_by_hand(tmp_path):
    """PyTorch's own schedule, given the accuracies that were logged, has the same rates."""
    _, rates = plateau_run(tmp_path, {"max_epochs": 6})
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        seen = [float(row["val/clean_accuracy"]) for row in csv.DictReader(file) if row["val/clean_accuracy"]]
    optimizer = torch.optim.SGD(network().parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="min", patience=0, factor=0.5)
    expected = []
    for accuracy in seen:
        expected.append(optimizer.param_groups[0]["lr"])
        schedule.step(accuracy)
    assert rates == expected


def test_plateau_of_a_metric_that_nobody_measures(tmp_path):
    with pytest.raises(ValueError, match=r"'val/robust_acc', which was not measured in epoch 0.*val/robust_accuracy"):
        plateau_run(tmp_path, {"max_epochs": 2}, schedule=partial(PLATEAU, monitor="val/robust_acc"))


def test_plateau_that_does_not_say_its_metric_or_steps_within_epochs():
    sgd = partial(torch.optim.SGD, lr=0.1)
    with pytest.raises(ValueError, match="does not know its metric"):
        configure(network(), sgd, torch.optim.lr_scheduler.ReduceLROnPlateau, "epoch", decay_norm_and_bias=True)
    with pytest.raises(ValueError, match="scheduler_interval is 'step'"):
        configure(network(), sgd, PLATEAU, "step", decay_norm_and_bias=True)


# Options that make no sense ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -0.1}, "optimizer cannot be built: Invalid learning rate: -0.1"),
        ({"lr": float("nan")}, "optimizer.lr must be a finite number of at least 0, got nan"),
        ({"lr": 0.1, "momentum": 5}, "optimizer.momentum must be at least 0 and less than 1, got 5"),
        ({"lr": 0.1, "weight_decay": float("inf")}, "optimizer.weight_decay must be a finite number"),
    ],
)
def test_an_optimizer_whose_options_make_no_sense(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        configure(network(), partial(torch.optim.SGD, **options), None, "epoch", decay_norm_and_bias=True)


@pytest.mark.parametrize(
    ("schedule", "options", "message"),
    [
        ("StepLR", {"step_size": 0}, "scheduler.step_size must be at least 1, got 0"),
        ("CosineAnnealingLR", {"T_max": 0}, "scheduler.T_max must be at least 1, got 0"),
        ("ExponentialLR", {"gamma": -1.0}, "scheduler.gamma must be a finite number above 0, got -1.0"),
        ("StepLR", {}, "scheduler cannot be built: StepLR.__init__() missing 1 required"),
    ],
)
def test_a_schedule_whose_options_make_no_sense(schedule, options, message):
    """StepLR of 0 divides by nothing in the first step; a negative gamma goes uphill."""
    factory = partial(getattr(torch.optim.lr_scheduler, schedule), **options)
    with pytest.raises(ValueError, match=re.escape(message)):
        configure(network(), partial(torch.optim.SGD, lr=0.1), factory, "epoch", decay_norm_and_bias=True)


def test_what_a_factory_returns():
    sgd = partial(torch.optim.SGD, lr=0.1)
    with pytest.raises(ValueError, match=r"optimizer must return a torch\.optim\.Optimizer, got int"):
        configure(network(), lambda _: 5, None, "epoch", decay_norm_and_bias=True)
    with pytest.raises(ValueError, match="scheduler must return a learning-rate schedule, got tuple"):
        configure(network(), sgd, lambda _: (1, 2), "epoch", decay_norm_and_bias=True)


def test_an_optimizer_of_one_group():
    """LBFGS takes no second group, in which what is not decayed would be."""
    with pytest.raises(ValueError, match=r"LBFGS .* decay_norm_and_bias must be true"):
        configure(network(), torch.optim.LBFGS, None, "epoch", decay_norm_and_bias=False)
    built = configure(network(), torch.optim.LBFGS, None, "epoch", decay_norm_and_bias=True)
    assert isinstance(built["optimizer"], torch.optim.LBFGS)
