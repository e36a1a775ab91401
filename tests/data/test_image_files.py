import io
import os
import signal
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from lightning_adv.data.image_files import FORMATS, check_image_files, read_image
from tests.data.fake_folder import write_image
from tests.data.tiff import tiff

LARGE = (240, 200)  # more than 8 KiB as JPEG and as PNG: not decoded by the quick check unless it has no end
RAMP = np.linspace(0, 1, 4096).reshape(64, 64)
RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("extension", ["jpg", "png"])
@pytest.mark.parametrize("size", [(32, 32), LARGE])
def test_truncated_images_are_found_and_named(tmp_path, extension, size):
    paths = [tmp_path / f"{i}.{extension}" for i in range(5)]
    for i, path in enumerate(paths):
        write_image(path, size, seed=i)
    assert (paths[0].stat().st_size > 8192) == (size == LARGE)
    texts = [str(path) for path in paths]
    check_image_files(tmp_path, texts, "quick")
    check_image_files(tmp_path, texts, "decode")
    whole = paths[3].read_bytes()
    for kept in (0, 10, len(whole) // 2, len(whole) - 200):
        paths[3].write_bytes(whole[:kept])
        for check in ("quick", "decode"):
            with pytest.raises(ValueError, match=rf"^data\.root is .* 1 of 5 images .*{paths[3]}"):
                check_image_files(tmp_path, texts, check)
        check_image_files(tmp_path, texts, "off")
        with pytest.raises(ValueError, match=rf"{paths[3]}, which cannot be decoded"):
            read_image(texts[3])


def test_many_unreadable_images_are_counted(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.jpg").write_text("not an image")
    with pytest.raises(ValueError, match=r"5 of 6 images cannot be read: .*0\.jpg.*2\.jpg.* \(and 2 more\)"):
        check_image_files(
            tmp_path, [str(tmp_path / f"{i}.jpg") for i in range(5)] + [write_and_name(tmp_path)], "quick"
        )


def write_and_name(folder):
    write_image(folder / "good.jpg")
    return str(folder / "good.jpg")


def test_whole_images_that_end_unusually_pass(tmp_path):
    write_image(tmp_path / "image.jpg", LARGE)
    jpeg = (tmp_path / "image.jpg").read_bytes()
    stored = io.BytesIO()
    Image.open(tmp_path / "image.jpg").save(stored, "bmp")
    for i, data in enumerate((jpeg + b"\0" * 100, jpeg + b"appended by a camera" * 50, stored.getvalue())):
        (tmp_path / f"{i}.jpg").write_bytes(data)  # formats are known by their content, not by their name
    check_image_files(tmp_path, [str(tmp_path / f"{i}.jpg") for i in range(3)], "quick")


@pytest.mark.parametrize(("size", "check"), [(LARGE, "decode"), ((32, 32), "decode"), ((32, 32), "quick")])
def test_decoding_finds_damage_inside(tmp_path, size, check):
    path = tmp_path / "image.png"
    write_image(path, size)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20] = bytes(20)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="1 of 1 images cannot be read"):
        check_image_files(tmp_path, [str(path)], check)


def read(path):
    return np.asarray(read_image(str(path)))


def grey(values):
    """A byte for each value in [0, 1], three times: what a grey image should be."""
    return np.rint(255 * values).astype(np.uint8)[..., None].repeat(3, axis=2)


