"""One BatchNorm for each domain, and the switch between them.

Clean and adversarial images have different statistics (Xie et al. 2020, section 6.4.2). A network that is trained on
both keeps a BatchNorm for each and runs every batch through the one of its domain.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class DomainSwitch:
    """Names the active domain. All domain BatchNorms of one network share one switch.

    Args:
        domains: The domains' names; the first one is active at the start.
    """

    def __init__(self, domains: Sequence[str]) -> None:
        self.domains = tuple(domains)
        self.active = self.domains[0]

    @contextmanager
    def select(self, domain: str) -> Iterator[None]:
        """Make ``domain`` the active one within the context.

        Raises:
            ValueError: There is no such domain.
        """
        if domain not in self.domains:
            raise ValueError(f"domain must be one of {', '.join(self.domains)}, got {domain!r}.")
        before, self.active = self.active, domain
        try:
            yield
        finally:
            self.active = before


class DomainBatchNorm(nn.Module):
    """Holds one BatchNorm for each domain and calls that of the active one.

    It is no BatchNorm itself: converters such as SyncBatchNorm's then see, and convert, the ones inside.

    Args:
        norms: A BatchNorm for each domain.
        switch: Says which one is active.
    """

    def __init__(self, norms: Mapping[str, _BatchNorm], switch: DomainSwitch) -> None:
        super().__init__()
        self.norms = nn.ModuleDict(norms)
        self.domain_switch = switch

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` (N, C, ...) in the active domain: (N, C, ...)."""
        y: Tensor = self.norms[self.domain_switch.active](x)
        return y


def convert_batchnorm(model: nn.Module, domains: Sequence[str] = ("main", "adversarial")) -> nn.Module:
    """Give every BatchNorm of a network one copy for each domain, in place.

    The network's own BatchNorms become those of the first domain, hooks and all; the others start as their copies.

    Args:
        model: A network with BatchNorms (``nn.BatchNorm2d``, timm's ``BatchNormAct2d``, SyncBatchNorm, ...).
        domains: At least one name; the first one is the active domain outside any context.

    Returns:
        ``model``.

    Raises:
        ValueError: ``domains`` is empty or has a name twice, or the model has no BatchNorm, or has domains already.
    """
    if not domains or len(set(domains)) != len(domains):
        raise ValueError(f"domains must be different names, at least one, got {list(domains)}.")
    if any(isinstance(module, DomainBatchNorm) for module in model.modules()):
        raise ValueError("The model has domain BatchNorms already.")
    switch = DomainSwitch(domains)
    converted: dict[_BatchNorm, DomainBatchNorm] = {}  # a BatchNorm that is used in two places stays one
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):  # named_children leaves out what is there twice
            if isinstance(child, _BatchNorm):
                if child not in converted:
                    copies = {domain: child if domain == domains[0] else copy.deepcopy(child) for domain in domains}
                    converted[child] = DomainBatchNorm(copies, switch)
                    converted[child].training = converted[child].norms.training = child.training
                setattr(parent, name, converted[child])
    if not converted:
        raise ValueError(
            "The model has no BatchNorm to give domains to. Networks with LayerNorm or GroupNorm need none: their "
            "statistics are of one image, so train them with the same regime without domains."
        )
    return model


@contextmanager
def domain(model: nn.Module, name: str) -> Iterator[None]:
    """Run a network through the BatchNorms of one domain. Contexts nest.

    Args:
        model: A network that :func:`convert_batchnorm` went over, or a module that contains one.
        name: The domain.

    Raises:
        ValueError: The model has no domain BatchNorm, or none of that name.

    Example:
        >>> network = convert_batchnorm(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
        >>> with domain(network, "adversarial"):
        ...     print(network[1].domain_switch.active)
        adversarial
    """
    switches = {m.domain_switch for m in model.modules() if isinstance(m, DomainBatchNorm)}
    if not switches:
        raise ValueError(
            f"domain {name!r} was asked for, but the model has no domain BatchNorm: convert_batchnorm first."
        )
    with ExitStack() as stack:
        for switch in switches:
            stack.enter_context(switch.select(name))
        yield
