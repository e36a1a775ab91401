"""A run's checkpoint as a plain network: what is written beside the weights, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from lightning_adv.attacks import Attack
from lightning_adv.commands.shared.plugin_parts import taking_part
from lightning_adv.core.errors import UsageError
from lightning_adv.core.files import clear_unfinished
from lightning_adv.core.locks import alone
from lightning_adv.core.reading import read_json
from lightning_adv.core.recipe import NotImportedError
from lightning_adv.core.versions import versions
from lightning_adv.nn.normalize import NormalizedNetwork
from lightning_adv.nn.weights.export import DESCRIPTION, WEIGHTS, ExportedNetwork, export_network, write_network
from lightning_adv.nn.weights.finite import check_finite_network
from lightning_adv.nn.weights.load import say
from lightning_adv.nn.weights.programs import ProgramFormat, write_program
from lightning_adv.nn.weights.runs import RunNetwork, load_recipes_network, read_run

_RESULTS = ("dataset", "seed", "test_images", "evaluation_attack", "domains", "inference_domain")


def export_checkpoint(
    checkpoint: Path,
    folder: Path,
    *,
    domain: str | None = None,
    overwrite: bool = False,
    format: str = "safetensors",
    image_size: Sequence[int] | None = None,
) -> str:
    """Write the network of a run's checkpoint: ``model.safetensors`` and ``model.json``, or a program of one file.

    Args:
        checkpoint: The checkpoint that a regime of this package was saved in.
        folder: Where to write.
        domain: The BatchNorm domain; None takes the one that the regime predicts with.
        overwrite: Whether files that are there may be replaced.
        format: ``safetensors``, or one of :data:`~lightning_adv.nn.weights.programs.ProgramFormat`.
        image_size: Height and width of the images that a program takes; None takes those of the training.

    Returns:
        What was written where, for the user.

    Raises:
        UsageError: The file is no such checkpoint, has no such domain, cannot be written in this format, or the folder
            cannot be written.
    """
    if format == "safetensors" and image_size is not None:
        raise UsageError("--image_size: model.safetensors takes images of any size: leave it out.")
    network, exported = plain_network(checkpoint, domain=domain)
    shape = None if format == "safetensors" else _image_shape(checkpoint, exported, image_size)
    try:
        with alone(folder / ".lightning-adv.lock", f"--output: {folder}", instead="give another --output"):
            clear_unfinished(folder)
            if shape is None:
                write_network(exported, folder, overwrite=overwrite)
                return f"The network is in {folder / WEIGHTS}, its description in {folder / DESCRIPTION}"
            path = write_program(
                network,
                exported.description,
                folder,
                format=cast(ProgramFormat, format),
                image_shape=shape,
                overwrite=overwrite,
            )
    except OSError as error:
        raise UsageError(f"The folder {folder} cannot be written ({error.strerror}).") from error
    classes, taken = exported.description["num_classes"], exported.description["domain"]
    through = "" if taken is None else f", through the domain {taken}"
    return f"The network is in {path}: images (N, {', '.join(map(str, shape))}) in [0, 1] to {classes} logits{through}"


def plain_network(
    checkpoint: Path, *, domain: str | None, argument: str = "--checkpoint"
) -> tuple[NormalizedNetwork, ExportedNetwork]:
    """Return the network of a run's checkpoint, and the same as data with all that is known of it.

    With Lightning's weight averaging the checkpoint holds the averaged weights under ``state_dict``, and these are
    taken: they are the ones that were validated.

    Args:
        checkpoint: The checkpoint that a regime of this package was saved in.
        domain: The BatchNorm domain; None takes the one that the regime predicts with.
        argument: The argument that gave the checkpoint, for the errors.

    Raises:
        UsageError: The file is no such checkpoint, or has no such domain.
    """
    loaded = _network(checkpoint, argument, domain)
    network, (backbone, num_classes, settings, content, _) = loaded.network, loaded.run
    if not isinstance(network, NormalizedNetwork):
        raise UsageError(
            f"{argument}: {loaded.built_by} builds a {type(network).__name__}, and what is exported is a "
            "NormalizedNetwork: let build_network return one."
        )
    check_finite_network(network, f"{argument}: {checkpoint}")
    predicted = domain is None or domain == settings.get("inference_domain", "main")
    facts = {
        "domain": loaded.domain,
        **({} if loaded.built_by is None else {"built_by": loaded.built_by}),
        "class_names": content["regime"].get("class_names"),
        "image_shape": content["regime"].get("image_shape"),
        "trained_on": content["regime"].get("data"),
        **_training(content, settings),
        "evaluation_attack": settings.get("evaluation_attack"),
        "results": _results(checkpoint, content) if predicted else None,
        "versions": versions("torchvision", "timm", "safetensors")
        | {"trained with lightning": content["pytorch-lightning_version"]},
    }
    architecture = backbone.architecture()
    if plugins := taking_part(network.modules(), architecture, content["regime"]["class_path"]):
        facts["plugins"] = plugins
    return network, export_network(network, architecture, num_classes, facts=facts)


def _network(checkpoint: Path, argument: str, domain: str | None) -> RunNetwork:
    """Return the network of a run; Lightning, which takes seconds, is imported only where a regime has to build it."""
    run = read_run(checkpoint, argument=argument)
    if run.unlike_recipe is None:
        return load_recipes_network(checkpoint, run, argument=argument, domain=domain, domain_argument="--domain")
    from lightning_adv.regimes.runs import load_run

    return load_run(checkpoint, argument=argument, domain=domain, domain_argument="--domain")


def _image_shape(checkpoint: Path, exported: ExportedNetwork, size: Sequence[int] | None) -> tuple[int, ...]:
    """Return the shape (C, H, W) of the images that a program takes."""
    if size is not None:
        if min(size) < 1:
            raise UsageError(f"--image_size must be at least 1, got {' '.join(map(str, size))}.")
        return exported.description["architecture"]["in_channels"], *size
    shape = exported.description["image_shape"]
    if shape is None:
        raise UsageError(f"--image_size must be given: {checkpoint} does not say the size of its images.")
    return tuple(shape)


def _training(content: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Say what trained the network, and against what."""
    class_path = content["regime"]["class_path"]
    given, evaluation = settings.get("attack"), settings.get("evaluation_attack")
    training_attack, evaluation_attack = _attack(given), _attack(evaluation)
    return {
        "regime": class_path.rpartition(".")[2],
        "training_attack": given if training_attack is None else training_attack.to_config(),  # 8/255 as a number
        # of the accuracies below; what was trained against may be another
        "threat_model": None if evaluation_attack is None else evaluation_attack.threat_model.to_plain(),
        "objective": settings.get("objective"),
        "epoch": content["epoch"],
        "global_step": content["global_step"],
    }


