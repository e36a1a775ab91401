"""The command ``lightning-adv``. What needs no Trainer is answered before Lightning is imported."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lightning_adv._version import __version__
from lightning_adv.run.configs import config_names

_HELP = """\
usage: lightning-adv COMMAND --config NAME_OR_FILE [--KEY VALUE ...]

Train image classifiers that withstand adversarial examples, and measure how well they do.

commands:
  fit        train, then test the best checkpoint; everything goes into one run folder
  validate   measure clean and robust accuracy on the validation images
  test       measure clean and robust accuracy on the test images
  predict    write the class probabilities of the test images

  lightning-adv COMMAND --help           the options of a command
  lightning-adv fit --config NAME --print_config
                                         the whole configuration, with every default
  lightning-adv fit --config RUN/config.yaml --ckpt_path RUN/checkpoints/last.ckpt
                                         go on with a run that stopped
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
    elif arguments[0] == "--version":
        print(f"lightning-adv {__version__}")
    else:
        from lightning_adv.run.command import run

        run(arguments)
