import numpy as np
import pytest
import torch
from scipy import stats

from lightning_adv.attacks.labels import choose_labels


@pytest.fixture
def logits():
    return torch.randn(6000, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def y():
    return torch.arange(6000) % 6


def _choose(choice, y, logits, seed=0):
    return choose_labels(choice, y, logits, torch.Generator().manual_seed(seed))


def test_labels_that_the_clean_logits_decide(y, logits):
    assert torch.equal(_choose("true", y, logits), y)
    assert (_choose("predicted", y, logits).numpy() == np.argmax(logits.numpy(), 1)).all()
    assert (_choose("least_likely", y, logits).numpy() == np.argmin(logits.numpy(), 1)).all()


def test_likely_targets_go_through_the_other_classes(y, logits):
    order = np.argsort(-logits.numpy(), 1)
    for turn in range(6):
        target = choose_labels("most_likely", y, logits, torch.Generator(), turn)
        others = order[order != y.numpy()[:, None]].reshape(6000, 5)
        assert (target.numpy() == others[:, turn % 5]).all()


def test_random_targets_are_uniform_over_the_other_classes(y, logits):
    target = _choose("random", y, logits)
    assert (target != y).all()
    for label in range(6):
        counts = np.bincount(target[y == label].numpy(), minlength=6)
        assert counts[label] == 0
        assert stats.chisquare(np.delete(counts, label)).pvalue > 0.001
