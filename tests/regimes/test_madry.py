import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from lightning_adv.attacks import FGSM, PGD, CarliniWagner
from lightning_adv.callbacks import BestCheckpoint, EarlyWarning, LastCheckpoint
from lightning_adv.regimes import (
    CrossEntropy,
    MadryTraining,
    SmoothAdversarialTraining,
    WeightPerturbation,
)
from tests.regimes.toy import ATTACK, BACKBONE, ToyData, assert_same, attacked_by_hand, quiet_trainer, trained_by_hand


@pytest.mark.parametrize("clean_fraction", [0.0, 0.5, 1.0])
def test_one_epoch_against_a_loop_written_out(tmp_path, clean_fraction):
    """FGSM by hand in eval mode, then an SGD step on the adversarial and a share of the clean images."""
    sgd = partial(torch.optim.SGD, lr=0.1)
    objective = CrossEntropy(clean_fraction=clean_fraction)
    module = MadryTraining(BACKBONE, num_classes=2, attack=FGSM(eps=0.1), optimizer=sgd, objective=objective)
    network = copy.deepcopy(module.network)
    quiet_trainer(tmp_path, limit_val_batches=0).fit(module, ToyData())
    clean = int(clean_fraction * 8)

    def loss(x, y):
        x_adv = attacked_by_hand(network, x, y)
        return F.cross_entropy(network(torch.cat([x_adv, x[:clean]])), torch.cat([y, y[:clean]]))

    trained_by_hand(network.parameters(), loss)
    assert_same(module.network, network)


def test_running_statistics_are_updated_once_a_step(tmp_path):
    module = MadryTraining(BACKBONE, num_classes=2, attack=PGD(eps=0.1, steps=5, step_size=0.1, batchnorm="batch"))
    quiet_trainer(tmp_path, limit_val_batches=0).fit(module, ToyData())
    counts = {int(v) for name, v in module.state_dict().items() if name.endswith("num_batches_tracked")}
    assert counts == {4}


def test_warm_up_reaches_eps_in_equal_parts(tmp_path):
    used = []

    class Recorder(PGD):
        def __call__(self, *args, **kwargs):
            used.append((round(self.eps, 6), round(self.step_size, 6)))
            return super().__call__(*args, **kwargs)

    attack = Recorder(eps=0.3, steps=1, step_size=0.03)
    module = MadryTraining(BACKBONE, attack=attack, eps_warmup_epochs=3)
    quiet_trainer(tmp_path, max_epochs=5, limit_train_batches=1, limit_val_batches=0).fit(module, ToyData())
    assert used == [(0.1, 0.01), (0.2, 0.02), (0.3, 0.03), (0.3, 0.03), (0.3, 0.03)]
    assert attack.eps == 0.3


def test_selects_on_robust_accuracy():
    assert MadryTraining(BACKBONE).monitor == "val/robust_accuracy"


def test_an_attack_that_cannot_be_warmed_up_is_refused_at_once():
    with pytest.raises(ValueError, match="eps must be a distance to be scaled, got None"):
        MadryTraining(BACKBONE, attack=CarliniWagner(steps=2), eps_warmup_epochs=2)
    assert MadryTraining(BACKBONE, attack=CarliniWagner(eps=1, steps=2), eps_warmup_epochs=2).attack.eps == 1


# Adversarial pretraining and clean fine-tuning in one schedule -------------------------------------------------------


def test_two_adversarial_epochs_and_a_clean_one_against_loops_written_out(tmp_path):
    """One optimizer's momentum goes through, a mixed objective ends, and a clean epoch makes no attack."""
    calls = []

    class Counted(FGSM):
        def __call__(self, *args, **kwargs):
            calls.append(module.current_epoch)
            return super().__call__(*args, **kwargs)

    sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    settings = {"attack": Counted(eps=0.1), "objective": CrossEntropy(clean_fraction=1.0), "clean_after_epochs": 2}
    module = MadryTraining(BACKBONE, num_classes=2, optimizer=sgd, **settings)
    network = copy.deepcopy(module.network)
    quiet_trainer(tmp_path, limit_val_batches=0, max_epochs=3).fit(module, ToyData())
    assert calls == [0] * 4 + [1] * 4

    def adversarial(x, y):
        return F.cross_entropy(network(torch.cat([attacked_by_hand(network, x, y), x])), torch.cat([y, y]))

    optimizer = sgd(network.parameters())
    for loss in (adversarial, adversarial, lambda x, y: F.cross_entropy(network(x), y)):
        for x, y in ToyData().train_dataloader():
            value = loss(x, y)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    assert_same(module.network, network)


