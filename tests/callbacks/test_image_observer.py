"""Whose images an observer looks at, under which name, and what the attack of a look may cost."""

import logging
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from lightning_adv.attacks import FGSM, PGD, AutoAttack, CarliniWagner
from lightning_adv.attacks.shorter import shortened
from lightning_adv.callbacks import BatchNormDrift, ImageObserver, LocalResponse, RunningVsBatch, WeightSmoothness
from lightning_adv.core.table import Record, read_table
from lightning_adv.regimes import MadryTraining
from lightning_adv.testing import check_observer
from tests.callbacks.test_observer import fit
from tests.regimes.toy import ATTACK, BACKBONE, ToyData


class Brightness(ImageObserver):
    """Sees the images' mean, and how many steps the attack of a look has."""

    def __init__(self, attack=None, **arguments):
        super().__init__(**arguments)
        self.attack = attack

    def prepare(self, trainer, module):
        self.images = self.take_images(trainer, module, images=4)

    def observe(self, trainer, module):
        yield Record("", "", "mean", torch.cat([batch.x for batch in self.images.batches]).mean())
        yield Record("", "", "steps", self.attack_of(module).steps)


class Parts(ToyData):
    """Training, validation and test images of three brightnesses; the test set is read by ``setup("test")`` alone."""

    def __init__(self):
        super().__init__()
        self.stages, self.training_set = [], None

    def setup(self, stage):
        self.stages.append(stage)
        self.training_set = object()  # drawn anew in each setup, as a careless split is
        self.darkness = 0.75 if stage == "test" else None

    def loader(self, value):
        return DataLoader(TensorDataset(torch.full((8, 1, 8, 8), value), torch.arange(8) % 2), batch_size=4)

    def train_dataloader(self):
        self.trained_on = self.training_set
        return self.loader(0.25)

    def val_dataloader(self):
        return self.loader(0.5)

    def test_dataloader(self):
        return self.loader(self.darkness)


def table_of(run, name="brightness"):
    return {(row.statistic): row.value for row in read_table(run / f"analyses/{name}.csv")}


@pytest.mark.parametrize(
    ("split", "mean"), [(None, 0.5), ("validation", 0.5), ("training", 0.25), ("test", 0.75)], ids=str
)
def test_whose_images(tmp_path, split, mean):
    data = Parts()
    run = fit(tmp_path, Brightness(split=split), data=lambda: data, max_epochs=1)
    assert table_of(run)["mean"] == mean
    assert data.darkness is None
    assert data.trained_on is data.training_set, "what is trained on was not set up again"


def test_a_module_with_loaders_of_its_own_has_test_images(tmp_path):
    class Own(MadryTraining):
        def test_dataloader(self):
            return Parts().loader(0.75)

    class NoTest(ToyData):
        test_dataloader = LightningDataModule.test_dataloader

    torch.manual_seed(0)
    regimes = [kind(BACKBONE, num_classes=2, attack=ATTACK) for kind in (Own, MadryTraining)]
    run = fit(tmp_path, Brightness(split="test"), data=NoTest, regime=regimes[0], max_epochs=1)
    assert table_of(run)["mean"] == 0.75
    with pytest.raises(ValueError, match="brightness needs test images, and the Trainer has no test loader"):
        fit(tmp_path / "none", Brightness(split="test"), data=NoTest, regime=regimes[1])


@pytest.mark.parametrize("chooses", [EarlyStopping("look/mean"), ModelCheckpoint(monitor="look/mean")])
def test_nothing_is_chosen_by_test_images(tmp_path, chooses):
    with pytest.raises(ValueError, match=r"look\.split is test, and something monitors look/mean: nothing"):
        fit(tmp_path, Brightness(name="look", split="test"), chooses)


@pytest.mark.slow
def test_two_observers_of_one_class(tmp_path):
    """Each has a table, scalars, figures and a state of its own; both look at the same images."""
    observers = [LocalResponse(images=4, attack=FGSM(0.1), name="fgsm"), LocalResponse(images=4, attack=ATTACK)]
    run = fit(tmp_path, *observers, max_epochs=1)
    tables = [read_table(run / f"analyses/{name}.csv") for name in ("fgsm", "local_response")]
    assert [row[:5] for row in tables[0]] == [row[:5] for row in tables[1]]
    assert [row.value for row in tables[0]] != [row.value for row in tables[1]]
    assert {path.name for path in (run / "figures").iterdir()} >= {"fgsm_curves.png", "local_response_curves.png"}
    header = (run / "metrics.csv").read_text().splitlines()[0]
    assert "fgsm/conv1/max" in header
    assert "local_response/conv1/max" in header
    keys = [observer.state_key for observer in observers]
    assert keys == ["LocalResponse{'name': 'fgsm'}", "LocalResponse"], "the second one is that of version 0.1"


