"""The command ``lightning-adv``. What needs no Trainer is answered before Lightning is imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lightning_adv._version import __version__
from lightning_adv.commands.running import run_command
from lightning_adv.commands.shared.configs import addition_names, config_names, preset_names, study_names
from lightning_adv.commands.shared.plugin_parts import told_parts
from lightning_adv.commands.shared.processes import follow_launcher, let_launcher_end
from lightning_adv.core.streams import streams_that_never_fail
from lightning_adv.core.suggestions import bounded, did_you_mean

if TYPE_CHECKING:
    from lightning_adv.commands.fit.command import AdversarialCLI

__all__ = ["AdversarialCLI", "main"]

_COMMANDS = (
    "fit", "validate", "test", "predict", "evaluate", "transfer", "interpret", "export", "push", "report", "study",
    "stylize",
)  # fmt: skip

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
  interpret  look into several networks side by side: saliency, features, shape and texture, local properties
  export     write the network of a checkpoint as safetensors, ONNX or a program of torch.export, and what it is
  push       put a network on the Hugging Face hub, with a card of its accuracies
  report     show runs side by side in one interactive page
  study      train and evaluate a grid of runs, and draw one table and one figure of it
  stylize    write the test images with the styles or textures of paintings, as a test set

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
  lightning-adv study --config studies/NAME --workers 2
                                         a grid of runs; the same command again goes on
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
        print("\nattacks for evaluate and transfer, sections for interpret:")
        print("\n".join(f"  {name}" for name in preset_names()))
        if studies := study_names():
            print("\nstudies:")
            print("\n".join(f"  {name}" for name in studies))
        if told := told_parts():
            print(f"\nparts of plugins, which are named as those of the package are:\n{told}")
    elif arguments[0] == "--version":
        print(f"lightning-adv {__version__}")
    else:
        _check_known(arguments[0])
        run_command(arguments, cli, own_process=own_process)


def _find_modules_here() -> None:
    """Let a user's own module in the working directory be found: last, so that it takes no library's place."""
    here = os.getcwd()
    if not {"", here} & set(sys.path):
        sys.path.append(here)


def _check_known(name: str) -> None:
    """Check the command's name; an option in its place is left to Lightning's parser.

    Raises:
        SystemExit: With status 2 if there is no such command.
    """
    if name in _COMMANDS or name.startswith("-"):
        return
    hint = did_you_mean(name, _COMMANDS)
    sys.stderr.write(
        f"lightning-adv: error: there is no command {bounded(repr(name))}.{hint} The commands are "
        f"{', '.join(_COMMANDS)}.\n"
        "See lightning-adv --help.\n"
    )
    raise SystemExit(2)
