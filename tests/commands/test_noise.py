"""What a run says: nothing that is not of it, and a line for each epoch where there is no progress bar."""

from __future__ import annotations

import csv
import logging
import re
import warnings

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from torch.utils._pytree import LeafSpec

from lightning_adv.cli import main
from lightning_adv.commands import running
from lightning_adv.commands.fit.epoch_lines import wants_lines
from lightning_adv.commands.shared.quiet import without_noise
from tests.commands.shortened import fit


def said_by_a_trainer(tmp_path):
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)  # whatever a test before has set above it
    try:
        Trainer(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return messages


def test_no_advertisements(tmp_path):
    """The first half notices the day on which Lightning changes their words, or has none."""
    assert [message for message in said_by_a_trainer(tmp_path) if "Tip" in message]
    with without_noise():
        told = said_by_a_trainer(tmp_path)
    assert not [message for message in told if "Tip" in message]
    assert [message for message in told if message.startswith("GPU available")], "all else is told"


def test_no_warning_of_lightnings_own_making():
    def caught():
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            if quiet:
                with without_noise():
                    isinstance(LeafSpec(), LeafSpec)
                    warnings.warn("something else", stacklevel=1)
            else:
                isinstance(LeafSpec(), LeafSpec)
        return [str(each.message) for each in found]

    quiet = False
    if not caught():
        pytest.skip("this torch does not warn")
    quiet = True
    assert caught() == ["something else"]


@pytest.mark.parametrize("command", ["fit", "evaluate"])
def test_every_command_leaves_it_out(command, monkeypatch, recwarn):
    def run(arguments):
        isinstance(LeafSpec(), LeafSpec)
        warnings.warn("something else", stacklevel=1)

    monkeypatch.setattr(running, "_load", lambda command, base: run)
    main([command])
    assert [str(each.message) for each in recwarn] == ["something else"]


@pytest.mark.slow
def test_a_test_of_a_run_is_told_nothing_about_observers_and_folders(tmp_path, monkeypatch, recwarn):
    monkeypatch.chdir(tmp_path)
    run = fit()
    recwarn.clear()
    main(["test", f"--config={run}/config.yaml", f"--ckpt_path={run}/checkpoints/best.ckpt"])
    assert not [told for each in recwarn if re.search("callbacks used|dirpath", told := str(each.message))]


@pytest.mark.slow
def test_a_line_for_each_epoch_and_the_same_bits(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    told = fit("--trainer.enable_progress_bar=null")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    with (told / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    robust = [float(row["val/robust_accuracy"]) for row in rows if row["val/robust_accuracy"]]
    assert len(lines) == len(losses) == len(robust) == 2
    for number, line in enumerate(lines):
        assert line.startswith(f"epoch {number + 1}/2: train loss {losses[number]:.4g}, val clean ")
        assert f"val robust {robust[number]:.4g}, " in line
        assert line.endswith(" s")
    quiet = fit(version=1)
    assert "epoch 1/2" not in capsys.readouterr().out
    states = [torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in (told, quiet)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_who_asks_for_a_bar_or_silence_gets_it():
    assert wants_lines(None, None)
    assert not wants_lines(False, None)
    assert not wants_lines(True, None)
    assert not wants_lines(None, [TQDMProgressBar()])
