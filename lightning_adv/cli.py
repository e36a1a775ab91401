"""The command ``lightning-adv``. What needs no Trainer is answered before Lightning is imported."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lightning_adv._version import __version__
from lightning_adv.commands.shared.configs import addition_names, config_names, preset_names, resolve_configs
from lightning_adv.commands.shared.plugin_parts import told_parts
from lightning_adv.commands.shared.processes import follow_launcher, let_launcher_end
from lightning_adv.commands.shared.quiet import without_noise
from lightning_adv.commands.shared.telling import told_in_one_line
from lightning_adv.commands.shared.trusting import gather_trust
from lightning_adv.core.streams import streams_that_never_fail
from lightning_adv.core.suggestions import bounded, did_you_mean
from lightning_adv.core.trust import trusting_for_a_command

if TYPE_CHECKING:
    from lightning_adv.commands.fit.command import AdversarialCLI

__all__ = ["AdversarialCLI", "main"]

_COMMANDS = ("fit", "validate", "test", "predict", "evaluate", "transfer", "export", "push", "report")

_HELP = """\
usage: lightning-adv COMMAND --config NAME_OR_FILE [--KEY VALUE ...]

Train image classifiers that withstand adversarial examples, and measure how well they do.

commands:
  fit        train, then test the best checkpoint; everything goes into one run folder
  validate   measure clean and robust accuracy on the validation images
  test       measure clean and robust accuracy on the test images
  predict    write the class probabilities of the test images
  evaluate   attack the test images in many ways, and tell what survives
  transfer   craft adversarial examples on one network, and test them on others
  export     write the network of a checkpoint as safetensors, ONNX or a program of torch.export, and what it is
  push       put a network on the Hugging Face hub, with a card of its accuracies
  report     show runs side by side in one interactive page

  lightning-adv COMMAND --help           the options of a command
  lightning-adv fit --config NAME --print_config
                                         the whole configuration, with every default
  lightning-adv fit --config RUN/config.yaml --ckpt_path RUN/checkpoints/last.ckpt
                                         go on with a run that stopped
  lightning-adv evaluate --config evaluation/standard --checkpoint RUN/checkpoints/best.ckpt
                                         what a reviewer asks for, and whether it is suspicious
  lightning-adv export --checkpoint RUN/checkpoints/best.ckpt
                                         the trained network, for use without this package
  lightning-adv push RUN --repo user/name
                                         the same on the Hugging Face hub, where timm finds it
  lightning-adv report RUN RUN -o report.html
                                         a page of two runs; with --follow while they go on
  lightning-adv COMMAND --trust my_package ...
                                         let files name classes of a package that is not this one
  lightning-adv --version

A later --config or --KEY overrides an earlier one. Distances in pixels may be written 8/255.

configurations that come with the package:
"""


def main(args: Sequence[str] | None = None, *, cli: type[AdversarialCLI] | None = None) -> None:
    """Run one command.

    Args:
        args: The command line without the program's name; None takes that of the process.
        cli: What runs ``fit``, ``validate``, ``test`` and ``predict``, for a program of one's own; None is
            :class:`AdversarialCLI` itself.

    Raises:
        SystemExit: With a status other than 0 if something is wrong; the message is on the standard error.
    """
    if args is None:
        _find_modules_here()
        with streams_that_never_fail():
            follow_launcher()
            try:
                _main(sys.argv[1:], cli, own_process=True)
            except Exception:
                let_launcher_end()
                raise
            except KeyboardInterrupt as interrupt:  # before a command has begun, which says more
                raise SystemExit(130) from interrupt
    else:
        _main(list(args), cli, own_process=False)


def __getattr__(name: str) -> Any:
    """Give :class:`AdversarialCLI` to who asks for it: it imports Lightning, which most of this module does without."""
    if name == "AdversarialCLI":
        from lightning_adv.commands.fit.command import AdversarialCLI

        return AdversarialCLI
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _main(arguments: list[str], cli: type[AdversarialCLI] | None, *, own_process: bool) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_HELP + "\n".join(f"  {name}" for name in config_names()))
        print("\nadditions to one of them, as in --config digits/madry --config analyses:")
        print("\n".join(f"  {name}" for name in addition_names()))
        print("\nattacks for evaluate and transfer:")
        print("\n".join(f"  {name}" for name in preset_names()))
        if told := told_parts():
            print(f"\nparts of plugins, which are named as those of the package are:\n{told}")
    elif arguments[0] == "--version":
        print(f"lightning-adv {__version__}")
    else:
        command = _known_command(arguments[0])
        if command not in (
            "export",
            "push",
            "report",
        ):  # a misspelled configuration is told without waiting for Lightning
            arguments = _resolve(command, arguments)
        with _messages(), trusting_for_a_command():
            with _no_collection(freeze=own_process):
                run = _load(command, cli)
            try:
                with without_noise():
                    run(arguments)
            finally:
                gc.unfreeze()  # what is left at the end of a process is freed: nanobind complains of every leak


def _find_modules_here() -> None:
    """Let a user's own module in the working directory be found: last, so that it takes no library's place."""
    here = os.getcwd()
    if not {"", here} & set(sys.path):
        sys.path.append(here)


def _known_command(name: str) -> str:
    """Return the command's name; an option in its place is left to Lightning's parser.

    Raises:
        SystemExit: With status 2 if there is no such command.
    """
    if name in _COMMANDS or name.startswith("-"):
        return name
    hint = did_you_mean(name, _COMMANDS)
    sys.stderr.write(
        f"lightning-adv: error: there is no command {bounded(repr(name))}.{hint} The commands are "
        f"{', '.join(_COMMANDS)}.\n"
        "See lightning-adv --help.\n"
    )
    raise SystemExit(2)


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
    if command == "evaluate":
        from lightning_adv.commands.evaluate.command import run_evaluate

        return lambda arguments: run_evaluate(arguments[1:])
    if command == "transfer":
        from lightning_adv.commands.transfer import run_transfer

        return lambda arguments: run_transfer(arguments[1:])
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
