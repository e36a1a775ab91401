"""The command, which answers ``--help`` and mistakes without torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lightning_adv.commands.shared.plain_parser import PlainParser
from lightning_adv.commands.shared.telling import told_in_one_line
from lightning_adv.commands.shared.trusting import HELP, trust_given


def run_export(arguments: Sequence[str]) -> None:
    """Run the command.

    Args:
        arguments: The command line after ``export``.

    Raises:
        SystemExit: With status 1 for a checkpoint that cannot be exported, told in one line; 2 where the arguments do
            not parse.
    """
    given = _parser().parse_args(arguments)
    # these import torch, which --help and mistakes do without
    from lightning_adv.commands.export.checkpoint import export_checkpoint

    folder = given.output if given.output is not None else _default_folder(given.checkpoint)
    with told_in_one_line("lightning-adv"):
        trust_given(given.trust)
        written = export_checkpoint(
            given.checkpoint,
            folder,
            domain=given.domain,
            overwrite=given.overwrite,
            format=given.format,
            image_size=given.image_size,
        )
    print(written)


def _parser() -> argparse.ArgumentParser:
    parser = PlainParser(
        prog="lightning-adv export",
        description="Write the network of a checkpoint as model.safetensors, with the keys of the original "
        "architecture, and model.json, which says what it is and how robust; or as a program that takes images in "
        "[0, 1]: model.onnx, or model.pt2 for torch.export.load.",
        allow_abbrev=False,
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="RUN/checkpoints/best.ckpt")
    parser.add_argument("--output", type=Path, help="the folder to write (default: RUN/export)")
    parser.add_argument("--domain", help="the BatchNorm domain (default: the one that the regime predicts with)")
    parser.add_argument(
        "--format",
        choices=("safetensors", "onnx", "torch_export"),
        default="safetensors",
        help="onnx needs: pip install 'lightning-adv[onnx]' (default: safetensors)",
    )
    parser.add_argument(
        "--image_size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="of the images that onnx and torch_export take (default: that of the training)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    parser.add_argument("--trust", action="append", metavar="PACKAGE", help=HELP)
    return parser


def _default_folder(checkpoint: Path) -> Path:
    folder = checkpoint.parent
    return (folder.parent if folder.name == "checkpoints" else folder) / "export"