@contextmanager
def within(seconds):
    def late(*_):
        raise TimeoutError(f"after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


SIXTEEN = np.rint(65535 * RAMP).astype(np.uint16)
TWELVE = np.rint(4095 * RAMP).astype(np.uint16)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (tiff(SIXTEEN), SIXTEEN / 65535),
        (tiff(SIXTEEN, order=">"), SIXTEEN / 65535),
        (tiff(SIXTEEN, photometric=0), 1 - SIXTEEN / 65535),
        (tiff((255 * RAMP).astype(np.uint8), photometric=0), 1 - (255 * RAMP).astype(np.uint8) / 255),
        (tiff(TWELVE), TWELVE / 65535),  # nothing says that it has 12 bits
        (tiff(TWELVE, largest=4095), TWELVE / 4095),
        (tiff(TWELVE, bits=12), TWELVE / 4095),
        (tiff(TWELVE // 2, largest=1234), TWELVE // 2 / 65535),  # of this image: to scale by it would stretch contrast
        (tiff(RAMP.astype(np.float32)), RAMP.astype(np.float32)),
        (tiff(RAMP.astype(np.float32), order=">", photometric=0), 1 - RAMP.astype(np.float32)),
    ],
)
def test_a_tiff_says_what_its_values_mean(tmp_path, file, expected):
    (tmp_path / "x.tiff").write_bytes(file)
    assert np.abs(read(tmp_path / "x.tiff").astype(int) - 255 * expected[..., None]).max() <= 0.5 + 1e-4


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (tiff(SIXTEEN.astype(np.int32)), r"its mode is I .* whose range is not known: store it with 8 bits"),
        (tiff(SIXTEEN.astype(np.uint32)), "its mode is I .* whose range is not known"),
        (tiff(TWELVE.astype(np.int16)), "its mode is I .* whose range is not known"),
        (tiff(np.zeros((4, 4), np.int8)), "its mode is L with signed values"),
        (
            tiff(255 * RAMP.astype(np.float32)),
            r"its mode is F, whose values must lie in \[0, 1\] here, .* to 255.0",
        ),
        (tiff(np.full((4, 4), np.nan, np.float32)), r"its mode is F, .* nan to nan"),
        (tiff(SIXTEEN, largest=4095), r"its mode is I;16, whose values must lie in \[0, 4095\] here"),
        (tiff(TWELVE[..., None].repeat(3, 2), largest=4095), "its mode is RGB with 12 bits in 16"),
        (b"", "the file is empty"),
        (b"not an image", "it is none of JPEG, PNG"),
    ],
)
def test_values_without_a_known_range_are_refused(tmp_path, file, message):
    path = tmp_path / "x.tiff"
    path.write_bytes(file)
    with pytest.raises(ValueError, match=rf"^data.root holds {path}, which cannot be decoded: {message}"):
        read(path)
    with pytest.raises(ValueError, match=rf"1 of 1 images cannot be read: {path} \({message}"):
        check_image_files(tmp_path, [str(path)], "quick")


COLOURS = RANDOM.integers(0, 256, (16, 16, 3), dtype=np.uint8)
ALPHA = RANDOM.integers(0, 256, (16, 16, 1), dtype=np.uint8)
ON_WHITE = np.rint(COLOURS * (ALPHA / 255) + 255 * (1 - ALPHA / 255))


def transparent_palette():
    indices = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    indices.putpalette(COLOURS.tobytes())
    return indices


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        (Image.fromarray(np.concatenate([COLOURS, ALPHA], 2)), {}, ON_WHITE),
        (Image.fromarray(np.concatenate([COLOURS, 0 * ALPHA + 255], 2)), {}, COLOURS),
        (Image.fromarray(np.concatenate([COLOURS[..., :1], ALPHA], 2), "LA"), {}, ON_WHITE[..., :1]),
        (transparent_palette(), {"transparency": ALPHA.tobytes()}, ON_WHITE),
        (Image.fromarray(COLOURS[..., 0]), {"transparency": 7}, np.where(COLOURS == 7, 255, COLOURS)[..., :1]),
        (Image.fromarray(SIXTEEN), {"transparency": 0}, np.where(SIXTEEN == 0, 255, SIXTEEN / 257)[..., None]),
    ],
)
def test_transparency_lets_white_through(tmp_path, image, options, expected):
    image.save(tmp_path / "x.png", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.abs(read(tmp_path / "x.png") - expected).max() <= 0.5


def test_cmyk_of_a_jpeg_is_the_simple_product(tmp_path):
    inks = np.full((16, 16, 4), (200, 100, 30, 60), np.uint8)
    Image.fromarray(inks, "CMYK").save(tmp_path / "x.jpg", quality=100)
    expected = (255 - inks[..., :3].astype(float)) * (255 - inks[..., 3:]) / 255
    assert np.abs(read(tmp_path / "x.jpg") - expected).max() <= 3


def test_ycck_of_a_jpeg_is_the_simple_product_too(tmp_path):
    """Where Adobe's marker says YCCK, a luminance without colour is the same ink three times."""
    stored = io.BytesIO()
    Image.fromarray(np.full((16, 16, 4), (200, 127, 127, 60), np.uint8), "CMYK").save(stored, "JPEG", quality=100)
    content = bytearray(stored.getvalue())
    transform = content.index(b"Adobe") + 11
    assert content[transform] == 0
    content[transform] = 2
    (tmp_path / "x.jpg").write_bytes(content)
    assert np.abs(read(tmp_path / "x.jpg").astype(float) - 200 * (255 - 60) / 255).max() <= 3


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "MPO"])
def test_of_an_animation_it_is_the_first_picture(tmp_path, format):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("white", "black")]
    options = {"lossless": True} if format == "WEBP" else {}
    frames[0].save(tmp_path / "x.png", format, save_all=True, append_images=frames[1:], **options)
    assert (read(tmp_path / "x.png") == 255).all()


