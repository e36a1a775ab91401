"""State dicts of networks with a BatchNorm for each domain: the keys of one domain, and those of all from one."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn

from lightning_adv.core.errors import UsageError
from lightning_adv.core.suggestions import did_you_mean

# Domains are identifiers, which the numbers of an nn.ModuleList called "norms" are not.
_DOMAIN_KEY = re.compile(r"(?P<prefix>(.*\.)?)norms\.(?P<domain>[^\W\d]\w*)\.(?P<rest>.*)")


def state_domains(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return the domains that occur in a state dict's keys, in their order; () for that of a plain network.

    Example:
        >>> from lightning_adv.nn.batchnorm import convert_batchnorm
        >>> state_domains(convert_batchnorm(nn.Sequential(nn.BatchNorm2d(4))).state_dict())
        ('main', 'adversarial')
    """
    matches = (_DOMAIN_KEY.fullmatch(key) for key in state)
    return tuple(dict.fromkeys(match["domain"] for match in matches if match is not None))


def plain_state_dict(state: Mapping[str, Tensor], domain: str = "main") -> dict[str, Tensor]:
    """Return the part of a state dict that belongs to one domain, with the keys of the plain network.

    Args:
        state: The state dict of a network that :func:`~lightning_adv.nn.batchnorm.convert_batchnorm` went over.
        domain: The domain.

    Returns:
        The state dict that the network of :func:`~lightning_adv.nn.batchnorm.export_plain` has. Tensors are shared, not
        copied; the versions of modules that torch keeps with a state dict go along.

    Raises:
        UsageError: The state dict has no domain BatchNorm, or none of that name.

    Example:
        >>> from lightning_adv.nn.batchnorm import convert_batchnorm
        >>> network = convert_batchnorm(nn.Sequential(nn.BatchNorm2d(4, affine=False)))
        >>> list(plain_state_dict(network.state_dict(), "adversarial"))
        ['0.running_mean', '0.running_var', '0.num_batches_tracked']
    """
    domains = state_domains(state)
    if not domains:
        raise UsageError(f"domain {domain!r} was asked for, but the state dict has no domain BatchNorm.")
    check_domain(domain, domains)
    plain = OrderedDict((key, state[old]) for old in state if (key := plain_key(old, domain)) is not None)
    versions = getattr(state, "_metadata", None)  # keys are modules' names, without the dot at their end
    if versions is not None:
        renamed = ((plain_key(f"{name}.", domain), version) for name, version in versions.items())
        plain._metadata = OrderedDict((key[:-1], version) for key, version in renamed if key is not None)  # type: ignore[attr-defined]
    return plain


def plain_key(key: str, domain: str) -> str | None:
    """Return the key in the plain network; None if it is of another domain."""
    match = _DOMAIN_KEY.fullmatch(key)
    if match is None:
        return key
    return f"{match['prefix']}{match['rest']}" if match["domain"] == domain else None


def seed_domains(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Turn the keys of a single BatchNorm into those of every domain, before they are loaded."""
    norms = cast(nn.ModuleDict, module.norms)
    if any(key.startswith(f"{prefix}norms.") for key in state):
        return
    first, *others = norms
    for name in norms[first].state_dict():
        if prefix + name in state:
            value = state.pop(prefix + name)
            state[f"{prefix}norms.{first}.{name}"] = value
            for other in others:  # load_state_dict(assign=True) would else make them one tensor
                state[f"{prefix}norms.{other}.{name}"] = value.clone()


def check_domain(name: str, domains: Sequence[str]) -> None:
    """Check that there is a domain.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in domains:
        hint = did_you_mean(name, domains)
        raise UsageError(f"domain must be one of {', '.join(domains)}, got {name!r}.{hint}")
