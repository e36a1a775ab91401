"""Style transfer by adaptive instance normalisation (AdaIN).

Huang & Belongie, "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization" (ICCV 2017): the features
of an image at VGG-19's relu4_1 get the mean and the standard deviation of those of a painting, and a decoder turns them
into an image. Geirhos et al. (2019) and Zhang & Zhu (2019, appendix B) make their stylised test sets so, with α = 1,
which is what is here.

**Weights** are the user's own files. The encoder is VGG-19 up to relu4_1, in one of two layouts:

- torchvision's ``vgg19``: keys ``features.0.weight`` ... (or ``0.weight`` ... for the features alone) of the
  convolutions 0, 2, 5, 7, 10, 12, 14, 16 and 19. Images are normalised by ImageNet's mean and standard deviation, and
  padded by zeros.
- the normalised VGG that the published AdaIN decoders were trained with: keys ``0.weight`` (a 1 × 1 convolution of the
  colours), then 2, 5, 9, 12, 16, 19, 22, 25 and 29. Images are padded by reflection.

The decoder mirrors it: convolutions 1, 5, 8, 11, 14, 18, 21, 25 and 28 with ``.weight`` and ``.bias``, padded by
reflection, with a doubling of the size behind the first, the fifth and the seventh. A decoder belongs to the encoder
that it was trained with; the files cannot tell. Later layers of the encoder may be in the file, and are left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_adv.analysis.images.transforms import check_image_batch
from lightning_adv.core.errors import UsageError

_TORCHVISION = (0, 2, 5, 7, 10, 12, 14, 16, 19)
_NORMALISED = (0, 2, 5, 9, 12, 16, 19, 22, 25, 29)
_DECODER = (1, 5, 8, 11, 14, 18, 21, 25, 28)
_POOLED_AFTER = (1, 3, 7)  # of VGG-19's 3 × 3 convolutions, from 0
_DOUBLED_AFTER = (0, 4, 6)  # of the decoder's
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, by which torchvision's network was trained
_EPS = 1e-5
_STRIDE = 8  # of relu4_1


class Statistics(NamedTuple):
    """The mean and the standard deviation of each channel, (N, C, 1, 1) each."""

    mean: Tensor
    std: Tensor


def channel_statistics(features: Tensor) -> Statistics:
    """Return the mean and the standard deviation over the positions of features (N, C, H, W).

    The variance is that of a sample and has 1e-5 added, as in the authors' code: a constant channel is not divided by
    zero.

    Example:
        >>> channel_statistics(torch.tensor([[[[1.0, 3.0]]]])).mean.item()
        2.0
    """
    variance, mean = torch.var_mean(features.flatten(2), 2, correction=1 if features[0, 0].numel() > 1 else 0)
    return Statistics(mean[..., None, None], (variance + _EPS).sqrt()[..., None, None])


def adain(content: Tensor, style: Tensor | Statistics) -> Tensor:
    """Give features the channel statistics of others: ``σ(s) (c - μ(c)) / σ(c) + μ(s)`` (equation 8).

    Args:
        content: Features (N, C, H, W).
        style: Features (N, C, h, w), or their statistics.

    Returns:
        Features like ``content``.

    Example:
        >>> adain(torch.tensor([[[[0.0, 2.0]]]]), torch.tensor([[[[10.0, 30.0]]]])).round()
        tensor([[[[10., 30.]]]])
    """
    target = style if isinstance(style, Statistics) else channel_statistics(style)
    own = channel_statistics(content)
    return target.std * (content - own.mean) / own.std + target.mean


class AdaIN(nn.Module):
    """Encoder, adaptive instance normalisation and decoder. It learns nothing: its weights are the user's.

    Args:
        encoder: The state dict of VGG-19, in one of the two layouts above.
        decoder: The state dict of its decoder.

    Raises:
        UsageError: They are of another layout, or not of one another.
    """

    kind = "AdaIN"
    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Mapping[str, Tensor], decoder: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.encoder, normalised = _make_encoder(encoder)
        self.decoder = _make_decoder(decoder)
        self.register_buffer("mean", torch.tensor((0.0,) * 3 if normalised else _MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor((1.0,) * 3 if normalised else _STD)[:, None, None])
        given, taken = (_convolutions(each) for each in (self.encoder, self.decoder))
        if given[-1].out_channels != taken[0].in_channels:
            raise UsageError(
                f"it takes features of {taken[0].in_channels} channels, but the encoder gives "
                f"{given[-1].out_channels} at relu4_1.",
                key="decoder",
            )
        self.eval().requires_grad_(False)

    def statistics(self, paintings: Tensor) -> list[Statistics]:
        """Return what is used of paintings (N, 3, H, W) in [0, 1]: the statistics of their features.

        Raises:
            UsageError: These are no colour images in [0, 1] of 16 × 16 pixels at least.
        """
        return [channel_statistics(self._encoded(paintings, "paintings"))]

    def forward(self, x: Tensor, style: Sequence[Statistics]) -> Tensor:
        """Return stylised images.

        Args:
            x: Images (N, 3, H, W) in [0, 1]. Sides that 8 does not divide are padded for the network.
            style: What :meth:`statistics` gave of a painting for each.

        Returns:
            Images like ``x``, clipped to [0, 1].

        Raises:
            UsageError: These are no colour images in [0, 1] of 16 × 16 pixels at least.
        """
        height, width = x.shape[-2:]
        (features,) = style
        decoded: Tensor = self.decoder(adain(self._encoded(x, "x"), features))
        return decoded[..., :height, :width].clamp(0, 1)

    def _encoded(self, x: Tensor, name: str) -> Tensor:
        check_image_batch(x, name)
        height, width = x.shape[-2:]
        if x.shape[1] != 3 or min(height, width) < 2 * _STRIDE:
            raise UsageError(
                f"{name} must be colour images (N, 3, H, W) of {2 * _STRIDE} × {2 * _STRIDE} pixels at least "
                f"(2 × 2 at relu4_1), got shape {tuple(x.shape)}."
            )
        padded = F.pad(x, (0, -width % _STRIDE, 0, -height % _STRIDE), mode="replicate")
        encoded: Tensor = self.encoder((padded - self.mean) / self.std)
        return encoded


def _make_encoder(state: Mapping[str, Tensor]) -> tuple[nn.Sequential, bool]:
    """Return VGG-19 up to relu4_1, and whether it is the normalised one."""
    state = {key.removeprefix("features."): value for key, value in state.items()}
    first = state.get("0.weight")
    normalised = first is not None and tuple(first.shape) == (3, 3, 1, 1)
    layout = _NORMALISED if normalised else _TORCHVISION
    convolutions = _read(state, layout, "encoder", "VGG-19 up to relu4_1", reflects=normalised)
    layers: list[nn.Module] = [convolutions.pop(0)] if normalised else []
    for number, convolution in enumerate(convolutions):
        layers += [convolution, nn.ReLU()]
        if number in _POOLED_AFTER:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers), normalised


def _make_decoder(state: Mapping[str, Tensor]) -> nn.Sequential:
    convolutions = _read(state, _DECODER, "decoder", "the decoder of AdaIN", reflects=True, only=True)
    layers: list[nn.Module] = []
    for number, convolution in enumerate(convolutions):
        layers += [convolution, nn.ReLU()]
        if number in _DOUBLED_AFTER:
            layers.append(nn.UpsamplingNearest2d(scale_factor=2))
    return nn.Sequential(*layers[:-1])  # no ReLU behind the last: what it gives are colours


def _read(
    state: Mapping[str, Tensor], layout: tuple[int, ...], key: str, what: str, *, reflects: bool, only: bool = False
) -> list[nn.Conv2d]:
    """Return the convolutions of a state dict.

    Args:
        state: The state dict.
        layout: The numbers of the convolutions in the Sequential that it is of.
        key: The argument that gave it.
        what: What it should be.
        reflects: Whether they pad by reflection; otherwise by zeros.
        only: Whether there may be nothing else in it.

    Raises:
        UsageError: It is of something else.
    """
    names = [f"{number}.{part}" for number in layout for part in ("weight", "bias")]
    missing = [name for name in names if name not in state]
    more = [name for name in state if only and name not in names]
    if missing or more:
        told = f"lacks {missing[0]}" if missing else f"has {more[0]}"
        raise UsageError(
            f"these are not the weights of {what}, whose convolutions are {', '.join(map(str, layout))}, as in "
            f"{layout[0]}.weight: the file {told}.",
            key=key,
        )
    channels = 3
    convolutions: list[nn.Conv2d] = []
    for number in layout:
        weight, bias = state[f"{number}.weight"], state[f"{number}.bias"]
        size = 1 if number == 0 and layout == _NORMALISED else 3
        fits = weight.ndim == 4 and weight.shape[2:] == (size, size) and bias.shape == weight.shape[:1]
        if key == "decoder" and not convolutions and fits:
            channels = weight.shape[1]
        if not fits or weight.shape[1] != channels:
            raise UsageError(
                f"{number}.weight has the shape {tuple(weight.shape)}, which is not that of {what}: a convolution of "
                f"{size} × {size} that takes {channels} channels.",
                key=key,
            )
        channels = weight.shape[0]
        mode: Literal["zeros", "reflect"] = "reflect" if reflects and size > 1 else "zeros"
        convolution = nn.Conv2d(weight.shape[1], channels, size, padding=size // 2, padding_mode=mode)
        convolution.load_state_dict({"weight": weight, "bias": bias})
        convolutions.append(convolution)
    if key == "decoder" and channels != 3:
        raise UsageError(f"{layout[-1]}.weight gives {channels} channels, but an image has 3.", key=key)
    return convolutions


def _convolutions(network: nn.Sequential) -> list[nn.Conv2d]:
    return [layer for layer in network if isinstance(layer, nn.Conv2d)]
