"""Foreign checkpoints in: one strict loader for weights files, of this package and of other projects."""

from __future__ import annotations

import argparse
import logging
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from lightning_adv.core.errors import UsageError
from lightning_adv.nn.normalize import NormalizedNetwork
from lightning_adv.nn.weights.checkpoint_form import WEIGHTS_OF_A_RUN, check_activation, unlike_recipe
from lightning_adv.nn.weights.domain_states import plain_state_dict, state_domains
from lightning_adv.nn.weights.export import read_description
from lightning_adv.nn.weights.form import check_form
from lightning_adv.nn.weights.report import LoadReport, numbers
from lightning_adv.nn.weights.state_dicts import (
    WRAPPERS,
    Candidate,
    candidates,
    few,
    find_state_dict,
    fit,
    without_unused,
)
from lightning_adv.nn.zoo.robustbench import Rewrite

_LOGGER = logging.getLogger("lightning_adv")


def load_weights(
    network: nn.Module,
    path: str | os.PathLike[str],
    *,
    argument: str = "checkpoint",
    domain: str | None = None,
    domain_argument: str | None = None,
    head: Sequence[str] = (),
    optional: Sequence[str] = (),
    recipe: Mapping[str, Any] | None = None,
    rewrite: Rewrite | None = None,
) -> LoadReport:
    """Load a weights file into ``network``, every key of it, or nothing at all.

    Reads what ``torch.save`` wrote (without running code from the file), ``.safetensors`` and Lightning's checkpoints.
    The state dict may lie under a key such as ``state_dict`` or ``model``, and its keys may begin with prefixes such as
    ``module.``. A :class:`NormalizedNetwork` takes the keys of the plain network. Where a normalisation comes with
    them (buffers beside the keys, or the description that ``lightning-adv export`` wrote), it takes that too.

    Args:
        network: The network to load into, changed in place.
        path: The weights file.
        argument: The name of the argument that gave ``path``, for the errors.
        domain: The BatchNorm domain to take from a file that has domains. None takes the one that its regime predicts
            with if the file says so, else ``main``.
        domain_argument: The name of the argument that gave ``domain``, for the errors; None is ``argument`` with
            ``_domain`` behind it.
        head: Dotted names, in the plain network, of layers that stay new where the file has another number of
            classes (the first dimension of weight and bias).
        optional: Keys of the plain network that the file may lack, all of them together.
        recipe: What the network computes beyond its keys, compared with the file's own recipe if it has one:
            ``activation`` and ``activation_options`` of :class:`~lightning_adv.nn.backbones.Backbone`. With one, the
            checkpoint of a regime that trains another network than its backbone's recipe gives is refused.
        rewrite: What gives the keys of a file the names that they have in the plain network, where they are not the
            same; see :class:`~lightning_adv.nn.zoo.robustbench.Published`.

    Returns:
        What was loaded, and what was not.

    Raises:
        UsageError: The file is missing, cannot be read, holds no weights, those of another network or such that are NaN
            or infinite, has no such domain, or is of a regime whose network only the regime can build. The network is
            then unchanged.

    Example:
        >>> import tempfile
        >>> network, trained = nn.Linear(2, 3), nn.Linear(2, 3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"model": trained.state_dict()}, f"{folder}/trained.pt")
        ...     load_weights(network, f"{folder}/trained.pt").loaded
        ('weight', 'bias')
        >>> torch.equal(network.weight, trained.weight)
        True
    """
    file = _open(path, argument)
    if file.unlike_recipe is not None and recipe is not None:
        raise UsageError(f"{file.path} {file.unlike_recipe}", key=argument)
    if file.recipe is not None:
        check_activation(file.recipe, {} if recipe is None else recipe, f"{argument}: {file.path}")
    plain = network.network if isinstance(network, NormalizedNetwork) else network
    own = plain.state_dict()
    named = f"{argument}_domain" if domain_argument is None else domain_argument
    state, domains, domain = _choose_domain(file, own, domain, argument, named)
    unused = getattr(plain, "unused_keys", ())
    found_keys = [without_unused(candidate, unused) for candidate in candidates(state)]
    if rewrite is not None:  # what has this package's own keys already is loaded as it is
        found_keys += [replace(each, state=OrderedDict(rewrite(each.state, plain))) for each in found_keys]
    fits = [fit(own, candidate, head, optional) for candidate in found_keys]
    found = next((each for each in fits if each.loads), None)
    if found is None:
        closest = min(fits, key=lambda each: len(each.missing) + len(each.unexpected))
        raise UsageError(f"{path} holds the weights of another network: {closest.report(own)}.", key=argument)
    broken = [key for key, value in found.candidate.state.items() if key in own and not torch.isfinite(value).all()]
    if broken:
        raise UsageError(
            f"{path} holds values that are NaN or infinite in {len(broken)} tensor{'s' if len(broken) > 1 else ''} "
            f"({few(broken)}): the training that wrote it had failed.",
            key=argument,
        )
    left = [*file.left, *found.candidate.left]
    pair = file.normalization if file.normalization is not None else found.candidate.normalization
    taken = None
    if pair is not None and isinstance(network, NormalizedNetwork):
        taken = _per_channel(pair, len(network.normalize.mean), file.path, argument)
    elif pair is not None:
        left.append("the normalisation")
    found.load(plain, own)
    if taken is not None and isinstance(network, NormalizedNetwork):
        network.normalize.mean.copy_(taken[0])
        network.normalize.std.copy_(taken[1])
    return LoadReport(
        path=str(path),
        source=file.source,
        loaded=tuple(key for key in own if key in found.candidate.state and key not in found.new_head),
        left=tuple(left),
        missing=tuple(key for key in own if key not in found.candidate.state),
        replaced_head=tuple(found.new_head),
        head_classes=found.head_classes(own),
        domain=domain,
        domains=domains,
        normalization=None if taken is None else numbers(*taken),
        kept_normalization=numbers(network.normalize.mean, network.normalize.std)
        if taken is None and isinstance(network, NormalizedNetwork)
        else None,
    )


