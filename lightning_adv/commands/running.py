"""One command line run, with what every command has around it; what it needs is imported then, and no more."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lightning_adv.commands.shared.configs import resolve_configs
from lightning_adv.commands.shared.quiet import without_noise
from lightning_adv.commands.shared.telling import told_in_one_line
from lightning_adv.commands.shared.trusting import gather_trust
from lightning_adv.core.trust import trusting_for_a_command

if TYPE_CHECKING:
    from lightning_adv.commands.fit.command import AdversarialCLI


def run_command(
    arguments: Sequence[str], cli: type[AdversarialCLI] | None = None, *, own_process: bool = False
) -> None:
    """Run one command.

    Args:
        arguments: The command line, which begins with the command's name.
        cli: What runs ``fit``, ``validate``, ``test`` and ``predict``; None is :class:`AdversarialCLI` itself.
        own_process: Whether this process does nothing else.

    Raises:
        SystemExit: With a status other than 0 if something is wrong; the message is on the standard error.
    """
    command, line = arguments[0], list(arguments)
    if command not in ("export", "push", "report", "study"):  # a misspelled configuration is told before Lightning
        line = _resolve(command, line)
    with _messages(), trusting_for_a_command():
        with _no_collection(freeze=own_process):
            run = _load(command, cli)
        try:
            with without_noise():
                run(line)
        finally:
            if own_process:
                gc.unfreeze()  # what is left at the end of a process is freed: nanobind complains of every leak


def _resolve(command: str, arguments: list[str]) -> list[str]:
    """Replace the names of configurations by their paths.

    Raises:
        SystemExit: With status 1 if there is no configuration of a name.
    """
    with told_in_one_line("lightning-adv" if command.startswith("-") else f"lightning-adv {command}"):
        return gather_trust(resolve_configs(arguments))


def _load(command: str, cli: type[AdversarialCLI] | None) -> Callable[[list[str]], object]:
    """Import what a command needs and no more, since Lightning takes seconds; return what runs a command line."""
    if command == "report":
        from lightning_adv.commands.report import run_report

        return lambda arguments: run_report(arguments[1:])
    if command == "export":
        from lightning_adv.commands.export.command import run_export

        return lambda arguments: run_export(arguments[1:])
    if command == "push":
        from lightning_adv.commands.push.command import run_push

        return lambda arguments: run_push(arguments[1:])
    if command == "study":
        from lightning_adv.commands.study.command import run_study

        return lambda arguments: run_study(arguments[1:])
    if command == "evaluate":
        from lightning_adv.commands.evaluate.command import run_evaluate

        return lambda arguments: run_evaluate(arguments[1:])
    if command == "transfer":
        from lightning_adv.commands.transfer import run_transfer

        return lambda arguments: run_transfer(arguments[1:])
    if command == "interpret":
        from lightning_adv.commands.interpret.command import run_interpret

        return lambda arguments: run_interpret(arguments[1:])
    if command == "stylize":
        from lightning_adv.commands.stylize import run_stylize

        return lambda arguments: run_stylize(arguments[1:])
    from lightning_adv.commands.fit.command import run

    return lambda arguments: run(arguments, cli)


@contextmanager
def _no_collection(*, freeze: bool) -> Iterator[None]:
    """Import without collecting garbage: Lightning's hundred thousands of objects stay, and are looked through in vain.

    Args:
        freeze: Leave them, and all others that there are, out of every later collection too; for a process that does
            nothing else, since what is garbage by then is never freed.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
        if freeze:
            gc.freeze()
    finally:
        if collecting:
            gc.enable()


@contextmanager
def _messages() -> Iterator[None]:
    """Show on the standard error what the package logs, such as which weights were loaded."""
    logger, handler = logging.getLogger("lightning_adv"), logging.StreamHandler()
    level, propagates = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagates
