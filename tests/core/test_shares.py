import pytest
from scipy.stats import binomtest

from lightning_adv.core.shares import wilson_interval


@pytest.mark.parametrize(("correct", "total"), [(0, 10), (10, 10), (1, 1), (3, 7), (519, 1000), (9999, 10000)])
def test_against_scipy(correct, total):
    expected = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    assert wilson_interval(correct, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("correct", "total"), [(-1, 10), (11, 10), (0, 0)])
def test_counts_that_cannot_be(correct, total):
    with pytest.raises(ValueError, match="correct must lie in"):
        wilson_interval(correct, total)
