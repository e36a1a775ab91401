import pytest
import torch
from torch.utils.data import TensorDataset

from lightning_adv.data.sampler import EpochSampler, TrainLoader, split_keys


def sampler(count=10, *, epoch=0, seed=0, replicas=1, rank=0, drop_last=False):
    data = TensorDataset(torch.zeros(count))
    made = EpochSampler(data, num_replicas=replicas, rank=rank, seed=seed, drop_last=drop_last)
    made.set_epoch(epoch)
    return made


def order(**options):
    return [index for _, index in sampler(**options)]


def test_each_epoch_is_another_permutation_with_its_number():
    assert all(key[0] == 3 for key in sampler(epoch=3))
    assert sorted(order(epoch=3)) == list(range(10))
    orders = [order(count=20, epoch=epoch, seed=seed) for epoch in range(4) for seed in range(4)]
    assert len({tuple(o) for o in orders}) == 16  # seed + epoch would give 7
    assert order(count=20, epoch=2, seed=1) == orders[2 * 4 + 1]


def test_processes_share_the_order_of_one():
    alone = order(count=12)
    assert [
        i for pair in zip(*(order(count=12, replicas=2, rank=r) for r in (0, 1)), strict=True) for i in pair
    ] == alone


def test_uneven_counts_are_padded_or_dropped():
    padded = [order(count=7, replicas=2, rank=r) for r in (0, 1)]
    assert sorted({*padded[0], *padded[1]}) == list(range(7))
    assert [len(p) for p in padded] == [4, 4]
    dropped = [order(count=7, replicas=2, rank=r, drop_last=True) for r in (0, 1)]
    assert len({*dropped[0], *dropped[1]}) == 6


def test_skip_applies_once_and_keeps_the_length():
    made = sampler(epoch=1)
    full = list(made)
    made.skip = 4
    assert list(made) == full[4:]
    assert len(made) == 10
    assert list(made) == full


def test_split_keys():
    epoch, index = split_keys([(4, 7), (4, 2)])
    assert (epoch, index.tolist()) == (4, [7, 2])
    epoch, index = split_keys([7, 2])
    assert (epoch, index.tolist(), index.dtype) == (0, [7, 2], torch.int64)


def test_a_checkpoint_of_other_batches_is_refused():
    def loader(batch_size, count=12, replicas=1):
        order = sampler(count, replicas=replicas)
        return TrainLoader(order.dataset, batch_size=batch_size, sampler=order)

    saved = loader(batch_size=4).state_dict()
    loader(batch_size=2, replicas=2).load_state_dict(saved)  # the same images in each step
    with pytest.raises(ValueError, match=r"12 images in batches of 4 .*12 images in batches of 3: resume"):
        loader(batch_size=3).load_state_dict(saved)
    with pytest.raises(ValueError, match=r"now give 13 images"):
        loader(batch_size=4, count=13).load_state_dict(saved)
