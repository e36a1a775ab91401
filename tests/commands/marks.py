"""What a configuration could name to find out whether it is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypedDict

from lightning.pytorch import LightningDataModule
from torch.optim import SGD, Optimizer

MARK = Path("mark")


def mark(*args: Any, **kwargs: Any) -> Any:
    """A function that says nothing of what it returns."""
    MARK.touch()


def mark_path(text: str = "") -> Path:
    """A function that says that it returns something else."""
    MARK.touch()
    return Path(text)


def make_sgd(parameters: Any) -> Optimizer:
    """A factory that says what it makes."""
    return SGD(parameters, lr=0.01)


class Mark:
    """A class of no kind that a run takes."""

    def __init__(self, text: str = "") -> None:
        MARK.touch()

    def __call__(self, *args: Any) -> None:
        MARK.touch()


class Untyped(LightningDataModule):
    """A data module of somebody's that takes anything, and any callable."""

    def __init__(self, anything=None, any_value: Any = None, function: Callable | None = None) -> None:
        super().__init__()
        self.anything, self.any_value, self.function = anything, any_value, function


class Named(NamedTuple):
    """A tuple with names."""

    function: Callable


class Typed(TypedDict):
    """A mapping with keys of their own types."""

    function: Callable


class Nested(LightningDataModule):
    """A data module of somebody's that takes callables in whatever holds them."""

    def __init__(
        self,
        items: Sequence[Annotated[Callable, "each"]] = (),
        pair: tuple[int, Callable] | None = None,
        mapping: Mapping[str, list[Callable]] | None = None,
        named: Named | None = None,
        typed: Typed | None = None,
        either: Any | Callable = None,
    ) -> None:
        super().__init__()
