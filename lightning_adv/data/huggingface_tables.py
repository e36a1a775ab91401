"""What a data set of Hugging Face's ``datasets`` holds: its splits, the columns of images and labels, the classes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from lightning_adv.core.errors import UsageError
from lightning_adv.data.labels import Labels, name_classes, number_labels
from lightning_adv.data.splits import Indices

_TEST = ("test", "validation", "valid", "val")


def load_splits(path: str, config: str | None) -> Mapping[str, Any]:
    """Return the splits of a data set."""
    try:
        import datasets
    except ImportError as error:
        raise UsageError(
            "data.class_path is HuggingFaceDataModule, which needs the package datasets: pip install "
            "'lightning-adv[hf]'."
        ) from error
    try:
        if not os.path.isdir(path):
            loaded = datasets.load_dataset(path, config)
        elif {"state.json", "dataset_dict.json"} & {*os.listdir(path)}:
            loaded = datasets.load_from_disk(path)
        else:  # the kind is said, so that no other reader is chosen by what lies there
            kind = "parquet" if any(Path(path).rglob("*.parquet")) else "imagefolder"
            loaded = datasets.load_dataset(kind, data_dir=os.path.abspath(path))
    # datasets' own, of the hub, of files, of Arrow (ValueError), of a folder without rows (IndexError)
    except (datasets.exceptions.DatasetsError, OSError, ValueError, IndexError, RuntimeError) as error:
        what = "which cannot be read" if os.path.isdir(path) else "which is no folder and cannot be had from the hub"
        reason = "a split has no rows" if isinstance(error, IndexError) else " ".join(str(error).split())
        raise UsageError(f"data.path is {path!r}, {what}: {reason}") from error
    return loaded if isinstance(loaded, Mapping) else {"train": loaded}


def choose_splits(
    where: str, splits: Mapping[str, Any], train: str, val: str | None, test: str | None
) -> dict[str, str]:
    """Return the split of ``train``, of ``test`` where there is one, and of ``val`` where one was given."""
    if test is None:
        test = next((name for name in _TEST if name in splits and name not in (train, val)), None)
    chosen = {part: name for part, name in (("train", train), ("val", val), ("test", test)) if name is not None}
    for part, name in chosen.items():
        if name not in splits:
            raise UsageError(f"{where} has no split {name!r} but {', '.join(splits)}: give data.{part}_split.")
    if len({*chosen.values()}) < len(chosen):
        raise UsageError(f"{where} cannot train, validate and test on the same split, got {chosen}.")
    return chosen


def find_columns(
    where: str, splits: Mapping[str, Any], chosen: Mapping[str, str], image: str | None, label: str | None
) -> tuple[str, str]:
    """Return the columns of images and labels of the split to train on, which the others have too."""
    from datasets import ClassLabel
    from datasets import Image as ImageFeature

    features = splits[chosen["train"]].features
    images = [name for name, kind in features.items() if isinstance(kind, ImageFeature)]
    usual = [name for name in ("label", "labels") if name in features]
    labels = usual or [name for name, kind in features.items() if isinstance(kind, ClassLabel)]
    found = _only(where, features, "image", image, images), _only(where, features, "label", label, labels)
    for split in chosen.values():
        if missing := [column for column in found if column not in splits[split].features]:
            raise UsageError(f"{where} has no column {missing[0]!r} in its split {split!r}.")
    return found


def read_labels(
    path: str, splits: Mapping[str, Any], chosen: Mapping[str, str], label: str
) -> tuple[tuple[str, ...], dict[str, Indices]]:
    """Return the names of the classes, and the labels of each part as their numbers."""
    from datasets import ClassLabel, Value

    told = {part: f"data.path is {path!r}, whose {split}[{label!r}]" for part, split in chosen.items()}
    kinds = {part: splits[split].features[label] for part, split in chosen.items()}
    for part, kind in kinds.items():
        if not isinstance(kind, ClassLabel | Value):
            raise UsageError(f"{told[part]} holds {kind!r}: an image has one label, a whole number or a name.")
    raw: dict[str, Labels] = {part: np.asarray(splits[split][label]) for part, split in chosen.items()}
    names = {part: getattr(kind, "names", None) for part, kind in kinds.items()}
    class_names = name_classes(raw["train"], names["train"], told["train"])
    for part, own in names.items():  # a number is that of its own split's names
        classes = enumerate(zip_longest(own or class_names, class_names))
        for k, (here, there) in ((k, pair) for k, pair in classes if pair[0] != pair[1]):
            raise UsageError(
                f"{told[part]} names class {k} {here!r}, which is {there!r} where it is trained: give both splits the "
                "same classes in the same order."
            )
    return class_names, {part: number_labels(raw[part], class_names, told[part]) for part in chosen}


def _only(where: str, features: Mapping[str, Any], argument: str, given: str | None, found: Sequence[str]) -> str:
    if given is not None and given not in features:
        raise UsageError(f"{where} has no column {given!r} but {', '.join(features)}: give data.{argument}.")
    if argument == "image" and given is not None and given not in found:
        raise UsageError(f"{where} has no images in its column {given!r} but {features[given]!r}: give data.image.")
    if given is None and len(found) != 1:
        raise UsageError(
            f"{where} has {len(found)} columns that may be the {argument} among {', '.join(features)}: give "
            f"data.{argument}."
        )
    return given or found[0]
