"""On a small image folder, with random weights in the layouts of the published ones."""

import json
import re

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from lightning_adv.analysis.images.adain import AdaIN
from lightning_adv.analysis.images.stylise import Paintings
from lightning_adv.analysis.images.texture_transfer import TextureTransfer
from lightning_adv.cli import main
from lightning_adv.data import ImageFolderDataModule, NpzDataModule, to_images
from tests.analysis.test_adain import decoder_weights, normalised_weights
from tests.data.fake_folder import write_class_folders, write_dataset, write_image


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("stylize")
    write_dataset(home / "pets", "val", extension="jpg")
    write_image(home / "pets" / "val" / "fox" / "last.png")
    for number in range(3):
        (home / "paintings" / "more").mkdir(parents=True, exist_ok=True)
        write_image(home / "paintings" / "more" / f"{number}.png", (40 + number, 24), seed=number)
    torch.save({"state_dict": normalised_weights()}, home / "vgg.pth")
    save_file(decoder_weights(), home / "decoder.safetensors")
    return home


@pytest.fixture
def stylize(home, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        main([
            "stylize", f"--style_folder={home / 'paintings'}", "--data=ImageFolderDataModule",
            f"--data.root={home / 'pets'}", "--data.image_size=32", "--data.val_fraction=0.2",
            "--data.augmentation=none", "--data.num_workers=0", "--style_size=24",
            "--accelerator=cpu", "--output=styled", *map(str, arguments),
        ])  # fmt: skip
        return capsys.readouterr().out

    return run


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.suffix in (".jpg", ".png")
    }


def read_again(folder):
    """Return images, labels and names as the written configuration reads them."""
    written = yaml.safe_load((folder / "data.yaml").read_text())["data"]
    assert written["class_path"] == "lightning_adv.data.ImageFolderDataModule"
    data = ImageFolderDataModule(**written["init_args"], num_workers=0)
    data.setup("test")
    loader = data.test_dataloader()
    x, y = (torch.cat(each) for each in zip(*map(to_images, loader), strict=True))
    return x, y, loader.dataset.files


def test_a_test_set_of_the_same_names_is_written_and_read(home, stylize, tmp_path):
    told = stylize("--texture_transfer", "--batch_size=5")
    assert "13 images are in styled, of which 0 were there already" in told
    original = files(home / "pets" / "val")
    assert {f"val/{name}" for name in original} == set(files(tmp_path / "styled"))
    x, y, names = read_again(tmp_path / "styled")
    assert y.tolist() == [0] * 4 + [1] * 4 + [2] * 5
    paintings = Paintings(home / "paintings", TextureTransfer(), size=24)
    for index, name in enumerate(names):
        pixels = np.asarray(Image.open(home / "pets" / name).convert("RGB"))
        alone = paintings.restyle(torch.tensor(pixels).permute(2, 0, 1)[None] / 255, [index], seed=0)[0]
        most = 0.5 / 255 + 1e-4 if name.endswith("png") else 0.15  # JPEG, on images of noise
        assert (alone - x[index]).abs().max() < most, name
        assert (alone - x[index]).abs().mean() < 0.02, name
    settings = json.loads((tmp_path / "styled" / "settings.json").read_text())
    assert (settings["kind"], settings["images"], settings["paintings"]["count"]) == ("texture transfer", 13, 3)
    assert "styli" not in (tmp_path / "styled" / "settings.json").read_text().replace("style_size", "")


def test_adain_with_ones_own_weights(home, stylize, tmp_path):
    weights = (f"--encoder={home / 'vgg.pth'}", f"--decoder={home / 'decoder.safetensors'}")
    stylize(*weights, "--seed=4")
    x, _, names = read_again(tmp_path / "styled")
    paintings = Paintings(home / "paintings", AdaIN(normalised_weights(), decoder_weights()), size=24)
    index = names.index("val/fox/last.png")
    pixels = torch.tensor(np.asarray(Image.open(home / "pets" / names[index]))).permute(2, 0, 1)[None] / 255
    assert (paintings.restyle(pixels, [index], seed=4)[0] - x[index]).abs().max() < 0.5 / 255 + 1e-4
    settings = json.loads((tmp_path / "styled" / "settings.json").read_text())
    assert settings["kind"] == "AdaIN"
    assert set(settings["weights"]) == {"encoder", "decoder"}


