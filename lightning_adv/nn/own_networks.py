"""Networks of other packages by their import path, ``my_package.MyNet``: a class, or a function that returns one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from lightning_adv.core.errors import UsageError
from lightning_adv.core.importing import find_module
from lightning_adv.core.suggestions import did_you_mean
from lightning_adv.nn.functional_relus import find_functional_relus

OWN = "python"
"""What stands for the library of such a network: ``python/my_package.MyNet`` where a library has that name too."""

_CLASSES, _CHANNELS = "num_classes", ("in_chans", "in_channels")
_NAMED = inspect.Parameter.POSITIONAL_OR_KEYWORD
_SIZES = (32, 64, 224, 28, 16, 8, 96, 128, 256, 299, 384)


def is_path(name: str) -> bool:
    """Return whether a network's name may be an import path: ``my_package.MyNet``.

    Example:
        >>> is_path("my_package.MyNet"), is_path("timm/resnet18"), is_path("resnet18")
        (True, False, False)
    """
    return "." in name and all(part.isidentifier() for part in name.split("."))


def build_own(path: str, num_classes: int, in_channels: int, pretrained: bool, options: Mapping[str, Any]) -> nn.Module:
    """Build a network by its import path.

    ``num_classes`` is passed if the class or function takes an argument of that name or any (``**kwargs``), and so is
    ``pretrained`` if it is true; the channels are passed as ``in_chans`` or ``in_channels``, whichever is taken, and to
    ``**kwargs`` as ``in_chans`` unless they are three. What is not taken the network must have by itself.

    Args:
        path: The path.
        num_classes: Number of classes K.
        in_channels: Channels C of the images.
        pretrained: Whether it is asked for weights.
        options: Further keyword arguments.

    Raises:
        UsageError: The path does not import, names no network, or the options do not fit. Exceptions of the network's
            own code are raised as they are.

    Example:
        >>> build_own("torch.nn.Linear", 10, 3, False, {"in_features": 4, "out_features": 10})
        Linear(in_features=4, out_features=10, bias=True)
    """
    found = import_network(path)
    arguments = _arguments(found, num_classes, in_channels, pretrained, options, path)
    try:
        built = found(**arguments)
    except TypeError as error:  # what **kwargs hand on, the one who gets it refuses
        if any(f"unexpected keyword argument {name!r}" in str(error) for name in arguments):
            raise UsageError(f"{options} do not fit {path}: {error}.", key="options") from error
        raise
    if not isinstance(built, nn.Module):
        raise UsageError(f"{path!r} returns a {type(built).__name__}, and a network is a torch.nn.Module.", key="name")
    if lazy := [name for name, value in built.named_parameters() if is_lazy(value)]:
        raise UsageError(
            f"{path!r} has parameters without a size before it has seen an image ({', '.join(lazy)}): let its "
            "constructor give their sizes, or call it once.",
            key="name",
        )
    return built


def import_network(path: str) -> Callable[..., Any]:
    """Import the class or function of a network, for a path that the user names or trusts.

    Raises:
        UsageError: There is none; where its module raises, what that raises is told with its line.
    """
    try:
        module, names = find_module(path)
    except UsageError as error:
        raise UsageError(error.message, key="name") from error
    if module is None:
        parent = path.rpartition(".")[0]
        raise UsageError(
            f"{path!r} is not a classifier of timm or torchvision, and there is no module {parent!r}.", key="name"
        )
    found: Any = module
    for name in names:
        if not hasattr(found, name):
            near = did_you_mean(name, [key for key, value in vars(found).items() if _makes_networks(value)])
            raise UsageError(f"there is no {name!r} in {found.__name__}.{near}", key="name")
        found = getattr(found, name)
    if not _makes_networks(found):
        what = "a network, and not what builds one" if isinstance(found, nn.Module) else f"a {type(found).__name__}"
        what = "a class, but not a torch.nn.Module" if isinstance(found, type) else what
        raise UsageError(
            f"{path!r} is {what}: name a class that is a torch.nn.Module, or a function that returns one.", key="name"
        )
    return found  # type: ignore[no-any-return]  # it can be called


def _makes_networks(found: Any) -> bool:
    if isinstance(found, type):
        return issubclass(found, nn.Module)
    return callable(found) and not isinstance(found, nn.Module)


def _arguments(
    found: Callable[..., Any],
    num_classes: int,
    in_channels: int,
    pretrained: bool,
    options: Mapping[str, Any],
    path: str,
) -> dict[str, Any]:
    """Return the keyword arguments that a class or function is called with.

    Raises:
        UsageError: The options hold what a Backbone says by fields of its own, or do not fit.
    """
    inherited = (
        isinstance(found, type) and inspect.getattr_static(found, "__init__") is nn.Module.__init__
    )  # (*args, **kwargs), and takes none
    signature = inspect.Signature() if inherited else inspect.signature(found)
    takes = [each.name for each in signature.parameters.values() if each.kind in (each.KEYWORD_ONLY, _NAMED)]
    takes_all = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
    channels = next((name for name in _CHANNELS if name in takes), None)
    if channels is None and takes_all and in_channels != 3:
        channels = _CHANNELS[0]
    own: dict[str, Any] = {_CLASSES: num_classes} if takes_all or _CLASSES in takes else {}
    own |= {} if channels is None else {channels: in_channels}
    if pretrained and not (takes_all or "pretrained" in takes):
        raise UsageError(f"is true, but {path} takes no pretrained: give a checkpoint.", key="pretrained")
    own |= {"pretrained": True} if pretrained else {}
    if twice := [name for name in options if name in own]:
        raise UsageError(f"cannot hold {twice[0]!r}: Backbone says it itself.", key="options")
    arguments = {**own, **options}
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise UsageError(
            f"{dict(options)} do not fit {path}: {error}; it takes {', '.join(takes) or 'no keyword'}.", key="options"
        ) from error
    return arguments


def own_normalization(network: nn.Module) -> tuple[list[float], list[float]]:
    """Return the mean and the standard deviation that a network says it was trained with; else none: 0 and 1.

    It says so as timm's do, by ``pretrained_cfg``.

    Example:
        >>> own_normalization(nn.Linear(2, 3))
        ([0.0], [1.0])
    """
    config = getattr(network, "pretrained_cfg", None)
    if isinstance(config, Mapping) and {"mean", "std"} <= config.keys():
        return list(config["mean"]), list(config["std"])
    return [0.0], [1.0]


def size_taken(network: nn.Module, in_channels: int) -> int:
    """Return a size of square images that a network takes, for one that does not say any.

    It is tried without data, which takes next to no time.

    Raises:
        UsageError: It takes none of the sizes that are tried.

    Example:
        >>> size_taken(nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 2)), in_channels=1)
        28
    """
    refused = []
    for size in _SIZES:
        try:
            find_functional_relus(network, (in_channels, size, size))
        except UsageError as error:
            refused.append(error)
        else:
            return size
    raise UsageError(
        f"a size of images that {type(network).__name__} takes must be known here, and none of "
        f"{', '.join(map(str, _SIZES))} is one: say it as the attribute image_size of the network. {refused[0]}"
    ) from refused[0]
