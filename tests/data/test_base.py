from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_adv.data import CIFAR10DataModule, DigitsDataModule, ImageFolderDataModule
from tests.data.fake_cifar10 import write_fake_cifar10
from tests.data.fake_folder import write_dataset


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "data.batch_size must be at least 1, got 0"),
        ({"evaluation_batch_size": -1}, "data.evaluation_batch_size must be at least 1, got -1"),
        ({"num_workers": -1}, "data.num_workers must be at least 0, got -1"),
        ({"val_fraction": 0.0}, r"data.val_fraction must lie in \(0, 1\), got 0.0"),
        ({"val_fraction": float("nan")}, r"data.val_fraction must lie in \(0, 1\), got nan"),
        ({"train_fraction": 0.0}, r"data.train_fraction must lie in \(0, 1\], got 0.0"),
        ({"seed": -1}, "data.seed must be at least 0, got -1"),
        ({"seed": 2**32}, r"data.seed must be less than 2\*\*32"),
    ],
)
@pytest.mark.parametrize("datamodule", [DigitsDataModule, CIFAR10DataModule])
def test_bad_arguments(datamodule, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        datamodule(**options)


def test_too_small_fractions_are_named():
    for argument in ("val_fraction", "train_fraction", "test_fraction"):
        with pytest.raises(ValueError, match=rf"^data.{argument} = 0.001 cannot be split off"):
            DigitsDataModule(**{argument: 0.001}).setup()


def test_setup_comes_first():
    with pytest.raises(RuntimeError, match=r"Call setup\(\) before train_dataloader\(\)"):
        DigitsDataModule().train_dataloader()


def test_train_fraction_is_a_stratified_share_of_the_training_images():
    whole, share = DigitsDataModule(batch_size=1), DigitsDataModule(batch_size=1, train_fraction=0.25)
    for datamodule in (whole, share):
        datamodule.setup()
    x, y = (torch.cat(part) for part in zip(*share.train_dataloader(), strict=True))
    all_x, all_y = (torch.cat(part) for part in zip(*whole.train_dataloader(), strict=True))
    assert len(y) == 324  # ceil(1293 / 4)
    assert (y.bincount() - all_y.bincount() / 4).abs().max() < 1
    assert {*map(tuple, x.flatten(1).tolist())} <= {*map(tuple, all_x.flatten(1).tolist())}
    for loader, same in zip(
        (share.val_dataloader(), share.test_dataloader()),
        (whole.val_dataloader(), whole.test_dataloader()),
        strict=True,
    ):
        assert all(torch.equal(a, b) for pair in zip(loader, same, strict=True) for a, b in zip(*pair, strict=True))


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(1293, [1293]), (1292, [1292]), (1294, [1293]), (647, [647]), (500, [500, 500])]
)
def test_the_incomplete_batch_is_left_out_unless_it_is_the_only_one(batch_size, sizes):
    datamodule = DigitsDataModule(batch_size=batch_size)
    datamodule.setup()
    loader = datamodule.train_dataloader()
    assert [len(y) for _, y in loader] == sizes
    assert len(loader) == len(sizes)


def test_processes_share_the_images():
    """What Lightning keeps as it is under DDP: see EpochSampler and UnrepeatedDistributedSampler."""
    alone = DigitsDataModule(batch_size=64, evaluation_batch_size=64)
    alone.setup()
    steps = [sorted(x.sum(dim=(1, 2, 3)).tolist()) for x, _ in alone.train_dataloader()]
    tested = sum(len(y) for _, y in alone.test_dataloader())
    ranks = []
    for rank in range(2):
        datamodule = DigitsDataModule(batch_size=32, evaluation_batch_size=64, test_fraction=0.2)
        datamodule.setup()
        datamodule.trainer = SimpleNamespace(world_size=2, global_rank=rank, train_dataloader=None)
        ranks.append(datamodule)
    sums = [[x.sum(dim=(1, 2, 3)).tolist() for x, _ in ranks[r].train_dataloader()] for r in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*sums, strict=True)] == steps
    assert sum(len(y) for r in ranks for _, y in r.test_dataloader()) == tested


@pytest.fixture(params=["digits", "digits on the device", "cifar10", "cifar10 on the device", "folder"])
def any_datamodule(request, tmp_path, monkeypatch):
    on_device = request.param.endswith("on the device")
    if request.param.startswith("digits"):
        return DigitsDataModule(train_fraction=0.1, on_device=on_device)
    if request.param.startswith("cifar10"):
        write_fake_cifar10(tmp_path, monkeypatch)
        return CIFAR10DataModule(tmp_path, on_device=on_device)  # a Path, to see that the checkpoint has none
    root = write_dataset(tmp_path / "pets")
    return ImageFolderDataModule(root, image_size=16, val_fraction=0.2, train_transform={"hflip": 0.5}, num_workers=0)


class Recorder(LightningModule):
    """Records what each kind of batch looks like."""

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(()))
        self.seen = {}

    def look(self, kind, batch):
        x, y = batch
        assert (x.dtype, y.dtype, len(x)) == (torch.float32, torch.int64, len(y))
        assert 0 <= x.min() <= x.max() <= 1
        self.seen.setdefault(kind, []).append(tuple(x.shape[1:]))
        return x.mean() * self.bias

    def training_step(self, batch, batch_idx):
        return self.look("train", batch)

    def validation_step(self, batch, batch_idx):
        self.look("val", batch)

    def test_step(self, batch, batch_idx):
        self.look("test", batch)

    def predict_step(self, batch, batch_idx):
        self.look("predict", batch)
        return batch[1]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def quiet_trainer(**options):
    return Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        **{"max_epochs": 1, "enable_checkpointing": False, **options},
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_every_loop_gets_images_and_labels(any_datamodule, tmp_path):
    module, trainer = Recorder(), quiet_trainer()
    trainer.fit(module, datamodule=any_datamodule)
    trainer.test(module, datamodule=any_datamodule, verbose=False)
    labels = torch.cat(trainer.predict(module, datamodule=any_datamodule))
    assert len(labels) == len(any_datamodule.test_dataloader().dataset)
    assert set(module.seen) == {"train", "val", "test", "predict"}
    assert {shape for shapes in module.seen.values() for shape in shapes} == {any_datamodule.image_shape}
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    stored = torch.load(tmp_path / "last.ckpt", weights_only=True)["datamodule_hyper_parameters"]
    again = type(any_datamodule)(**stored)
    assert again.hparams == any_datamodule.hparams


@pytest.mark.filterwarnings("ignore")
def test_overfit_batches_works(any_datamodule):
    module = Recorder()
    trainer = quiet_trainer(overfit_batches=1, max_epochs=2)
    trainer.fit(module, datamodule=any_datamodule)
    assert len(module.seen["train"]) == 2
