"""With scripted networks that read what the images say of their shapes and textures."""

import json

import pytest
import torch
from PIL import Image
from scipy import stats
from torch import nn

from lightning_adv.core.errors import UsageError
from lightning_adv.interpretation.interpreting import interpret
from lightning_adv.interpretation.sections.shape_bias import ShapeBias

NAMES = ["cat", "dog", "elephant"]
MAPPING = {"cat": [0, 3], "dog": [1], "elephant": [2, 4, 5]}


class Reads(nn.Module):
    """Takes an image for the class whose number its red (shape) or its green (texture) is; for neither, the third."""

    def __init__(self, channel):
        super().__init__()
        self.channel = channel

    def forward(self, x):
        said = (x.mean((2, 3)) * 10).round().long()
        neither = 3 - said[:, 0] - said[:, 1]
        chosen = neither if self.channel is None else said[:, self.channel]
        members = torch.tensor([3, 1, 4])[chosen.clamp(0, 2)]  # a member: the fine class that is most probable
        return nn.functional.one_hot(members, 6).float() * 9


@pytest.fixture
def images(tmp_path):
    """Two of each pair of classes, in folders of their shapes; some of another size."""
    for shape, name in enumerate(NAMES):
        (tmp_path / "images" / name).mkdir(parents=True)
        for texture, other in enumerate(NAMES):
            for number in range(2):
                colour = (round(25.5 * shape), round(25.5 * texture), 0)
                image = Image.new("RGB", (8 + 4 * number,) * 2, colour)
                image.save(tmp_path / "images" / name / f"{name}{number}-{other}{number + 10}.png")
    (tmp_path / "mapping.yaml").write_text(json.dumps(MAPPING))
    return tmp_path


def found(here, networks, mapping="mapping.yaml", folder="images", channels=3, **options):
    x = torch.zeros(2, channels, 8, 8)
    section = ShapeBias(str(here / folder), str(here / mapping))
    return interpret(networks, x, torch.tensor([0, 1]), {}, [section], batch_size=5, **options)["shape_bias"]


def test_who_decides_by_shape_has_bias_1_by_texture_0_and_by_neither_none(images):
    result = found(images, {"shape": Reads(0), "texture": Reads(1), "neither": Reads(None)})
    table = {(row.network, row.images, row.statistic): row for row in result.findings}
    for name, bias in (("shape", 1.0), ("texture", 0.0)):
        row = table[name, "cue conflict", "shape_bias"]
        expected = stats.binomtest(round(12 * bias), 12).proportion_ci(method="wilson")
        assert (row.value, row.count) == (bias, 12)  # of 18 images, 6 are no conflict
        assert (row.low, row.high) == pytest.approx((expected.low, expected.high))
        assert table[name, "cue conflict", f"{name}_decisions"].value == 1
        assert table[name, "cue conflict, dog", "shape_bias"].value == bias
        assert table[name, "cue conflict, dog", "shape_bias"].count == 4
    assert ("neither", "cue conflict", "shape_bias") not in table
    assert table["neither", "cue conflict", "other_decisions"].value == 1
    assert set(result.figures) == {"examples", "by_shape"}
    axes = result.figures["by_shape"].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == NAMES
    assert axes.lines[0].get_xdata().tolist() == [100] * 3
    panel = result.figures["examples"].axes[0]
    assert (panel.get_title(), panel.get_xlabel()) == ("cat0-dog10", "shape: cat\ntexture: dog\nneither: elephant")


def test_who_never_decides_for_either_has_no_picture_of_a_bias(images):
    assert set(found(images, {"neither": Reads(None)}).figures) == {"examples"}


def test_members_may_be_named(images):
    names = ["tabby", "beagle", "african", "lynx", "indian", "tusker"]
    named = {"cat": ["tabby", "lynx"], "dog": [1], "elephant": ["african", "indian", 5]}
    (images / "named.json").write_text(json.dumps(named))
    networks = {"shape": Reads(0)}
    by_name = found(images, networks, "named.json", class_names=names)
    assert by_name.findings == found(images, networks).findings


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"mapping": "none.yaml"}, "mapping: .*none.yaml cannot be used"),
        ({"mapping": "empty.yaml"}, "mapping: .*empty.yaml cannot be used: the mapping must have two classes at least"),
        ({"mapping": "large.yaml"}, "mapping: .* the mapping's 'dog' has 6; the data set's classes are from 0 to 5"),
        ({"folder": "empty"}, "folder is .*empty', which has no image"),
        ({"folder": "odd"}, "odd/cat7.png is not named after its shape and its texture"),
        ({"folder": "same"}, "no image has its shape and its texture of two classes"),
        ({"channels": 1}, "cue-conflict images have 3 channels, but the networks take 1"),
    ],
)
def test_bad_input_is_told(images, options, told):
    for folder, name in (("empty", None), ("odd", "cat7.png"), ("same", "cat1-cat2.png")):
        (images / folder).mkdir()
        if name is not None:
            Image.new("RGB", (8, 8)).save(images / folder / name)
    (images / "empty.yaml").write_text("")
    (images / "large.yaml").write_text(json.dumps(MAPPING | {"dog": [6]}))
    with pytest.raises(UsageError, match=told):
        found(images, {"grey": nn.Flatten()} if "channels" in options else {"shape": Reads(0)}, **options)
    with pytest.raises(UsageError, match="pictures must be at least 1"):
        ShapeBias("a", "b", pictures=0)
