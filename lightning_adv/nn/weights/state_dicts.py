"""State dicts in the wild: where training scripts put them, and what they wrap around the keys of the network."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from lightning_adv.nn.smooth_relu import renew_alpha

# Where training scripts put the weights among optimizer states and epochs. Averaged weights come first, as in timm:
# they are the ones that a training with averaging validates.
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model_state_dict", "ema", "model_averaged")
WRAPPERS = (*AVERAGED, "state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "last")

# what DataParallel, torch.compile, LightningModules, NormalizedNetwork, Sequential(Normalize, ...) put before each key
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "network.", "net.", "1.")

# a layer for the normalisation, or buffers of the network itself: torchattacks, RobustBench, MadryLab's robustness
_MEAN = re.compile(r"(?P<layer>(\w+\.)?)(?P<name>mean|_mean|new_mean|mu)")
_STD = {"mean": "std", "_mean": "_std", "new_mean": "new_std", "mu": "sigma"}


def find_state_dict(content: Any) -> tuple[OrderedDict[str, Tensor], str] | None:
    """Return the state dict inside what was read from a file, and the key that it lies under.

    Args:
        content: A state dict, or a mapping that holds one under one of ``WRAPPERS``.

    Returns:
        The state dict, with the module versions that torch keeps in it, and its key (``""`` for the file itself,
        ``"ema.module"`` for one within another). None where there is no state dict.
    """
    return _find(content, depth=4)


def _find(content: Any, depth: int) -> tuple[OrderedDict[str, Tensor], str] | None:
    """Look into wrappers, which may hold themselves, up to a depth."""
    if not isinstance(content, Mapping) or not depth:
        return None
    if content and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        state = OrderedDict(content)
        if hasattr(content, "_metadata"):
            state._metadata = content._metadata  # type: ignore[attr-defined]
        return state, ""
    for wrapper in WRAPPERS:
        found = _find(content.get(wrapper), depth - 1)
        if found is not None:
            return found[0], f"{wrapper}.{found[1]}".rstrip(".")
    return None


@dataclass(frozen=True)
class Candidate:
    """What may be the state dict of the plain network.

    Args:
        state: The tensors.
        prefix: What was in front of all keys in the file.
        normalization: Mean and standard deviation of each channel, shape (C,) or (1,), if they lay beside the keys.
        left: Names of other tensors in the file that are no part of the network.
    """

    state: OrderedDict[str, Tensor]
    prefix: str = ""
    normalization: tuple[Tensor, Tensor] | None = None
    left: tuple[str, ...] = ()


def candidates(state: OrderedDict[str, Tensor]) -> Iterator[Candidate]:
    """Yield the state dict, and what remains when wrappers around the network are taken off, one after another."""
    candidate = Candidate(state)
    while candidate.state:
        yield candidate
        inner = _without_wrapper_tensors(candidate)
        if inner is not candidate:
            yield inner
        prefix = next((prefix for prefix in PREFIXES if all(key.startswith(prefix) for key in inner.state)), None)
        if prefix is None:
            return
        stripped = _copy(inner.state)
        consume_prefix_in_state_dict_if_present(stripped, prefix)
        candidate = replace(inner, state=stripped, prefix=inner.prefix + prefix)


def _without_wrapper_tensors(candidate: Candidate) -> Candidate:
    """Take out the tensors of wrappers: the normalisation, the attacker's copy of the network, counters."""
    state, left = candidate.state, list(candidate.left)
    # MadryLab's robustness keeps its attacker in the module: the same network, and the same normalisation, again
    copied = [key for key in state if key.startswith("attacker.")]
    if not all(_is_copy(key.removeprefix("attacker."), state[key], state) for key in copied):
        copied = []
    counters = [key for key in ("n_averaged",) if key in state]  # torch's AveragedModel
    taken = {*copied, *counters}
    left += [candidate.prefix + key for key in (*copied, *counters)]
    normalization = candidate.normalization
    if normalization is None:
        pair = _find_normalization(state.keys() - taken, state)
        if pair is not None:
            taken |= set(pair)
            mean, std = (state[key].detach().flatten().to(torch.float32) for key in pair)
            normalization = mean, std
    if not taken or len(taken) == len(state):
        return candidate
    kept = _copy(state)
    for key in taken:
        del kept[key]
    return replace(candidate, state=kept, normalization=normalization, left=tuple(left))


def without_unused(candidate: Candidate, prefixes: Sequence[str]) -> Candidate:
    """Take out the tensors of modules that a network's authors registered and never ran.

    Args:
        candidate: A state dict.
        prefixes: What the names of these tensors begin with, as the network says in ``unused_keys``.
    """
    unused = [key for key in candidate.state if key.startswith(tuple(prefixes))]
    if not unused:
        return candidate
    kept = _copy(candidate.state)
    for key in unused:
        del kept[key]
    return replace(candidate, state=kept, left=(*candidate.left, *(candidate.prefix + key for key in unused)))


