"""The argument parser, with errors that one can read."""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any, NoReturn, Union, get_args, get_origin

from jsonargparse import Namespace, set_parsing_settings
from lightning.pytorch.cli import LightningArgumentParser

from lightning_adv.commands.shared.building import Builder, build
from lightning_adv.commands.shared.class_paths import load_all_announced
from lightning_adv.commands.shared.help_texts import HelpFormatter
from lightning_adv.commands.shared.messages import explain
from lightning_adv.commands.shared.mistakes import first_mistake
from lightning_adv.commands.shared.sources import sources
from lightning_adv.commands.shared.takes import takes
from lightning_adv.core.suggestions import bounded


class RefusedError(Exception):
    """What a parser of :attr:`Parser.raises` says is wrong, in one sentence."""


class Parser(LightningArgumentParser):
    """Lightning's parser; an error is a sentence that names the key, not a hundred lines of usage.

    Attributes:
        raises: Whether a mistake raises :class:`RefusedError`, in place of ending the command.
    """

    raises = False

    _given: Sequence[Mapping[str, Any]] = ()
    """What is being parsed, one source after another."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"formatter_class": HelpFormatter, **kwargs})
        self._builders: list[Builder] = []

    def parse_args(  # type: ignore[override]  # argparse's overloads
        self, args: Sequence[str] | None = None, namespace: Any = None, **kwargs: Any
    ) -> Namespace:
        """Parse a command line, after a look at the classes that it and its files name.

        Raises:
            SystemExit: With status 2 where something is wrong, told in one line; 0 after ``--help``.
        """
        given = list(sys.argv[1:] if args is None else args)
        # A parser of a part is asked whether something fits; one with subcommands hands its arguments to theirs.
        if self.exit_on_error and not self._children():
            if _asks_for_help(given):
                load_all_announced()
            else:
                self._given = list(sources(given))
                self._refuse(first_mistake(self, self._given, leaves=False))
        if not self.exit_on_error:
            given = [self._null_again(argument) for argument in given]
        try:
            parsed: Namespace = super().parse_args(given, namespace, **kwargs)
        except (ValueError, AttributeError, AssertionError, ImportError) as error:  # what jsonargparse does not expect
            if self.exit_on_error:
                self._refuse(self._mistake())
            raise error
        return parsed

    def add_class_arguments(self, *args: Any, **kwargs: Any) -> list[str]:
        """Add the arguments of a class; where a number may be whole or not, 1 is whole."""
        added: list[str] = super().add_class_arguments(*args, **kwargs)
        for action in self._actions:
            if (kind := whole_first(getattr(action, "_typehint", None))) is not None:
                action._typehint = kind  # type: ignore[attr-defined]
        return added

    def parse_object(self, obj: Any, *args: Any, **kwargs: Any) -> Namespace:
        """Parse a configuration that is an object; its mistakes are told as those of a file are."""
        if self.exit_on_error:
            self._given = [obj]
        parsed: Namespace = super().parse_object(obj, *args, **kwargs)
        return parsed

    def add_instantiator(
        self, instantiator: Callable[..., Any], class_type: type, subclasses: bool = True, prepend: bool = False
    ) -> None:
        """Let a function build the objects of a class, as Lightning's builds the regime and the data module."""
        self._builders.append((instantiator, class_type, subclasses))

    def instantiate(self, namespace: Any, *args: Any, **kwargs: Any) -> Namespace:
        """Build the objects that a configuration names; what a constructor raises is raised as it is."""
        instantiate = functools.partial(super().instantiate, namespace, *args, **kwargs)
        built: Namespace = build(lambda builders: instantiate(instantiators=builders), self._builders)
        return built

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the error and exit with status 2."""
        if not self.exit_on_error:
            # Parsers of parts are asked whether something fits: a "no" goes back to the one who asked.
            super().error(message, ex)
        self._refuse(self._mistake())
        self._refuse(explain(message, self._keys()))
        raise AssertionError  # the line above exits

    def _null_again(self, argument: str) -> str:
        """Return null for the None that jsonargparse 4.53 makes of it where it hands an option on to a class."""
        name, _, value = argument.partition("=")
        named = [action for action in self._actions if name in action.option_strings]
        # An option of a part's part is handed on once more, to the parser that knows its type.
        null = not named or takes(getattr(named[0], "_typehint", str)).null
        return f"{name}=null" if value == "None" and null else argument

    def _mistake(self) -> str | None:
        """Return the first mistake in what was given to this parser or to that of its subcommand."""
        for parser in (self, *self._children().values()):
            if parser._given and (mistake := first_mistake(parser, parser._given, leaves=True)):
                return mistake
        return None

    def _refuse(self, mistake: str | None) -> None:
        """Print a mistake, if there is one, and exit with status 2."""
        if mistake is None:
            return
        if self.raises:
            raise RefusedError(bounded(mistake))
        program = self.prog.replace(" [options]", "")
        sys.stderr.write(f"{program}: error: {bounded(mistake)}\n")
        sys.stderr.write(f"See {program} --help; --print_config writes out all the keys of a configuration.\n")
        raise SystemExit(2)

    def _children(self) -> dict[str, Parser]:
        """Return the subcommands' parsers."""
        choices = [action.choices for action in self._actions if isinstance(action.choices, dict)]
        return {name: parser for parsers in choices for name, parser in parsers.items()}

    def _keys(self) -> set[str]:
        """The keys of this parser and of its subcommands' parsers."""
        keys = {action.dest for action in self._actions}
        return keys.union(*(parser._keys() for parser in self._children().values()))


def read_files_as_data() -> None:
    """Let no configuration name code that is called: a setting of jsonargparse's, for all parsers of this process.

    Without it, jsonargparse 4.53 builds whatever class a file names where a value of any type is taken, and only warns
    of modules such as os and subprocess. Its version 5 is to have both as defaults.
    """
    set_parsing_settings(instantiate_subclass_spec_in_any=False, import_path_denylist=[])


def whole_first(kind: Any) -> Any:
    """Return a union with int before float; None for what is none, or has them so.

    jsonargparse tries them in order, and ``typing`` keeps the order of whoever wrote ``Optional[Union[float, int]]``
    first in a process (https://github.com/python/cpython/issues/103749): after an import of scikit-learn, Lightning's
    ``Optional[Union[int, float]]`` is that one, and 1 would be 1.0, all batches in the place of one.

    Example:
        >>> whole_first(float | int | None)
        int | float | None
    """
    kinds = list(get_args(kind)) if get_origin(kind) in (Union, UnionType) else []
    if int not in kinds or float not in kinds or kinds.index(int) < kinds.index(float):
        return None
    first, second = kinds.index(float), kinds.index(int)
    kinds[first], kinds[second] = int, float
    return functools.reduce(operator.or_, kinds)


def _asks_for_help(arguments: Sequence[str]) -> bool:
    return any(argument in ("-h", "--help") or argument.partition("=")[0].endswith(".help") for argument in arguments)
