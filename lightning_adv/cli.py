"""The command ``lightning-adv``. What needs no Trainer is answered before Lightning is imported."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lightning_adv._version import __version__
from lightning_adv.run.configs import addition_names, config_names, preset_names

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
  export     write the network of a checkpoint as safetensors, and what it is as JSON
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
  lightning-adv report RUN RUN -o report.html
                                         a page of two runs; with --follow while they go on
  lightning-adv --version

A later --config or --KEY overrides an earlier one. Distances in pixels may be written 8/255.

configurations that come with the package:
"""


def main(args: Sequence[str] | None = None) -> None:
    """Run one command.

    Args:
        args: The command line without the program's name; None takes that of the process.

    Raises:
        SystemExit: With a status other than 0 if something is wrong; the message is on the standard error.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_HELP + "\n".join(f"  {name}" for name in config_names()))
        print("\nadditions to one of them, as in --config digits/madry --config analyses:")
        print("\n".join(f"  {name}" for name in addition_names()))
        print("\nattacks for evaluate and transfer:")
        print("\n".join(f"  {name}" for name in preset_names()))
    elif arguments[0] == "--version":
        print(f"lightning-adv {__version__}")
    else:
        with _messages():
            if arguments[0] == "export":
                from lightning_adv.run.export import run_export

                run_export(arguments[1:])
            elif arguments[0] == "evaluate":
                from lightning_adv.run.evaluation.command import run_evaluate

                run_evaluate(arguments[1:])
            elif arguments[0] == "transfer":
                from lightning_adv.run.transfer import run_transfer

                run_transfer(arguments[1:])
            elif arguments[0] == "report":
                from lightning_adv.run.report import run_report

                run_report(arguments[1:])
            else:
                from lightning_adv.run.command import run

                run(arguments)


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
