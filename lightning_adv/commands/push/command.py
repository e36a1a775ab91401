"""The command, which answers ``--help`` and mistakes without torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lightning_adv.commands.shared.plain_parser import PlainParser
from lightning_adv.commands.shared.telling import told_in_one_line
from lightning_adv.commands.shared.trusting import HELP, trust_given


def run_push(arguments: Sequence[str]) -> None:
    """Run the command.

    Args:
        arguments: The command line after ``push``.

    Raises:
        SystemExit: With status 1 for a network that cannot be pushed, told in one line; 2 where the arguments do not
            parse.
    """
    given = _parser().parse_args(arguments)
    # these import torch, which --help and mistakes do without
    from lightning_adv.commands.push.repository import push

    with told_in_one_line("lightning-adv push"):
        trust_given(given.trust)
        told = push(
            given.source,
            given.repo,
            domain=given.domain,
            evaluations=given.evaluation,
            license=given.license,
            private=given.private,
            output=given.output,
            overwrite=given.overwrite,
        )
    print(told)


def _parser() -> argparse.ArgumentParser:
    parser = PlainParser(
        prog="lightning-adv push",
        description="Put a network on the Hugging Face hub: model.safetensors and config.json, which timm finds as "
        "hf-hub:user/name, model.json for lightning_adv.nn.from_pretrained, and a card with the accuracies that "
        "results.json and evaluation.json have of these weights. Log in before with: hf auth login.",
        allow_abbrev=False,
    )
    parser.add_argument("source", type=Path, help="RUN, RUN/checkpoints/FILE.ckpt, or a folder that export wrote")
    parser.add_argument(
        "--repo", required=True, metavar="USER/NAME", help="the repository; it is made if there is none"
    )
    parser.add_argument(
        "--evaluation",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="what evaluate wrote of these weights, beside what lies in SOURCE; may be given again",
    )
    parser.add_argument("--domain", help="the BatchNorm domain (default: the one that the regime predicts with)")
    parser.add_argument(
        "--license", default="unknown", help="as the hub names it: mit, apache-2.0, ... (default: unknown)"
    )
    parser.add_argument("--private", action="store_true", help="make the repository a private one")
    parser.add_argument("--output", type=Path, help="write there what would be pushed, and push nothing")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are in --output")
    parser.add_argument("--trust", action="append", metavar="PACKAGE", help=HELP)
    return parser
