"""Common corruptions through the command."""

from __future__ import annotations

import json

import pytest
import torch

from lightning_adv.commands.shared.images import TestImages
from lightning_adv.data import DigitsDataModule
from lightning_adv.evaluation.corruptions.corrupt import corrupt
from lightning_adv.regimes import MadryTraining
from tests.commands.evaluate.conftest import without_time

SHORT = ("--config=evaluation/corruptions", "--images=50", "--batch_size=20", "--corruptions.severities=[2,5]")
NAMES = "--corruptions.names=[gaussian_noise,contrast,jpeg_compression]"


@pytest.mark.slow
def test_errors_are_those_of_the_corrupted_images(evaluate, run, tmp_path):
    found, printed = evaluate(*SHORT, NAMES)
    regime = MadryTraining.load_from_checkpoint(run / "checkpoints" / "best.ckpt", weights_only=True).eval()
    data = DigitsDataModule()
    data.setup()
    index = sorted(number for chunk in TestImages(data, 20, 50).read(range(3)) for number in chunk.indices)
    x, y = (part[index] for part in next(iter(data.test_dataloader())))
    errors = []
    for row in found["corruptions"]["errors"]:
        images = corrupt(x, row["corruption"], row["severity"], seed=0, index=index)
        with torch.no_grad():
            assert row["correct"] == int((regime(images).argmax(1) == y).sum())
        assert (row["total"], row["images"]) == (50, "cifar, regenerated")
        errors.append(1 - row["correct"] / 50)
    assert len(errors) == 6
    assert found["corruptions"]["mean_error"] == pytest.approx(sum(errors) / 6)
    assert f"mean error {100 * sum(errors) / 6:.1f} %" in printed
    assert found["threat_models"] == []
    assert (tmp_path / "out" / "corruptions.png").is_file()
    assert "mce" not in found["corruptions"]


@pytest.mark.slow
def test_the_mce_against_itself_is_one(evaluate):
    first, _ = evaluate(*SHORT, NAMES, output="first")
    found, printed = evaluate(*SHORT, NAMES, "--corruptions.baseline=first/evaluation.json", output="second")
    assert found["corruptions"]["mce"] == pytest.approx(1)
    assert "mCE 100.0 %" in printed
    assert found["corruptions"]["errors"] == first["corruptions"]["errors"]


@pytest.mark.slow
def test_attacks_and_corruptions_together(evaluate):
    both, printed = evaluate("--config=evaluation/quick", *SHORT[1:], NAMES, output="both")
    attacks, _ = evaluate("--config=evaluation/quick", *SHORT[1:3], output="attacks")
    assert without_time(both)["threat_models"] == without_time(attacks)["threat_models"]
    assert both["corruptions"] is not None
    assert attacks["corruptions"] is None
    assert "all together" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--corruptions.severities=[1,2,1]"], "severities must hold each once, got 1, 2, 1"),
        (["--seed=-1"], "seed must be at least 0 for corruptions, got -1"),
        (["--corruptions.baseline=alexnet"], "alexnet, whose errors are on ImageNet, but the images get the cifar"),
        (["--corruptions.baseline=missing.json"], "there is no file missing.json"),
    ],
)
def test_bad_input(refused, arguments, message):
    assert message in refused("--config=evaluation/corruptions", *arguments)


@pytest.mark.slow
def test_baselines_that_do_not_match(evaluate, refused, tmp_path):
    evaluate(*SHORT, NAMES)
    asked = ["--config=evaluation/corruptions", "--corruptions.baseline=out/evaluation.json"]
    assert "does not match what is asked for" in refused(*asked)
    (tmp_path / "other.json").write_text(json.dumps({"clean": {"accuracy": 1.0}}))
    asked[1] = "--corruptions.baseline=other.json"
    assert "other.json is no evaluation.json with corruptions" in refused(*asked)
