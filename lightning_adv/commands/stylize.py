"""``lightning-adv stylize``: the test images with the styles or textures of paintings, as a test set of their own."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import LightningDataModule
from torch import Tensor

from lightning_adv.analysis.images.adain import AdaIN
from lightning_adv.analysis.images.stylise import Paintings, Way, to_file
from lightning_adv.analysis.images.texture_transfer import TextureTransfer
from lightning_adv.commands.shared.devices import make_fabric
from lightning_adv.commands.shared.images import TestImages
from lightning_adv.commands.shared.presets import PresetCommand
from lightning_adv.commands.shared.progress import tracked
from lightning_adv.commands.shared.run_folder import writing_alone
from lightning_adv.commands.shared.stopping import stoppable
from lightning_adv.commands.shared.telling import told_in_one_line
from lightning_adv.core.errors import UsageError
from lightning_adv.core.files import clear_unfinished, to_json, write_whole
from lightning_adv.core.reading import read_json
from lightning_adv.core.versions import versions
from lightning_adv.data.fingerprint import fingerprint_of_files
from lightning_adv.nn.weights.load import read_checkpoint
from lightning_adv.nn.weights.state_dicts import find_state_dict

_SETTINGS, _DATA = "settings.json", "data.yaml"


@dataclass
class StylizeSettings:
    """Which images get the style of which paintings, and how.

    Args:
        style_folder: The folder of the paintings. Each image gets one, which depends on the seed and on the image's
            number in the test set only.
        data: The data set, whose test images are taken as networks see them; that of the run of the checkpoint if it
            is not given. They must be square and have three channels.
        checkpoint: The checkpoint of a run that was configured with the data.
        encoder: Weights of VGG-19 for AdaIN: torchvision's, or the normalised ones of the published decoders.
        decoder: Weights of the decoder that was trained with the encoder.
        texture_transfer: Carry over the means and deviations of the bands of a Laplacian pyramid, without weights:
            texture transfer, which is not what the literature calls stylised.
        style_size: Length of the paintings' shorter side, which they are resized to.
        batch_size: Images that are computed at a time.
        seed: Draws the painting of each image.
        accelerator: What to compute on: auto, cpu, gpu, ...
        output: The folder to write; ``-o`` for short. The same command goes on with it; what is there is never
            overwritten.
    """

    style_folder: str
    data: LightningDataModule | None = None
    checkpoint: str | None = None
    encoder: str | None = None
    decoder: str | None = None
    texture_transfer: bool = False
    style_size: int = 512
    batch_size: int = 16
    seed: int = 0
    accelerator: str = "auto"
    output: str = "stylized"


STYLIZE = PresetCommand(
    StylizeSettings,
    "stylize",
    "Write the test images with the styles (AdaIN) or the textures of paintings, as a test set under their names.",
    default=None,
    what=(),
    checkpoint=lambda parsed: parsed.checkpoint,
)


def run_stylize(arguments: Sequence[str]) -> None:
    """Run the command.

    Args:
        arguments: The command line after ``stylize``.

    Raises:
        SystemExit: With status 1 for something that cannot be written, told in one line; 2 where the arguments do not
            parse; 130 after Ctrl-C.
    """
    with (
        told_in_one_line("lightning-adv stylize"),
        stoppable("Stopped. The same command again goes on."),
        ExitStack() as held,
    ):
        settings, _ = STYLIZE.settings(arguments)
        _stylize(settings, held)


def _stylize(settings: StylizeSettings, held: ExitStack) -> None:
    data = _check(settings)
    way, weights = _way(settings)
    paintings = Paintings(settings.style_folder, way, size=settings.style_size)
    images = TestImages(data, settings.batch_size, None)
    x, _ = images.first(1)
    _, channels, height, width = x.shape
    if channels != 3 or height != width:
        raise UsageError(
            f"data: the images must be square and have 3 channels, for an image folder to be read again, got "
            f"{tuple(x.shape[1:])}."
        )
    folder = Path(settings.output)
    held.enter_context(writing_alone(folder))
    told = {
        "kind": way.kind,
        "data": images.described,
        "images": images.count,
        "paintings": {
            "count": len(paintings.files),
            "fingerprint": fingerprint_of_files(settings.style_folder, [(file, 0) for file in paintings.files]),
        },
        "weights": weights,
        "style_size": settings.style_size,
        "seed": settings.seed,
    }
    _begin(folder, told)
    written = _write(folder, settings, way, paintings, images)
    _say_how_to_read(folder, height)
    shown = os.path.relpath(folder)
    print(f"{images.count:,} images are in {shown}, of which {images.count - written:,} were there already.")
    print(f"As a test set: lightning-adv evaluate --config {shown}/{_DATA} --checkpoint FILE ...")


def _check(settings: StylizeSettings) -> LightningDataModule:
    for name in ("batch_size", "style_size"):
        if getattr(settings, name) < 1:
            raise UsageError(f"{name} must be at least 1, got {getattr(settings, name)}.")
    given = [name for name in ("encoder", "decoder") if getattr(settings, name) is not None]
    if settings.texture_transfer and given:
        raise UsageError(f"{given[0]}: texture_transfer takes no weights; leave one of them out.")
    if not settings.texture_transfer and len(given) < 2:
        raise UsageError(
            "encoder and decoder must both be given, the weights of AdaIN; without weights there is texture_transfer."
        )
    if settings.data is None:
        raise UsageError("data must be given: no checkpoint in the folder of a run names its data.")
    return settings.data


def _way(settings: StylizeSettings) -> tuple[Way, dict[str, str]]:
    """Return how styles are carried over, on its device, and the checksums of the weights."""
    if settings.encoder is None or settings.decoder is None:
        return TextureTransfer(), {}
    paths = {"encoder": settings.encoder, "decoder": settings.decoder}
    states = {name: _read_state(path, name) for name, path in paths.items()}
    network = AdaIN(**states).to(make_fabric(settings.accelerator, 1).device)
    return network, {name: _checksum(Path(path).expanduser()) for name, path in paths.items()}


def _read_state(path: str, argument: str) -> Mapping[str, Tensor]:
    found = find_state_dict(read_checkpoint(path, argument=argument))
    if found is None:
        raise UsageError(f"{path} holds no state dict.", key=argument)
    return found[0]


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _begin(folder: Path, told: Mapping[str, Any]) -> None:
    """Say what the folder is of, or check that it is of the same.

    Raises:
        UsageError: It has other files, or images of other settings.
    """
    path = folder / _SETTINGS
    if path.exists():
        try:
            before = read_json(path)
        except UsageError as error:
            raise UsageError(f"output: {path} cannot be read ({error}): give another --output.") from error
        for name, value in json.loads(to_json(told)).items():
            if not isinstance(before, dict) or before.get(name) != value:
                raise UsageError(
                    f"output: {folder} holds images of another {name}, which stay as they are: give another --output."
                )
        for each in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            clear_unfinished(each)
    elif any(not each.name.startswith(".") for each in folder.iterdir()):
        raise UsageError(f"output: {folder} has files that are not of this command: give another --output.")
    else:
        write_whole(path, to_json({**told, "versions": versions("torchvision", "pillow")}))


def _write(folder: Path, settings: StylizeSettings, way: Way, paintings: Paintings, images: TestImages) -> int:
    """Write the images that are not there yet, and return how many they were."""
    device = way.mean.device if isinstance(way, AdaIN) else torch.device("cpu")
    written = 0
    for chunk in tracked(images.read(range(len(images))), way.kind, len(images)):
        names = images.names(chunk.indices, chunk.y)
        lacking = [row for row, name in enumerate(names) if not (folder / name).exists()]
        if not lacking:
            continue
        # all of them: what an image becomes must not depend on which of its neighbours were there
        restyled = paintings.restyle(chunk.x.float().to(device), chunk.indices, settings.seed)
        for row in lacking:
            write_whole(folder / names[row], to_file(restyled[row], names[row]))
        written += len(lacking)
    return written


def _say_how_to_read(folder: Path, size: int) -> None:
    """Write the configuration that reads the folder; last, so that nobody reads one that is not complete."""
    arguments = {"root": str(folder.resolve()), "image_size": size, "augmentation": "none", "test_only": True}
    data = {"class_path": "lightning_adv.data.ImageFolderDataModule", "init_args": arguments}
    write_whole(folder / _DATA, yaml.safe_dump({"data": data}, sort_keys=False, allow_unicode=True))
