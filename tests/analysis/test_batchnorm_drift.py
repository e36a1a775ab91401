"""Distances between running statistics: against torch's distributions, closed forms and loops by hand."""

import math
from itertools import pairwise

import pytest
import timm
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from lightning_adv.analysis.batchnorm_drift import (
    ChannelStatistics,
    average_over_layers,
    drift_records,
    running_statistics,
    sample_channels,
    symmetric_kl,
    tracked_batchnorms,
)
from lightning_adv.core.table import Record
from lightning_adv.nn.backbones import Backbone


def statistics(mean, variance, eps=0.0):
    return ChannelStatistics(torch.tensor(mean), torch.tensor(variance), eps)


def drawn(seed, channels=5):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(channels, generator=generator)
    return ChannelStatistics(mean, torch.rand(channels, generator=generator) + 0.1, 1e-5)


# What a network has ---------------------------------------------------------------------------------------------------


def test_running_statistics_are_copies():
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2, eps=0.25))
    network[1].running_mean.copy_(torch.tensor([1.0, 2.0]))
    found = running_statistics(network)
    network[1].running_mean.zero_()
    network[1].running_var.zero_()
    assert list(found) == ["1"]
    assert found["1"].mean.tolist() == [1, 2]
    assert found["1"].variance.tolist() == [1, 1]
    assert found["1"].eps == 0.25


@pytest.mark.parametrize(
    ("of_network", "expected"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_precision_of_the_copies(of_network, expected):
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)).to(of_network)
    found = running_statistics(network)["1"]
    assert (found.mean.dtype, found.variance.dtype) == (expected, expected)


def test_batchnorm_with_an_activation_inside():
    network = Backbone("efficientnet_b0").build(2)
    found = running_statistics(network, layers="blocks.0.**")
    assert list(found) == ["blocks.0.0.bn1", "blocks.0.0.bn2"]
    assert len(running_statistics(network)) == 49
    assert isinstance(tracked_batchnorms(network)["bn1"], timm.layers.BatchNormAct2d)


def test_without_running_statistics():
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.BatchNorm2d(2, track_running_stats=False))
    assert list(running_statistics(network)) == ["1"]
    none = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2, track_running_stats=False))
    with pytest.raises(ValueError, match=r"a Sequential, has BatchNorms \(1\), but none with running statistics"):
        running_statistics(none)
    with pytest.raises(ValueError, match="a Sequential, has no BatchNorm"):
        running_statistics(nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()))


# Sampled channels -----------------------------------------------------------------------------------------------------


def test_sampled_channels():
    norms = {name: nn.BatchNorm2d(64) for name in ("a", "b", "c")}
    norms["b"] = nn.BatchNorm2d(7)
    torch.manual_seed(1)
    sampled = sample_channels(norms, "**", 20)
    torch.manual_seed(2)
    assert sample_channels(norms, "**", 20) == sampled
    assert sampled["b"] == list(range(7))
    assert sampled["a"] != sampled["c"]
    for name in ("a", "c"):
        assert len(sampled[name]) == 20
        assert all(low < high for low, high in pairwise(sampled[name]))
        assert set(sampled[name]) <= set(range(64))
    assert list(sample_channels(norms, None, 3)) == ["b"]
    assert sample_channels({"c": norms["c"]}, None, 20) == {"c": sampled["c"]}, "the name alone decides"
    with pytest.raises(ValueError, match=r"^layers has the pattern 'd'"):
        sample_channels(norms, "d", 20)


def test_sampled_channels_stay_the_same_from_run_to_run():
    """Written down: another choice would break the tables of runs that are resumed."""
    assert sample_channels({"layer2.0.bn1": nn.BatchNorm2d(128)}, None, 5) == {"layer2.0.bn1": [38, 40, 70, 75, 82]}


# Distances ------------------------------------------------------------------------------------------------------------


