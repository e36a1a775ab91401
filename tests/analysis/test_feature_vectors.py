"""Vectors behind blocks: where they are taken, and that both kinds are taken at the same places."""

import pytest
import timm
import torch
from torch import nn

from lightning_adv.analysis.features import feature_layers, feature_vectors
from lightning_adv.analysis.features.vectors import FeatureVectors, thin_out
from lightning_adv.nn.batchnorm import convert_batchnorm, through
from lightning_adv.nn.zoo.small_cnn import SmallCNN


def small_cnn():
    torch.manual_seed(0)
    return SmallCNN(2, 1, 4)


def maps(images=7, side=6):
    """Images whose channels are the row, the column and the number of the image."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    number = torch.arange(images)[:, None, None].expand(-1, side, side)
    return torch.stack([rows.expand(images, -1, -1), columns.expand(images, -1, -1), number], 1).float()


class Seen(nn.Module):
    """Gives images on as they are, and remembers how many came at a time."""

    def __init__(self, change=lambda x: x):
        super().__init__()
        self.inner, self.head = nn.Identity(), nn.Linear(1, 2)
        self.change, self.batches = change, []

    def forward(self, x):
        self.batches.append(len(x))
        features = self.inner(self.change(x))
        return self.head(features.flatten(1).mean(1, keepdim=True))


@pytest.mark.parametrize(
    "change",
    [lambda x: x, lambda x: x.permute(0, 2, 3, 1), lambda x: x.flatten(2).transpose(1, 2)],
    ids=["channels first", "channels last", "tokens"],
)
def test_both_kinds_are_taken_at_the_same_places_of_each_image(change):
    network, x = Seen(change), maps()
    drawn = torch.Generator().manual_seed(3)
    found = feature_vectors(network, x, x + 0.5, {"f": network.inner}, positions=10, generator=drawn, batch_size=3)["f"]
    assert torch.equal(found.adversarial, found.clean + 0.5)
    assert torch.equal(found.clean[:, 2].long(), found.image)
    assert found.image.bincount().tolist() == [10] * 7
    places = {(int(image), int(row), int(column)) for row, column, image in found.clean.tolist()}
    assert len(places) == 70  # without repetition, and not the same for all images
    assert len({tuple(sorted(place[1:] for place in places if place[0] == image)) for image in range(7)}) > 1
    assert max(network.batches) == 3  # never the features of all images


def test_all_places_where_there_are_fewer_and_one_of_a_vector():
    network, x = Seen(), maps(2, side=3)
    found = feature_vectors(network, x, x, {"f": network.inner}, positions=100)["f"]
    assert sorted(found.clean.tolist()) == sorted(x.flatten(2).transpose(1, 2).flatten(0, 1).tolist())
    flat = Seen(lambda x: x.flatten(1))
    assert torch.equal(feature_vectors(flat, x, x, {"f": flat.inner})["f"].clean, x.flatten(1))


def test_the_places_of_a_layer_do_not_depend_on_other_layers_and_differ_with_the_generator():
    network, x = small_cnn(), torch.rand(3, 1, 8, 8)
    layers = feature_layers(network, (1, 8, 8))

    def taken(names, seed):
        drawn = torch.Generator().manual_seed(seed)
        chosen = {name: layers[name] for name in names}
        return feature_vectors(network, x, x, chosen, positions=2, generator=drawn)["m2"].clean

    assert torch.equal(taken(["m1", "m2"], 0), taken(["m2"], 0))
    assert not torch.equal(taken(["m2"], 0), taken(["m2"], 1))


def test_the_network_is_in_eval_mode_and_is_left_as_it_was():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2)).train()
    network[1].eval()
    before, x = {name: value.clone() for name, value in network.state_dict().items()}, torch.rand(5, 1, 8, 8)
    found = feature_vectors(network, x, x, {"norm": network[1]})["norm"]
    alone = feature_vectors(network, x[:1], x[:1], {"norm": network[1]})["norm"]
    assert torch.allclose(sorted_rows(found.clean[:36]), sorted_rows(alone.clean))  # running statistics, not a batch's
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [module.training for module in network] == [True, False, True, True]
    assert not any(module._forward_hooks for module in network.modules())
    assert not found.clean.requires_grad


def sorted_rows(vectors):
    return vectors[vectors[:, 0].argsort()]


# Which layers ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_ends_of_the_blocks():
    network = timm.create_model("resnet18", num_classes=4)
    found = feature_layers(network, (3, 32, 32))
    assert list(found) == ["m1", "m2", "m3", "m4"]
    assert all(found[f"m{number}"] is getattr(network, f"layer{number}") for number in range(1, 5))
    domains = convert_batchnorm(network)
    assert list(feature_layers(through(domains, "adversarial"), (3, 32, 32))) == list(found)


def test_four_transformer_blocks_at_even_distances():
    options = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "num_heads": 2, "num_classes": 4}
    network = timm.create_model("vit_tiny_patch16_224", depth=8, **options)
    found = feature_layers(network, (3, 16, 16))
    assert found == {"m2": network.blocks[1], "m4": network.blocks[3], "m6": network.blocks[5], "m8": network.norm}
    x = torch.rand(2, 3, 16, 16)
    assert feature_vectors(network, x, x, found)["m8"].clean.shape == (2 * 5, 12)  # with the class token


def test_layers_by_pattern_have_their_own_names():
    network = small_cnn()
    assert list(feature_layers(network, (1, 8, 8), "layer*")) == ["layer1", "layer2", "layer3", "layer4"]


class Wide(nn.Module):
    def forward(self, x):
        return x[:, None]


@pytest.mark.parametrize(
    ("network", "patterns", "message"),
    [
        (small_cnn(), "stage*", r"seen.layers has the pattern 'stage\*', which no layer matches"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 2)), None,
         "seen.layers: network Sequential .*: name the layers to look at"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), None, "seen.layers: network Sequential .*: name the layers"),
        (nn.Sequential(Wide(), nn.Flatten(), nn.Linear(64, 2)), "0",
         r"seen.layers: layer 0 must give out features \(N, C, H, W\), .* got the shape \(2, 1, 1, 8, 8\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_looked_at(network, patterns, message):
    with pytest.raises(ValueError, match=message):
        feature_layers(network, (1, 8, 8), patterns, argument="seen.layers")


def test_images_that_do_not_belong_together():
    network, x = Seen(), maps()
    with pytest.raises(ValueError, match=r"x and x_adv must be images of one shape"):
        feature_vectors(network, x, x[:3], {"f": network.inner})
    with pytest.raises(ValueError, match=r"positions must be at least 1, got 0"):
        feature_vectors(network, x, x, {"f": network.inner}, positions=0)


def test_thinning_out_is_even_over_images():
    image = torch.arange(40).repeat_interleave(torch.arange(1, 41))  # images of 1 to 40 vectors
    number = torch.arange(len(image)).float()[:, None]
    found = thin_out(FeatureVectors(number, -number, image), 300)
    assert len(found.image) == 300
    counts = found.image.bincount()
    full = counts < torch.arange(1, 41)  # those of which some are left out have as many as each other, up to one
    assert counts[full].max() - counts[full].min() <= 1
    assert counts[~full].max() <= counts[full].max()
    assert torch.equal(found.adversarial, -found.clean)
    assert torch.equal(image[found.clean[:, 0].long()], found.image)
