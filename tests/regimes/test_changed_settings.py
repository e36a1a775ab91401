"""A run that goes on with other settings: what is used is what is told, and what cannot be is refused."""

from functools import partial

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, OneCycleLR

from lightning_adv.attacks import PGD
from lightning_adv.regimes import MadryTraining, StandardTraining
from lightning_adv.regimes.changed_settings import compare
from tests.regimes.toy import ATTACK, BACKBONE, ResumableToyData, quiet_trainer

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=5e-4)


def regime(kind=StandardTraining, **arguments):
    return kind(BACKBONE, evaluation_attack=ATTACK, **{"optimizer": SGD} | arguments)


@pytest.fixture
def go_on(tmp_path):
    """Train an epoch, and go on for another with a regime of other settings."""

    def run(first, second, **trainer):
        path = tmp_path / "last.ckpt"
        before = quiet_trainer(tmp_path)
        before.fit(first, ResumableToyData())
        before.save_checkpoint(path)
        after = quiet_trainer(tmp_path, max_epochs=2, **trainer)
        after.fit(second, ResumableToyData(), ckpt_path=path, weights_only=True)
        return after

    return run


@pytest.mark.slow
def test_learning_rate_and_weight_decay_are_used_and_told(go_on, caplog):
    second = regime(optimizer=partial(torch.optim.SGD, lr=0.01, momentum=0.9, weight_decay=0.1))
    group = go_on(regime(), second).optimizers[0].param_groups[0]
    assert (group["lr"], group["weight_decay"], group["momentum"]) == (0.01, 0.1, 0.9)
    assert "goes on with optimizer.lr 0.01 (it was 0.1), optimizer.weight_decay 0.1 (it was 0.0005)." in caplog.text
    assert [(change["setting"], change["epoch"], change["step"]) for change in second.changes] == [
        ("optimizer.lr", 1, 4), ("optimizer.weight_decay", 1, 4),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schedule", "other"),
    [
        (partial(MultiStepLR, milestones=[5]), partial(MultiStepLR, milestones=[1, 2])),
        (partial(CosineAnnealingLR, T_max=4), partial(CosineAnnealingLR, T_max=8, eta_min=0.01)),
        (partial(OneCycleLR, max_lr=0.1, total_steps=9), partial(OneCycleLR, max_lr=0.2, total_steps=20)),
    ],
)
def test_a_schedule_is_what_it_had_been_from_the_start(go_on, schedule, other):
    used = go_on(regime(scheduler=schedule), regime(scheduler=other)).optimizers[0].param_groups[0]
    reference = SGD([torch.nn.Parameter(torch.zeros(1))])
    steps = other(reference)
    for _ in range(2):
        reference.step()
        steps.step()
    for name in ("lr", "momentum"):
        assert used[name] == pytest.approx(reference.param_groups[0][name], rel=1e-12)


@pytest.mark.slow
def test_a_run_that_goes_on_unchanged_says_nothing(go_on, caplog):
    second = regime(scheduler=partial(MultiStepLR, milestones=[1]))
    go_on(regime(scheduler=partial(MultiStepLR, milestones=[1])), second)
    assert second.changes == []
    assert "goes on with" not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({}, {"optimizer": torch.optim.AdamW}, "the optimizer SGD, and AdamW cannot go on with its state"),
        ({}, {"optimizer": partial(SGD, momentum=0.9, maximize=True)}, "optimizer.maximize is True and was False"),
        (
            {"scheduler": partial(MultiStepLR, milestones=[2])},
            {"scheduler": partial(CosineAnnealingLR, T_max=6)},
            "the scheduler MultiStepLR, and CosineAnnealingLR cannot",
        ),
        ({}, {"scheduler": partial(CosineAnnealingLR, T_max=6)}, "the scheduler none, and CosineAnnealingLR cannot"),
        ({"scheduler": partial(MultiStepLR, milestones=[2])}, {}, "the scheduler MultiStepLR, and none cannot"),
        ({}, {"decay_norm_and_bias": False}, "decay_norm_and_bias is False and was True"),
        ({}, {"kind": MadryTraining}, "a run of StandardTraining, and model.class_path is MadryTraining"),
    ],
)
def test_what_the_state_does_not_allow_is_refused(go_on, first, second, message):
    with pytest.raises(ValueError, match=f"^ckpt_path: .*{message}"):
        go_on(regime(**first), regime(**second))


@pytest.mark.slow
def test_settings_of_the_loss_are_used_and_told(go_on, caplog):
    other = {"attack": PGD(eps=0.1, steps=3, step_size=0.05), "label_smoothing": 0.1}
    after = go_on(regime(MadryTraining, attack=ATTACK), regime(MadryTraining, **other), gradient_clip_val=1.0)
    assert after.lightning_module.attack.steps == 3
    for told in (
        "attack.steps 3 (it was 2)",
        "label_smoothing 0.1 (it was 0.0)",
        "gradient_clip_val 1.0 (it was None)",
    ):
        assert told in caplog.text
    assert "attack.eps" not in caplog.text


def test_names_of_settings():
    before = {"attack": {"class_path": "a.PGD", "init_args": {"eps": "8/255", "steps": 7}}, "clip": [1, 2]}
    same = {"attack": {"class_path": "a.pgd.PGD", "init_args": {"eps": 8 / 255, "steps": 7}}, "clip": (1, 2)}
    assert list(compare(before, same)) == []
    other = {"attack": {"class_path": "a.FGSM", "init_args": {}}, "clip": [1, 3], "new": 1}
    assert [str(change) for change in compare(before, other)] == [
        "attack FGSM (it was PGD)", "clip [1, 3] (it was [1, 2])",
    ]  # fmt: skip
