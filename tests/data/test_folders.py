import io
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from lightning_adv.data.folders import check_images, find_images, read_image
from tests.data.fake_folder import write_class_folders, write_dataset, write_image

LARGE = (240, 200)  # more than 8 KiB as JPEG and as PNG: not decoded by the quick check unless it has no end


def names(root, samples):
    return [(path.removeprefix(f"{root}/"), label) for path, label in samples]


@pytest.mark.parametrize("test", ["test", "val"])
def test_train_and_test_folders(tmp_path, test):
    found = find_images(write_dataset(tmp_path, test, images=2), own_split=True)
    expected = [(f"train/{name}/00{i}.png", k) for k, name in enumerate(("cat", "dog", "fox")) for i in (0, 1)]
    assert names(tmp_path, found.train) == expected
    assert len(found.test) == 12
    assert names(tmp_path, found.test)[4] == (f"{test}/dog/000.png", 1)


def test_test_goes_before_val(tmp_path):
    write_class_folders(write_dataset(tmp_path) / "val", images=1)
    assert len(find_images(tmp_path, own_split=True).test) == 12


def test_class_folders_in_the_root(tmp_path):
    write_class_folders(tmp_path)
    train, test = find_images(tmp_path, own_split=False)
    assert (len(train), test) == (30, None)


def test_tiny_imagenet_as_distributed(tmp_path):
    for k, name in enumerate(("n01", "n02")):
        (tmp_path / "train" / name / "images").mkdir(parents=True)
        write_image(tmp_path / "train" / name / "images" / f"{name}_0.png", seed=k)
    (tmp_path / "val" / "images").mkdir(parents=True)
    (tmp_path / "test" / "images").mkdir(parents=True)  # without labels
    write_image(tmp_path / "val" / "images" / "val_0.png")
    table = tmp_path / "val" / "val_annotations.txt"
    table.write_text("val_0.png\tn02\t0\t0\t9\t9\n")
    train, test = find_images(tmp_path, own_split=True)
    assert names(tmp_path, train) == [("train/n01/images/n01_0.png", 0), ("train/n02/images/n02_0.png", 1)]
    assert names(tmp_path, test) == [("val/images/val_0.png", 1)]
    table.write_text("val_0.png\tn03\t0\t0\t9\t9\n")
    with pytest.raises(ValueError, match=r"^data.root is .*val_annotations.txt .*: n03"):
        find_images(tmp_path, own_split=True)


def missing_root(root):
    shutil.rmtree(root)


def root_is_a_file(root):
    shutil.rmtree(root)
    root.write_text("")


def no_train(root):
    shutil.rmtree(root / "train")


def no_test(root):
    shutil.rmtree(root / "test")


def no_classes(root):
    shutil.rmtree(root / "train")
    (root / "train").mkdir()


def class_without_images(root):
    shutil.rmtree(root / "train" / "dog")
    (root / "train" / "dog").mkdir()
    (root / "train" / "dog" / "notes.txt").write_text("")


def missing_test_class(root):
    shutil.rmtree(root / "test" / "dog")


def unknown_test_class(root):
    write_class_folders(root / "test", ["wolf"], images=1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing_root, "is not a folder"),
        (root_is_a_file, "is not a folder"),
        (no_train, r"has no folder train/.*data\.test_fraction"),
        (no_test, "neither a folder test/ nor a folder val/"),
        (no_classes, "find any class folder"),
        (class_without_images, r"no valid file for the classes dog\. Supported extensions are: \.jpg"),
        (missing_test_class, "only in train/: dog; only in test/: none"),
        (unknown_test_class, "only in train/: none; only in test/: wolf"),
    ],
)
def test_an_unusable_folder_is_one_error(tmp_path, damage, message):
    root = write_dataset(tmp_path / "pets")
    damage(root)
    with pytest.raises(ValueError, match=rf"^data\.root is '{root}', .*{message}"):
        find_images(root, own_split=True)


def test_a_folder_without_permission_is_named(tmp_path, monkeypatch):
    root = write_dataset(tmp_path / "pets")

    def refuse(path):  # a real one would not stop a test that runs as root
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match=rf"^data\.root is '{root}', .*Permission denied"):
        find_images(root, own_split=True)


@pytest.mark.parametrize("extension", ["jpg", "png"])
@pytest.mark.parametrize("size", [(32, 32), LARGE])
def test_truncated_images_are_found_and_named(tmp_path, extension, size):
    paths = [tmp_path / f"{i}.{extension}" for i in range(5)]
    for i, path in enumerate(paths):
        write_image(path, size, seed=i)
    assert (paths[0].stat().st_size > 8192) == (size == LARGE)
    texts = [str(path) for path in paths]
    check_images(tmp_path, texts, "quick")
    check_images(tmp_path, texts, "decode")
    whole = paths[3].read_bytes()
    for kept in (0, 10, len(whole) // 2, len(whole) - 200):
        paths[3].write_bytes(whole[:kept])
        for check in ("quick", "decode"):
            with pytest.raises(ValueError, match=rf"^data\.root is .* 1 of 5 images .*{paths[3]}"):
                check_images(tmp_path, texts, check)
        check_images(tmp_path, texts, "off")
        with pytest.raises(ValueError, match=rf"{paths[3]}, which cannot be decoded"):
            read_image(texts[3])


def test_many_unreadable_images_are_counted(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.jpg").write_text("not an image")
    with pytest.raises(ValueError, match=r"5 of 6 images cannot be read: .*0\.jpg.*2\.jpg.* \(and 2 more\)"):
        check_images(tmp_path, [str(tmp_path / f"{i}.jpg") for i in range(5)] + [write_and_name(tmp_path)], "quick")


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
    check_images(tmp_path, [str(tmp_path / f"{i}.jpg") for i in range(3)], "quick")


@pytest.mark.parametrize(("size", "check"), [(LARGE, "decode"), ((32, 32), "decode"), ((32, 32), "quick")])
def test_decoding_finds_damage_inside(tmp_path, size, check):
    path = tmp_path / "image.png"
    write_image(path, size)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20] = bytes(20)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="1 of 1 images cannot be read"):
        check_images(tmp_path, [str(path)], check)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_every_image_is_read_as_rgb(tmp_path, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    path = tmp_path / "image.tiff"
    Image.fromarray(pixels).convert(mode).save(path)
    image = read_image(str(path))
    assert (image.mode, image.size) == ("RGB", (8, 8))
