"""The network of a run of this package, from the run's checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from lightning_adv.core.errors import UsageError
from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.weights.checkpoint_form import NETWORK, unlike_recipe
from lightning_adv.nn.weights.form import check_form
from lightning_adv.nn.weights.load import load_weights, read_checkpoint, say

INITIAL = "init.ckpt"
"""The checkpoint of the weights that a run began with: nothing is in it that was trained."""


class RunCheckpoint(NamedTuple):
    """What a checkpoint says of its network.

    Attributes:
        backbone: The recipe of the network, which starts from no weights.
        num_classes: Number of classes.
        settings: The regime's arguments, as plain data.
        content: All that is in the file.
        unlike_recipe: Why the network is not what the recipe gives; None if it is.
    """

    backbone: Backbone
    num_classes: int
    settings: Mapping[str, Any]
    content: Mapping[str, Any]
    unlike_recipe: str | None = None


class RunNetwork(NamedTuple):
    """The network of a run.

    Attributes:
        network: Maps images in [0, 1] to logits, with the BatchNorms of one domain.
        domain: That domain; None where there are none.
        run: What the checkpoint says.
        built_by: The class path of the regime that built it again; None for what the backbone's recipe gives.
    """

    network: nn.Module
    domain: str | None
    run: RunCheckpoint
    built_by: str | None = None


class NotARunError(UsageError):
    """A file is not the checkpoint of a run of this package."""


def read_run(path: str | os.PathLike[str], *, argument: str) -> RunCheckpoint:
    """Read the checkpoint that a regime of this package was saved in.

    Args:
        path: The file.
        argument: What an error calls it.

    Raises:
        NotARunError: It is no such checkpoint.
        UsageError: The file is missing, cannot be read, or names a network that is not trusted.
    """
    content = read_checkpoint(path, argument=argument)
    if not isinstance(content, dict) or "regime" not in content:
        raise NotARunError(f"{argument}: {path} is not the checkpoint of a run of this package.")
    check_form(content, NETWORK, source=f"{argument}: {path}")
    settings = content["hyper_parameters"]
    if settings.get("num_classes") is None:
        raise UsageError(f"{argument}: {path} lacks the field hyper_parameters.num_classes: it was saved untrained.")
    backbone = Backbone.from_config(settings["backbone"]).without_weights()
    return RunCheckpoint(backbone, settings["num_classes"], settings, content, unlike_recipe(content["regime"]))


def load_recipes_network(
    path: str | os.PathLike[str],
    run: RunCheckpoint,
    *,
    argument: str,
    domain: str | None = None,
    domain_argument: str | None = None,
) -> RunNetwork:
    """Build the network that a run's recipe gives, with its weights: that of a regime which changed nothing of it.

    Args:
        path: The checkpoint.
        run: What it says; its ``unlike_recipe`` is None.
        argument: What an error calls the checkpoint.
        domain: The BatchNorm domain; None takes the one that the regime predicts with.
        domain_argument: What an error calls that.

    Raises:
        UsageError: There is no such domain, or the weights do not fit.
    """
    built = run.backbone.build(run.num_classes)
    recipe = run.backbone.architecture()
    report = load_weights(built, path, argument=argument, domain=domain, domain_argument=domain_argument, recipe=recipe)
    say(f"{argument}: {report}")
    return RunNetwork(built, report.domain, run)