def test_the_pages_of_a_tiff_are_not_chosen_from(tmp_path):
    page = Image.new("L", (16, 16))
    page.save(tmp_path / "x.tiff", save_all=True, append_images=[page])
    with pytest.raises(ValueError, match="it has 2 pages"):
        read(tmp_path / "x.tiff")


def test_images_are_read_as_they_are_stored_and_it_is_told(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    write_image(tmp_path / "0.png")
    Image.fromarray(COLOURS).save(tmp_path / "1.png", exif=exif)
    assert (read(tmp_path / "1.png") == COLOURS).all()
    with pytest.warns(UserWarning, match=r"1 of 2 images are stored turned .*1\.png is the first"):
        check_image_files(tmp_path, [str(tmp_path / f"{i}.png") for i in range(2)], "quick")


def test_an_image_that_is_all_length_would_fill_the_memory(tmp_path):
    Image.new("L", (1, 1001)).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"it is 1×1001 pixels, .* 1000 times"):
        read(tmp_path / "x.png")


def test_a_decompression_bomb_is_one_error(tmp_path):
    header = b"P6 20000 20000 255\n"
    (tmp_path / "x.ppm").write_bytes(header + bytes(300))
    with pytest.raises(ValueError, match="exceeds limit"):
        read(tmp_path / "x.ppm")


def test_postscript_is_not_handed_to_ghostscript(tmp_path, monkeypatch):
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 1\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    path = tmp_path / "x.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(ValueError, match=f"^data.root holds {path}, .* none of JPEG"):
        read(path)
    with pytest.raises(ValueError, match="1 of 1 images cannot be read"):
        check_image_files(tmp_path, [str(path)], "decode")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("format", ["TGA", "PCX", "ICO", "SGI", "DDS"])
def test_other_formats_are_refused_whatever_their_name(tmp_path, format):
    assert format not in FORMATS
    stored = io.BytesIO()
    Image.fromarray(COLOURS).save(stored, format)
    (tmp_path / "x.png").write_bytes(stored.getvalue())
    with pytest.raises(ValueError, match=f"none of {', '.join(FORMATS)}"):
        read(tmp_path / "x.png")


def test_what_is_no_file_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", tmp_path, "/dev/zero"):
        with (
            within(2),
            pytest.raises(ValueError, match=f"^data.root holds {path}, .* is not a file but"),
        ):
            read(path)
    with within(2), pytest.raises(ValueError, match="1 of 1 images cannot be read"):
        check_image_files(tmp_path, [str(tmp_path / "pipe.png")], "quick")


@pytest.mark.parametrize(("values", "told"), [(TWELVE, True), (TWELVE * 16, False)])
def test_images_of_16_bits_that_hold_no_more_than_12_are_told(tmp_path, values, told):
    """Nothing says how many bits they have: they are read by the range of 16, and may be nearly black by that."""
    for name in ("0.png", "1.tiff"):
        Image.fromarray(values.astype(np.uint16)).save(tmp_path / name)
    paths = [str(tmp_path / name) for name in ("0.png", "1.tiff")]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_image_files(tmp_path, paths, "decode")
    assert [f"no value of 2 images of 16 bits is above {values.max()}" in str(one.message) for one in caught] == (
        [True] if told else []
    )
