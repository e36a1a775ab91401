"""Keyword arguments that a class hands on to its base class, by name and type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Unpack as Unpack
else:

    class Unpack:
        """``typing.Unpack`` for type checkers, ``Any`` for whoever asks at run time.

        jsonargparse 4.53 follows ``**kwargs`` to the base class and finds the defaults there. Of an unpacked
        TypedDict (https://github.com/mauvilsa/jsonargparse/issues/579) it takes the keys, which have none.
        """

        def __class_getitem__(cls, keywords: type) -> Any:
            """Return ``Any``."""
            return Any
