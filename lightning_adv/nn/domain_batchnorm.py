"""A BatchNorm that has one BatchNorm for each domain, and the switch that says which of them is called."""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_adv.nn.surgery import put_modules
from lightning_adv.nn.weights.domain_states import check_domain, plain_key, seed_domains


class DomainSwitch:
    """Names the active domain. All domain BatchNorms of one network share one switch.

    Args:
        domains: The domains' names; the first one is active at the start.
    """

    def __init__(self, domains: Sequence[str]) -> None:
        self.domains = tuple(domains)
        self.active = self.domains[0]
        self.in_use = threading.RLock()
        """Held by a thread that calls the network through a domain (:class:`~lightning_adv.nn.InDomain`)."""

    def __getstate__(self) -> dict[str, Any]:
        return {"domains": self.domains}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # With the first domain active: a copy that is made within a context would never leave it.
        DomainSwitch.__init__(self, state["domains"])

    @contextmanager
    def select(self, domain: str) -> Iterator[None]:
        """Make ``domain`` the active one within the context.

        Raises:
            UsageError: There is no such domain.
        """
        check_domain(domain, self.domains)
        before, self.active = self.active, domain
        try:
            yield
        finally:
            self.active = before


class DomainBatchNorm(nn.Module):
    """Holds one BatchNorm for each domain and calls that of the active one.

    It is not a BatchNorm itself: converters such as SyncBatchNorm's then see, and convert, the ones inside. It loads
    the state dict of a single BatchNorm too, into each domain.

    Args:
        norms: A BatchNorm for each domain.
        switch: Says which one is active.
    """

    def __init__(self, norms: Mapping[str, _BatchNorm], switch: DomainSwitch) -> None:
        super().__init__()
        self.norms = nn.ModuleDict(norms)
        self.domain_switch = switch
        self.register_load_state_dict_pre_hook(seed_domains)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` (N, C, ...) in the active domain: (N, C, ...).

        Raises:
            RuntimeError: This is the recomputation of gradient checkpointing. (Within ``torch.compile`` there is no
                such check: a checkpoint that is compiled keeps its domain, one around a compiled network does not.)
        """
        # -1 outside a backward pass, 50 ns a call; torch.utils.checkpoint asks the same way.
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
            raise RuntimeError(
                "A domain BatchNorm was called in a backward pass, where the domain of the forward pass is over. "
                "Gradient checkpointing does so: switch it off (in timm: set_grad_checkpointing(False))."
            )
        y: Tensor = self.norms[self.domain_switch.active](x)
        return y

    def __getattr__(self, name: str) -> Any:
        """Say of a BatchNorm's tensors and settings why they are not here: ``F.batch_norm`` would be given them."""
        if name in _OF_A_BATCHNORM:
            raise AttributeError(
                f"A domain BatchNorm has no {name}: the network's code reads its BatchNorm's {name} itself, as for "
                "F.batch_norm, and does not call the BatchNorm as a module. Such a BatchNorm can have no domains."
            )
        return super().__getattr__(name)


_OF_A_BATCHNORM = frozenset(
    ("weight", "bias", "running_mean", "running_var", "num_batches_tracked", "momentum", "eps", "num_features")
)


def with_domains(norm: _BatchNorm, switch: DomainSwitch) -> DomainBatchNorm:
    """Return ``norm`` for the first domain with copies of it for the others."""
    shared: list[Any] = list(norm.children())
    hooks = [value for name, value in vars(norm).items() if re.match("_(for|back)ward_.*hooks", name)]
    if any(hooks):  # the dicts themselves, so that the handle of a hook removes it everywhere
        shared += hooks
    first, *others = switch.domains
    norms = {first: norm}
    for other in others:
        norms[other] = copy.deepcopy(norm, memo={id(part): part for part in shared})
    converted = DomainBatchNorm(norms, switch)
    converted.training = converted.norms.training = norm.training
    return converted


def keep_domain(network: nn.Module, domain: str) -> nn.Module:
    """Put the BatchNorms of one domain in the places of the domain BatchNorms, in place.

    Returns:
        ``network``; if it is a domain BatchNorm itself, what stood in it.
    """
    if isinstance(network, DomainBatchNorm):
        return network.norms[domain]
    return put_modules(
        network, {module: module.norms[domain] for module in network.modules() if isinstance(module, DomainBatchNorm)}
    )


def modules_of_domain(network: nn.Module, domain: str | None) -> dict[str, nn.Module]:
    """Return every module by its dotted path in the plain network of one domain; None is for one without domains.

    The plain network is the one that :func:`~lightning_adv.nn.batchnorm.export_plain` gives.
    """
    if domain is None:
        return dict(network.named_modules(remove_duplicate=False))
    paths = ((plain_key(f"{path}.", domain), module) for path, module in network.named_modules(remove_duplicate=False))
    return {path[:-1]: module for path, module in paths if path is not None}
