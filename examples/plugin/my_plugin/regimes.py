"""A training regime that changes its network."""

import torch
from torch import Tensor, nn

from lightning_adv.regimes import MadryTraining


class MeanDenoising(nn.Module):
    """Images, plus a learned mixture of their means over 3×3 pixels (Xie et al. 2019, section 4, with a mean filter).

    Args:
        channels: Channels C of the images.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mean = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        self.mix = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return images of the same shape (N, C, H, W)."""
        return x + self.mix(self.mean(x))


class DenoisedTraining(MadryTraining):
    """Adversarial training of a network that smooths its images first.

    Args:
        strength: How much of the smoothed images the network begins with.
        **kwargs: The other arguments of :class:`~lightning_adv.regimes.MadryTraining`.
    """

    def __init__(self, *args, strength: float = 0.5, **kwargs) -> None:
        self.strength = strength  # before the base's, which builds the network
        super().__init__(*args, **kwargs)

    def build_network(self, num_classes: int) -> nn.Module:
        """Return the backbone behind a denoising layer. Whoever reads a checkpoint builds it by this method, too."""
        built = super().build_network(num_classes)
        denoising = MeanDenoising(self.backbone.in_channels)
        with torch.no_grad():
            nn.init.dirac_(denoising.mix.weight).mul_(self.strength)
            nn.init.zeros_(denoising.mix.bias)
        built.network = nn.Sequential(denoising, built.network)
        return built
