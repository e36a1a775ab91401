"""Whether a network calls the BatchNorms of its domains through its domain BatchNorms, which choose among them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from lightning_adv.core.errors import UsageError
from lightning_adv.nn.domain_batchnorm import DomainBatchNorm


@contextmanager
def through_domains(network: nn.Module) -> Iterator[None]:
    """Check that no BatchNorm of a domain is called but by its domain BatchNorm, in the passes within the context.

    :func:`~lightning_adv.nn.batchnorm.convert_batchnorm` looks for other references; what a function finds among its
    globals, say, only a pass shows.

    Args:
        network: Any network. One that ``torch.compile`` has compiled is not looked at: it calls no hooks.

    Raises:
        UsageError: One was.
    """
    containers = [] if network._compiled_call_impl is not None else _containers(network)
    running: set[nn.Module] = set()
    with ExitStack() as stack:

        def enter(container: nn.Module, args: Any) -> None:
            running.add(container)

        def leave(container: nn.Module, args: Any, output: Any) -> None:
            running.discard(container)

        def check(path: str, container: nn.Module) -> Any:
            def hook(norm: nn.Module, args: Any) -> None:
                if container not in running:
                    raise UsageError(
                        f"{type(network).__name__} calls the {type(norm).__name__} {path} otherwise than as its "
                        "registered module, and so past its BatchNorm domains: let it keep its layers in an "
                        "nn.ModuleList, nn.ModuleDict or nn.Sequential, or call them by their attributes."
                    )

            return hook

        for path, container in containers:
            stack.enter_context(container.register_forward_pre_hook(enter, prepend=True))
            stack.enter_context(container.register_forward_hook(leave, always_call=True))
            for norm in container.norms.children():
                stack.enter_context(norm.register_forward_pre_hook(check(path, container), prepend=True))
        yield


def _containers(network: nn.Module) -> list[tuple[str, DomainBatchNorm]]:
    return [(path, module) for path, module in network.named_modules() if isinstance(module, DomainBatchNorm)]
