"""Metrics of a stage, and the images that a padded sampler gives to two processes."""

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from lightning_adv.regimes import StandardTraining
from lightning_adv.regimes.metrics import ends_with_repetition
from tests.regimes.toy import ATTACK, BACKBONE, ToyData, quiet_trainer


def loader(images, replicas, rank, batch_size, **options):
    data = TensorDataset(torch.arange(images))
    sampler = DistributedSampler(data, replicas, rank, **options)
    return DataLoader(data, batch_size=batch_size, sampler=sampler)


@pytest.mark.parametrize("images", [4, 5, 7, 8, 9])
@pytest.mark.parametrize("replicas", [1, 2, 3])
@pytest.mark.parametrize("shuffle", [True, False])
def test_all_processes_together_keep_every_image_once(images, replicas, shuffle):
    kept = []
    for rank in range(replicas):
        part = loader(images, replicas, rank, 2, shuffle=shuffle)
        for k, (batch,) in enumerate(part):
            kept += batch[:-1].tolist() if ends_with_repetition(part, k) else batch.tolist()
    assert sorted(kept) == list(range(images))


def test_a_loader_of_one_process_repeats_nothing():
    assert not ends_with_repetition(DataLoader(TensorDataset(torch.arange(5)), batch_size=2), 2)
    assert not any(ends_with_repetition(loader(5, 2, 1, 2, drop_last=True), k) for k in range(2))


def test_a_batch_of_nothing_but_the_repetition(tmp_path):
    """The second of two processes has two images and one that the first has too, in batches of two."""

    class Padded(ToyData):
        def test_dataloader(self):
            images = TensorDataset(self.x[:5], self.y[:5])
            return DataLoader(images, batch_size=2, sampler=DistributedSampler(images, 2, 1, shuffle=False))

    module = StandardTraining(BACKBONE, num_classes=2, evaluation_attack=ATTACK)
    trainer = quiet_trainer(tmp_path, use_distributed_sampler=False)
    assert trainer.test(module, Padded(), verbose=False)[0]["test/images"] == 2
