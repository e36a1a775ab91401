"""What an observer asks of the module that it observes."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from lightning_adv.attacks import Attack
from lightning_adv.nn.batchnorm import through


class ObservedModule(Protocol):
    """A LightningModule whose network can be observed. Every regime is one, and so is any module with these attributes.

    Of any other LightningModule an observer is told what it needs (:class:`~lightning_adv.callbacks.Observer`).

    Some observers take more where a module offers it: ``seed`` (of a run), ``check_batch``, ``held_in_eval`` and
    ``adversarial``, as :class:`~lightning_adv.regimes.Regime` has them.

    Attributes:
        network: Maps images (N, C, H, W) in [0, 1] to logits (N, K).
        domains: The BatchNorm domains to look through; empty for a network without.
        inference_domain: The domain that the module predicts with; None for a network without domains.
        evaluation_attack: The attack of observers that are not given one.
    """

    network: nn.Module
    domains: tuple[str, ...]
    inference_domain: str | None
    evaluation_attack: Attack

    @property
    def device(self) -> torch.device:
        """Where the network is; a LightningModule says it."""
        ...

    @property
    def dtype(self) -> torch.dtype | str:
        """The precision of its parameters; a LightningModule says it."""
        ...


NETWORK_AND_DOMAINS = ("network", "domains", "inference_domain")
"""What an observer needs that attacks nothing."""


def networks_of(module: ObservedModule) -> dict[str, nn.Module]:
    """Return the network of a module through each of its BatchNorm domains, by what the tables call them.

    A network without domains stands there as it is, by the empty string.
    """
    domains = module.domains if module.domains else (module.inference_domain,)
    return {"" if domain is None else domain: through(module.network, domain) for domain in domains}


def headline_domain(module: ObservedModule) -> str:
    """Return what the tables call the domain of inference, from which the logged numbers come."""
    domain = getattr(module, "inference_domain", None)  # an observer may need no domains
    return "" if domain is None else domain


def where_doubles_are(device: torch.device) -> torch.device:
    """Return where to sum in double precision: on the device, or beside Apple's, which has none."""
    return torch.device("cpu") if device.type == "mps" else device
