"""The parts run from the command line by their short names."""

import json

from lightning_adv.cli import main

PLUGIN = {"my-plugin": "0.1.0"}


def test_train_resume_evaluate(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fast = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    main(["fit", "--config", "bars/denoised", *fast])
    run = tmp_path / "runs/bars-denoised/version_0"
    results = json.loads((run / "results.json").read_text())
    assert results["plugins"] == PLUGIN
    assert results["regime"] == "DenoisedTraining"
    assert results["clean_accuracy"] > 0.9
    assert (run / "analyses/confidence.csv").is_file()

    last = f"{run}/checkpoints/last.ckpt"
    main(["fit", "--config", f"{run}/config.yaml", "--ckpt_path", last, "--trainer.max_epochs=4", *fast])
    assert json.loads((run / "results.json").read_text())["epochs"] == 4
    main(["test", "--config", f"{run}/config.yaml", "--ckpt_path", f"{run}/checkpoints/best.ckpt", *fast])

    evaluation = ["--eps.linf=[0.05,0.1]", "--suspicion_images=0", "--accelerator=cpu"]
    best = f"{run}/checkpoints/best.ckpt"
    main(["evaluate", "--config", "evaluation/corners", "--checkpoint", best, *evaluation])
    found = json.loads((run / "evaluation-corners/evaluation.json").read_text())
    assert found["settings"]["plugins"] == PLUGIN
    tested = json.loads((run / "results.json").read_text())["clean_accuracy"]
    assert found["clean"]["accuracy"] == tested  # of the network that was trained


def test_help_lists_the_parts(capsys):
    main(["--help"])
    told = capsys.readouterr().out
    assert "my-plugin 0.1.0" in told
    for name in ("RandomCorners", "Confidence", "DenoisedTraining", "bars/denoised"):
        assert name in told
