"""Calibration errors that are known by hand, and by a sum over bins."""

import numpy as np
import pytest
import torch

from lightning_adv.analysis.signals import calibration_error


def with_confidence(*confidences):
    """Logits of two classes with these probabilities for class 0."""
    p = torch.tensor(confidences, dtype=torch.float64)
    return torch.stack([p.log(), (1 - p).log()], 1)


def test_by_hand():
    """Three images at 0.9, two of them right: 0.9 - 2/3; one at 0.6, right: 0.4 of a quarter."""
    logits, y = with_confidence(0.9, 0.9, 0.9, 0.6), torch.tensor([0, 0, 1, 0])
    assert calibration_error(logits, y) == pytest.approx(0.75 * (0.9 - 2 / 3) + 0.25 * 0.4, abs=1e-6)


def test_by_bins():
    logits, y = 3 * torch.randn(500, 4), torch.randint(4, (500,))
    probabilities = logits.double().softmax(1).numpy()
    confidence, right = probabilities.max(1), probabilities.argmax(1) == y.numpy()
    cells = np.minimum((confidence * 10).astype(int), 9)
    expected = sum(abs(confidence[cells == c].sum() - right[cells == c].sum()) for c in range(10)) / 500
    assert calibration_error(logits, y, bins=10) == pytest.approx(expected, abs=1e-6)


def test_logits_that_look_like_probabilities_are_logits():
    logits = torch.tensor([[0.2, 0.8]])
    assert calibration_error(logits, torch.tensor([1])) == pytest.approx(1 - logits.softmax(1)[0, 1].item(), abs=1e-6)


def test_half_precision_is_widened():
    logits, y = with_confidence(0.9, 0.9, 0.6), torch.tensor([0, 1, 0])
    assert calibration_error(logits.bfloat16(), y) == calibration_error(logits.bfloat16().float(), y)


def test_errors():
    logits, y = with_confidence(0.9, 0.6), torch.tensor([0, 1])
    for call, told in [
        (lambda: calibration_error(logits[:, :1], y), r"must give logits \(2, K\)"),
        (lambda: calibration_error(logits, y + 1), r"y must lie in \[0, 2\), got labels from 1 to 2"),
        (lambda: calibration_error(logits, y, bins=0), "bins must be at least 1, got 0"),
        (lambda: calibration_error(logits[:0], y[:0]), "at least one label"),
    ]:
        with pytest.raises(ValueError, match=told):
            call()
