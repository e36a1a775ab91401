"""One BatchNorm for each domain, and the switch between them.

Clean and adversarial images have different statistics (Xie et al. 2020, section 6.4.2). A network that is trained on
both keeps a BatchNorm for each and runs every batch through the one of its domain.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_adv.core.errors import UsageError
from lightning_adv.nn.surgery import hidden_references, put_modules, replace_modules
from lightning_adv.nn.weights.domain_states import check_domain, plain_key, seed_domains


class DomainSwitch:
    """Names the active domain. All domain BatchNorms of one network share one switch.

    Args:
        domains: The domains' names; the first one is active at the start.
    """

    def __init__(self, domains: Sequence[str]) -> None:
        self.domains = tuple(domains)
        self.active = self.domains[0]

    def __getstate__(self) -> dict[str, Any]:
        # A copy that is made within a context would never leave it.
        return {"domains": self.domains, "active": self.domains[0]}

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

    It is no BatchNorm itself: converters such as SyncBatchNorm's then see, and convert, the ones inside. It loads the
    state dict of a single BatchNorm too, into each domain.

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


def convert_batchnorm(model: nn.Module, domains: Sequence[str] = ("main", "adversarial")) -> nn.Module:
    """Give every BatchNorm of a network one copy for each domain, in place.

    The network's own BatchNorms become those of the first domain; the others start as their copies. What is inside a
    BatchNorm (the activation and the dropout of timm's ``BatchNormAct2d``) is shared, parameters and all: domains
    differ in the normalisation only. So are the hooks of a BatchNorm that has some: they see every domain, with the
    BatchNorm of that domain as their module, until their handle removes them.

    Args:
        model: A network with BatchNorms (``nn.BatchNorm2d``, timm's ``BatchNormAct2d``, SyncBatchNorm, ...).
        domains: At least one name, each a Python identifier; the first one is the active domain outside any context.

    Returns:
        ``model``.

    Raises:
        UsageError: ``domains`` is empty or has a bad name, or the model has no BatchNorm, is one itself, has domains
            already, uses gradient checkpointing, or keeps a BatchNorm beside its registered modules.
    """
    _check_names(domains)
    if isinstance(model, _BatchNorm):
        raise UsageError(f"model must contain its BatchNorms to be converted in place, got a {type(model).__name__}.")
    for module in model.modules():
        if isinstance(module, DomainBatchNorm):
            raise UsageError("The model has domain BatchNorms already.")
        if getattr(module, "grad_checkpointing", False):  # timm's name for it
            raise UsageError(
                "The model uses gradient checkpointing, which recomputes in the backward pass, where the domain of the "
                "forward pass is over: switch it off (in timm: set_grad_checkpointing(False))."
            )
    switch = DomainSwitch(domains)
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]  # each once: it stays one
    converted: dict[nn.Module, nn.Module] = {norm: _with_domains(norm, switch) for norm in norms}
    if not converted:
        raise UsageError(
            "The model has no BatchNorm to give domains to. Networks with LayerNorm or GroupNorm need none: their "
            "statistics are of one image. To learn from clean and adversarial images together, train them by "
            "MadryTraining with the objective CrossEntropy(clean_fraction=1.0)."
        )
    return replace_modules(model, converted, purpose="domain BatchNorms", kind=_BatchNorm)


@contextmanager
def domain(model: nn.Module, name: str) -> Iterator[None]:
    """Run a network through the BatchNorms of one domain. Contexts nest.

    Args:
        model: A network that :func:`convert_batchnorm` went over, or a module that contains one.
        name: The domain.

    Raises:
        UsageError: The model has no domain BatchNorm, or none of that name.

    Example:
        >>> network = convert_batchnorm(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
        >>> with domain(network, "adversarial"):
        ...     print(network[1].domain_switch.active)
        adversarial
    """
    with ExitStack() as stack:
        for switch in {module.domain_switch for module in _domain_batchnorms(model, name)}:
            stack.enter_context(switch.select(name))
        yield


def domain_norms(model: nn.Module, name: str) -> list[_BatchNorm]:
    """Return the BatchNorms of one domain, each once.

    Args:
        model: A network that :func:`convert_batchnorm` went over, or a module that contains one.
        name: The domain.

    Raises:
        UsageError: The model has no domain BatchNorm, or none of that name.
    """
    return [cast(_BatchNorm, module.norms[name]) for module in _domain_batchnorms(model, name)]


def export_plain(model: nn.Module, domain: str = "main") -> nn.Module:
    """Return the network of one domain, in the architecture that it had before :func:`convert_batchnorm`.

    Its outputs are those of the model within ``domain(model, domain)``, and its state dict has the keys of the plain
    network (:func:`plain_state_dict` makes the same of a state dict).

    Args:
        model: A network that :func:`convert_batchnorm` went over, or a module that contains one. It stays as it is.
        domain: The domain.

    Returns:
        A deep copy of ``model`` with the BatchNorms of ``domain`` in the places of the domain BatchNorms.

    Raises:
        UsageError: The model has no domain BatchNorm, or none of that name.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        >>> list(export_plain(convert_batchnorm(network), "adversarial").state_dict())[2:4]
        ['1.weight', '1.bias']
    """
    _domain_batchnorms(model, domain)
    plain, own = keep_domain(copy.deepcopy(model), domain), set(model.modules())
    shared = next((where for _, where, module in hidden_references(plain) if module in own), None)
    if shared is not None:  # functions are not copied, nor what they close over
        raise UsageError(
            f"A copy of the network would share the layers in {shared} with it: let it call them by their attributes."
        )
    return plain


def keep_domain(model: nn.Module, domain: str) -> nn.Module:
    """Put the BatchNorms of one domain in the places of the domain BatchNorms, in place.

    Returns:
        ``model``; if it is a domain BatchNorm itself, what stood in it.
    """
    if isinstance(model, DomainBatchNorm):
        return model.norms[domain]
    return put_modules(
        model, {module: module.norms[domain] for module in model.modules() if isinstance(module, DomainBatchNorm)}
    )


def modules_of_domain(model: nn.Module, domain: str | None) -> dict[str, nn.Module]:
    """Return every module by its dotted path in the plain network of one domain, which :func:`export_plain` gives.

    None is for a network without domains.
    """
    if domain is None:
        return dict(model.named_modules(remove_duplicate=False))
    paths = ((plain_key(f"{path}.", domain), module) for path, module in model.named_modules(remove_duplicate=False))
    return {path[:-1]: module for path, module in paths if path is not None}


def active_domain(model: nn.Module) -> str | None:
    """Return the domain through which a network runs now; None if it has no domain BatchNorm."""
    switches = (module.domain_switch for module in model.modules() if isinstance(module, DomainBatchNorm))
    switch = next(switches, None)
    return None if switch is None else switch.active


def _with_domains(norm: _BatchNorm, switch: DomainSwitch) -> DomainBatchNorm:
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


def _domain_batchnorms(model: nn.Module, name: str) -> list[DomainBatchNorm]:
    """Return the domain BatchNorms, each once, in their order; ValueError if there is none for domain ``name``."""
    found: list[DomainBatchNorm] = []
    seen: set[nn.Module | None] = {None}
    waiting: list[nn.Module | None] = [model]
    while waiting:  # 0.03 ms for a ResNet-50, where model.modules() takes 0.18: this runs in every step
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            if isinstance(module, DomainBatchNorm):
                found.append(module)
            elif module is not None:
                waiting.extend(reversed(module._modules.values()))
    if not found:
        raise UsageError(
            f"domain {name!r} was asked for, but the model has no domain BatchNorm: convert_batchnorm first."
        )
    for switch in {module.domain_switch for module in found}:
        check_domain(name, switch.domains)
    return found


def _check_names(domains: Sequence[str]) -> None:
    if isinstance(domains, str) or not domains or len(set(domains)) != len(domains):
        raise UsageError(f"domains must be different names, at least one, got {domains!r}.")
    for name in domains:
        if not name.isidentifier() or hasattr(nn.ModuleDict(), name):
            raise UsageError(f"domains must be Python identifiers and no attribute of nn.ModuleDict, got {name!r}.")