def test_symmetric_kl_against_torch():
    a, b = drawn(0), ChannelStatistics(*drawn(1)[:2], 0.5)
    p, q = (Normal(s.mean.double(), (s.variance.double() + s.eps).sqrt()) for s in (a, b))
    expected = kl_divergence(p, q) + kl_divergence(q, p)
    torch.testing.assert_close(symmetric_kl(a, b), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(symmetric_kl(b, a), expected, rtol=1e-12, atol=0)


def test_symmetric_kl_by_hand():
    """Equal variances 4, means 2 apart: 2² · (1/4 + 1/4) / 2 = 1. Variances 1 and 4: (1/4 + 4 - 2) / 2 = 9/8."""
    apart = symmetric_kl(statistics([0.0, 0.0], [3.0, 0.0], 1.0), statistics([2.0, 0.0], [3.5, 3.5], 0.5))
    assert apart.tolist() == [1.0, 9 / 8]


def test_symmetric_kl_is_exact_where_it_is_small_or_large():
    same = statistics([3.0, -1e20], [0.0, 1e30], 1e-5)
    assert symmetric_kl(same, same).tolist() == [0, 0]
    close = symmetric_kl(
        ChannelStatistics(torch.zeros(1), torch.ones(1, dtype=torch.float64), 0.0),
        ChannelStatistics(torch.zeros(1), torch.ones(1, dtype=torch.float64) + 1e-9, 0.0),
    )
    assert close.item() == pytest.approx(0.5e-18, rel=1e-6)
    far = symmetric_kl(statistics([0.0], [1e-30]), statistics([0.0], [1e30]))
    assert far.item() == pytest.approx(0.5e60, rel=1e-6)


# The table ------------------------------------------------------------------------------------------------------------


def test_records_against_loops():
    now = {d: {n: drawn(10 * i + j) for j, n in enumerate("ab")} for i, d in enumerate(("main", "adversarial"))}
    start = {d: {n: drawn(100 + 10 * i + j) for j, n in enumerate("abc")} for i, d in enumerate(now)}
    records = drift_records(now, {"start": start}, {"b": [1, 4]})
    found = {(r.name, r.domain, r.statistic): r.value for r in records}
    assert len(found) == len(records)
    expected = {}
    for domain, layers in now.items():
        for name, own in layers.items():
            others = {"start": start[domain][name]} | ({"main": now["main"][name]} if domain != "main" else {})
            expected[name, domain, "running_mean"] = sum(own.mean.tolist()) / 5
            expected[name, domain, "running_variance"] = sum(own.variance.tolist()) / 5
            for reference, other in others.items():
                means = [x - y for x, y in zip(own.mean.tolist(), other.mean.tolist(), strict=True)]
                variances = [x - y for x, y in zip(own.variance.tolist(), other.variance.tolist(), strict=True)]
                expected[name, domain, f"mean_from_{reference}"] = sum(map(abs, means)) / 5
                expected[name, domain, f"variance_from_{reference}"] = sum(map(abs, variances)) / 5
                kl = [
                    kl_divergence(Normal(m, math.sqrt(v + 1e-5)), Normal(n, math.sqrt(w + 1e-5))).item()
                    for (m, v, n, w) in [
                        *zip(own.mean, own.variance, other.mean, other.variance, strict=True),
                        *zip(other.mean, other.variance, own.mean, own.variance, strict=True),
                    ]
                ]
                expected[name, domain, f"kl_from_{reference}"] = sum(kl) / 5
                if reference == "main":
                    expected[name, domain, "signed_mean_from_main"] = sum(means) / 5
                    expected[name, domain, "signed_variance_from_main"] = sum(variances) / 5
            for channel in (1, 4) if name == "b" else ():
                expected[name, domain, f"running_mean[{channel}]"] = own.mean[channel].item()
                expected[name, domain, f"running_variance[{channel}]"] = own.variance[channel].item()
    assert found == pytest.approx(expected, rel=1e-4)


def test_average_over_layers():
    records = [Record(name, domain, "kl", v) for name, domain, v in (("a", "m", 1), ("b", "m", 3), ("a", "x", 9))]
    assert average_over_layers(records, "kl", ["m"]) == 2
    assert average_over_layers(records, "kl", ["m", "x"]) == pytest.approx(13 / 3)
    assert math.isnan(average_over_layers(records, "other", ["m"]))
