"""The section of saliency maps: its numbers are those of the functions, on the same draws for all networks."""

import sys

import pytest
import torch
from torch import nn

from lightning_adv.analysis.features import gini, grad_saliency, saliency_distances
from lightning_adv.analysis.images import saturate
from lightning_adv.attacks import FGSM
from lightning_adv.core.errors import UsageError
from lightning_adv.core.shares import NORMAL_975
from lightning_adv.interpretation import Crafted, Saliency, interpret
from lightning_adv.testing import check_section


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 3)).eval()


def images(n=5):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(n) % 3


NETWORKS = {"a": network(0), "b": network(1), "c": network(2)}


def found(section, networks=NETWORKS, **options):
    x, y = images()
    return interpret(networks, x, y, {"fgsm": FGSM(eps=0.1)}, [section], **options)["saliency"]


def test_numbers_are_means_over_images_with_intervals():
    result = found(Saliency(["grad"], images=4))
    rows = {(row.network, row.images, row.statistic): row for row in result.findings}
    versions = {"clean", "saturation 1024", "patch_shuffle 4", "fgsm"}
    assert {key[1] for key in rows} == versions
    assert len(rows) == len(result.findings) == len(versions) * (3 + 2 * 3 * 2)
    x, y = (each[:4] for each in images())
    saturated = {name: grad_saliency(each, saturate(x, 1024), y) for name, each in NETWORKS.items()}
    values = gini(saturated["b"])
    row = rows["b", "saturation 1024", "grad_gini"]
    assert row.value == pytest.approx(values.mean().item())
    assert row.high - row.value == pytest.approx(NORMAL_975 * values.std().item() / 2)
    assert row.count == 4
    distances = saliency_distances(saturated["a"], saturated["c"])
    assert rows["a", "saturation 1024", "grad_l2_to_c"].value == pytest.approx(distances.l2.mean().item())
    assert rows["a", "saturation 1024", "grad_cosine_to_c"].value == pytest.approx(distances.cosine.mean().item())
    own = [FGSM(eps=0.1)(NETWORKS[name], *images())[:4] for name in ("a", "b")]
    maps = [grad_saliency(NETWORKS[name], examples, y) for name, examples in zip(("a", "b"), own, strict=True)]
    assert rows["a", "fgsm", "grad_l2_to_b"].value == pytest.approx(saliency_distances(*maps).l2.mean().item())
    assert set(result.figures) == {"sparsity", "grad"}


@pytest.mark.slow
def test_it_keeps_what_sections_promise():
    check_section(lambda: Saliency(samples=3), NETWORKS, *images())


def test_numbers_do_not_depend_on_the_other_networks_nor_on_the_batch_size():
    section = {"methods": ["smooth_grad"], "samples": 5}
    together = [row for row in found(Saliency(**section)).findings if row.network == "b" and "gini" in row.statistic]
    alone = found(Saliency(**section), {"b": NETWORKS["b"]}, batch_size=2).findings
    assert [row[:4] for row in alone] == [row[:4] for row in together]
    assert [row.value for row in alone] == pytest.approx([row.value for row in together], rel=1e-5)


def test_a_network_without_gradients_has_no_numbers():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    nn.init.zeros_(flat[1].weight)
    result = found(Saliency(["grad"]), {"a": NETWORKS["a"], "flat": flat})
    assert {(row.network, row.statistic) for row in result.findings} == {("a", "grad_gini")}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"methods": ["lime"]}, "methods must be one of smooth_grad, grad, got 'lime'"),
        ({"methods": []}, "methods must be at least one"),
        ({"samples": 0}, "samples must be at least 1, got 0"),
        ({"transforms": {"patch_shuffle": [3]}}, "k must divide the height and the width"),
        ({"transforms": {"saturations": [3]}}, "Did you mean 'saturation'"),
    ],
)
def test_bad_input_is_told_before_anything_is_computed(given, told):
    with pytest.raises(UsageError, match=told):
        Saliency(**given).check((), Crafted([], {}, *images()))


def test_without_captum_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(UsageError, match=r"lightning-adv\[interpret\]"):
        found(Saliency())
