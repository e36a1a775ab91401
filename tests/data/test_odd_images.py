"""Images of other modes are the same in folders, in Hugging Face's data sets and in ``predict --folder``."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from lightning_adv.commands.fit.unlabelled import UnlabelledFolder
from lightning_adv.data import HuggingFaceDataModule, ImageFolderDataModule, to_images

RAMP = np.arange(1024, dtype=np.uint16).reshape(32, 32)
GREY = (RAMP // 4).astype(np.uint8)
ALPHA = GREY.T.copy()

ODD = {
    "grey": (Image.fromarray(GREY), GREY),
    "sixteen": (Image.fromarray(RAMP * 64), np.rint(RAMP * 64 / 257)),
    "palette": (Image.fromarray(GREY).convert("P"), GREY),
    "clear": (Image.merge("LA", (Image.fromarray(GREY), Image.fromarray(ALPHA))), GREY * (ALPHA / 255) + 255 - ALPHA),
}
"""Each with the grey values that it should have."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("odd")
    for part in ("train", "test"):
        for kind in ("a", "b"):
            (place / part / kind).mkdir(parents=True)
            for name, (image, _) in ODD.items():
                image.save(place / part / kind / f"{name}.png")
    return place


def of_folder(folder, tmp_path):
    return ImageFolderDataModule(str(folder), image_size=32, augmentation="none", num_workers=0, val_fraction=0.5)


def of_datasets(folder, tmp_path):
    files = [str(path) for path in sorted((folder / "test").glob("*/*.png"))]
    rows = datasets.Dataset.from_dict({"image": files, "label": [0, 0, 0, 0, 1, 1, 1, 1]})
    rows = rows.cast_column("image", datasets.Image())
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "saved")
    path = str(tmp_path / "saved")
    return HuggingFaceDataModule(path, image_size=32, augmentation="none", num_workers=0, val_fraction=0.5)


def of_predict(folder, tmp_path):
    return UnlabelledFolder(str(folder / "test"), None, (3, 32, 32))


@pytest.mark.parametrize("make", [of_folder, of_datasets, of_predict])
def test_they_are_what_their_values_say(folder, tmp_path, make):
    data = make(folder, tmp_path)
    data.setup("predict")
    x = torch.cat([to_images(batch)[0] for batch in data.predict_dataloader()])
    expected = [ODD[name][1] for name in sorted(ODD)] * 2
    for found, grey in zip(255 * x, expected, strict=True):
        assert np.abs(found.numpy() - grey).max() <= 0.5 + 1e-4
