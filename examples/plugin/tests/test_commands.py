"""The parts run from the command line by their short names."""

import json
from pathlib import Path

import pytest

from lightning_adv.cli import main

PLUGIN = {"my-plugin": "0.1.0"}


FAST = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]


def fit(*arguments):
    main(["fit", "--config", "bars/denoised", *FAST, *arguments])
    return Path("runs/bars-denoised/version_0")


def results(run):
    return json.loads((run / "results.json").read_text())


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_train_and_resume():
    run = fit()
    assert results(run)["plugins"] == PLUGIN
    assert results(run)["regime"] == "DenoisedTraining"
    assert results(run)["clean_accuracy"] > 0.9
    assert (run / "analyses/confidence.csv").is_file()
    trained = results(run)["clean_accuracy"]
    main(["test", f"--config={run}/config.yaml", f"--ckpt_path={run}/checkpoints/best.ckpt", *FAST])
    assert results(run / "test/version_0")["clean_accuracy"] == trained
    last = f"{run}/checkpoints/last.ckpt"
    main(["fit", f"--config={run}/config.yaml", f"--ckpt_path={last}", "--trainer.max_epochs=4", *FAST])
    assert results(run)["epochs"] == 4


def test_evaluate():
    """The regime builds its network again, of the checkpoint alone."""
    run = fit()
    best, options = (
        f"{run}/checkpoints/best.ckpt",
        ["--eps.linf=[0.05,0.1]", "--suspicion_images=0", "--accelerator=cpu"],
    )
    main(["evaluate", "--config", "evaluation/corners", f"--checkpoint={best}", *options])
    found = json.loads((run / "evaluation-corners/evaluation.json").read_text())
    assert found["settings"]["plugins"] == PLUGIN
    assert found["clean"]["accuracy"] == results(run)["clean_accuracy"]  # of the network that was trained


def test_help_lists_the_parts(capsys):
    main(["--help"])
    told = capsys.readouterr().out
    assert "my-plugin 0.1.0" in told
    for name in ("RandomCorners", "Confidence", "DenoisedTraining", "bars/denoised"):
        assert name in told
