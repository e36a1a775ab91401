"""Exported networks from the Hugging Face hub, or from a folder that is laid out as a repository there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_adv.core.errors import UsageError
from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.normalize import NormalizedNetwork
from lightning_adv.nn.weights.export import DESCRIPTION, WEIGHTS, read_description
from lightning_adv.nn.weights.finite import check_finite_network
from lightning_adv.nn.weights.repositories import HUB, download, not_ours, weights_in


def from_pretrained(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> NormalizedNetwork:
    """Return a network that ``lightning-adv push`` or ``lightning-adv export`` wrote, from the hub or from a folder.

    Only ``model.safetensors`` and ``model.json`` are downloaded. They are data: nothing that a repository holds or
    names is run or imported.

    Args:
        name: A repository, ``user/name`` or ``hf-hub:user/name``, or a folder that is there.
        revision: A branch, a tag or a commit of the repository; None is its main branch.
        token: The token for a private repository; None takes that of ``hf auth login`` or of ``HF_TOKEN``.
        cache_dir: Where downloads are kept; None is the hub's own cache.
        local_files_only: Whether to take what the cache holds, without asking the hub.

    Returns:
        The network, of images (N, C, H, W) in [0, 1] to logits (N, K), in eval mode. Its ``description`` is what
        ``model.json`` says: class names, threat model, accuracies.

    Raises:
        UsageError: There is no such repository or folder, the hub cannot be reached, or what is there is not a network
            that this package wrote.

    Example:
        >>> import tempfile, torch
        >>> from lightning_adv.nn import export_network, write_network
        >>> recipe = Backbone("small_cnn", in_channels=1)
        >>> exported = export_network(recipe.build(10), recipe.architecture(), 10)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_network(exported, Path(folder))
        ...     network = from_pretrained(folder)
        >>> network(torch.rand(2, 1, 8, 8)).shape, network.description["num_classes"]
        (torch.Size([2, 10]), 10)
    """
    text = os.fspath(name)
    if Path(text).expanduser().is_dir():
        folder = Path(text).expanduser()
    else:
        repository, _, tag = text.removeprefix(HUB).partition("@")
        if revision is not None and tag:
            raise UsageError(f"is {revision!r}, and the name {text!r} has one too: leave one out.", key="revision")
        folder = download(
            repository,
            revision=tag or revision,
            argument="name",
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
    description = read_description(weights_in(folder, "name", text), argument="name")
    if description is None:
        raise not_ours("name", text, f"has no {DESCRIPTION} of this package")
    network = exported_backbone(folder / WEIGHTS, description).build(int(description["num_classes"]))
    check_finite_network(network, f"name: {text}")
    network.description = description
    return network.eval()


def exported_backbone(weights: str | os.PathLike[str], description: Mapping[str, Any]) -> Backbone:
    """Return the recipe of an exported network, with its weights.

    Args:
        weights: The weights file.
        description: What :func:`~lightning_adv.nn.weights.export.read_description` says of it.

    Raises:
        UsageError: It describes no network that there is, or one that only a regime can build.
    """
    if (built_by := description.get("built_by")) is not None:
        raise UsageError(
            f"checkpoint: {weights} is of a network that {built_by} changed, which the file alone does not say how to "
            "build: evaluate the checkpoint that it was exported from."
        )
    architecture = dict(description["architecture"])
    name = f"{architecture.pop('library')}/{architecture.pop('name')}"
    return Backbone.from_config({"name": name, "checkpoint": os.fspath(weights), **architecture})
