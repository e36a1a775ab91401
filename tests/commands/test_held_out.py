"""What a data module may lack or get wrong, and when it is found out."""

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule
from torch.utils.data import DataLoader, Dataset, RandomSampler, Subset, SubsetRandomSampler, TensorDataset

from lightning_adv.cli import main
from lightning_adv.commands.shared.images import TestImages
from tests.regimes.toy import ToyData

MINE = [
    "--config=digits/standard",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.enable_progress_bar=false",
    "--trainer.accelerator=cpu",
    "--model.init_args.evaluation_attack.init_args.steps=1",
]


class Mine(ToyData):
    """Labels of another type, and a batch for each stage that subclasses change."""

    def __init__(self):
        super().__init__(y=(torch.arange(32) % 2).to(torch.int32))

    def loader(self, x=None, y=None):
        return DataLoader(TensorDataset(self.x if x is None else x, self.y if y is None else y), batch_size=8)

    def train_dataloader(self):
        return self.loader()

    val_dataloader = test_dataloader = train_dataloader

    def predict_dataloader(self):
        return DataLoader(list(self.x), batch_size=8)


class NoTestLoader(Mine):
    test_dataloader = LightningDataModule.test_dataloader


class NoTestImages(Mine):
    def test_dataloader(self):
        return self.loader(self.x[:0], self.y[:0])


class NoHeldOut(NoTestLoader):
    val_dataloader = LightningDataModule.val_dataloader


class OtherRange(Mine):
    def test_dataloader(self):
        return self.loader(255 * self.x)


class Normalised(Mine):
    def test_dataloader(self):
        return self.loader((self.x - 0.5) / 0.25)


class Bytes(Mine):
    def test_dataloader(self):
        return self.loader((255 * self.x).byte())


class ChannelsLast(Mine):
    def test_dataloader(self):
        return self.loader(self.x.permute(0, 2, 3, 1))


class OtherClasses(Mine):
    def test_dataloader(self):
        return self.loader(y=self.y + 5)


class OtherChannels(Mine):
    def test_dataloader(self):
        return self.loader(self.x.expand(-1, 3, -1, -1))


class TwoTests(Mine):
    def test_dataloader(self):
        return [self.loader(), self.loader()]


class Mapped(Mine):
    keys = ("picture", "kind")

    def loader(self, x=None, y=None):
        x, y = self.x if x is None else x, self.y if y is None else y
        items = [{self.keys[0]: image, self.keys[1]: label, "file": "x.png"} for image, label in zip(x, y, strict=True)]
        return DataLoader(items, batch_size=8)

    def train_dataloader(self):
        return Mine.loader(self)

    def test_dataloader(self):
        return self.loader()


class ForeignImages(Dataset):
    """As torchvision's data sets are: items by their index, and the classes' names."""

    classes = ("above", "below")

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return {"pixel_values": self.x[index], "labels": self.y[index], "file": "x.png"}


class Foreign(LightningDataModule):
    """As other people write them: dictionaries, no number of classes, loaders that sample."""

    def setup(self, stage):
        toy = ToyData()
        self.images = ForeignImages(toy.x, toy.y)
        self.part = Subset(self.images, range(8, 32))

    def train_dataloader(self):
        return DataLoader(self.part, batch_size=8, shuffle=True)

    val_dataloader = train_dataloader

    def test_dataloader(self):
        return [DataLoader(self.images, batch_size=5, sampler=SubsetRandomSampler([3, 9, 10, 31]))]

    def predict_dataloader(self):
        return DataLoader(self.images, batch_size=5)


class Triples(Mine):
    def train_dataloader(self):
        return DataLoader(TensorDataset(self.x, self.y, self.y), batch_size=8)


class NothingToTrainOn(Mine):
    def train_dataloader(self):
        return self.loader(self.x[:0], self.y[:0])


class OneClass(Mine):
    num_classes = 1


class Steps(Callback):
    made = 0

    def on_train_batch_end(self, *args):
        Steps.made += 1


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Steps.made = 0


def run(command, data, *arguments):
    fit = ["--trainer.callbacks+=tests.commands.test_held_out.Steps"] if command == "fit" else []
    main([command, *MINE, f"--data=tests.commands.test_held_out.{data.__name__}", *fit, *arguments])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (OtherRange, r"the test images of OtherRange: x must lie in \[0, 1\], got values from .* Divide bytes by 255"),
        (Normalised, r"x must lie in \[0, 1\], got values from -.* and take it out of the data's transform"),
        (Bytes, r"x must be floating-point .* got torch.uint8 .* Divide bytes by 255: torchvision's ToDtype"),
        (
            ChannelsLast,
            r"x must be images \(N, 1, H, W\) .* got .* Their channels come last: permute",
        ),
        (OtherClasses, r"the test images of OtherClasses: y must lie in \[0, 2\), got labels from 5 to 6"),
        (OtherChannels, r"the test images of OtherChannels: x must be images \(N, 1, H, W\)"),
        (TwoTests, r"TwoTests.test_dataloader\(\) gives 2 loaders"),
        (Mapped, r"must be a pair of tensors, .* got a dict with the keys picture, kind, file: return such a pair"),
        (Triples, r"must be a pair of tensors, .* got a list of 3 \(Tensor, Tensor, Tensor\)"),
        (NothingToTrainOn, r"NothingToTrainOn.train_dataloader\(\) gives no batch: nothing was trained"),
        (OneClass, "OneClass has 1 classes, and a classifier needs two"),
    ],
)
@pytest.mark.filterwarnings("ignore:Total length of .* across ranks is zero")  # it is meant to be
def test_wrong_data_are_one_sentence_before_training(tmp_path, capsys, data, message):
    with pytest.raises(SystemExit) as stopped:
        run("fit", data)
    assert stopped.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lightning-adv: error: ")]
    assert len(lines) == 1
    assert re.search(message, lines[0])
    assert Steps.made == 0
    assert list(tmp_path.glob("runs/*/*/results.json")) == []


