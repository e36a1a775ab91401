"""One BatchNorm for each domain, and the switch between them.

Clean and adversarial images have different statistics (Xie et al. 2020, section 6.4.2). A network that is trained on
both keeps a BatchNorm for each and runs every batch through the one of its domain.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from lightning_adv.core.errors import UsageError
from lightning_adv.nn.domain_batchnorm import DomainBatchNorm, DomainSwitch, keep_domain, with_domains
from lightning_adv.nn.surgery import hidden_references, replace_modules
from lightning_adv.nn.weights.domain_states import check_domain


def convert_batchnorm(network: nn.Module, domains: Sequence[str] = ("main", "adversarial")) -> nn.Module:
    """Give every BatchNorm of a network one copy for each domain, in place.

    The network's own BatchNorms become those of the first domain; the others start as their copies. What is inside a
    BatchNorm (the activation and the dropout of timm's ``BatchNormAct2d``) is shared, parameters and all: domains
    differ in the normalisation only. So are the hooks of a BatchNorm that has some: they see every domain, with the
    BatchNorm of that domain as their module, until their handle removes them.

    Args:
        network: A network with BatchNorms (``nn.BatchNorm2d``, timm's ``BatchNormAct2d``, SyncBatchNorm, ...).
        domains: At least one name, each a Python identifier; the first one is the active domain outside any context.

    Returns:
        ``network``.

    Raises:
        UsageError: ``domains`` is empty or has a bad name, or the network has no BatchNorm, is one itself, has domains
            already, uses gradient checkpointing, or keeps a BatchNorm beside its registered modules.

    Example:
        >>> network = convert_batchnorm(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
        >>> list(network[1].norms), network[1].domain_switch.active
        (['main', 'adversarial'], 'main')
    """
    _check_names(domains)
    if isinstance(network, _BatchNorm):
        raise UsageError(
            f"network must contain its BatchNorms to be converted in place, got a {type(network).__name__}."
        )
    for module in network.modules():
        if isinstance(module, DomainBatchNorm):
            raise UsageError("The network has domain BatchNorms already.")
        if getattr(module, "grad_checkpointing", False):  # timm's name for it
            raise UsageError(
                "The network uses gradient checkpointing, which recomputes in the backward pass, where the domain of "
                "the forward pass is over: switch it off (in timm: set_grad_checkpointing(False))."
            )
    switch = DomainSwitch(domains)
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]  # each once: it stays one
    converted: dict[nn.Module, nn.Module] = {norm: with_domains(norm, switch) for norm in norms}
    if not converted:
        raise UsageError(
            "The network has no BatchNorm to give domains to. Networks with LayerNorm or GroupNorm need none: their "
            "statistics are of one image. To learn from clean and adversarial images together, train them by "
            "MadryTraining with the objective CrossEntropy(clean_fraction=1.0)."
        )
    return replace_modules(network, converted, purpose="domain BatchNorms", kind=_BatchNorm)


@contextmanager
def domain(network: nn.Module, name: str) -> Iterator[None]:
    """Run a network through the BatchNorms of one domain. Contexts nest.

    Args:
        network: A network that :func:`convert_batchnorm` went over, or a module that contains one.
        name: The domain.

    Raises:
        UsageError: The network has no domain BatchNorm, or none of that name.

    Example:
        >>> network = convert_batchnorm(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
        >>> with domain(network, "adversarial"):
        ...     print(network[1].domain_switch.active)
        adversarial
    """
    with ExitStack() as stack:
        for switch in _switches(_domain_batchnorms(network, name)):
            stack.enter_context(switch.select(name))
        yield


class InDomain(nn.Module):
    """The network through one of its BatchNorm domains: a network like any other.

    Whatever calls a network can so be given one of its domains: an attack, an analysis, an ensemble. Each call runs
    within the domain; between calls nothing is switched. The network is shared, not copied: its weights, buffers,
    hooks and train flags are those of the wrapper's child ``network``, and its state dict has this prefix.

    Args:
        network: A network that :func:`convert_batchnorm` went over, or a module that contains one.
        domain: The domain.

    Raises:
        UsageError: The network has no domain BatchNorm, or none of that name; it is in a domain already; or it is in
            DistributedDataParallel, which goes around this wrapper, and not into it.

    Example:
        >>> network = convert_batchnorm(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
        >>> import torch
        >>> InDomain(network, "adversarial")(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 4, 6, 6])
    """

    chooses_domain = True
    """By this attribute attacks find it: they refuse another domain."""

    def __init__(self, network: nn.Module, domain: str) -> None:
        super().__init__()
        if isinstance(network, DistributedDataParallel):
            raise UsageError(
                "InDomain would take DistributedDataParallel in, whose forward pass is for training alone: give it the "
                "network inside, or wrap the other way round."
            )
        norms, inner = _walk(network)
        if inner:
            raise UsageError(f"The network is in the domain {inner[0].domain!r} already: give InDomain the one in it.")
        _check_domain(norms, domain)
        self.network = network
        self.domain: str = domain
        self.training = network.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the network through the domain; other threads that call it so wait."""
        switches = _switches(_walk(self.network)[0])
        if torch.compiler.is_compiling():  # what is compiled has its domain built in
            return self._call(switches, args, kwargs)
        with ExitStack() as stack:
            for switch in sorted(switches, key=id):  # in one order, so that two threads do not wait for each other
                stack.enter_context(switch.in_use)
            return self._call(switches, args, kwargs)

    def _call(self, switches: Sequence[DomainSwitch], args: Any, kwargs: Any) -> Any:
        before = [switch.active for switch in switches]
        try:
            for switch in switches:
                switch.active = self.domain
            return self.network(*args, **kwargs)
        finally:
            for switch, active in zip(switches, before, strict=True):
                switch.active = active

    def extra_repr(self) -> str:
        """Name the domain."""
        return f"domain={self.domain!r}"


def through(network: nn.Module, domain: str | None) -> nn.Module:
    """Return the network through a domain; with None as it is, which is through the active one.

    DistributedDataParallel is taken off: this is for looking at a network, not for training it.

    Raises:
        UsageError: See :class:`InDomain`.

    Example:
        >>> network = nn.Linear(3, 2)
        >>> through(network, None) is network
        True
    """
    if domain is None:
        return network
    return InDomain(network.module if isinstance(network, DistributedDataParallel) else network, domain)


def without_domain(network: nn.Module) -> tuple[nn.Module, str | None]:
    """Return the network inside :class:`InDomain` and the domain; any other network and None.

    Example:
        >>> network = convert_batchnorm(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
        >>> without_domain(InDomain(network, "main"))[1]
        'main'
    """
    return (network.network, network.domain) if isinstance(network, InDomain) else (network, None)


def domain_norms(network: nn.Module, name: str) -> list[_BatchNorm]:
    """Return the BatchNorms of one domain, each once.

    Args:
        network: A network that :func:`convert_batchnorm` went over, or a module that contains one.
        name: The domain.

    Raises:
        UsageError: The network has no domain BatchNorm, or none of that name.

    Example:
        >>> network = convert_batchnorm(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
        >>> [norm is network[1].norms["adversarial"] for norm in domain_norms(network, "adversarial")]
        [True]
    """
    return [cast(_BatchNorm, module.norms[name]) for module in _domain_batchnorms(network, name)]


def export_plain(network: nn.Module, domain: str = "main") -> nn.Module:
    """Return the network of one domain, in the architecture that it had before :func:`convert_batchnorm`.

    Its outputs are those of the network within ``domain(network, domain)``, and its state dict has the keys of the
    plain network (:func:`plain_state_dict` makes the same of a state dict).

    Args:
        network: A network that :func:`convert_batchnorm` went over, or a module that contains one. It stays as it is.
        domain: The domain.

    Returns:
        A deep copy of ``network`` with the BatchNorms of ``domain`` in the places of the domain BatchNorms.

    Raises:
        UsageError: The network has no domain BatchNorm, or none of that name.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        >>> list(export_plain(convert_batchnorm(network), "adversarial").state_dict())[2:4]
        ['1.weight', '1.bias']
    """
    _domain_batchnorms(network, domain)
    plain, own = keep_domain(copy.deepcopy(network), domain), set(network.modules())
    shared = next((where for _, where, module in hidden_references(plain) if module in own), None)
    if shared is not None:  # functions are not copied, nor what they close over
        raise UsageError(
            f"A copy of the network would share the layers in {shared} with it: let it call them by their attributes."
        )
    return plain


def active_domain(network: nn.Module) -> str | None:
    """Return the domain through which a network runs now; None if it has no domain BatchNorm."""
    if isinstance(network, InDomain):
        return network.domain
    switch = next(iter(_switches(_walk(network)[0])), None)
    return None if switch is None else switch.active


def _domain_batchnorms(network: nn.Module, name: str) -> list[DomainBatchNorm]:
    """Return the domain BatchNorms, each once, in their order; UsageError if there is none for domain ``name``."""
    found, wrappers = _walk(network)
    for wrapper in wrappers:
        if wrapper.domain != name:
            raise UsageError(f"domain {name!r} was asked for, but the network is InDomain(..., {wrapper.domain!r}).")
    _check_domain(found, name)
    return found


def _check_domain(norms: Sequence[DomainBatchNorm], name: str) -> None:
    if not norms:
        raise UsageError(
            f"domain {name!r} was asked for, but the network has no domain BatchNorm: convert_batchnorm first."
        )
    for switch in _switches(norms):
        check_domain(name, switch.domains)


def _walk(network: nn.Module) -> tuple[list[DomainBatchNorm], list[InDomain]]:
    """Return a network's domain BatchNorms, each once, in their order, and what chooses a domain in it."""
    found: list[DomainBatchNorm] = []
    wrappers: list[InDomain] = []
    seen: set[nn.Module | None] = {None}
    waiting: list[nn.Module | None] = [network]
    while waiting:  # 0.03 ms for a ResNet-50, where network.modules() takes 0.18: this runs in every step
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            if isinstance(module, DomainBatchNorm):
                found.append(module)
            elif module is not None:
                if isinstance(module, InDomain):
                    wrappers.append(module)
                waiting.extend(reversed(module._modules.values()))
    return found, wrappers


def _switches(norms: Iterable[DomainBatchNorm]) -> list[DomainSwitch]:
    return list({norm.domain_switch: None for norm in norms})


def _check_names(domains: Sequence[str]) -> None:
    if isinstance(domains, str) or not domains or len(set(domains)) != len(domains):
        raise UsageError(f"domains must be different names, at least one, got {domains!r}.")
    for name in domains:
        if not name.isidentifier() or hasattr(nn.ModuleDict(), name):
            raise UsageError(f"domains must be Python identifiers and no attribute of nn.ModuleDict, got {name!r}.")