@pytest.mark.slow
def test_an_observer_with_a_name_keeps_the_promises():
    check_observer(LocalResponse(images=4, name="probe", split="test"))


def test_a_long_attack_that_nobody_chose_for_looking_is_shortened(tmp_path, caplog):
    torch.manual_seed(0)
    long = PGD(eps=0.1, steps=2000, step_size=0.01)
    regime = MadryTraining(BACKBONE, num_classes=2, attack=ATTACK, evaluation_attack=long)
    with caplog.at_level(logging.WARNING, "lightning_adv"):
        run = fit(tmp_path, Brightness(split="training"), regime=regime, max_epochs=1, limit_val_batches=0)
    found = table_of(run)
    assert (found["steps"], found["attack_steps"]) == (200, 200)
    assert "each look attacks with PGD-200 in the place of PGD-2000" in caplog.text
    assert "attack_steps" not in (run / "metrics.csv").read_text()
    assert long.steps == 2000


@pytest.mark.parametrize(
    ("arguments", "steps", "told"),
    [
        ({"attack": PGD(eps=0.1, steps=300, step_size=0.01)}, 300, set()),
        ({"attack": PGD(eps=0.1, steps=300, step_size=0.01), "max_attack_steps": 50}, 50, {"attack_steps"}),
        ({}, 2, set()),
        ({"max_attack_steps": 1}, 1, {"attack_steps"}),
    ],
    ids=str,
)
def test_an_attack_that_was_chosen_runs_as_it_is_unless_there_is_a_limit(tmp_path, arguments, steps, told):
    found = table_of(fit(tmp_path, Brightness(**arguments), max_epochs=1))
    assert found["steps"] == steps
    assert found.keys() - {"mean", "steps"} == told


@pytest.mark.parametrize("attack", [AutoAttack(0.1), CarliniWagner(steps=1000)], ids=["AutoAttack", "C&W"])
def test_an_attack_that_cannot_be_shortened_is_refused_before_training(tmp_path, attack):
    regime = MadryTraining(BACKBONE, num_classes=2, attack=ATTACK, evaluation_attack=attack)
    told = rf"brightness\.max_attack_steps is 200, and {type(attack).__name__}.* takes up to [\d,]+ passes for an image"
    with pytest.raises(ValueError, match=told):
        fit(tmp_path, Brightness(), regime=regime, num_sanity_val_steps=0)


def test_a_shorter_attack_goes_as_far():
    restarted = shortened(PGD(eps=0.1, steps=50, step_size=0.01, restarts=10), 200)
    assert (restarted.steps, restarted.restarts, restarted.step_size) == (50, 4, 0.01)
    fine = shortened(PGD(eps=0.1, steps=2000, step_size=0.0001), 100)
    assert (fine.steps, fine.step_size) == (100, pytest.approx(0.002))
    own_rule = shortened(PGD(eps=0.1, steps=2000), 100)
    assert own_rule.step_size == pytest.approx(PGD(eps=0.1, steps=100).step_size)
    network, x, y = torch.nn.Flatten(), torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 2])
    short = shortened(PGD(eps=0.1, steps=8, step_size=0.05, start="zero"), 3)
    assert torch.equal(short(network, x, y), PGD(eps=0.1, steps=3, step_size=0.05, start="zero")(network, x, y))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "val"}, r"brightness\.split must be one of validation, training, test, got 'val'"),
        ({"max_attack_steps": 0}, r"brightness\.max_attack_steps must be an integer of at least 1, got 0"),
        ({"name": "a/b"}, r"brightness\.name names files: .*got 'a/b'"),
        ({"name": ""}, r"brightness\.name names files: .*got ''"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        Brightness(**arguments)


OLD = Path(__file__).parents[1] / "fixtures/v0.1.0/madry/checkpoints/last.ckpt"


@pytest.mark.parametrize("kind", [BatchNormDrift, LocalResponse, RunningVsBatch, WeightSmoothness])
def test_what_version_0_1_left_in_a_checkpoint_is_taken(kind):
    states, observer = torch.load(OLD, weights_only=True)["callbacks"], kind()
    old = states[observer.state_key]
    observer.load_state_dict(old)
    now = observer.state_dict()
    assert {name: now[name] for name in old if name != "state"} == {n: old[n] for n in old if n != "state"}
    assert observer.seconds == old["seconds"] > 0
