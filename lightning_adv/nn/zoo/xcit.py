"""XCiTs for 32×32 images, registered with timm: ``xcit_small_12_p4_32``, and likewise ``medium`` and ``large``.

El-Nouby et al., "XCiT: Cross-Covariance Image Transformers" (2021), as Debenedetti, Sehwag, Mittal, "A Light Recipe to
Train Robust Vision Transformers" (2023) use them on CIFAR (section 5): timm's networks for patches of 16×16, whose
first two convolutions have stride 1 in place of 2, so that the patches are of 4×4.
"""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.xcit import Xcit, checkpoint_filter_fn
from torch import nn

_CFG = {
    "num_classes": 10,
    "input_size": (3, 32, 32),
    "mean": (0.4914, 0.4822, 0.4465),  # CIFAR-10's, as Debenedetti et al. normalise
    "std": (0.2471, 0.2435, 0.2616),
    "first_conv": "patch_embed.proj.0.0",
    "classifier": "head",
}
default_cfgs = generate_default_cfgs(
    {"xcit_small_12_p4_32": _CFG, "xcit_medium_12_p4_32": _CFG, "xcit_large_12_p4_32": _CFG}
)


def _xcit(name: str, pretrained: bool, kwargs: dict[str, Any], **size: int) -> Xcit:
    arguments = {"img_size": 32, "depth": 12, "eta": 1.0, "tokens_norm": True, **size, **kwargs}
    network: Xcit = build_model_with_cfg(
        Xcit, name, pretrained, pretrained_filter_fn=checkpoint_filter_fn, patch_size=16, **arguments
    )
    patches = network.patch_embed
    for index in (0, 2):  # between them is the activation
        convolution = patches.proj[index][0]
        assert isinstance(convolution, nn.Conv2d)
        convolution.stride = (1, 1)
    patches.patch_size = 4
    patches.num_patches *= 16
    return network


def xcit_small_12_p4_32(pretrained: bool = False, **kwargs: Any) -> Xcit:
    """Build XCiT-S12 for patches of 4×4. There are no pretrained weights."""
    return _xcit("xcit_small_12_p4_32", pretrained, kwargs, embed_dim=384, num_heads=8)


def xcit_medium_12_p4_32(pretrained: bool = False, **kwargs: Any) -> Xcit:
    """Build XCiT-M12 for patches of 4×4. There are no pretrained weights."""
    return _xcit("xcit_medium_12_p4_32", pretrained, kwargs, embed_dim=512, num_heads=8)


def xcit_large_12_p4_32(pretrained: bool = False, **kwargs: Any) -> Xcit:
    """Build XCiT-L12 for patches of 4×4. There are no pretrained weights."""
    return _xcit("xcit_large_12_p4_32", pretrained, kwargs, embed_dim=768, num_heads=16)


for _build in (xcit_small_12_p4_32, xcit_medium_12_p4_32, xcit_large_12_p4_32):
    register_model(_build)
