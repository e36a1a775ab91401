import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule
from torch.utils.data import DataLoader, IterableDataset, SubsetRandomSampler, TensorDataset, WeightedRandomSampler

from lightning_adv.callbacks.fixed_images import split_size, take_images
from lightning_adv.regimes import MadryTraining
from tests.regimes.toy import ATTACK, BACKBONE, ToyData, quiet_trainer


class Taker(Callback):
    """Takes a taken when training starts."""

    def __init__(self, **arguments):
        self.arguments = {
            "split": "validation",
            "images": 20,
            "default": 8,
            "batch_size": 8,
            "observer": "taker",
        } | arguments
        self.taken = self.size = None

    def on_train_start(self, trainer, pl_module):
        before = torch.get_rng_state(), np.random.get_state()[1].copy()
        self.taken = take_images(trainer, pl_module, **self.arguments)
        self.size = split_size(trainer, "validation", "taker")
        assert torch.equal(before[0], torch.get_rng_state())
        assert np.array_equal(before[1], np.random.get_state()[1])


class OtherValidation(ToyData):
    """Validation images that are told apart: image i is i/100 everywhere."""

    def val_dataloader(self):
        x = torch.arange(30).view(-1, 1, 1, 1).expand(30, 1, 8, 8) / 100
        return DataLoader(TensorDataset(x.float(), torch.arange(30) % 2), batch_size=7)


def take(tmp_path, seed=0, data=OtherValidation, **arguments):
    torch.manual_seed(seed)
    taker = Taker(**arguments)
    module = MadryTraining(BACKBONE, num_classes=2, attack=ATTACK, evaluation_attack=ATTACK)
    module.seed = seed
    quiet_trainer(tmp_path, callbacks=[taker], check_val_every_n_epoch=5).fit(module, data())
    return taker


def which(taken):
    return [round(100 * image.mean().item()) for batch in taken.batches for image in batch.x]


def test_images_are_drawn_without_repetition_and_go_with_their_labels(tmp_path):
    taker = take(tmp_path)
    drawn = which(taker.taken)
    assert (taker.taken.size, taker.taken.count, taker.size) == (20, 3, 30)
    assert len(set(drawn)) == 20
    assert set(drawn) <= set(range(30))
    assert drawn != sorted(drawn)
    assert [len(batch.x) for batch in taker.taken.batches] == [8, 8, 4]
    assert [batch.index for batch in taker.taken.batches] == [0, 1, 2]
    assert torch.cat([batch.y for batch in taker.taken.batches]).tolist() == [i % 2 for i in drawn]


@pytest.mark.slow
def test_seed_and_observer_choose_the_images_and_their_noise(tmp_path):
    takens = [take(tmp_path, **a).taken for a in ({}, {}, {"seed": 1}, {"observer": "another"})]
    drawn = [which(taken) for taken in takens]
    seeds = [[batch.seed for batch in taken.batches] for taken in takens]
    assert (drawn[0], seeds[0]) == (drawn[1], seeds[1])
    assert len({tuple(d) for d in drawn}) == 3
    assert len({seed for batches in seeds for seed in batches}) == 9


def test_noise_starts_anew_in_each_look(tmp_path):
    batch = take(tmp_path).taken.batches[0]
    draws = [torch.rand(2, generator=batch.to(torch.device("cpu"))[2]) for _ in range(2)]
    assert torch.equal(*draws)


@pytest.mark.parametrize(("default", "size"), [(8, 8), (256, 30)])
def test_without_a_number_it_takes_the_default_or_all(tmp_path, default, size):
    assert take(tmp_path, images=None, default=default).taken.size == size


def test_more_images_than_there_are(tmp_path):
    with pytest.raises(ValueError, match=r"taker\.images is 31, but the validation set has 30 images"):
        take(tmp_path, images=31)


class Stream(IterableDataset):
    def __iter__(self):
        yield from [(torch.zeros(1, 8, 8), torch.tensor(0))] * 8


class Streamed(ToyData):
    def val_dataloader(self):
        return DataLoader(Stream(), batch_size=4)


class Unvalidated(ToyData):
    val_dataloader = LightningDataModule.val_dataloader


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Streamed, "taker takes its validation images by their index.*got a DataLoader over a Stream"),
        (Unvalidated, "taker needs validation images, and the Trainer has no validation loader"),
    ],
)
def test_data_without_an_index(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        take(tmp_path, data=data)


class HeldOut(OtherValidation):
    """Holds images 20 to 29 out with a sampler over all of them."""

    sampler = SubsetRandomSampler(range(20, 30))

    def val_dataloader(self):
        return DataLoader(super().val_dataloader().dataset, batch_size=7, sampler=self.sampler)


@pytest.mark.slow
def test_only_images_that_the_sampler_gives(tmp_path):
    taker = take(tmp_path, data=HeldOut, images=10)
    assert sorted(which(taker.taken)) == list(range(20, 30))
    assert taker.size == 10
    with pytest.raises(ValueError, match="the validation set has 10 images"):
        take(tmp_path, data=HeldOut, images=11)


@pytest.mark.slow
def test_a_sampler_that_nobody_knows(tmp_path):
    class Weighted(HeldOut):
        sampler = WeightedRandomSampler([1.0] * 10 + [0.0] * 20, num_samples=10)

    with pytest.raises(ValueError, match=r"cannot tell which images a WeightedRandomSampler gives.*Subset"):
        take(tmp_path, data=Weighted)


@pytest.mark.slow
def test_hooks_know_that_these_are_validation_images(tmp_path):
    class Augments(OtherValidation):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            x, y = batch
            return (torch.zeros_like(x) if self.trainer.training else x), y

    taker = take(tmp_path, data=Augments)
    assert len(set(which(taker.taken))) == 20
    assert max(which(take(tmp_path, data=Augments, split="training").taken)) == 0
