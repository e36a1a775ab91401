"""Images that are kept on the Trainer's device: the batches are the same, and only their indices are moved."""

from itertools import chain
from types import SimpleNamespace

import pytest
import torch

from lightning_adv.data import CIFAR10DataModule, DigitsDataModule, ImageFolderDataModule, to_images
from lightning_adv.data.in_memory import InMemoryDataset, UInt8Batch
from tests.commands.shortened import fit, results
from tests.data.fake_cifar10 import write_fake_cifar10
from tests.data.fake_folder import write_dataset

SIZES = {"batch_size": 16, "evaluation_batch_size": 7}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return the folder of each data set: 90 training images of CIFAR-10, 24 of the image folder."""
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        write_fake_cifar10(root / "cifar10", patch, images_per_batch=20)
        write_dataset(root / "pets")
        yield root


@pytest.fixture(params=["digits", "cifar10", "plain cifar10", "folder"])
def build(request, folders):
    """Return what makes a data module of one kind, whose Trainer is on a device and one of some processes."""

    def build(on_device, device="cpu", world_size=1, rank=0, **options):
        options = {**SIZES, **options, "on_device": on_device}
        if request.param == "digits":
            datamodule = DigitsDataModule(train_fraction=0.1, **options)
        elif request.param == "folder":
            folder = {"image_size": 32, "augmentation": "cifar", "in_memory": True, "val_fraction": 0.2}
            datamodule = ImageFolderDataModule(str(folders / "pets"), **folder, **options)
        else:
            augment = request.param == "cifar10"
            datamodule = CIFAR10DataModule(str(folders / "cifar10"), augment=augment, val_fraction=0.1, **options)
        datamodule.setup()
        strategy = SimpleNamespace(root_device=torch.device(device))
        datamodule.trainer = SimpleNamespace(
            world_size=world_size, global_rank=rank, train_dataloader=None, strategy=strategy
        )
        return datamodule

    return build


def loaders_of(datamodule):
    return [
        datamodule.train_dataloader(),
        datamodule.val_dataloader(),
        datamodule.test_dataloader(),
        datamodule.predict_dataloader(),
    ]


def images(batch):
    return to_images(batch) if isinstance(batch, UInt8Batch) else batch


def batches_of(datamodule):
    """Return (x, y) of two training epochs, the rest of a third after two batches, and every evaluation."""
    train, *others = loaders_of(datamodule)
    found = []
    for epoch, skip in ((0, 0), (1, 0), (2, 2 * datamodule.batch_size)):
        train.sampler.set_epoch(epoch)
        train.sampler.skip = skip
        found.append([images(batch) for batch in train])
    return found + [[images(batch) for batch in loader] for loader in others]


def assert_same_batches(found, expected):
    assert [len(part) for part in found] == [len(part) for part in expected]
    for (x, y), (other_x, other_y) in zip(chain(*found), chain(*expected), strict=True):
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)


@pytest.mark.slow
@pytest.mark.parametrize(("world_size", "rank"), [(1, 0), (2, 0), (2, 1)])
def test_the_batches_are_the_same(build, world_size, rank):
    process = {"world_size": world_size, "rank": rank}
    state = torch.get_rng_state()
    found = batches_of(build(True, **process, batch_size=8))
    assert torch.equal(torch.get_rng_state(), state)
    assert_same_batches(found, batches_of(build(False, **process, batch_size=8)))
    sizes = [[len(y) for _, y in part] for part in found]
    assert set(sizes[0] + sizes[1] + sizes[2]) <= {8}  # incomplete batches are left out
    assert len(sizes[2]) == max(len(sizes[1]) - 2, 0)
    assert any(part[-1] < 7 for part in sizes[3:])  # and are kept in evaluation


def test_a_training_set_smaller_than_a_batch(build):
    found = batches_of(build(True, batch_size=1000))
    assert len(found[0]) == 1
    assert_same_batches(found, batches_of(build(False, batch_size=1000)))


@pytest.mark.slow
def test_worker_processes_read_the_same(folders):
    options = {"val_fraction": 0.1, **SIZES}
    with_workers, on_device = (
        CIFAR10DataModule(str(folders / "cifar10"), **options, **kind)
        for kind in ({"num_workers": 2}, {"on_device": True})
    )
    for datamodule in (with_workers, on_device):
        datamodule.setup()
    assert_same_batches(batches_of(on_device), batches_of(with_workers))


def test_two_processes_evaluate_each_image_once(build):
    alone, *shares = (
        build(True, world_size=size, rank=rank).test_dataloader() for size, rank in ((1, 0), (2, 0), (2, 1))
    )
    whole, first, second = (torch.cat([images(batch)[0] for batch in loader]) for loader in (alone, *shares))
    assert torch.equal(first, whole[::2])
    assert torch.equal(second, whole[1::2])


def test_batches_are_made_on_the_device_and_nothing_is_read_from_it(build):
    """The meta device has no values: whatever waits for one, or is made on the CPU, raises or shows."""
    for loader in loaders_of(build(True, device="meta")):
        for batch in loader:
            tensors = [*(tensor for tensor in batch if tensor is not None), *images(batch)]
            assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_the_images_are_moved_once_and_not_kept_on_the_cpu(build):
    datamodule = build(True, device="meta")
    first, again = (loaders_of(datamodule) for _ in range(2))
    for loader, other in zip(first, again, strict=True):
        assert loader.dataset.images is other.dataset.images
        assert loader.dataset.labels is other.dataset.labels
    assert {split.images.device.type for split in datamodule._splits} == {"meta"}


@pytest.mark.parametrize("on_device", [False, True])
def test_memory_is_pinned_only_for_copies_to_a_gpu(build, on_device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert {loader.pin_memory for loader in loaders_of(build(on_device, device="meta"))} == {not on_device}


def test_without_a_trainer_the_images_stay_on_the_cpu():
    datamodule = DigitsDataModule(on_device=True)
    datamodule.setup()
    x, y = next(iter(datamodule.train_dataloader()))
    assert x.device == y.device == torch.device("cpu")


def test_a_device_without_enough_memory(build, monkeypatch):
    def refuse(self, device):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more")

    monkeypatch.setattr(InMemoryDataset, "to", refuse)
    message = r"^data.on_device is true, but the test images \(\d+ MB\) do not fit on meta: set it to false\.$"
    with pytest.raises(ValueError, match=message):
        build(True, device="meta").test_dataloader()


def test_worker_processes_are_refused(build):
    with pytest.raises(ValueError, match=r"^data.on_device needs data.num_workers 0, got 2: "):
        build(True, num_workers=2)


@pytest.mark.parametrize("augmentation", ["imagenet", "cifar", "none"])
def test_files_that_are_read_when_asked_for_are_refused(folders, augmentation):
    message = f"^data.on_device needs data.in_memory true .* got in_memory false and augmentation '{augmentation}'"
    with pytest.raises(ValueError, match=message):
        ImageFolderDataModule(str(folders / "pets"), augmentation=augmentation, on_device=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_run_of_the_command_ends_with_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = fit("--data.init_args.on_device=false", config="digits/standard")
    moved = fit("--data.init_args.on_device=true", config="digits/standard", version=1)
    assert "on_device: true" in (moved / "config.yaml").read_text()
    assert results(plain)["clean_accuracy"] == results(moved)["clean_accuracy"]
    weights, same = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in (plain, moved)
    )
    assert all(torch.equal(value, same[name]) for name, value in weights.items())
