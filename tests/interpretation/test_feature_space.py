"""The section FeatureSpace: its numbers are what the functions give, and it says what it cannot look at."""

import pytest
import torch
from torch import nn

from lightning_adv.analysis.features import feature_layers, feature_vectors, separability
from lightning_adv.attacks import FGSM, Attack
from lightning_adv.interpretation import FeatureSpace, interpret
from lightning_adv.nn.zoo.small_cnn import SmallCNN

FAST = {"perplexity": 5, "points": 40, "positions": 3}


class Brighter(Attack):
    """Adds half of what is left to white: an attack that every linear classifier sees."""

    norm = "linf"

    def __init__(self, eps=0.5):
        self.eps = eps

    def __call__(self, model, x, y, *, domain=None, generator=None):
        return x + self.eps * (1 - x)


def small_cnn(seed):
    torch.manual_seed(seed)
    return SmallCNN(2, 1, 4).eval()


def look(section, networks, images=16, attacks=None, **options):
    drawn = torch.Generator().manual_seed(0)
    x, y = torch.rand(images, 1, 8, 8, generator=drawn), torch.randint(2, (images,), generator=drawn)
    attacks = {"brighter": Brighter(), "nothing": FGSM(eps=0)} if attacks is None else attacks
    return x, interpret(networks, x, y, attacks, [section], batch_size=5, **options)["feature_space"]


@pytest.mark.slow
def test_numbers_and_pictures_of_each_network_and_block():
    networks = {"one": small_cnn(0), "two": small_cnn(1)}
    x, found = look(FeatureSpace(**FAST, attacks=["brighter", "nothing"]), networks)
    table = {row[:4]: row for row in found.findings}
    statistics = ["overlap", "separability", "energy_distance", "energy_share"]
    assert list(table) == [
        (network, attack, layer, statistic)
        for attack in ("brighter", "nothing")
        for network in networks
        for layer in ("m1", "m2")
        for statistic in statistics
    ]
    assert all(row.low <= row.value <= row.high and row.count == 16 for row in found.findings)
    same = {"overlap": 1.0, "separability": 0.5, "energy_distance": 0.0, "energy_share": 0.0}
    for row in found.findings:
        if row.images == "nothing" and row.statistic != "overlap":
            assert row.value == pytest.approx(same[row.statistic], abs=1e-6)
    vectors = feature_vectors(networks["two"], x, x + 0.5 * (1 - x), feature_layers(networks["two"], (1, 8, 8)))
    expected = separability(vectors["m2"]).value  # behind m2 are 2 x 2 places, and 3 of them are taken
    assert expected > 0.7
    assert table["two", "brighter", "m2", "separability"].value == pytest.approx(expected, abs=0.15)
    assert list(found.figures) == ["map_brighter", "numbers_brighter", "map_nothing", "numbers_nothing"]
    assert [axes.get_ylabel() for axes in found.figures["map_brighter"].axes] == ["one", "", "two", ""]


@pytest.mark.slow
def test_a_network_has_the_same_numbers_alone_and_beside_another():
    first, second = (look(FeatureSpace(**FAST), each)[1] for each in (
        {"one": small_cnn(0)}, {"two": small_cnn(1), "one": small_cnn(0)},
    ))  # fmt: skip
    assert {row.images for row in first.findings} == {"brighter"}  # the first attack
    assert list(first.findings) == [row for row in second.findings if row.network == "one"]


@pytest.mark.parametrize(
    ("section", "options", "message"),
    [
        ({}, {"attacks": {}}, "feature_space compares clean images with adversarial examples: give an attack"),
        ({"attacks": ["brigter"]}, {}, "feature_space.attacks has 'brigter'; the attacks are brighter, nothing. .*"),
        ({"layers": "stage1"}, {}, "feature_space.layers of one has the pattern 'stage1', which no layer matches"),
        ({"perplexity": 5}, {"images": 4}, "feature_space needs at least 5 images, which are its folds, got 4"),
        ({"positions": 1}, {"images": 40}, r"feature_space.perplexity \(one behind m1\) must be at least 1 and below a "
         "third of the points of the map, got 30 and 80 points: 1 of each of 40 images"),
    ],
)  # fmt: skip
def test_what_cannot_be_looked_at(section, options, message):
    with pytest.raises(ValueError, match=message):
        look(FeatureSpace(**section), {"one": small_cnn(0)}, **options)


def test_a_network_of_one_stage_and_numbers_out_of_range():
    one = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2))
    with pytest.raises(ValueError, match=r"feature_space.layers of one: network .*: name the layers to look at"):
        look(FeatureSpace(), {"one": one})
    with pytest.raises(ValueError, match=r"positions must be at least 1, got 0"):
        FeatureSpace(positions=0)
