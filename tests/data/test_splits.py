import re

import numpy as np
import pytest
import torch

from lightning_adv.data.splits import stratified_split

LABELS = np.array([0] * 50 + [1] * 30 + [2] * 20)


def test_every_class_is_held_out_in_proportion():
    rest, held_out = stratified_split(LABELS, 0.2, seed=0)
    assert np.bincount(LABELS[held_out]).tolist() == [10, 6, 4]
    assert np.bincount(LABELS[rest]).tolist() == [40, 24, 16]
    assert sorted([*rest, *held_out]) == list(range(100))
    assert (np.diff(rest) > 0).all()
    assert (np.diff(held_out) > 0).all()


def test_only_the_seed_decides():
    np.random.seed(1)
    torch.manual_seed(1)
    first = stratified_split(LABELS, 0.2, seed=3)[1].tolist()
    drawn = np.random.rand(), torch.rand(1).item()
    np.random.seed(1)
    torch.manual_seed(1)
    assert (np.random.rand(), torch.rand(1).item()) == drawn  # the split drew nothing
    assert stratified_split(LABELS.tolist(), 0.2, seed=3)[1].tolist() == first
    assert stratified_split(LABELS, 0.2, seed=4)[1].tolist() != first


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_a_fraction_outside_0_1_is_named(fraction):
    with pytest.raises(ValueError, match=r"^data.val_fraction must lie strictly between 0 and 1, got"):
        stratified_split(LABELS, fraction, seed=0, argument="data.val_fraction")


@pytest.mark.parametrize(
    ("labels", "fraction"),
    [([0, 0, 0, 1], 0.5), ([0, 0, 1, 1] * 10, 0.01), ([0, 0, 1, 1] * 10, 0.99), ([], 0.5)],
    ids=["one image of a class", "fewer held out than classes", "fewer kept than classes", "no images"],
)
def test_too_few_images(labels, fraction):
    with pytest.raises(ValueError, match=rf"^fraction = {fraction} cannot be split off .* from {len(labels)} images"):
        stratified_split(labels, fraction, seed=0)


@pytest.mark.parametrize("counts", [(24, 24), (2, 2), (2, 3, 30), (500, 20, 7)])
def test_the_shares_that_are_named_can_be_split_off(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    with pytest.raises(ValueError, match=r"fraction may be [\d.]+ to [\d.]+\.$") as caught:
        stratified_split(labels, 1e-4, seed=0)
    lower, upper = map(float, re.findall(r"may be ([\d.]+) to ([\d.]+)\.$", str(caught.value))[0])
    for share in (lower, upper):
        assert all(map(len, stratified_split(labels, share, seed=0)))
    for share in (lower - 1 / len(labels) - 1e-3, upper + 1 / len(labels) + 1e-3):
        with pytest.raises(ValueError, match=r"^fraction "):
            stratified_split(labels, share, seed=0)
