"""Runs a regime's attacks on its network, on a faster view of it wherever one computes the same."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Literal, TypeAlias

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from lightning_adv.attacks import Attack
from lightning_adv.nn.batchnorm import active_domain, without_domain
from lightning_adv.nn.view.attack_view import AttackView, NoViewError, check_compile_mode, has_hooks

View: TypeAlias = Literal["auto", "off"]
AttackPrecision: TypeAlias = Literal["same", "bf16", "fp16"]

_DTYPES = {"same": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class AttackRunner:
    """Runs attacks on a network, on a view of it wherever one computes the same.

    Args:
        view: ``"auto"`` or ``"off"``, which attacks the network itself.
        precision: ``"same"`` is that of the network's own forward pass, autocast included; ``"bf16"`` and ``"fp16"``
            compute the attack's passes in that precision, on a view or not, unless the attack selects by success.
        compile: Whether views are compiled, or in which mode; see :func:`~lightning_adv.nn.view.attack_view`.

    Raises:
        UsageError: ``compile`` is not a mode.
    """

    def __init__(
        self, view: View = "auto", precision: AttackPrecision = "same", *, compile: bool | str = False
    ) -> None:
        self._view = view
        self._dtype = _DTYPES[precision]
        self._compile = check_compile_mode(compile, "compile_view")
        self._views: dict[tuple[str | None, torch.dtype | None], AttackView] = {}
        self._told: set[str] = set()
        self._unprepared: nn.Module | None = None  # a network that no view can be made of

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_views": {}, "_unprepared": None}  # a copy makes views of its own network

    def run(
        self,
        attack: Attack,
        network: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        generator: torch.Generator,
        reduced_precision: bool = True,
    ) -> Tensor:
        """Return the adversarial examples; see :meth:`lightning_adv.attacks.Attack.__call__`.

        The network may be :class:`~lightning_adv.nn.InDomain`. ``reduced_precision`` is False where attacks shall
        compute as the network does, whatever ``precision`` is. Attacks that select by success
        (:attr:`lightning_adv.attacks.Attack.selects_by_success`) always do, and under autocast they are given the
        network itself: a view rounds otherwise.
        """
        dtype = self._dtype if reduced_precision and not attack.selects_by_success else None
        view = self._view_of(attack, network, x, dtype)
        if view is not None:
            noise = generator.get_state()
            try:
                return attack(view, x, y, generator=generator)
            except NoViewError as error:
                self._tell(str(error))
                self.clear()
                self._unprepared = without_domain(network)[0]
                generator.set_state(noise)
        with nullcontext() if dtype is None else torch.autocast(x.device.type, dtype):
            return attack(network, x, y, generator=generator)

    def _view_of(self, attack: Attack, network: nn.Module, x: Tensor, dtype: torch.dtype | None) -> AttackView | None:
        """Return a view of the network; None where the attack needs the network itself."""
        if self._view == "off" or without_domain(network)[0] is self._unprepared or not len(x):
            return None
        if attack.batchnorm != "eval":  # by the batch's statistics there is nothing to fold
            return None
        if attack.selects_by_success and torch.is_autocast_enabled(x.device.type):
            return None
        if has_hooks(network):  # they come and go
            self._tell("it has hooks, which a view would not call")
            return None
        if dtype is None and torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)  # weights that are cast once, and not in each pass
        key = (active_domain(network), dtype)
        view = self._views.get(key)
        if view is None or not view.is_of(network):
            self._views = {key: view for key, view in self._views.items() if view.is_of(network)}
            view = self._views[key] = AttackView(network, dtype=dtype, compile=self._compile)
        return view

    def _tell(self, reason: str) -> None:
        if reason not in self._told:
            self._told.add(reason)
            rank_zero_info(f"view: the attacks run on the network itself, since {reason}.")

    def clear(self) -> None:
        """Let go of all views, and of what is known of networks."""
        self._views.clear()
        self._unprepared = None