def check_fits(network: nn.Module, state: Mapping[str, Tensor], *, argument: str) -> None:
    """Check that a state dict is one of this network, before anything is loaded.

    Args:
        network: The network that the state dict is for.
        state: The state dict.
        argument: The name of the argument that the state dict came by, for the error.

    Raises:
        UsageError: Keys are missing, unexpected or of another shape.
    """
    own = network.state_dict()
    compared = fit(own, Candidate(OrderedDict(state)), (), ())
    if not compared.loads:
        raise UsageError(f"the checkpoint is of another network: {compared.report(own)}.", key=argument)


def read_checkpoint(path: str | os.PathLike[str], *, argument: str) -> Any:
    """Return what is in a file that ``torch.save`` or safetensors wrote, on the CPU. No code in it is run.

    Args:
        path: The file.
        argument: The name of the argument that gave ``path``, for the errors.

    Raises:
        UsageError: The file is missing, or cannot be read as data.
    """
    path = Path(path).expanduser()
    if not os.path.isfile(path):  # False of a path that is too long, where Path raises
        raise UsageError(f"there is no file {path}.", key=argument)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):  # plain data: timm's CheckpointSaver writes one
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # garbage makes the readers fail in every way there is
        raise UsageError(f"{path} cannot be read as weights: {_reason(error)}", key=argument) from error


def say(text: str, *, warn: bool = False) -> None:
    """Log a sentence for the user, in the first process of a run only."""
    ranks = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    rank = next((int(rank) for rank in ranks if rank is not None and rank.isdigit()), 0)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        rank = torch.distributed.get_rank()
    if rank == 0:
        _LOGGER.log(logging.WARNING if warn else logging.INFO, text)


# The file -----------------------------------------------------------------------------------------------------------


