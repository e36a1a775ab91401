"""The one error for what the user can mend: every other exception is a bug, and keeps its traceback."""

from __future__ import annotations

import traceback
from typing import Self


class UsageError(ValueError):
    """A mistake of the user's, in one sentence that names the argument, what was given and what is allowed.

    Commands print it in one line. An exception of any other class is a bug, of this package or of the user's own code,
    and is shown with its traceback.

    Args:
        message: The sentence.
        key: What the sentence is about, as the user wrote it: a dotted key of a configuration, or an option.

    Example:
        >>> error = UsageError("it must be at least 1, got 0.", key="steps")
        >>> str(error), str(error.under("model.init_args.attack"))
        ('steps: it must be at least 1, got 0.', 'model.init_args.attack.steps: it must be at least 1, got 0.')
    """

    def __init__(self, message: object, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key

    @property
    def message(self) -> str:
        """The sentence without its key."""
        return str(self.args[0])

    def under(self, key: str) -> Self:
        """Return the same error as one about what stands under ``key``."""
        error = type(self).__new__(type(self), *self.args)  # not by a constructor, which a subclass may have changed
        error.__dict__ |= self.__dict__
        error.key = key if self.key is None else f"{key}.{self.key}"
        return error

    def __str__(self) -> str:
        return self.message if self.key is None else f"{self.key}: {self.message}"


class NotFiniteError(UsageError, FloatingPointError):
    """Training or a network gives NaN or infinite numbers: the user can mend it by other settings."""


def raised_in(error: BaseException, package: str) -> bool:
    """Whether an exception was raised by a line of a package or module: a library's words are not an interface.

    Example:
        >>> import json
        >>> try:
        ...     json.loads("{")
        ... except ValueError as error:
        ...     raised_in(error, "json"), raised_in(error, "torch.autograd")
        (True, False)
    """
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return f"{frame.f_globals.get('__name__', '')}.".startswith(f"{package}.")
