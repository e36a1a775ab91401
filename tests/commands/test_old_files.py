"""What earlier versions wrote can still be loaded, resumed, tested, evaluated, exported and shown."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lightning_adv.cli import main
from lightning_adv.nn.backbones import Backbone
from lightning_adv.regimes import Regime
from tests.commands.shortened import results

FIXTURES = Path(__file__).parents[1] / "fixtures"
EXPECTED = json.loads((FIXTURES / "v0.1.0/expected.json").read_text())
RUNS = list(EXPECTED)
X = torch.linspace(0, 1, 2 * 64).view(2, 1, 8, 8)


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A copy of version 0.1.0's folders, to write in, below the working directory."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(FIXTURES / "v0.1.0", "old"))


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_a_checkpoint_gives_the_logits_that_it_gave(run):
    regime = Regime.load_from_checkpoint(FIXTURES / "v0.1.0" / run / "checkpoints/best.ckpt", weights_only=True)
    with torch.no_grad():
        logits = regime.eval()(X)
    torch.testing.assert_close(logits, torch.tensor(EXPECTED[run]["logits"]), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_a_run_is_resumed_to_what_its_own_version_came_to(run, old):
    resumed = ["--trainer.max_epochs", "3", "--trainer.enable_progress_bar", "false"]
    main(["fit", "--config", f"{old / run}/config.yaml", "--ckpt_path", f"{old / run}/checkpoints/last.ckpt", *resumed])
    came_to, expected = results(old / run), EXPECTED[run]["resumed"]
    assert (came_to["epochs"], came_to["test_images"]) == (expected["epochs"], expected["test_images"])
    for kind in ("clean_accuracy", "robust_accuracy"):  # another torch rounds otherwise: one or two digits of 360
        assert came_to[kind] == pytest.approx(expected[kind], abs=2.5 / 360)


@pytest.mark.slow
def test_a_run_is_tested_to_its_own_numbers(old):
    before = results(old / "sat")
    main(["test", "--config", f"{old}/sat/config.yaml", "--ckpt_path", f"{old}/sat/checkpoints/best.ckpt"])
    newest = max(Path().rglob("results.json"), key=lambda path: path.stat().st_mtime_ns)
    after = json.loads(newest.read_text())
    assert newest.read_text() != (FIXTURES / "v0.1.0/sat/results.json").read_text()
    for kind in ("clean_accuracy", "robust_accuracy"):
        assert after[kind] == pytest.approx(before[kind], abs=1.5 / 360)


@pytest.mark.slow
def test_an_evaluation_is_repeated_and_its_file_still_holds_what_it_did(old):
    written = json.loads((old / "madry/evaluation-quick/evaluation.json").read_text())
    checkpoint = f"{old}/madry/checkpoints/best.ckpt"
    main(["evaluate", "--checkpoint", checkpoint, "--images", "100", "--suspicion_images", "0", "--output", "again"])
    again = json.loads(Path("again/evaluation.json").read_text())
    assert again["clean"]["accuracy"] == pytest.approx(written["clean"]["accuracy"], abs=0.011)
    assert again.keys() >= written.keys()


def test_an_export_loads_into_the_network_that_it_describes():
    folder = FIXTURES / "v0.1.0/advprop/export"
    description = json.loads((folder / "model.json").read_text())
    told = {name: description["architecture"][name] for name in ("name", "stem", "in_channels", "options")}
    network = Backbone(**told, checkpoint=str(folder / "model.safetensors")).build(description["num_classes"]).eval()
    with torch.no_grad():
        logits = network(X)
    torch.testing.assert_close(logits, torch.tensor(EXPECTED["advprop"]["logits"]), atol=1e-5, rtol=1e-4)


def test_an_old_checkpoint_exports_to_what_its_own_version_exported(old):
    before = load_file(old / "advprop/export/model.safetensors")
    main(["export", "--checkpoint", f"{old}/advprop/checkpoints/best.ckpt", "--output", "exported"])
    after = load_file("exported/model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.slow
def test_old_runs_are_reported(old):
    main(["report", *(str(old / run) for run in RUNS), "-o", "report.html"])
    page = Path("report.html").read_text(encoding="utf-8")
    assert all(run in page for run in RUNS)
    assert "bn_drift" in page
