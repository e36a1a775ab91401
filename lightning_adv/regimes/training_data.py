"""The images that a network was trained on: described in its checkpoint, and compared with those that it gets now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from torch.utils.data import Dataset, Subset

from lightning_adv.core.errors import UsageError

Purpose: TypeAlias = Literal["train", "validate", "test"]
"""What somebody wants to do with the images of a data module."""

_SPLIT = ("seed", "val_fraction", "train_fraction", "test_fraction")
_PARTS: Mapping[Purpose, tuple[str, ...]] = {
    "train": ("train", "val", "test"),
    "validate": ("val",),
    "test": ("test",),
}


def dataset_name(data: Any) -> str | None:
    """Return the name of a data module's data set, else of its class; None without a data module."""
    if data is None:
        return None
    name = getattr(data, "name", None)  # Lightning's own data modules have one, which is None
    return type(data).__name__ if name is None else str(name)


def class_names_of(data: Any) -> tuple[str, ...] | None:
    """Return the names of a data module's classes, in the order of the labels.

    They are its ``class_names`` or ``classes``, or else the ``classes`` of the data sets that it holds, which
    torchvision's have.

    Args:
        data: The data module, after its ``setup``; None if there is none.

    Returns:
        The names; None where nobody says, or two data sets say different names.
    """
    for name in ("class_names", "classes"):
        if (names := getattr(data, name, None)) is not None:
            return tuple(map(str, names))
    held = [value for value in vars(data).values() if isinstance(value, Dataset)] if hasattr(data, "__dict__") else []
    found = {tuple(map(str, names)) for dataset in held if (names := _classes_of(dataset)) is not None}
    return found.pop() if len(found) == 1 else None


def num_classes_of(data: Any) -> int | None:
    """Return how many classes a data module has: its ``num_classes``, or the number of its :func:`class_names_of`."""
    number = getattr(data, "num_classes", None)
    names = class_names_of(data) if number is None else None
    return len(names) if names is not None else number


def _classes_of(dataset: Any) -> Any:
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return getattr(dataset, "classes", None)


def describe_data(data: Any) -> dict[str, Any] | None:
    """Say which images a data module has, as plain data.

    Args:
        data: The data module, after its ``setup``; None if there is none.

    Returns:
        What its ``identity`` returns (see :meth:`lightning_adv.data.base.ImageDataModule.identity`); of a data module
        without that, what its attributes of these names say; None without a data module.
    """
    if data is None:
        return None
    identity = getattr(data, "identity", None)
    if callable(identity):
        told: dict[str, Any] = identity()
        return told
    names, shape = class_names_of(data), getattr(data, "image_shape", None)
    return {
        "class_path": f"{type(data).__module__}.{type(data).__qualname__}",
        "name": dataset_name(data),
        **{name: _plain(getattr(data, name, None)) for name in _SPLIT},
        "class_names": None if names is None else list(names),
        "image_shape": None if shape is None else [int(size) for size in shape],
    }