def test_the_best_is_chosen_by_clean_accuracy_among_the_clean_epochs(tmp_path):
    """A run that never gets there has a best checkpoint of what it has."""
    module = MadryTraining(BACKBONE, num_classes=2, attack=ATTACK, evaluation_attack=ATTACK, clean_after_epochs=2)
    best = BestCheckpoint()
    seen = []

    class Watcher(LastCheckpoint):
        def on_train_epoch_end(self, trainer, pl_module):
            seen.append(bool(best.best_model_path))
            super().on_train_epoch_end(trainer, pl_module)

    options = {"enable_checkpointing": True, "callbacks": [best, Watcher()]}
    quiet_trainer(tmp_path / "three", max_epochs=3, **options).fit(module, ToyData())
    assert (best.monitor, seen) == ("val/clean_accuracy", [False, False, True])
    assert torch.load(best.best_model_path, weights_only=True)["epoch"] == 2
    # one that never gets there is an adversarial run
    for epochs in (1, 2):
        short = BestCheckpoint()
        module = MadryTraining(BACKBONE, num_classes=2, attack=ATTACK, evaluation_attack=ATTACK, clean_after_epochs=2)
        assert module.monitor == "val/clean_accuracy"  # before anybody knows how long it is
        options = {"enable_checkpointing": True, "callbacks": [short], "max_epochs": epochs}
        quiet_trainer(tmp_path / f"{epochs}", **options).fit(module, ToyData())
        assert (short.monitor, module.monitor) == ("val/robust_accuracy",) * 2
        assert torch.load(short.best_model_path, weights_only=True)["epoch"] < epochs


def test_a_longer_run_forgets_the_best_of_the_adversarial_epochs(tmp_path):
    """Stopped at the switch it has one of them; told to go on, it chooses as a run that was as long from the start."""

    class Scripted(BestCheckpoint):
        def _monitor_candidates(self, trainer):
            accuracy = torch.tensor([0.9, 0.8, 0.5, 0.6, 0.55][trainer.current_epoch])
            return super()._monitor_candidates(trainer) | dict.fromkeys(chosen_by, accuracy)

    def best_epoch(folder, epochs, ckpt_path=None):
        module = MadryTraining(BACKBONE, num_classes=2, attack=ATTACK, evaluation_attack=ATTACK, clean_after_epochs=2)
        options = {"enable_checkpointing": True, "callbacks": [Scripted(), LastCheckpoint()], "logger": False}
        trainer = quiet_trainer(folder, max_epochs=epochs, **options)
        trainer.fit(module, ToyData(), ckpt_path=ckpt_path)
        last.append(trainer.checkpoint_callbacks[1].last_model_path or trainer.checkpoint_callbacks[1].best_model_path)
        return torch.load(trainer.checkpoint_callbacks[0].best_model_path, weights_only=True)["epoch"]

    last, chosen_by = [], ("val/clean_accuracy", "val/robust_accuracy")  # the second until there are clean epochs
    assert best_epoch(tmp_path / "whole", 5) == 3
    assert best_epoch(tmp_path, 2) == 0
    assert best_epoch(tmp_path, 4, last[-1]) == 3
    assert best_epoch(tmp_path, 5, last[-1]) == 3


def test_the_early_warning_is_silent_where_robustness_is_given_up(tmp_path, recwarn):
    module = MadryTraining(BACKBONE, num_classes=2, attack=ATTACK, evaluation_attack=ATTACK, clean_after_epochs=1)
    early = EarlyWarning(images=8, catastrophic_gap=0.0, overfitting_gap=0.0)
    trainer = quiet_trainer(tmp_path, max_epochs=3, callbacks=[early])
    trainer.fit(module, ToyData())
    assert "early_warning/robust_accuracy" in trainer.callback_metrics
    assert not [warning for warning in recwarn if "overfitting" in str(warning.message)]


def test_smooth_activations_learn_on_in_clean_epochs(tmp_path):
    regime = partial(SmoothAdversarialTraining, BACKBONE, num_classes=2, attack=ATTACK, clean_after_epochs=1)
    for arguments in ({"activation": "smooth_relu"}, {"smooth_gradient": "update"}):
        module = regime(**arguments)
        trainer = quiet_trainer(tmp_path, max_epochs=2, limit_val_batches=0)
        trainer.fit(module, ToyData())
        trainer.fit_loop.epoch_progress.current.completed = 1
        smooth = module.clean_loss(ToyData().x, ToyData().y)
        (gradient,) = torch.autograd.grad(smooth, module.network.network.layer1[0].weight)
        by_relu = module.criterion(module(ToyData().x), ToyData().y)
        (other,) = torch.autograd.grad(by_relu, module.network.network.layer1[0].weight)
        assert torch.equal(gradient, other) == ("activation" in arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clean_after_epochs": 0}, "clean_after_epochs must be at least 1, or null for never, got 0"),
        ({"clean_after_epochs": 2, "eps_warmup_epochs": 3}, "is 2, before eps_warmup_epochs has ended"),
        (
            {"clean_after_epochs": 2, "weight_perturbation": WeightPerturbation(warmup_epochs=2)},
            "is 2, before weight_perturbation.warmup_epochs has ended",
        ),
    ],
)
def test_a_switch_that_comes_too_early_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MadryTraining(BACKBONE, **arguments)