def test_it_goes_on_and_overwrites_nothing(stylize, tmp_path, capsys):
    stylize("--texture_transfer")
    before = files(tmp_path / "styled")
    lost, kept = tmp_path / "styled/val/cat/001.jpg", tmp_path / "styled/val/dog/000.jpg"
    lost.unlink()
    kept.write_bytes(b"mine")
    (tmp_path / "styled/val/cat/002.jpg.0123abcd.part").write_bytes(b"half")
    assert "13 images are in styled, of which 12 were there already" in stylize("--texture_transfer")
    assert files(tmp_path / "styled") == before | {"val/dog/000.jpg": b"mine"}
    assert not list((tmp_path / "styled").rglob("*.part"))
    with pytest.raises(SystemExit):
        stylize("--texture_transfer", "--seed=1")
    assert "output: styled holds images of another seed, which stay as they are" in capsys.readouterr().err


def test_data_without_files_are_named_by_class_and_number(home, stylize, tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=x, labels=np.arange(24) % 3)
    main([
        "stylize", f"--style_folder={home / 'paintings'}", "--data=NpzDataModule",
        f"--data.path={tmp_path / 'data.npz'}", "--data.test_fraction=0.5", "--data.val_fraction=0.5",
        "--texture_transfer",
        "--accelerator=cpu", "-o", "styled",
    ])  # fmt: skip
    x, labels, names = read_again(tmp_path / "styled")
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    data = NpzDataModule(str(tmp_path / "data.npz"), test_fraction=0.5, val_fraction=0.5)
    data.setup("test")
    test = tuple(map(torch.cat, zip(*map(to_images, data.test_dataloader()), strict=True)))
    paintings = Paintings(home / "paintings", TextureTransfer())
    for row, (name, label) in enumerate(zip(names, labels.tolist(), strict=True)):
        number = int(re.fullmatch(rf"test/0*{label}/(\d\d)\.png", name)[1])
        assert test[1][number] == label
        assert (paintings.restyle(test[0][number][None], [number], 0)[0] - x[row]).abs().max() < 0.5 / 255 + 1e-4


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "encoder and decoder must both be given, the weights of AdaIN; without weights there is texture_transfer"),
        (["--encoder=a"], "encoder and decoder must both be given"),
        (["--encoder=a", "--texture_transfer"], "encoder: texture_transfer takes no weights"),
        (["--texture_transfer", "--batch_size=0"], "batch_size must be at least 1, got 0"),
        (["--encoder={home}/none.pth", "--decoder={home}/none.pth"], "encoder: there is no file"),
        (["--encoder={home}/vgg.pth", "--decoder={home}/vgg.pth"], "decoder: these are not the weights of the decoder"),
        (["--encoder={home}/decoder.safetensors", "--decoder={home}/vgg.pth"], "encoder: these are not the weights of"),
        (["--texture_transfer", "--style_folder={home}/empty"], "style_folder is .*empty', which has no image"),
        (["--texture_transfer", "--output={home}/pets"], "pets has files that are not of this command"),
        (["--texture_transfer", "--data=DigitsDataModule"], "the images must be square and have 3 channels"),
    ],
)
def test_bad_input_is_told(home, tmp_path, monkeypatch, capsys, arguments, told):
    monkeypatch.chdir(tmp_path)
    (home / "empty").mkdir(exist_ok=True)
    data = ["--data=ImageFolderDataModule", f"--data.root={home / 'pets'}", "--data.val_fraction=0.2"]
    given = [argument.format(home=home) for argument in arguments]
    given = ["--accelerator=cpu", *([] if any("--data" in each for each in given) else data), *given]
    if not any("--style_folder" in each for each in given):
        given.append(f"--style_folder={home / 'paintings'}")
    with pytest.raises(SystemExit) as ended:
        main(["stylize", *given])
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert re.search(told, error), error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "stylized").exists()


def test_the_data_are_those_of_a_run(home, stylize, tmp_path, capsys):
    write_class_folders(home / "other", images=4)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    data = {"root": str(home / "other"), "image_size": 32, "test_fraction": 0.5, "val_fraction": 0.5}
    config = {"data": {"class_path": "ImageFolderDataModule", "init_args": data}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    main([
        "stylize", f"--checkpoint={run / 'checkpoints' / 'best.ckpt'}", f"--style_folder={home / 'paintings'}",
        "--texture_transfer", "--accelerator=cpu", "--output=styled",
    ])  # fmt: skip
    _, labels, names = read_again(tmp_path / "styled")
    assert labels.tolist() == [0] * 2 + [1] * 2 + [2] * 2
    assert set(names) < set(files(home / "other"))
