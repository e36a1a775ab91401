"""The published networks of RobustBench's CIFAR-10 Linf board, by their names there, as networks of this package.

Croce et al., "RobustBench: a standardized adversarial robustness benchmark" (2021). Each entry says which network of
timm or of this package computes the same, with which options, activation and normalisation, how the keys of the
authors' weights are called in it, and where the weights lie. The sizes, the normalisations and the places are those of
``robustbench`` 1.1.1.

That package is not needed. It pins ``timm==1.0.9``, so that it cannot be installed beside this one, and with what it
declares it cannot be imported: it asks for ``autoattack``, which ``pyautoattack`` does not provide, and for
``pkg_resources``, which setuptools 82 has dropped.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn

from lightning_adv.core.errors import UsageError
from lightning_adv.core.suggestions import did_you_mean

Rewrite: TypeAlias = Callable[[OrderedDict[str, Tensor], nn.Module], Mapping[str, Tensor]]
"""Gives the keys of the authors' state dict the names that they have in a network."""

PREFIX = "robustbench/"

_PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # the network takes the pixels as they are
_HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
Normalization: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Published:
    """What network an entry is, and where its weights lie.

    Args:
        network: The name that timm has for it, once the networks of this package are registered.
        source: The Google Drive id of the weights, or their address.
        normalization: Mean and standard deviation of each channel, where the weights carry none.
        options: Keyword arguments of the network's constructor.
        stem: As in :class:`~lightning_adv.nn.backbones.Backbone`.
        activation: What stands in the place of the network's ReLUs, as in ``Backbone``.
        rewrite: How the authors' keys are called in the network; None where they are the same.
    """

    network: str
    source: str
    normalization: Normalization = _PLAIN
    options: Mapping[str, Any] = field(default_factory=dict)
    stem: Literal["default", "cifar"] = "default"
    activation: str | None = None
    rewrite: Rewrite | None = None


def find_published(name: str) -> Published | None:
    """Return the entry that a network's name means, None for a name of another library.

    Args:
        name: ``robustbench/`` and the name of an entry of the board.

    Raises:
        UsageError: There is no such entry, or it is none that this package has a network for.

    Example:
        >>> find_published("robustbench/Wang2023Better_WRN-70-16").options
        {'depth': 70, 'widen_factor': 16, 'same_padding': True}
    """
    if not name.startswith(PREFIX):
        return None
    entry = name.removeprefix(PREFIX)
    if entry in NOT_BUILT:
        raise UsageError(f"{name!r} cannot be built here: it is {NOT_BUILT[entry]}.", key="name")
    if entry not in PUBLISHED:
        hint = did_you_mean(name, [f"{PREFIX}{known}" for known in (*PUBLISHED, *NOT_BUILT)])
        raise UsageError(f"{name!r} is not an entry of RobustBench's CIFAR-10 Linf board.{hint}", key="name")
    return PUBLISHED[entry]


# Keys -----------------------------------------------------------------------------------------------------------------

Names: TypeAlias = tuple[tuple[str, str], ...]
"""Patterns in the authors' keys, and what stands there in ours."""


def _renamed(names: Names, state: OrderedDict[str, Tensor], network: nn.Module) -> OrderedDict[str, Tensor]:
    renamed = OrderedDict()
    for key, value in state.items():
        for pattern, name in names:
            key = re.sub(pattern, name, key)
        renamed[key] = value
    return renamed


def _of_xcit(state: OrderedDict[str, Tensor], network: Any) -> Mapping[str, Tensor]:
    from timm.models.xcit import checkpoint_filter_fn

    renamed: Mapping[str, Tensor] = checkpoint_filter_fn(OrderedDict(state), network)
    return renamed