class _File(NamedTuple):
    """A weights file: its state dict, and what it says of itself if this package wrote it."""

    path: str
    state: OrderedDict[str, Tensor]
    source: str
    recipe: Mapping[str, Any] | None = None
    domain: str | None = None
    left: tuple[str, ...] = ()
    normalization: tuple[Tensor, Tensor] | None = None
    unlike_recipe: str | None = None


def _open(path: str | os.PathLike[str], argument: str) -> _File:
    content = read_checkpoint(path, argument=argument)
    found = find_state_dict(content)
    if found is None:
        held = f"the keys {list(content)[:5]}" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise UsageError(
            f"{path} holds {held}, and no state dict (also not under {', '.join(WRAPPERS)}).", key=argument
        )
    state, source = found
    description = read_description(path, argument=argument)
    if description is not None:
        mean, std = (torch.tensor(description["normalization"][name]) for name in ("mean", "std"))
        built_by = description.get("built_by")
        changed = None if built_by is None else f"is of a network that {built_by} changed: another one would take it."
        recipe = description["architecture"]
        return _File(str(path), state, source, recipe, normalization=(mean, std), unlike_recipe=changed)
    if "regime" not in content or "hyper_parameters" not in content:
        return _File(str(path), state, source)
    check_form(content, WEIGHTS_OF_A_RUN, source=f"{argument}: {path}")
    hyper_parameters = content["hyper_parameters"]
    recipe = hyper_parameters["backbone"]
    # a regime of this package: beside the network lie metrics and what else the LightningModule keeps
    left = tuple(key for key in state if not key.startswith("network."))
    for key in left:
        del state[key]
    recipe = recipe.get("init_args", recipe)
    unlike = unlike_recipe(content["regime"])
    domain = hyper_parameters.get("inference_domain")
    return _File(str(path), state, source, recipe, domain, left, unlike_recipe=unlike)


def _reason(error: Exception) -> str:
    """Return the sentence that matters: torch wraps it in advice to switch the safety off."""
    text = str(error).rpartition("WeightsUnpickler error:")[2].strip()
    sentence = text.partition("\n")[0].partition(". ")[0].rstrip(".")
    return f"{sentence if sentence else type(error).__name__}."


def _choose_domain(
    file: _File, own: Mapping[str, Tensor], wanted: str | None, argument: str, domain_argument: str
) -> tuple[OrderedDict[str, Tensor], tuple[str, ...], str | None]:
    """Return the state dict of one domain, all domains of the file, and the one chosen (None: there are none)."""
    domains = state_domains(file.state)
    if wanted is not None and not domains:
        raise UsageError(f"{file.path} has no BatchNorm domains, and {wanted!r} was asked for.", key=domain_argument)
    if not domains or (state_domains(own) and wanted is None):
        return file.state, (), None
    chosen = wanted if wanted is not None else file.domain if file.domain is not None else "main"
    if chosen not in domains:
        raise UsageError(
            f"{file.path} has no BatchNorm domain {chosen!r}; it has {', '.join(domains)}: name one of them.",
            key=domain_argument,
        )
    return cast(OrderedDict[str, Tensor], plain_state_dict(file.state, chosen)), domains, chosen


def _per_channel(pair: tuple[Tensor, Tensor], channels: int, path: str, argument: str) -> tuple[Tensor, Tensor]:
    """Return the normalisation that a file carries in the shape (C, 1, 1)."""
    for values in pair:
        if len(values) not in (1, channels):
            raise UsageError(
                f"{path} carries a normalisation of {len(values)} channels, the network takes {channels}.", key=argument
            )
    mean, std = (values.expand(channels).reshape(-1, 1, 1) for values in pair)
    if not (std > 0).all() or not (mean.abs() <= 1).all():
        raise UsageError(
            f"{path} carries the mean {mean.flatten().tolist()} and the standard deviation {std.flatten().tolist()}, "
            "which are not those of pixels in [0, 1].",
            key=argument,
        )
    return mean, std
