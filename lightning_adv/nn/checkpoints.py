"""Foreign checkpoints in: one strict loader for weights files of other projects."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from lightning_adv.nn.normalize import NormalizedNetwork

# where training scripts put the weights among optimizer states and epochs
WRAPPERS = ("state_dict", "model", "net")
# what DataParallel, torch.compile, LightningModules and NormalizedNetwork put before each key
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "network.")


def load_weights(network: nn.Module, path: str | os.PathLike[str], *, argument: str = "checkpoint") -> None:
    """Load a weights file into ``network``, every key of it, or nothing at all.

    Reads what ``torch.save`` wrote (without running code from the file) and ``.safetensors``. The state dict
    may lie under ``state_dict``, ``model`` or ``net``, and its keys may all begin with prefixes such as ``module.``. A
    :class:`NormalizedNetwork` takes the keys of the plain network too; its normalisation then stays as it is.

    Args:
        network: The network to load into, changed in place.
        path: The weights file.
        argument: The name of the argument that gave ``path``, for the errors.

    Raises:
        ValueError: The file is missing, cannot be read, holds no weights or holds those of another network. The
            network is then unchanged.
    """
    state = _unwrap(read_checkpoint(path, argument=argument), path, argument)
    targets = [network]
    if isinstance(network, NormalizedNetwork):
        targets.append(network.network)
    attempts = [(target, candidate) for candidate in _without_prefixes(state) for target in targets]
    for target, candidate in attempts:
        if not any(_differences(target, candidate)):
            own = target.state_dict()
            candidate.update({key: own[key] for key in own.keys() - candidate.keys()})  # see _differences
            target.load_state_dict(candidate)
            return
    closest = max(attempts, key=lambda attempt: len(attempt[0].state_dict().keys() & attempt[1].keys()))
    report = _report(*_differences(*closest))
    raise ValueError(f"{argument}: {path} holds the weights of another network: {report}.")


def check_fits(network: nn.Module, state: Mapping[str, Tensor], *, argument: str) -> None:
    """Check that a state dict is one of this network, before anything is loaded.

    Args:
        network: The network that the state dict is for.
        state: The state dict.
        argument: The name of the argument that the state dict came by, for the error.

    Raises:
        ValueError: Keys are missing, unexpected or of another shape.
    """
    differences = _differences(network, state)
    if any(differences):
        raise ValueError(f"{argument}: the checkpoint is of another network: {_report(*differences)}.")


def read_checkpoint(path: str | os.PathLike[str], *, argument: str) -> Any:
    """Return what is in a file that ``torch.save`` or safetensors wrote, on the CPU. No code in it is run.

    Args:
        path: The file.
        argument: The name of the argument that gave ``path``, for the errors.

    Raises:
        ValueError: The file is missing, or cannot be read as data.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"{argument}: there is no file {path}.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # garbage makes the readers fail in every way there is
        raise ValueError(f"{argument}: {path} cannot be read as weights: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return the sentence that matters: torch wraps it in advice to switch the safety off."""
    text = str(error).rpartition("WeightsUnpickler error:")[2].strip()
    sentence = text.partition("\n")[0].partition(". ")[0].rstrip(".")
    return f"{sentence if sentence else type(error).__name__}."


def _unwrap(content: Any, path: str | os.PathLike[str], argument: str) -> OrderedDict[str, Tensor]:
    """Return the state dict inside ``content``, with the module versions that torch keeps in it."""
    if isinstance(content, Mapping):
        if content and all(isinstance(value, Tensor) for value in content.values()):
            state = OrderedDict(content)
            if hasattr(content, "_metadata"):
                state._metadata = content._metadata  # type: ignore[attr-defined]
            return state
        for wrapper in WRAPPERS:
            if isinstance(content.get(wrapper), Mapping):
                return _unwrap(content[wrapper], path, argument)
    held = f"the keys {list(content)[:5]}" if isinstance(content, Mapping) else f"a {type(content).__name__}"
    raise ValueError(f"{argument}: {path} holds {held}, and no state dict (also not under {', '.join(WRAPPERS)}).")


def _without_prefixes(state: OrderedDict[str, Tensor]) -> Iterator[OrderedDict[str, Tensor]]:
    """Yield the state dict, then without the prefix that all keys share, then without the next one."""
    yield state
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in state):
            stripped = state.copy()
            if hasattr(state, "_metadata"):
                stripped._metadata = state._metadata.copy()  # type: ignore[attr-defined]
            consume_prefix_in_state_dict_if_present(stripped, prefix)
            yield from _without_prefixes(stripped)
            return


def _differences(network: nn.Module, state: Mapping[str, Tensor]) -> tuple[list[str], list[str], list[str]]:
    """Return the keys that are missing, unexpected and of another shape, each with its shapes."""
    own = network.state_dict()
    missing = [
        f"{key} {tuple(value.shape)}"
        for key, value in own.items()
        # torch before 0.4.1 did not save this one, and it does not change what a trained network computes
        if key not in state and not key.endswith("num_batches_tracked")
    ]
    unexpected = [f"{key} {tuple(value.shape)}" for key, value in state.items() if key not in own]
    reshaped = [
        f"{key} {tuple(state[key].shape)} in the file, {tuple(value.shape)} in the network"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    return missing, unexpected, reshaped


def _report(missing: list[str], unexpected: list[str], reshaped: list[str]) -> str:
    """Say how many keys differ, and name the first few."""
    counted = []
    for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped)):
        shown = "; ".join(keys[:3]) + ("; ..." if len(keys) > 3 else "")
        counted.append(f"{len(keys)} {what}" + (f" ({shown})" if keys else ""))
    return "keys " + ", ".join(counted)
