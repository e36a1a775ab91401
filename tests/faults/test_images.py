"""Mutated image files and odd folders: right images, or one error of ours; never a hang, never a library's error."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_adv.data import ImageFolderDataModule, to_images
from lightning_adv.data.image_files import check_image_files, read_image
from tests.data.fake_folder import write_dataset, write_image
from tests.data.test_image_files import within
from tests.data.tiff import tiff

RNG = np.random.default_rng(0)
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM", "GIF")

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's, about what is damaged


def tried(call: Callable[[], Any]) -> tuple[Any, str]:
    """Return what a call returns, and what it says if it refuses."""
    try:
        return call(), ""
    except ValueError as error:
        return None, str(error)


def stored(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


# Mutated files ----------------------------------------------------------------------------------------------------

PIXELS = RNG.integers(0, 256, (24, 20, 4), dtype=np.uint8)
SIXTEEN = RNG.integers(0, 65536, (24, 20), dtype=np.uint16)
SOURCES = {
    **{format: stored(Image.fromarray(PIXELS[..., :3]), format) for format in FORMATS},
    "PNG of a palette": stored(Image.fromarray(PIXELS[..., :3]).quantize(16), "PNG", transparency=3),
    "PNG of 16 bits": stored(Image.fromarray(SIXTEEN), "PNG"),
    "PNG with alpha": stored(Image.fromarray(PIXELS), "PNG"),
    "TIFF of floats": tiff((SIXTEEN / 65535).astype(np.float32)),
    "TIFF of 12 bits": tiff(SIXTEEN >> 4, bits=12),
    "TIFF, packed": stored(Image.fromarray(PIXELS), "TIFF", compression="tiff_lzw"),
    "JPEG of inks": stored(Image.fromarray(PIXELS, "CMYK"), "JPEG"),
    "moving WebP": stored(
        Image.fromarray(PIXELS), "WEBP", save_all=True, append_images=[Image.fromarray(PIXELS[::-1].copy())]
    ),
}


def flip(data: bytearray, rng: np.random.Generator, end: int) -> bytes:
    for position in rng.integers(0, end, rng.integers(1, 6)):
        data[position] = rng.integers(256)
    return bytes(data)


def cut(data: bytearray, rng: np.random.Generator) -> bytes:
    first, last = sorted(rng.integers(0, len(data) + 1, 2))
    return bytes(data[:first] + data[last:])


MUTATIONS: list[Callable[[bytearray, np.random.Generator], bytes]] = [
    lambda data, rng: flip(data, rng, min(64, len(data))),
    lambda data, rng: flip(data, rng, len(data)),
    lambda data, rng: bytes(data[: rng.integers(len(data))]),
    cut,
    lambda data, rng: bytes(data) + rng.bytes(50),
    lambda data, rng: rng.bytes(8) + bytes(data),
    lambda data, rng: bytes(data[:32]) + SOURCES[rng.choice(list(SOURCES))][32:],
]


@pytest.mark.parametrize("source", SOURCES)
def test_mutated_files_are_read_or_refused(tmp_path, monkeypatch, source):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)  # a header may declare more: twice that is an error
    rng, path, read = np.random.default_rng(len(source)), tmp_path / "x.png", 0
    for i in range(14):
        path.write_bytes(MUTATIONS[i % len(MUTATIONS)](bytearray(SOURCES[source]), rng))
        with within(60):
            image, refused = tried(lambda: read_image(str(path)))
            _, told = tried(lambda: check_image_files(tmp_path, [str(path)], "decode"))
        if image is None:
            assert refused.startswith(f"data.root holds {path}, which cannot be decoded: ")
            assert told.startswith(f"data.root is {str(tmp_path)!r}, where 1 of 1 images cannot be read: {path} (")
        assert (image is None) == bool(told)
        if image is not None:
            read += 1
            assert (image.mode, np.asarray(image).dtype, np.asarray(image).ndim) == ("RGB", np.uint8, 3)
    assert 0 < read < 14  # it fails neither always nor never


# Modes and formats ------------------------------------------------------------------------------------------------


def drawn(mode: str, rng: np.random.Generator) -> tuple[Image.Image, np.ndarray | None]:
    """Return an image, and what it is as (H, W, 1 or 3) in [0, 255] by NumPy alone; None for one to refuse."""
    height, width = rng.integers(1, 12, 2)
    bytes_ = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
    colours, alpha = bytes_[..., :3], bytes_[..., 3:] / 255
    if mode == "1":
        return Image.fromarray(bytes_[..., 0] > 127), 255.0 * (bytes_[..., :1] > 127)
    if mode == "L":
        return Image.fromarray(bytes_[..., 0]), bytes_[..., :1].astype(float)
    if mode == "P":
        palette, image = rng.integers(0, 256, (256, 3), dtype=np.uint8), Image.fromarray(bytes_[..., 0])
        image.putpalette(palette.tobytes())
        return image, palette[bytes_[..., 0]].astype(float)
    if mode == "LA":
        both = np.concatenate([bytes_[..., :1], bytes_[..., 3:]], 2)
        return Image.fromarray(both, "LA"), bytes_[..., :1] * alpha + 255 * (1 - alpha)
    if mode == "RGBA":
        return Image.fromarray(bytes_), colours * alpha + 255 * (1 - alpha)
    if mode == "I;16":
        values = rng.integers(0, 65536, (height, width), dtype=np.uint16)
        return Image.fromarray(values), values[..., None] / 65535 * 255
    if mode == "F":
        values = rng.random((height, width), dtype=np.float32)
        return Image.fromarray(values), values[..., None] * 255.0
    if mode == "I":
        return Image.fromarray(rng.integers(256, 65536, (height, width), dtype=np.int32)), None
    return Image.fromarray(colours), colours.astype(float)


@pytest.mark.parametrize("format", ["PNG", "BMP", "WEBP", "TIFF", "PPM", "GIF"])
def test_every_mode_of_every_format_is_what_numpy_makes_of_it(tmp_path, format):
    rng, path, compared = np.random.default_rng(1), tmp_path / "x.png", 0
    for mode in ("1", "L", "P", "LA", "RGB", "RGBA", "I;16", "F", "I") * 3:
        image, expected = drawn(mode, rng)
        alters = {
            "BMP": ("RGBA",),
            "WEBP": ("1", "P", "I;16", "I", "F"),
            "GIF": ("LA", "RGB", "RGBA", "I;16", "I", "F"),
            "PPM": ("LA", "RGBA"),
            "PNG": ("I",),  # before Pillow 13 as 16 bits
        }
        if mode in alters.get(format, ()):
            continue  # the format has no such mode, and Pillow's writer converts
        with suppress(OSError):  # it cannot be written
            path.write_bytes(stored(image, format, **({"lossless": True, "exact": True} if format == "WEBP" else {})))
            if expected is None and format == "PPM":  # which has 16 bits
                expected = np.asarray(image)[..., None] / 65535 * 255
            if expected is None:
                with pytest.raises(ValueError, match="whose range is not known"):
                    read_image(str(path))
            else:
                found = np.asarray(read_image(str(path))).astype(float)
                assert np.abs(found - expected).max() <= 0.5 + 1e-3
            compared += 1
    assert compared >= 6


# Odd folders ------------------------------------------------------------------------------------------------------


def folder_without_images(place: Path) -> None:
    (place / "empty").mkdir()


def image_folder(place: Path) -> None:
    (place / "more.png").mkdir()
    write_image(place / "more.png" / "x.JPG")


def hidden(place: Path) -> None:
    (place / ".ipynb_checkpoints").mkdir()
    write_image(place / ".ipynb_checkpoints" / "x.png")
    (place / "._x.png").write_bytes(b"\0\5\x16\7")


def system(place: Path) -> None:
    (place / "__MACOSX").mkdir()
    write_image(place / "__MACOSX" / "x.png")
    (place / "Thumbs.db").write_bytes(b"\xd0\xcf")


def link(place: Path) -> None:
    write_image(place.parents[2] / "outside.png")
    (place / "link.png").symlink_to(place.parents[2] / "outside.png")


def name_not_in_utf8(place: Path) -> None:
    write_image(place / "plain.png")
    os.rename(place / "plain.png", os.fsencode(place) + b"/\xe9.png")


def broken_link(place: Path) -> None:
    (place / "broken.png").symlink_to(place / "gone")


def circle(place: Path) -> None:
    (place / "circle").symlink_to(place.parent)


def pipe(place: Path) -> None:
    os.mkfifo(place / "pipe.png")


def talk(place: Path) -> None:
    here = os.getcwd()
    os.chdir(place)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind("talk.png")
    finally:
        os.chdir(here)


def device(place: Path) -> None:
    (place / "zero.png").symlink_to("/dev/zero")


def empty(place: Path) -> None:
    (place / "nothing.png").write_bytes(b"")


def text(place: Path) -> None:
    (place / "text.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n")


def animation(place: Path) -> None:
    (place / "moving.gif").write_bytes(SOURCES["GIF"])


HARMLESS = {folder_without_images: 0, image_folder: 1, hidden: 0, system: 0, link: 1, name_not_in_utf8: 1, animation: 0}
REFUSED = [broken_link, circle, pipe, talk, device, empty, text]


@pytest.mark.parametrize("seed", range(8))
def test_odd_folders_are_read_whole_or_refused(tmp_path, seed):
    rng, root = np.random.default_rng(seed), write_dataset(tmp_path / "pets", images=4, size=(8, 8))
    places = sorted(root.glob("*/*"))
    images = {"train": 12, "test": 12}
    for odd, count in HARMLESS.items():
        place = places[rng.integers(len(places))]
        odd(place)
        images[place.parent.name] += count
    harm = None if seed % 4 == 0 else REFUSED[seed % len(REFUSED)]
    if harm is not None:
        harm(places[rng.integers(len(places))])
    in_memory = bool(rng.integers(2))
    datamodule = ImageFolderDataModule(
        str(root), image_size=8, augmentation="none", in_memory=in_memory, val_fraction=0.3, batch_size=4,
        evaluation_batch_size=4, num_workers=0,
    )  # fmt: skip
    with within(60):
        if harm is not None:
            with pytest.raises(ValueError, match=r"^data\.root (is|holds) "):
                datamodule.setup()
            return
        datamodule.setup()
    told = datamodule.identity()["images"]
    assert {"train": told["train"] + told["val"], "test": told["test"]} == images
    x, y = (torch.cat(part) for part in zip(*map(to_images, datamodule.test_dataloader()), strict=True))
    assert (x.shape, x.min() >= 0, x.max() <= 1) == ((images["test"], 3, 8, 8), True, True)
    assert {*y.tolist()} == {0, 1, 2}