_WIDE_OF_GOWAL = (
    (r"^init_conv\.", "conv1."),
    (r"^layer\.2\.block\.", "block3.layer."),
    (r"^layer\.1\.block\.", "block2.layer."),
    (r"^layer\.0\.block\.", "block1.layer."),
    (r"^batchnorm\.", "bn1."),
    (r"^logits\.", "fc."),
    (r"\.batchnorm_0\.", ".bn1."),
    (r"\.batchnorm_1\.", ".bn2."),
    (r"\.conv_1\.", ".conv2."),
    (r"\.conv_0\.", ".conv1."),
    (r"\.shortcut\.", ".convShortcut."),
)
_PREACT_OF_GOWAL = (
    (r"^conv_2d\.", "conv1."),
    (r"^layer_3\.", "layer4."),
    (r"^layer_2\.", "layer3."),
    (r"^layer_1\.", "layer2."),
    (r"^layer_0\.", "layer1."),
    (r"^batchnorm\.", "bn."),
    (r"^logits\.", "linear."),
    (r"\.batchnorm_0\.", ".bn1."),
    (r"\.batchnorm_1\.", ".bn2."),
    (r"\.conv_2d_([12])\.", r".conv\1."),
    (r"\.shortcut\.", ".shortcut.0."),
)
_WIDE_OF_HUANG = (
    (r"^stem_conv\.", "conv1."),
    (r"^blocks\.2\.", "block3."),
    (r"^blocks\.1\.", "block2."),
    (r"^blocks\.0\.", "block1."),
    (r"^norm1\.", "bn1."),
    (r"\.shortcut\.0\.", ".convShortcut."),
)
_RESNET_OF_KUANGLIU = ((r"^linear\.", "fc."), (r"\.shortcut\.", ".downsample."))


# Families -------------------------------------------------------------------------------------------------------------


def _trades(depth: int, width: int, source: str, normalization: Normalization = _PLAIN, **options: Any) -> Published:
    """Zhang et al. (2019): the wide ResNet whose keys this package's has."""
    return Published("wide_resnet", source, normalization, {"depth": depth, "widen_factor": width, **options})


def _gowal(depth: int, width: int, source: str) -> Published:
    """Gowal et al. (2020), section 4: SiLU, and the padding of TensorFlow."""
    options = {"depth": depth, "widen_factor": width, "same_padding": True}
    names = partial(_renamed, _WIDE_OF_GOWAL)
    return Published("wide_resnet", source, _CIFAR10, options, activation="silu", rewrite=names)


def _gowal_r18(source: str) -> Published:
    """Rebuffi et al. (2021), Rade and Moosavi-Dezfooli (2021): likewise, a pre-activation ResNet-18."""
    options = {"shortcut_of": "input", "shortcut_kernel": 3, "same_padding": True}
    names = partial(_renamed, _PREACT_OF_GOWAL)
    return Published("preact_resnet18", source, _CIFAR10, options, activation="silu", rewrite=names)


def _wong(source: str, normalization: Normalization = _PLAIN) -> Published:
    """Wong et al. (2020): a pre-activation ResNet-18 without the last BatchNorm and ReLU."""
    return Published("preact_resnet18", source, normalization, {"shortcut_of": "input", "last_norm": False})


def _kuangliu(network: str, source: str, normalization: Normalization = _PLAIN) -> Published:
    """Build a ResNet with a stem for CIFAR (He et al. 2016, section 4.2), in the keys of kuangliu's pytorch-cifar."""
    return Published(network, source, normalization, stem="cifar", rewrite=partial(_renamed, _RESNET_OF_KUANGLIU))


def _huang2021(source: str) -> Published:
    """Huang et al. (2021), section 4: the last stage of the wide ResNet-34 is narrower, the first ones wider."""
    options = {"blocks": [5, 5, 5], "channels": [320, 640, 512]}
    return Published("wide_resnet", source, options=options, rewrite=partial(_renamed, _WIDE_OF_HUANG))


def _huang2022(source: str) -> Published:
    """Huang et al. (2022), table 4: their network A4, with SiLU."""
    options = {"blocks": [27, 28, 13], "channels": [160, 448, 384]}
    names = partial(_renamed, _WIDE_OF_HUANG)
    return Published("wide_resnet", source, _CIFAR10, options, activation="silu", rewrite=names)


