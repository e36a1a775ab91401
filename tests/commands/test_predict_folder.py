"""``lightning-adv predict --folder``: images without labels, one row for each file."""

import csv
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_adv.cli import main
from lightning_adv.commands.fit.unlabelled import UnlabelledFolder
from lightning_adv.data import ImageFolderDataModule
from lightning_adv.regimes import Regime
from tests.commands.shortened import fit
from tests.data.fake_folder import write_class_folders, write_dataset, write_image

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]


def rows_of(folder):
    (table,) = folder.rglob("predictions.csv")
    with table.open(newline="", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on 16×16 images of two classes, whose data set is gone afterwards."""
    place = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        write_dataset(place / "pets", classes=("cat", "dog"))
        data = ["--data=ImageFolderDataModule", "--data.init_args.root=pets", "--data.init_args.image_size=16"]
        data += ["--data.init_args.crop_pct=0.8", "--data.init_args.num_workers=0", "--data.init_args.batch_size=4"]
        data += ["--data.init_args.val_fraction=0.2"]
        network = ["--model.init_args.backbone.in_channels=3"]
        network += ["--model.init_args.backbone.mean=null", "--model.init_args.backbone.std=null"]
        made = place / fit(*data, *network, "--trainer.max_epochs=1", config="digits/standard")
        shutil.rmtree(place / "pets")
    return made


def photos(folder):
    """Write images of several sizes and modes, flat and nested; return their names in the table's order."""
    (folder / "b" / "c").mkdir(parents=True)
    names = ["a.png", "z.jpg", "b/a.png", "b/c/grey.png", "b/c/é.png"]
    for i, name in enumerate(names):
        write_image(folder / name, (20 + i, 30), seed=i)
    Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30) * 70).save(folder / "b/c/grey.png")
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_text("no image")
    return names


@pytest.mark.slow
def test_each_file_is_one_row_with_its_class(run, tmp_path, monkeypatch, capsys):
    """The probabilities are those of the network on the images as its run tests images; nothing of that is needed."""
    monkeypatch.chdir(tmp_path)
    names = photos(tmp_path / "pets")  # the name of the folder that it was trained on: nothing follows from that
    best = f"{run}/checkpoints/best.ckpt"
    capsys.readouterr()
    main(["predict", "--config", f"{run}/config.yaml", "--ckpt_path", best, "--folder", "pets", *QUIET])
    assert "ckpt_path:" not in capsys.readouterr().err
    rows = rows_of(run / "predict")
    assert [row["file"] for row in rows] == names
    assert [int(row["index"]) for row in rows] == list(range(5))
    regime = Regime.load_from_checkpoint(best).eval()
    transform = ImageFolderDataModule(str(tmp_path), image_size=16, crop_pct=0.8).evaluation_transform()
    for row in rows:
        image = Image.open(tmp_path / "pets" / row["file"])
        if image.mode.startswith("I"):
            image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
        with torch.no_grad():
            expected = regime(transform(image.convert("RGB"))[None] / 255).softmax(1)[0]
        given = torch.tensor([float(row["probability_0"]), float(row["probability_1"])])
        torch.testing.assert_close(given, expected)
        assert row["predicted_class"] == ("cat", "dog")[int(given.argmax())]
        assert float(row["probability"]) == given.max().item()
        assert row["label"] == ""
    assert next((run / "predict").rglob("classes.csv")).read_text().splitlines() == ["index,name", "0,cat", "1,dog"]


@pytest.mark.slow
def test_an_exported_network_predicts_the_same(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos")
    shutil.copytree(run, "run", ignore=shutil.ignore_patterns("predict"))
    best = "run/checkpoints/best.ckpt"
    main(["export", "--checkpoint", best, "--output", "exported"])
    config, folder = ["predict", "--config", "run/config.yaml"], ["--folder", "photos", *QUIET]
    main([*config, "--ckpt_path", best, *folder])
    write_class_folders(tmp_path / "pets" / "train", classes=("cat", "dog"), images=1)  # says what the classes are
    main([*config, "--model.init_args.backbone.checkpoint", "exported/model.safetensors", *folder])
    by_run, exported = rows_of(tmp_path / "run/predict"), rows_of(tmp_path / "runs")
    assert by_run == exported


@pytest.mark.slow
def test_grey_networks_read_grey_and_regimes_of_two_domains_predict(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = fit("--trainer.max_epochs=1", "--model.init_args.attack.init_args.steps=1", config="digits/advprop")
    names = photos(tmp_path / "photos")
    best = f"{ran}/checkpoints/best.ckpt"
    main(["predict", "--config", f"{ran}/config.yaml", "--ckpt_path", best, "--folder", "photos", *QUIET])
    rows = rows_of(ran / "predict")
    assert [row["file"] for row in rows] == names
    assert {row["predicted_class"] for row in rows} <= {*"0123456789"}


def of_process(folder, rank, processes):
    data = UnlabelledFolder(str(folder), None, (3, 8, 8))
    data.trainer = SimpleNamespace(world_size=processes, global_rank=rank, num_devices=1, limit_test_batches=1.0)
    data.setup("predict")
    return data


def test_two_processes_share_the_files_each_once(tmp_path):
    names = photos(tmp_path)
    shares = []
    for rank in range(2):
        loader = of_process(tmp_path, rank, 2).predict_dataloader()
        shares.append([loader.dataset.files[index] for index in loader.sampler])
    assert shares == [names[::2], names[1::2]]


def test_more_processes_than_files(tmp_path):
    write_image(tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"has 1 images for 2 processes: set trainer\.devices to 1"):
        of_process(tmp_path, 0, 2)


def unreadable(folder):
    write_image(folder / "good.png")
    (folder / "bad.png").write_text("not an image")


def without_images(folder):
    (folder / "notes.txt").write_text("no image")


def in_a_circle(folder):
    write_image(folder / "good.png")
    os.symlink(folder, folder / "again")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (unreadable, r"where 1 of 2 images cannot be read: .*bad\.png \(it is none of JPEG"),
        (without_images, r"which has no image: an image's name ends in \.jpg"),
        (in_a_circle, "again is a link to a folder that it lies in"),
        (Path.rmdir, "which is not a folder"),
    ],
)
def test_what_cannot_be_predicted_is_named(tmp_path, make, message):
    folder = tmp_path / "photos"
    folder.mkdir()
    make(folder)
    data = UnlabelledFolder(str(folder), None, (3, 8, 8))
    with pytest.raises(ValueError, match=rf"^folder is '.*photos', .*{message}"):
        data.setup("predict")


@pytest.mark.parametrize(
    ("shape", "message"),
    [(None, "nobody says what size the network takes"), ((4, 8, 8), "takes 4 channels, and image files have 1 or 3")],
)
def test_a_network_that_takes_no_image_files(tmp_path, shape, message):
    with pytest.raises(ValueError, match=f"^folder: .*{message}"):
        UnlabelledFolder(str(tmp_path), None, shape)