def _is_copy(key: str, value: Tensor, state: Mapping[str, Tensor]) -> bool:
    """Whether the tensor is elsewhere in the state dict under its own name, or under that of MadryLab's normaliser."""
    other = state.get(key.replace("normalize.", "normalizer.", 1) if key.startswith("normalize.") else key)
    return other is not None and torch.equal(other, value)


def _find_normalization(keys: Collection[str], state: Mapping[str, Tensor]) -> tuple[str, str] | None:
    """Return the keys of a mean and a standard deviation that have one value for each channel."""
    for key in sorted(keys):
        found = _MEAN.fullmatch(key)
        if found is not None:
            other = found["layer"] + _STD[found["name"]]
            if other in keys and all(_is_per_channel(state[name]) for name in (key, other)):
                return key, other
    return None


def _is_per_channel(value: Tensor) -> bool:
    return value.is_floating_point() and value.numel() == max(value.shape, default=1)


def _copy(state: OrderedDict[str, Tensor]) -> OrderedDict[str, Tensor]:
    copied = state.copy()
    if hasattr(state, "_metadata"):
        copied._metadata = state._metadata.copy()  # type: ignore[attr-defined]
    return copied


# Keys -----------------------------------------------------------------------------------------------------------------


class Fit(NamedTuple):
    """How a candidate's keys compare with those of the network: what stands in the way, and the head that is new."""

    candidate: Candidate
    missing: list[str]
    unexpected: list[str]
    reshaped: list[str]
    new_head: list[str]

    @property
    def loads(self) -> bool:
        """Whether nothing stands in the way."""
        return not (self.missing or self.unexpected or self.reshaped)

    def load(self, network: nn.Module, own: Mapping[str, Tensor]) -> None:
        """Load the candidate; what it lacks, and a new head, stay as they are."""
        state = self.candidate.state.copy()
        state.update({key: own[key] for key in own if key not in state or key in self.new_head})
        # safetensors keep no versions of modules, and MNASNet loads nothing without; of older ones the shapes differ
        versions = getattr(self.candidate.state, "_metadata", getattr(own, "_metadata", None))
        state._metadata = versions  # type: ignore[attr-defined]
        network.load_state_dict(state)

    def head_classes(self, own: Mapping[str, Tensor]) -> tuple[int, int] | None:
        """Return the number of classes in the network and in the file, where the head is new."""
        if not self.new_head:
            return None
        return len(own[self.new_head[0]]), len(self.candidate.state[self.new_head[0]])

    def report(self, own: Mapping[str, Tensor]) -> str:
        """Say how many keys differ, and name the first few with their shapes."""
        state = self.candidate.state
        counted = {
            "missing": [f"{key} {tuple(own[key].shape)}" for key in self.missing],
            "unexpected": [f"{key} {tuple(state[key].shape)}" for key in self.unexpected],
            "of another shape": [
                f"{key} {tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the network"
                for key in self.reshaped
            ],
        }
        told = (f"{len(keys)} {what}" + (f" ({few(keys)})" if keys else "") for what, keys in counted.items())
        return "keys " + ", ".join(told)


def fit(own: Mapping[str, Tensor], candidate: Candidate, head: Sequence[str], optional: Sequence[str]) -> Fit:
    """Compare a candidate with a network.

    Args:
        own: The network's state dict.
        candidate: What is to be loaded into it.
        head: Names of layers that may have another number of classes in the candidate, and are new then.
        optional: Keys that the candidate may lack, all of them together.
    """
    state = renew_alpha(candidate.state, own)
    candidate = replace(candidate, state=state)
    absent = {key for key in optional if key not in state}
    allowed = absent if len(absent) == len(optional) else set()
    # torch before 0.4.1 did not save the counters, and they do not change what a trained network computes
    missing = [k for k in own if k not in state and k not in allowed and not k.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    reshaped = [key for key in own if key in state and state[key].shape != own[key].shape]
    classifier = [key for name in head for key in (f"{name}.weight", f"{name}.bias") if key in own]
    other_classes = all(key in reshaped and state[key].shape[1:] == own[key].shape[1:] for key in classifier)
    new_head = classifier if other_classes else []
    return Fit(candidate, missing, unexpected, [key for key in reshaped if key not in new_head], new_head)


def few(keys: Sequence[str]) -> str:
    """Name the first three."""
    return "; ".join(keys[:3]) + ("; ..." if len(keys) > 3 else "")