def _xcit(size: str) -> Published:
    """Debenedetti et al. (2023), section 5."""
    source = f"{_RELEASE}debenedetti2022light-xcit-{size[0]}-cifar10-linf.pth.tar"
    return Published(f"xcit_{size}_12_p4_32", source, _CIFAR10, rewrite=_of_xcit)


_RELEASE = "https://github.com/RobustBench/robustbench/releases/download/v1.1/"
_ENGSTROM = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))

PUBLISHED: Mapping[str, Published] = {
    "Andriushchenko2020Understanding": _wong("1Uyvprd98bIyxfMjLdCZwm-NEJ-6GMVis"),
    "Carmon2019Unlabeled": _trades(28, 10, "15tUx-gkZMYx7BfEOw1GY5OKC-jECIsPQ"),
    "Sehwag2020Hydra": _trades(28, 10, "1pi8GHwAVkxVH41hEnf0IAJb_7y-Q8a2Y"),
    "Wang2020Improving": _trades(28, 10, "1T939mU4kXYt5bbvM55aT4fLBvRhyzjiQ"),
    "Hendrycks2019Using": _trades(28, 10, "1-DcJsYw2dNEOyF9epks2QS7r9nqBDEsw", _HALVES),
    "Rice2020Overfitting": _trades(34, 20, "1vC_Twazji7lBjeMQvAD9uEQxi9Nx2oG-", _CIFAR10),
    "Zhang2019Theoretically": _trades(34, 10, "1hPz9QQwyM7QSuWu-ANG_uXR-29xtL8t_"),
    "Engstrom2019Robustness": _kuangliu("resnet50", "1etqmQsksNIWBvBQ4r8ZFk_3FJlLWr8Rr", _ENGSTROM),
    "Huang2020Self": _trades(34, 10, "1nInDeIyZe2G-mJFxQJ3UoclQNomWjMgm"),
    "Pang2020Boosting": _trades(34, 20, "1iNWOj3MP7kGe8yTAS4XnDaDXDLt0mwqw", _CIFAR10, head="cosine"),
    "Wong2020Fast": _wong("1Re--_lf3jCEw9bnQqGkjw3J7v2tSZKrv", _CIFAR10),
    "Ding2020MMA": _trades(28, 4, "19Q_rIIHXsYzxZ0WcZdqT-N2OD7MfgoZ0", standardize_images=True),
    "Zhang2019You": _trades(34, 10, "1kB2qqPQ8qUNmK8VKuTOhT1X4GT46kAoA"),
    "Zhang2020Attacks": _trades(34, 10, "1lBVvLG6JLXJgQP2gbsTxNHl6s3YAopqk"),
    "Wu2020Adversarial_extra": _trades(28, 10, "1-WJWpAZLlmc4gJ8XXNf7IETjnSZzaCNp"),
    "Wu2020Adversarial": _trades(34, 10, "13LBcgNvhFppCFG22i1xATrahFPfMgXGf"),
    "Gowal2020Uncovering_70_16": _gowal(70, 16, "1DVwKclibqzniE2Ss5_g6BY77ChG8QKzl"),
    "Gowal2020Uncovering_70_16_extra": _gowal(70, 16, "1GxryYj_Or-VCDca0wgiFLz4ssXSZXQoJ"),
    "Gowal2020Uncovering_34_20": _gowal(34, 20, "1YWvZO1u9_yNLFNC3JYd_TVkvrRSMER1O"),
    "Gowal2020Uncovering_28_10_extra": _gowal(28, 10, "1MBAWGxiZxKt-GfqEqtLcXcd3tAxPhvV2"),
    "Sehwag2021Proxy": _trades(34, 10, "1QFA5fPMj2Qw4aYNG33PkFqiv_RTDWvzm"),
    "Sehwag2021Proxy_R18": _kuangliu("resnet18", "1-ZgoSlD_AMhtXdnUElilxVXnzK2DcHuu"),
    "Sitawarin2020Improving": _trades(34, 10, "12teknvo6dQGSWBaGnbNFwFO3-Y8j2eB6"),
    "Chen2020Efficient": _trades(34, 10, "1c5EXpd3Kn_s6qQIbkLX3tTOOPC8VslHg", _CIFAR10),
    "Cui2020Learnable_34_20": _trades(34, 20, "1y7BUxPhQjNlb4w4BUlDyYJIS4w4fsGiS"),
    "Cui2020Learnable_34_10": _trades(34, 10, "16s9pi_1QgMbFLISVvaVUiNfCzah6g2YV"),
    "Zhang2020Geometry": _trades(28, 10, "1UoG1JhbAps1MdMc6PEFiZ2yVXl_Ii5Jk"),
    "Rebuffi2021Fixing_28_10_cutmix_ddpm": _gowal(28, 10, "1-0EChXbc6pOvx26O17av263bCeqIAz6s"),
    "Rebuffi2021Fixing_106_16_cutmix_ddpm": _gowal(106, 16, "1-4qnkveIkeWoGdF72kpEFHETiY3y4_tF"),
    "Rebuffi2021Fixing_70_16_cutmix_ddpm": _gowal(70, 16, "1-8CWRT-OFWyrz4T4s0I2mbFjPg8K_MUi"),
    "Rebuffi2021Fixing_70_16_cutmix_extra": _gowal(70, 16, "1qKDTp6IJ1BUXZaRtbYuo_t0tuDl_4mLg"),
    "Sridhar2021Robust": _trades(28, 10, "1muDMpOyRlgJ7n2rhS2NpfFGp3rzjuIu0"),
    "Sridhar2021Robust_34_15": _trades(34, 15, "1-3ii3GX93YqIcmJ3VNsOgYA7ecdnSZ0Z"),
    "Rebuffi2021Fixing_R18_ddpm": _gowal_r18("1--dxE66AsgBSUsuK2sXCTrsYUV9B5f95"),
    "Rade2021Helper_R18_extra": _gowal_r18("1hdXk1rPJql2Oa84Kky64fMTQzng5UcTL"),
    "Rade2021Helper_R18_ddpm": _gowal_r18("1f2yJUo-jxCQNk589frzriv6wPyrQEZdX"),
    "Rade2021Helper_extra": _gowal(34, 10, "1GhAp-0C3ONRy9BxIe0J9vKc082vHvR7t"),
    "Rade2021Helper_ddpm": _gowal(28, 10, "1AOF6LxnwgS5fCz_lVLYqs_wnUYuv6O7z"),
    "Huang2021Exploring": _huang2021("1-2ram-xtoEidOh1SCYY5KTiyKieINkZe"),
    "Huang2021Exploring_ema": _huang2021("1-GRwO5t9HxOS2y6RFK8QEsDXjdcgmVu6"),
    "Addepalli2021Towards_RN18": _kuangliu("resnet18", "1-1DxecXz5U_xZ54DVdE-GVm71Tiox-Ri"),
    "Addepalli2021Towards_WRN34": _trades(34, 10, "1-3vgjTNfSq7LSMKuayEQ-jLflAP196dB"),
    "Gowal2021Improving_70_16_ddpm_100m": _gowal(70, 16, "10qBoDG_NomJBrRFeTsSwEcJF1GA-sjC4"),
    "Gowal2021Improving_28_10_ddpm_100m": _gowal(28, 10, "12L8YE6VBgUDKyW6GMSNefSYj2gg4LEKx"),
    "Gowal2021Improving_R18_ddpm_100m": _gowal_r18("1-0EuCJashqSXEkkd1DOzFA4tH8KL2kim"),
    "Chen2021LTD_WRN34_10": _trades(34, 10, "1-0RoQKYvHLNh7hZ71wJjSit1XtrJQo9D"),
    "Chen2021LTD_WRN34_20": _trades(34, 20, "1-5JmY9rapuGwCUc2nPvy7Rb_sn_dHhFm"),
    "Standard": _trades(28, 10, "1t98aEuzeTL8P7Kpd5DIrCoCL21BNZUhC"),
    "Jia2022LAS-AT_34_10": _trades(34, 10, "1-3l7xKhIPyes3O4QSz0HU6L-hfOoS0xD"),
    "Jia2022LAS-AT_70_16": _trades(70, 16, "1-4p-Gr0hjl8wq6qvvTza4x4a5Rmu-Bfr"),
    "Pang2022Robustness_WRN28_10": _gowal(28, 10, "16ChNkterCp17BXv-xxqpfedb4u2_CjjS"),
    "Pang2022Robustness_WRN70_16": _gowal(70, 16, "1uQZYUuUiL9BzaQUeXLhjr_RhoyFRrHe3"),
    "Addepalli2022Efficient_RN18": _kuangliu("resnet18", "1m5vhdzIUUKhDbsZdOG9z76Eyp6f4xe_f"),
    "Addepalli2022Efficient_WRN_34_10": _trades(34, 10, "1--dVDtZhAk4D2zMtTDwIGnImuCGxTcBA"),
    "Debenedetti2022Light_XCiT-S12": _xcit("small"),
    "Debenedetti2022Light_XCiT-M12": _xcit("medium"),
    "Debenedetti2022Light_XCiT-L12": _xcit("large"),
    "Huang2022Revisiting_WRN-A4": _huang2022("1okHk4XPgunmqHG3alXfVF84qRwlu6Oqe"),
    "Wang2023Better_WRN-28-10": _gowal(28, 10, "1-6MYKJdECDVGaWjj6GgqvaT95BGKhUvI"),
    "Wang2023Better_WRN-70-16": _gowal(70, 16, "1-RF7ZSS-PAh6bfQcuqx4lh9bc9BUGnap"),
    "Xu2023Exploring_WRN-28-10": _gowal(28, 10, "1k1uJI13ft0h0dfzuEihVpBvjBXwFRH2o"),
    "Cui2023Decoupled_WRN-28-10": _gowal(28, 10, "1-AaTrYt23WJFR22hXgBd-i6kjpsz6Hf2"),
    "Cui2023Decoupled_WRN-34-10": _trades(34, 10, "1-ArD-TugRXUbH3VtM9qnzvby6NvdXNUN"),
    "Chen2024Data_WRN_34_10": _trades(34, 10, "1-AzyMQaoUuwxec6O_Yri5OVtVqnNgR4R"),
    "Chen2024Data_WRN_34_20": _trades(34, 20, "1-IbKAGtp79tAEm59N0i8QMvMZ3nxSD2-"),
    "Bartoldson2024Adversarial_WRN-94-16": _gowal(94, 16, "1g6o9H1b6vjoBi1USdCBt64C8B8LPiioX"),
    "Bartoldson2024Adversarial_WRN-82-8": _gowal(82, 8, "1--jl8qJh624SFqFffvg1IkYR-fZGA2Sr"),
}
"""The entries that this package has a network for."""

NOT_BUILT: Mapping[str, str] = {
    "Chen2020Adversarial": "an ensemble of three networks, whose probabilities are averaged",
    "Sehwag2021Proxy_ResNest152": "a ResNeSt-152 of radix 4 with SiLU, which timm does not have",
    "Dai2021Parameterizing": "a wide ResNet whose layers share the parameters of one activation",
    "Kang2021Stable": "a network that solves a differential equation",
    "Bai2023Improving_edm": "a mixture of two networks",
    "Peng2023Robust": "an architecture of its own (RaWRN-70-16)",
    "Bai2024MixedNUTS": "a mixture of two networks",
    "Amini2024MeanSparse_Ra_WRN_70_16": "an architecture of its own (RaWRN-70-16) with sparsified features",
    "Amini2024MeanSparse_S-WRN-94-16": "a network with sparsified features",
}
"""The other entries of the board, and what each is."""
