import pytest
import torch
from scipy import stats

from lightning_adv.analysis.images.cue_conflict import (
    Cues,
    Decisions,
    coarse_decisions,
    count_decisions,
    parse_cues,
    parse_mapping,
)
from lightning_adv.core.errors import UsageError
from tests.seeded import seeded

CLASSES = ["airplane", "cat", "elephant", "polar bear"]


def test_names_say_the_shape_and_the_texture():
    assert parse_cues("cat7-elephant2.png", CLASSES) == Cues("cat", "elephant")
    assert parse_cues("/data/cat/cat10-airplane1.JPEG", CLASSES) == Cues("cat", "airplane")
    assert parse_cues("polar bear1-cat12.png", CLASSES) == Cues("polar bear", "cat")
    assert parse_cues("cat-elephant.png", CLASSES) == Cues("cat", "elephant")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("cat7.png", "cat7.png is not named after its shape and its texture, as cat7-elephant2.png is"),
        ("7-2.png", "is not named after"),
        ("cat7-.png", "is not named after"),
        ("cat7-elefant2.png", "'elefant', which is none of the 4 classes of the mapping. Did you mean .*elephant"),
    ],
)
def test_names_that_do_not_parse_are_told(name, told):
    with pytest.raises(UsageError, match=told):
        parse_cues(name, CLASSES)


def test_a_coarse_class_has_the_mean_of_its_members():
    """Many members do not win by their number; against a loop."""
    probabilities = torch.rand(50, 9, generator=seeded()).softmax(1)
    mapping = {"cat": [0, 4, 5, 8], "dog": [2], "car": [1, 7]}
    for row, made in zip(probabilities.tolist(), coarse_decisions(probabilities, mapping), strict=True):
        means = {name: sum(row[k] for k in members) / len(members) for name, members in mapping.items()}
        assert made == max(means, key=lambda name: means[name])
    assert len(set(coarse_decisions(probabilities, mapping))) == 3
    with pytest.raises(UsageError, match="the mapping has the class 9, but the network knows 9"):
        coarse_decisions(probabilities, {"cat": [9], "dog": [0]})


def test_who_decides_by_shape_has_the_bias_1_and_by_texture_0():
    cues = [Cues(shape, texture) for shape in CLASSES for texture in CLASSES]
    by_shape = count_decisions([each.shape for each in cues], cues)
    assert by_shape == Decisions(shape=12, texture=0, neither=0)  # four of sixteen are no conflict
    assert by_shape.bias.accuracy == 1
    assert by_shape.total == 12
    assert count_decisions([each.texture for each in cues], cues).bias.accuracy == 0
    neither = count_decisions(["dog"] * 16, cues)
    assert neither == Decisions(0, 0, 12)
    assert neither.bias is None


def test_the_interval_is_wilsons():
    found = Decisions(shape=31, texture=52, neither=40).bias
    expected = stats.binomtest(31, 83).proportion_ci(method="wilson")
    assert found.accuracy == 31 / 83
    assert found.interval == pytest.approx((expected.low, expected.high))


def test_a_mapping_has_indices_or_names():
    names = ["tabby", "beagle", "lynx"]
    assert parse_mapping({"cat": ["tabby", "lynx"], "dog": [1]}, names) == {"cat": [0, 2], "dog": [1]}
    assert parse_mapping({"cat": [281, 282], "dog": [0]}) == {"cat": [281, 282], "dog": [0]}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "the mapping must have two classes at least, .*; got None"),
        ({}, "two classes at least"),
        ({"cat": [0]}, "two classes at least, .*; got 1 of them"),
        (
            {"cat": [0], "dog": []},
            r"the mapping's 'dog' must be a name with a list of the data set's classes, got \[\]",
        ),
        ({"cat": [0], 3: [1]}, "the mapping's 3 must be a name"),
        ({"cat": [0], "dog": 1}, "the mapping's 'dog' must be a name with a list"),
        ({"cat": ["tabbi"], "dog": [1]}, "the mapping's 'cat' has 'tabbi', which is no class.* Did you mean .*tabby"),
        ({"cat": [3], "dog": [1]}, "the mapping's 'cat' has 3; the data set's classes are from 0 to 2"),
        ({"cat": [True], "dog": [1]}, "the mapping's 'cat' has True"),
        ({"cat": [1], "dog": ["beagle"]}, "the mapping has the class 1 of the data set twice"),
    ],
)
def test_a_mapping_of_something_else_is_told(content, told):
    with pytest.raises(UsageError, match=told):
        parse_mapping(content, ["tabby", "beagle", "lynx"])


def test_names_without_a_data_set_that_has_some_are_told():
    with pytest.raises(UsageError, match="has 'tabby': the data set has no names, only indices from 0"):
        parse_mapping({"cat": ["tabby"], "dog": [1]})
