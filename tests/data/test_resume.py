"""Stop anywhere, resume, and see the batches that the run would have seen: with a real Trainer."""

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_adv.data import CIFAR10DataModule
from tests.data.fake_cifar10 import write_fake_cifar10

pytestmark = pytest.mark.filterwarnings("ignore")
EPOCHS, STEPS = 3, 5  # 90 training images in batches of 16: five full batches, and ten images left out


class Recorder(LightningModule):
    """A linear network that keeps the batches it was given."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(3 * 32 * 32, 10)
        self.train_batches = []
        self.val_labels = {}

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.train_batches.append(((self.current_epoch, batch_idx), x, y))
        return torch.nn.functional.cross_entropy(self.linear(x.flatten(1)), y)

    def validation_step(self, batch, batch_idx):
        self.val_labels.setdefault(self.global_step, []).extend(batch[1].tolist())
        self.log("loss", self.linear(batch[0].flatten(1)).mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


class Fit:
    """Fits a new module on a new data module in a new Trainer."""

    def __init__(self, root):
        self.root = root

    def __call__(self, checkpoint=None, callbacks=(), num_workers=0, batch_size=16, on_device=False, **options):
        module = Recorder()
        datamodule = CIFAR10DataModule(
            str(self.root), batch_size=batch_size, val_fraction=0.1, evaluation_batch_size=4,
            num_workers=num_workers, on_device=on_device,
        )  # fmt: skip
        trainer = Trainer(
            **{"max_epochs": EPOCHS, **options},
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
            num_sanity_val_steps=0,
            callbacks=list(callbacks),
        )
        trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
        return module


@pytest.fixture(scope="module")
def fit(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("cifar10")
        write_fake_cifar10(root, patch, images_per_batch=20)
        yield Fit(root)


@pytest.fixture(scope="module")
def unbroken(fit):
    return fit()


def assert_same_end(resumed, unbroken):
    """The resumed run saw the last batches of the unbroken one, to the last bit, and ends with its weights."""
    for (key, x, y), (other_key, other_x, other_y) in zip(
        resumed.train_batches, unbroken.train_batches[-len(resumed.train_batches) :], strict=True
    ):
        assert key == other_key
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)
    for a, b in zip(resumed.parameters(), unbroken.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_unbroken_run(unbroken):
    keys = [key for key, _, _ in unbroken.train_batches]
    assert keys == [(epoch, step) for epoch in range(EPOCHS) for step in range(STEPS)]
    first, second = (torch.cat([x for (e, _), x, _ in unbroken.train_batches if e == epoch]) for epoch in (0, 1))
    assert not torch.equal(first, second)
    assert [sorted(labels) for labels in unbroken.val_labels.values()] == [list(range(10))] * EPOCHS


@pytest.mark.slow
def test_resume_after_any_step(fit, unbroken, tmp_path):
    fit(callbacks=[ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)])
    for step in range(1, EPOCHS * STEPS):
        resumed = fit(tmp_path / f"step={step}.ckpt")
        assert len(resumed.train_batches) == EPOCHS * STEPS - step
        assert_same_end(resumed, unbroken)
        assert all(sorted(labels) == list(range(10)) for labels in resumed.val_labels.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "options"),
    [
        ({"monitor": "loss"}, {}),
        ({"save_on_train_epoch_end": True}, {}),
        ({"monitor": "loss"}, {"val_check_interval": 2}),
        ({"every_n_train_steps": 4}, {"num_workers": 2}),
        ({"monitor": "loss"}, {"num_workers": 2}),
        ({"every_n_train_steps": 4}, {"on_device": True}),
        ({"monitor": "loss"}, {"max_steps": EPOCHS * STEPS, "max_epochs": -1}),
        ({"every_n_train_steps": 4}, {"max_steps": EPOCHS * STEPS, "max_epochs": -1}),
    ],
    ids=[
        "validation end",
        "epoch end",
        "validation within an epoch",
        "workers",
        "workers, validation end",
        "images on the device",
        "max_steps, validation end",
        "max_steps",
    ],
)
def test_resume_from_other_checkpoints(fit, unbroken, tmp_path, when, options):
    fit(callbacks=[ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, **when)], **options)
    checkpoints = {int(path.stem.removeprefix("step=")): path for path in tmp_path.glob("*.ckpt")}
    del checkpoints[max(checkpoints)]
    assert checkpoints
    for step, checkpoint in checkpoints.items():
        resumed = fit(checkpoint, **options)
        assert len(resumed.train_batches) == EPOCHS * STEPS - step
        assert_same_end(resumed, unbroken)


@pytest.mark.slow
def test_images_move_to_the_device_within_an_epoch(fit, unbroken, tmp_path):
    fit(callbacks=[ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=7, save_top_k=-1)], on_device=True)
    for on_device in (False, True):
        assert_same_end(fit(tmp_path / "step=7.ckpt", on_device=on_device), unbroken)


def test_accumulated_batches(fit, tmp_path):
    options = {"accumulate_grad_batches": 2}
    whole = fit(callbacks=[ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)], **options)
    resumed = fit(tmp_path / "step=5.ckpt", **options)  # 3 steps an epoch, of 2, 2 and 1 batches
    assert resumed.train_batches[0][0] == (1, 4)
    assert_same_end(resumed, whole)


class Looks(Callback):
    """Reads the training images at the worst moments, and keeps how many batches it got."""

    def __init__(self):
        self.batches = []

    def on_train_start(self, trainer, module):
        self.batches.append(len(list(trainer.train_dataloader)))

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.batches.append(len(list(trainer.datamodule.train_dataloader())))

    def on_train_epoch_end(self, trainer, module):
        self.batches.append(len(list(trainer.train_dataloader)))


def test_callbacks_see_full_epochs_and_change_nothing(fit, unbroken, tmp_path):
    fit(callbacks=[ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=8, save_top_k=-1)], max_epochs=2)
    looks = Looks()
    resumed = fit(tmp_path / "step=8.ckpt", callbacks=[looks])
    assert set(looks.batches) == {STEPS}
    assert_same_end(resumed, unbroken)


def test_another_batch_size_in_the_middle_of_an_epoch(fit, tmp_path):
    fit(callbacks=[ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)], max_epochs=1)
    with pytest.raises(ValueError, match=r"^The checkpoint was saved within an epoch .*batches of 16 .*batches of 8"):
        fit(tmp_path / "step=2.ckpt", batch_size=8)