def data_of(checkpoint: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a checkpoint says of the images, in the form of :func:`describe_data`; None if it says nothing.

    One that an earlier version wrote has the data module's arguments.
    """
    regime = checkpoint.get("regime", {})
    if "data" in regime:
        told: dict[str, Any] | None = regime["data"]
        return told
    arguments = checkpoint.get("datamodule_hyper_parameters")
    path = arguments.get("_class_path") if isinstance(arguments, Mapping) else None
    if not isinstance(arguments, Mapping) or path is None:
        return None
    return {
        "class_path": path,
        "name": path.rpartition(".")[2],
        **{name: arguments.get(name) for name in _SPLIT},
        "class_names": regime.get("class_names"),
        "image_shape": regime.get("image_shape"),
    }


def compare_data(
    trained: Mapping[str, Any] | None, now: Mapping[str, Any] | None, purpose: Purpose, *, argument: str
) -> str | None:
    """Compare the images that a network was trained on with those that it gets now.

    Args:
        trained: :func:`describe_data` of the training; None if the checkpoint does not say.
        now: The same of what it gets now.
        purpose: What for.
        argument: The argument that gave the checkpoint, for the error.

    Returns:
        A sentence for the user where the images are those of another data set, on which a network may be measured; else
        None.

    Raises:
        UsageError: The classes or the size of the images are others, the images are split in another way, so that some
            that were trained on would be measured on, or a run would go on with another data set.

    Example:
        >>> digits = {"name": "digits", "seed": 0}
        >>> compare_data(digits, {"name": "mnist", "seed": 0}, "test", argument="checkpoint")
        'checkpoint: the network was trained on digits, and now it gets the images of mnist.'
    """
    if trained is None or now is None:
        return None
    _check_classes(trained, now, argument)
    if _same_set(trained, now):
        return _check_split(trained, now, purpose, argument)
    if purpose == "train":
        raise UsageError(
            f"{argument}: this is a run on {trained['name']}, and it cannot go on with {now['name']}. To begin with "
            "its weights, give the file as model.init_args.backbone.checkpoint."
        )
    return f"{argument}: the network was trained on {trained['name']}, and now it gets the images of {now['name']}."


def _check_classes(trained: Mapping[str, Any], now: Mapping[str, Any], argument: str) -> None:
    before, names = trained.get("class_names"), now.get("class_names")
    if before is not None and names is not None and before != names:
        pairs = enumerate(zip(before, names, strict=False))
        other = next((f"class {k} was {a!r} and is {b!r}" for k, (a, b) in pairs if a != b), "")
        count = f"there were {len(before)}, and now there are {len(names)}"
        raise UsageError(
            f"{argument}: the network was trained on other classes than those of {now['name']}: "
            f"{other if other else count}."
        )
    size, shape = trained.get("image_shape"), now.get("image_shape")
    if size is not None and shape is not None and size != shape:
        raise UsageError(
            f"{argument}: the network was trained on images of shape {tuple(size)}, but those of {now['name']} have "
            f"the shape {tuple(shape)}."
        )


def _same_set(trained: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two descriptions are of one data set, perhaps in another folder, perhaps split in another way."""
    if trained["name"] == now["name"]:
        return True
    classes = [str(of.get("class_path")).rpartition(".")[2] for of in (trained, now)]
    if "images" not in trained:  # an earlier version's checkpoint has the class, and not the name
        return classes[0] == classes[1] and trained["name"] == classes[0]
    return classes[0] == classes[1] and sum(trained["images"].values()) == sum(now.get("images", {0: 0}).values())


def _check_split(trained: Mapping[str, Any], now: Mapping[str, Any], purpose: Purpose, argument: str) -> str | None:
    """Compare the parts of one data set; see :func:`compare_data`."""
    part = _other_part(trained, now, purpose)
    own_test = now.get("test_fraction") is None and trained.get("test_fraction") is None and "images" in now
    settings = ("seed", "test_fraction") if purpose == "test" else _SPLIT
    if part is None and purpose != "train":
        return None
    if purpose == "test" and own_test:  # that no setting changes
        return f"{argument}: the test images of {now['name']} are not those of the run." if part else None
    for name in settings:
        if trained.get(name) != now.get(name):
            raise UsageError(
                f"{argument}: data.{name} is {now.get(name)}, but the images of this run were split by "
                f"{trained.get(name)}, and some that it was trained on would be among those that measure it. Leave it "
                "as it was."
            )
    if part:
        raise UsageError(
            f"{argument}: the {part} images of {now['name']} are not those of the run, although they are split in the "
            f"same way: there were {trained['images'][part]:,}, and now {now['images'][part]:,}. Give the data set as "
            "it was."
        )
    return None


def _other_part(trained: Mapping[str, Any], now: Mapping[str, Any], purpose: Purpose) -> str | None:
    """Return the first part that is made of other images; empty where it is not known, None where all are the same."""
    prints = [of.get("fingerprints") or {} for of in (trained, now)]
    if any(of.get(part) is None for of in prints for part in _PARTS[purpose]):
        return ""
    return next((part for part in _PARTS[purpose] if prints[0][part] != prints[1][part]), None)


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else None
