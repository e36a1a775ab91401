"""The answers of a network that would answer otherwise in train mode, or with its batches put together."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from lightning_adv.attacks.logits import logits_in_batches
from lightning_adv.testing.untouched import Snapshot


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, x):
        self.sizes.append(len(x))
        return x


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Dropout(0.5), nn.Linear(12, 4))
    network(torch.rand(64, 3, 2, 2))  # running statistics that are not those of a batch
    return network


@pytest.mark.parametrize(("batch_size", "sizes"), [(None, [10]), (4, [4, 4, 2]), (10, [10]), (99, [10])])
def test_eval_mode_in_batches_and_back(network, batch_size, sizes):
    x = torch.rand(10, 3, 2, 2)
    expected = deepcopy(network).eval()(x).detach()
    counts = Counts()
    before = Snapshot(network)
    parts = logits_in_batches(nn.Sequential(counts, network), x, batch_size=batch_size)
    assert [len(part) for part in parts] == counts.sizes == sizes
    torch.testing.assert_close(torch.cat(parts), expected)
    assert not any(part.requires_grad for part in parts)
    assert before.difference() is None


def test_no_images_are_one_empty_batch(network):
    assert [tuple(part.shape) for part in logits_in_batches(network, torch.rand(0, 3, 2, 2))] == [(0, 4)]
