"""Which images a network was trained on, and which it may be measured on."""

import pytest

from lightning_adv.data import DigitsDataModule
from lightning_adv.regimes.training_data import compare_data, data_of, dataset_name, describe_data
from tests.regimes.toy import ToyData


def digits(**arguments):
    data = DigitsDataModule(**arguments)
    data.setup()
    return data


def images(data, part):
    return {tuple(image.flatten().tolist()) for image in getattr(data._splits, part).images}


@pytest.fixture(scope="module")
def trained():
    return digits(seed=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "leaks"), [({"seed": 5}, True), ({"test_fraction": 0.3}, True), ({"val_fraction": 0.2}, False)]
)
def test_test_images_that_were_trained_on_are_refused_and_others_are_not(trained, arguments, leaks):
    """Whether there are such images is counted, image by image."""
    other = digits(**arguments)
    assert bool(images(other, "test") & images(trained, "train")) == leaks
    both = describe_data(trained), describe_data(other)
    if leaks:
        name, value = next(iter(arguments.items()))
        with pytest.raises(ValueError, match=rf"^ckpt_path: data.{name} is {value}, but .* split by "):
            compare_data(*both, "test", argument="ckpt_path")
    else:
        assert compare_data(*both, "test", argument="ckpt_path") is None
        with pytest.raises(ValueError, match=r"data.val_fraction is 0.2"):
            compare_data(*both, "validate", argument="ckpt_path")
    with pytest.raises(ValueError, match=rf"data.{next(iter(arguments))} is"):
        compare_data(*both, "train", argument="ckpt_path")


def test_the_same_images_in_other_batches_are_the_same(trained):
    other = describe_data(digits(batch_size=7, num_workers=1))
    for purpose in ("train", "validate", "test"):
        assert compare_data(describe_data(trained), other, purpose, argument="ckpt_path") is None


def test_another_data_set_is_told_and_no_run_goes_on_with_it(trained):
    both = describe_data(trained), describe_data(ToyData()) | {"image_shape": [1, 8, 8]}
    assert "trained on digits, and now it gets the images of toy" in compare_data(*both, "test", argument="checkpoint")
    with pytest.raises(ValueError, match="a run on digits, and it cannot go on with toy"):
        compare_data(*both, "train", argument="ckpt_path")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"class_names": ["zero", *"123456789"]}, "class 0 was '0' and is 'zero'"),
        ({"class_names": list("012345678")}, "there were 10, and now there are 9"),
        ({"image_shape": [1, 16, 16]}, r"shape \(1, 8, 8\), but those of digits have the shape \(1, 16, 16\)"),
    ],
)
@pytest.mark.parametrize("purpose", ["train", "test"])
def test_other_classes_and_sizes_are_refused(trained, other, message, purpose):
    before = describe_data(trained)
    with pytest.raises(ValueError, match=message):
        compare_data(before, before | other, purpose, argument="ckpt_path")


def test_a_set_that_has_changed_is_another(trained):
    before = describe_data(trained)
    now = before | {"fingerprints": before["fingerprints"] | {"test": "0" * 16}}
    with pytest.raises(ValueError, match="the test images of digits are not those of the run"):
        compare_data(before, now, "test", argument="ckpt_path")
    own = {"test_fraction": None}  # a folder of its own, whose images none was trained on
    assert "not those of the run" in compare_data(before | own, now | own, "test", argument="ckpt_path")


def test_the_same_set_under_another_name_is_found_by_its_images(trained):
    before = describe_data(trained) | {"name": "copy"}
    with pytest.raises(ValueError, match=r"data.seed is 5"):
        compare_data(before, describe_data(digits(seed=5)), "test", argument="ckpt_path")
    assert compare_data(before, describe_data(trained), "train", argument="ckpt_path") is None


def test_checkpoints_of_before_know_the_arguments(trained):
    arguments = {"_class_path": "lightning_adv.data.DigitsDataModule", "seed": 0, "val_fraction": 0.1}
    arguments |= {"train_fraction": 1.0, "test_fraction": 0.2}
    old = data_of({"regime": {"class_names": list("0123456789")}, "datamodule_hyper_parameters": arguments})
    assert compare_data(old, describe_data(trained), "train", argument="ckpt_path") is None
    with pytest.raises(ValueError, match=r"data.seed is 5"):
        compare_data(old, describe_data(digits(seed=5)), "test", argument="ckpt_path")
    assert data_of({"regime": {}}) is None


def test_a_data_module_without_a_name_goes_by_its_class():
    class Named(ToyData):
        name = None

    assert dataset_name(Named()) == "Named"
    assert dataset_name(None) is None
    assert compare_data(None, describe_data(ToyData()), "train", argument="ckpt_path") is None