def _attack(config: Mapping[str, Any] | None) -> Attack | None:
    """Return an attack of the run; None where there is none, or its class was not imported: the network needs none."""
    if config is None:
        return None
    try:
        return Attack.from_config(config)
    except NotImportedError as error:
        say(f"model.json has this attack as the checkpoint does, and nothing of its threat model: {error}", warn=True)
        return None


def _results(checkpoint: Path, content: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the run folder says of this checkpoint.

    ``fit`` tests the best checkpoint last: ``results.json`` is about that one if epoch and step agree. A run that was
    resumed, and stopped again, may have found a better one since.
    """
    path = checkpoint.parent.parent / "results.json"
    if checkpoint.name != "best.ckpt" or checkpoint.parent.name != "checkpoints" or not path.is_file():
        return None
    try:
        results = read_json(path)
        if not isinstance(results, dict):
            raise UsageError("it holds no results")
    except UsageError as error:  # the network is whole without it
        say(f"{path} cannot be read ({error}): the export says nothing of the network's accuracies", warn=True)
        return None
    tested = results.get("checkpoint")
    if not isinstance(tested, dict) or (tested.get("epoch"), tested.get("step")) != (
        content["epoch"],
        content["global_step"],
    ):
        return None
    # the regimes with domains have accuracies of each
    return {
        name: value for name, value in results.items() if name in _RESULTS or "_accuracy" in name or "_interval" in name
    }
