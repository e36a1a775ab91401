import os
import shutil
import warnings

import pytest
from torchvision.datasets import ImageFolder

from lightning_adv.data.folders import find_images
from tests.data.fake_folder import write_class_folders, write_dataset, write_image


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


def one_class(root):
    for folder in ("train/dog", "train/fox"):
        shutil.rmtree(root / folder)


def broken_link(root):
    (root / "train" / "dog" / "000.png").unlink()
    (root / "train" / "dog" / "000.png").symlink_to(root / "gone.png")


def broken_class(root):
    shutil.rmtree(root / "train" / "dog")
    (root / "train" / "dog").symlink_to(root / "gone")


def link_in_a_circle(root):
    (root / "train" / "dog" / "again").symlink_to(root / "train")


def link_to_itself(root):
    (root / "train" / "dog" / "self.png").symlink_to(root / "train" / "dog" / "self.png")


def named_pipe(root):
    os.mkfifo(root / "train" / "dog" / "pipe.PNG")


def class_not_in_utf8(root):
    os.rename(root / "train" / "dog", os.fsencode(root / "train") + b"/w\xf6lf")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing_root, "is not a folder"),
        (root_is_a_file, "is not a folder"),
        (no_train, r"has no folder train/.*data\.test_fraction"),
        (no_test, "neither a folder test/ nor a folder val/"),
        (no_classes, r"whose train/ has 0 class folders \(none\)"),
        (class_without_images, r"train/ has no image for the classes dog: an image's name ends in \.jpg"),
        (one_class, r"whose train/ has 1 class folders \(cat\): a classifier needs two"),
        (broken_link, r"train/dog/000\.png is a link that leads nowhere"),
        (broken_class, r"train/dog is a link that leads nowhere"),
        (link_in_a_circle, r"train/dog/again is a link to a folder that it lies in"),
        (link_to_itself, r"train/dog/self\.png is a link that leads nowhere"),
        (named_pipe, r"train/dog/pipe\.PNG is not a file but a pipe, socket or device"),
        (class_not_in_utf8, r"whose class folder 'w\\udcf6lf' is not named in UTF-8"),
        (missing_test_class, "only in train/: dog; only in test/: none"),
        (unknown_test_class, "only in train/: none; only in test/: wolf"),
    ],
)
def test_an_unusable_folder_is_one_error(tmp_path, damage, message):
    root = write_dataset(tmp_path / "pets")
    damage(root)
    with pytest.raises(ValueError, match=rf"^data\.root is '{root}', .*{message}"):
        find_images(root, own_split=True)


def test_what_systems_leave_in_folders_is_no_image_and_no_class(tmp_path):
    root = write_dataset(tmp_path / "pets")
    plain = find_images(root, own_split=True)
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
        write_class_folders(root / "train", [name, f"cat/{name}"], images=1)
        write_class_folders(root / "test", [f"dog/{name}"], images=1)
    for name in ("._000.png", ".000.png", "Thumbs.db", ".DS_Store", "notes.txt"):
        (root / "train" / "cat" / name).write_bytes(b"no image")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_images(root, own_split=True) == plain


def test_images_are_found_in_folders_links_and_capital_letters_in_torchvisions_order(tmp_path):
    root, cat = write_dataset(tmp_path / "pets", images=2), tmp_path / "pets" / "train" / "cat"
    write_class_folders(cat, ["b", "a-b", "a", "a/x.png"], images=1)  # a folder may have an image's name
    write_image(cat / "Z.JPG")
    (cat / "link.png").symlink_to(root / "train" / "dog" / "000.png")
    (cat / "linked").symlink_to(root / "test" / "fox")
    os.rename(cat / "000.png", os.fsencode(cat) + b"/\xff.png")
    expected = ImageFolder(root / "train").samples
    assert len(expected) == 8 + 4 + 4
    assert find_images(root, own_split=True).train == expected


def test_images_that_are_left_out_are_told(tmp_path):
    root = write_dataset(tmp_path / "pets")
    (root / "train" / "cat" / "moving.GIF").write_bytes(b"GIF89a")
    write_image(root / "train" / "lost.png")
    with pytest.warns(UserWarning, match=r"2 files of train/ are left out, .*train/lost\.png is the first"):
        assert len(find_images(root, own_split=True).train) == 30


def test_train_and_test_are_no_classes(tmp_path):
    with pytest.raises(ValueError, match=r"^data.root is .* leave data.test_fraction out"):
        find_images(write_dataset(tmp_path), own_split=False)


def test_a_folder_without_permission_is_named(tmp_path, monkeypatch):
    root = write_dataset(tmp_path / "pets")

    def refuse(path):  # a real one would not stop a test that runs as root
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match=rf"^data\.root is '{root}', .*Permission denied"):
        find_images(root, own_split=True)