@pytest.mark.slow
@pytest.mark.parametrize("data", [NoTestLoader, NoTestImages, NoHeldOut])
def test_a_run_without_test_images_ends_with_its_validation(tmp_path, capsys, recwarn, data):
    run("fit", data)
    assert Steps.made == 2
    told = [str(warning.message) for warning in recwarn if "has no test images" in str(warning.message)]
    assert len(told) == 1
    (run_folder,) = tmp_path.glob("runs/*/*")
    assert (run_folder / "checkpoints" / "last.ckpt").exists()
    assert not (run_folder / "results.json").exists()


@pytest.mark.slow
def test_labels_of_other_types_and_images_without_labels():
    """Mine's labels are int32: it trains, validates and tests; and predicts images that have none."""
    run("fit", Mine)
    run("validate", Mine)
    run("predict", Mine)
    (table,) = Path().glob("runs/*/predict/*/predictions.csv")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["index"] for row in rows] == [str(i) for i in range(32)]
    assert {row["label"] for row in rows} == {""}


@pytest.mark.slow
@pytest.mark.parametrize(("command", "data"), [("test", NoTestLoader), ("validate", NoHeldOut)])
def test_a_command_without_its_images(capsys, command, data):
    with pytest.raises(SystemExit) as stopped:
        run(command, data)
    assert stopped.value.code == 1
    assert f"error: data: {data.__name__} has no {command[:3] if command == 'validate' else command}_dataloader()" in (
        capsys.readouterr().err
    )


def test_an_evaluation_takes_the_same():
    y = next(TestImages(Mine(), chunk=8, images=None).read([0])).y
    assert y.dtype == torch.int64
    with pytest.raises(ValueError, match=r"^data: NoTestLoader has no test_dataloader\(\)"):
        TestImages(NoTestLoader(), chunk=8, images=None)
    with pytest.raises(ValueError, match=r"^data: a batch must be a pair of tensors, .* with the keys picture"):
        TestImages(Mapped(), chunk=8, images=None).check(1, 2)


@pytest.mark.slow
def test_a_data_module_of_other_people_works_in_every_command(tmp_path):
    run("fit", Foreign)
    (best,) = tmp_path.glob("runs/*/*/checkpoints/best.ckpt")
    told = torch.load(best, weights_only=True)
    assert told["regime"]["class_names"] == ["above", "below"]
    assert told["hyper_parameters"]["num_classes"] == 2
    for command in ("validate", "test", "predict"):
        run(command, Foreign, f"--ckpt_path={best}")
    data = f"--data=tests.commands.test_held_out.{Foreign.__name__}"
    main(["evaluate", "--config=evaluation/quick", f"--checkpoint={best}", data, "--output=judged"])
    judged = json.loads((tmp_path / "judged/evaluation.json").read_text())
    assert judged["images"] == 4
    main(
        [
            "transfer",
            "--config=transfer/fgsm_family",
            f"--networks={{a: {best}, b: {best}}}",
            data,
            "--eps=0.1",
            "--output=moved",
        ]
    )
    assert (tmp_path / "moved").is_dir()


def test_an_evaluation_is_of_the_images_that_the_loader_gives():
    """Not of the whole data set behind it, where the images that were trained on may be."""
    images = TestImages(Foreign(), chunk=3, images=None)
    toy = ToyData()
    chunks = list(images.read(range(len(images))))
    assert sorted(index for chunk in chunks for index in chunk.indices) == [3, 9, 10, 31]
    for chunk in chunks:
        assert torch.equal(chunk.x, toy.x[chunk.indices])
        assert torch.equal(chunk.y, toy.y[chunk.indices])


def test_an_evaluation_refuses_a_loader_that_gives_nobody_knows_what():
    class Drawn(Mine):
        def test_dataloader(self):
            images = TensorDataset(self.x, self.y)
            return DataLoader(images, sampler=RandomSampler(range(8)))

    with pytest.raises(ValueError, match=r"^data: .* which of them a RandomSampler gives is not known: let Drawn"):
        TestImages(Drawn(), chunk=8, images=None)
