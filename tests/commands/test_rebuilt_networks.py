"""A regime from the user's folder that changes its network: every command measures the one that was trained."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lightning_adv.cli import main
from tests.commands.shortened import SHORT
from tests.own_parts import forget, write_module

REGIME = """
from torch import nn
from lightning_adv.regimes import StandardTraining

class MaxPooled(StandardTraining):
    def build_network(self, num_classes):
        built = super().build_network(num_classes)
        built.network.pool = nn.AdaptiveMaxPool2d(1)
        return built

open("mark", "a").close()
"""
BEST = "runs/digits-standard/version_0/checkpoints/best.ckpt"
EVALUATE = ["evaluate", f"--checkpoint={BEST}", "--attacks=[FGSM]", "--eps.linf=[0.1]", "--suspicion_images=0"]
DRIFT = f"--trainer.callbacks=[{{class_path: BatchNormDrift, init_args: {{checkpoint: '{BEST}'}}}}]"
AFTERWARDS = {
    "export": ["export", f"--checkpoint={BEST}", "--output=out"],
    "transfer": ["transfer", f"--networks={{a: {BEST}, b: {BEST}}}", "--eps=0.1", "--images=64", "--attacks=[FGSM]"],
    "observer": ["fit", "--config=digits/standard", DRIFT, *SHORT],
}


@pytest.mark.slow
def test_evaluate_measures_what_was_trained(tmp_path, monkeypatch, capsys):
    for _ in write_module(tmp_path, "max_pooled", REGIME, monkeypatch):
        whole = ["--trainer.max_epochs=3", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
        main(["fit", "--config=digits/standard", "--model.class_path=max_pooled.MaxPooled", *whole])
        tested = json.loads(Path("runs/digits-standard/version_0/results.json").read_text())
        forget("max_pooled")
        Path("mark").unlink()
        for arguments in ([*EVALUATE, "--accelerator=cpu"], *AFTERWARDS.values()):
            with pytest.raises(SystemExit) as end:
                main(arguments)
            assert end.value.code == 1
            assert "--trust max_pooled on the command line" in capsys.readouterr().err
            assert not Path("mark").exists()
            assert "max_pooled" not in sys.modules
        main([*EVALUATE, "--accelerator=cpu", "--trust=max_pooled"])
        (told,) = (json.loads(path.read_text()) for path in Path("runs").rglob("evaluation.json"))
        assert told["clean"]["accuracy"] == pytest.approx(tested["clean_accuracy"], abs=1e-6)
        assert tested["clean_accuracy"] > 0.5
        for arguments in AFTERWARDS.values():
            main([*arguments, "--trust=max_pooled"])
