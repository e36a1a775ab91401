"""With random weights in the layouts of the published ones: there are no pretrained ones without a network."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.vgg import cfgs, make_layers

from lightning_adv.analysis.images.adain import AdaIN, adain, channel_statistics
from lightning_adv.core.errors import UsageError
from tests.seeded import seeded

WIDTHS = (4, 4, 6, 6, 8, 8, 8, 8, 10)  # of VGG-19's convolutions up to relu4_1, a tenth of the real ones


def convolutions(numbers, widths, sizes=None):
    """Return a state dict of convolutions, ``widths`` being the channels in front of, between and behind them."""
    state, random = {}, seeded(1)
    for place, number in enumerate(numbers):
        size = 3 if sizes is None else sizes[place]
        shape = (widths[place + 1], widths[place], size, size)
        state[f"{number}.weight"] = torch.randn(shape, generator=random) * (2 / (widths[place] * size**2)) ** 0.5
        state[f"{number}.bias"] = torch.randn(widths[place + 1], generator=random) / 10
    return state


def torchvision_weights():
    return convolutions((0, 2, 5, 7, 10, 12, 14, 16, 19), (3, *WIDTHS))


def normalised_weights():
    return convolutions((0, 2, 5, 9, 12, 16, 19, 22, 25, 29), (3, 3, *WIDTHS), (1, *(3,) * 9))


def decoder_weights():
    return convolutions((1, 5, 8, 11, 14, 18, 21, 25, 28), (10, 8, 8, 8, 8, 6, 6, 4, 4, 3))


def reflected(x, state, number):
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), state[f"{number}.weight"], state[f"{number}.bias"])


def test_the_features_have_the_statistics_of_the_style_afterwards():
    content, style = torch.rand(3, 5, 7, 6, generator=seeded()), 2 + 3 * torch.randn(3, 5, 9, 4, generator=seeded(1))
    after = adain(content, style)
    assert torch.allclose(after.mean((2, 3)), style.mean((2, 3)), atol=1e-5)
    assert torch.allclose(after.std((2, 3)), style.std((2, 3)), rtol=1e-3)
    centred = (content - content.mean((2, 3), keepdim=True)) * (after - after.mean((2, 3), keepdim=True))
    assert torch.allclose(  # an affine map of each channel: correlated with the content by 1
        centred.mean((2, 3)), content.std((2, 3), correction=0) * after.std((2, 3), correction=0), rtol=1e-4
    )
    flat = torch.full((1, 1, 4, 4), 0.3)
    assert adain(flat, style[:1, :1]).std() < 1e-6  # what is constant is not divided by zero


def test_the_torchvision_encoder_is_its_vgg19_up_to_relu4_1():
    state, vgg = torchvision_weights(), make_layers(cfgs["E"], batch_norm=False)[:21].eval()
    for number, layer in enumerate(vgg):
        if isinstance(layer, nn.Conv2d):
            layer.weight, layer.bias = (nn.Parameter(state[f"{number}.{part}"]) for part in ("weight", "bias"))
    paintings = torch.rand(2, 3, 24, 32, generator=seeded())
    normalised = (paintings - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    with torch.no_grad():
        features = vgg(normalised)
    later = {"features.21.weight": torch.zeros(3, 10, 3, 3), "classifier.0.weight": torch.zeros(2, 2)}
    network = AdaIN({f"features.{key}": value for key, value in state.items()} | later, decoder_weights())
    (found,) = network.statistics(paintings)
    assert features.shape == (2, 10, 3, 4)
    assert torch.allclose(found.mean, features.mean((2, 3), keepdim=True), atol=1e-5)
    assert torch.allclose(found.std, (features.var((2, 3), keepdim=True) + 1e-5).sqrt(), rtol=1e-4)


def test_the_normalised_encoder_and_the_decoder_are_a_loop_over_their_convolutions():
    encoder, decoder = normalised_weights(), decoder_weights()
    x, paintings = torch.rand(2, 3, 16, 24, generator=seeded()), torch.rand(2, 3, 32, 16, generator=seeded(2))

    def encode(x):
        x = F.conv2d(x, encoder["0.weight"], encoder["0.bias"])
        for number in (2, 5, 9, 12, 16, 19, 22, 25, 29):
            x = reflected(x, encoder, number).relu()
            if number in (5, 12, 25):
                x = F.max_pool2d(x, 2)
        return x

    x_styled = adain(encode(x), encode(paintings))
    for number in (1, 5, 8, 11, 14, 18, 21, 25, 28):
        x_styled = reflected(x_styled, decoder, number)
        x_styled = x_styled if number == 28 else x_styled.relu()
        if number in (1, 14, 21):
            x_styled = x_styled.repeat_interleave(2, 2).repeat_interleave(2, 3)
    network = AdaIN(encoder, decoder)
    found = network(x, network.statistics(paintings))
    assert ((x_styled > 0) & (x_styled < 1)).float().mean() > 0.02  # not all clipped
    assert torch.allclose(found, x_styled.clamp(0, 1), atol=1e-5)
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_sides_that_8_does_not_divide_are_padded_and_cut():
    network = AdaIN(normalised_weights(), decoder_weights())
    x, style = torch.rand(1, 3, 19, 17, generator=seeded()), torch.rand(1, 3, 16, 16, generator=seeded(1))
    found = network(x, network.statistics(style))
    assert found.shape == x.shape
    padded = F.pad(x, (0, 7, 0, 5), mode="replicate")
    assert torch.equal(found, network(padded, network.statistics(style))[..., :19, :17])


def test_each_image_gets_its_own_style_whatever_is_beside_it():
    network = AdaIN(torchvision_weights(), decoder_weights())
    x, style = torch.rand(2, 3, 16, 16, generator=seeded()), torch.rand(2, 3, 16, 16, generator=seeded(1))
    both = network(x, network.statistics(style))
    for i in range(2):
        assert torch.allclose(both[i : i + 1], network(x[i : i + 1], network.statistics(style[i : i + 1])), atol=1e-5)


@pytest.mark.parametrize(
    ("encoder", "decoder", "told"),
    [
        (
            {},
            decoder_weights(),
            "encoder: these are not the weights of VGG-19 up to relu4_1, whose convolutions are 0,",
        ),
        (torchvision_weights(), {"conv1.weight": torch.zeros(1)}, "decoder: these are not .* the decoder of AdaIN"),
        (torchvision_weights(), torchvision_weights(), "decoder: these are not .*: the file lacks 1.weight"),
        (torchvision_weights(), decoder_weights() | {"31.bias": torch.zeros(3)}, "the file has 31.bias"),
        (
            torchvision_weights(),
            convolutions((1, 5, 8, 11, 14, 18, 21, 25, 28), (12, 8, 8, 8, 8, 6, 6, 4, 4, 3)),
            "decoder: it takes features of 12 channels, but the encoder gives 10 at relu4_1",
        ),
        (
            torchvision_weights(),
            convolutions((1, 5, 8, 11, 14, 18, 21, 25, 28), (10, 8, 8, 8, 8, 6, 6, 4, 4, 1)),
            "decoder: 28.weight gives 1 channels",
        ),
        (
            torchvision_weights(),
            decoder_weights() | {"5.weight": torch.zeros(8, 7, 3, 3)},
            r"decoder: 5.weight has the shape \(8, 7, 3, 3\), which is not that of",
        ),
    ],
)
def test_weights_of_another_network_are_told(encoder, decoder, told):
    with pytest.raises(UsageError, match=told):
        AdaIN(encoder, decoder)


def test_images_that_are_too_small_or_grey_are_told():
    network = AdaIN(torchvision_weights(), decoder_weights())
    for x in (torch.zeros(1, 3, 15, 16), torch.zeros(1, 1, 16, 16)):
        with pytest.raises(UsageError, match=r"paintings must be colour images .* of 16 × 16 pixels at least"):
            network.statistics(x)


def test_one_position_has_a_deviation_too():
    assert channel_statistics(torch.full((1, 1, 1, 1), 2.0)).std.item() == pytest.approx(1e-5**0.5)
