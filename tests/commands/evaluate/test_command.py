"""``lightning-adv evaluate`` on the checkpoint of a real run."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from lightning_adv.attacks import FGSM, PGD
from lightning_adv.cli import main
from lightning_adv.commands.evaluate import command
from lightning_adv.commands.evaluate.folder import EvaluationFolder
from lightning_adv.commands.shared.configs import preset_names
from lightning_adv.data import DigitsDataModule
from lightning_adv.regimes import MadryTraining
from tests.commands.evaluate.conftest import without_time

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_quick_is_the_default_at_the_radius_of_the_run(evaluate, run):
    results, printed = evaluate()
    (threat,) = results["threat_models"]
    assert (threat["norm"], threat["eps"], results["images"]) == ("linf", 0.2, 360)
    assert [attack["name"] for attack in threat["attacks"]] == ["FGSM", "PGD-20"]
    assert results["settings"]["exhaustive"]
    regime = MadryTraining.load_from_checkpoint(run / "checkpoints" / "best.ckpt", weights_only=True).eval()
    data = DigitsDataModule()
    data.setup()
    x, y = (torch.cat(parts) for parts in zip(*data.test_dataloader(), strict=True))
    with torch.no_grad():
        clean = regime(x).argmax(1) == y
        broken = regime(FGSM(eps=0.2)(regime.network, x, y)).argmax(1) != y
    assert results["clean"]["correct"] == int(clean.sum())
    assert threat["attacks"][0]["alone"]["correct"] == int((clean & ~broken).sum())
    # PGD's noise is another one
    ours = threat["attacks"][1]["alone"]["accuracy"]
    x_adv = PGD(eps=0.2, steps=20, step_size=0.02)(regime.network, x, y)
    assert ours == pytest.approx((regime(x_adv).argmax(1) == y).float().mean().item(), abs=0.02)
    assert "all together" in printed
    assert "PGD-20" in printed


@pytest.mark.slow
def test_verdicts_are_those_of_the_table(evaluate, tmp_path):
    results, printed = evaluate("--eps.linf=[0.05,0.2]", "--exhaustive=false", "--images=100", "--batch_size=30")
    with (tmp_path / "out" / "verdicts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 100 * 2 * 2
    index = [int(row["index"]) for row in rows[:100]]
    assert index == sorted(set(index))
    assert "is not attacked again" in printed
    left = results["clean"]["correct"]
    for threat in results["threat_models"]:
        for attack in threat["attacks"]:
            found = [row for row in rows if (float(row["eps"]), row["attack"]) == (threat["eps"], attack["name"])]
            verdicts = Counter(row["verdict"] for row in found)
            assert verdicts["broken"] == attack["broken"]
            assert verdicts["broken"] + verdicts["survived"] == attack["attacked"]
            left -= attack["broken"]
            assert attack["left"]["correct"] == left
            for row in found:
                if row["verdict"] == "broken":
                    assert row["adversarial_class"] != row["label"] == row["predicted"]
                    assert 0 < float(row["distance"]) <= threat["eps"] + 1e-6
        assert threat["all_or_nothing"]["correct"] == left


class StoppedError(Exception):
    """Stands for a kill."""


CURVE = "--steps_curve={attack: {class_path: PGD, init_args: {eps: 1, step_size: 0.1}}, steps: [1, 3], images: 50}"
SEVERAL = ("--eps.linf=[0.1,0.2]", "--images=90", "--batch_size=10", "--exhaustive=false", "--seed=3", CURVE)


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_to_the_same_result(evaluate, checkpoint, tmp_path, monkeypatch):
    whole, _ = evaluate(*SEVERAL, output="whole")
    written = []
    write = EvaluationFolder.write

    def kill(self, chunk):
        write(self, chunk)
        written.append(chunk.chunk)
        if len(written) == 7:  # in the second of three chunks
            raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(EvaluationFolder, "write", kill)
        with pytest.raises(StoppedError):
            main(["evaluate", f"--checkpoint={checkpoint}", "--output=out", "--accelerator=cpu", *SEVERAL])
    assert set(written) == {0, 1}
    assert not (tmp_path / "out" / "evaluation.json").exists()
    results, printed = evaluate(*SEVERAL)
    assert "Going on with the evaluation in out" in printed
    assert without_time(results) == without_time(whole)
    verdicts = [(tmp_path / name / "verdicts.csv").read_text() for name in ("whole", "out")]
    assert verdicts[0] == verdicts[1]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "evaluation.json", "verdicts.csv", "accuracy_over_eps.png", "accuracy_over_steps.png",
    }  # fmt: skip


@pytest.mark.slow
def test_an_unfinished_evaluation_with_other_settings_is_kept(evaluate, refused, checkpoint, tmp_path, monkeypatch):
    def kill(self, chunk):
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(EvaluationFolder, "write", kill)
        with pytest.raises(StoppedError):
            main(["evaluate", f"--checkpoint={checkpoint}", "--output=out", "--accelerator=cpu", "--images=9"])
    error = refused("--images=10", output="out")
    assert "out holds an unfinished evaluation with images 9, and now it is 10" in error
    results, _ = evaluate("--images=10", "--overwrite")
    assert results["images"] == 10


@pytest.mark.slow
def test_a_checkpoint_is_known_by_its_content(checkpoint, evaluate, tmp_path, monkeypatch):
    """An unfinished evaluation goes on when the path is written in another way."""

    def kill(self, chunk):
        raise StoppedError

    arguments = ["--accelerator=cpu", "--images=9"]
    other = os.path.relpath(checkpoint, tmp_path)
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(EvaluationFolder, "write", kill)
        with pytest.raises(StoppedError):
            main(["evaluate", f"--checkpoint={other}", "--output=out", *arguments])
    results, printed = evaluate("--images=9")
    assert "Going on with the evaluation in out" in printed
    assert results["settings"]["network"]["checkpoint"] == checkpoint


@pytest.mark.slow
def test_a_checkpoint_in_the_home_folder(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(run.parent))
    main(
        ["evaluate", f"--checkpoint=~/{run.name}/checkpoints/best.ckpt", "--images=3", "--accelerator=cpu", "--name=h"]
    )
    assert (run / "h" / "evaluation.json").is_file()


@pytest.mark.slow
def test_a_finished_evaluation_is_not_lost(evaluate, refused, tmp_path):
    evaluate("--images=5")
    before = (tmp_path / "out" / "evaluation.json").read_bytes()
    error = refused("--images=6", output="out")
    assert "out holds a finished evaluation: give another --output, or --overwrite" in error
    assert (tmp_path / "out" / "evaluation.json").read_bytes() == before


@pytest.mark.slow
def test_no_figure_of_the_evaluation_before_is_left(evaluate, tmp_path):
    evaluate("--images=5", CURVE)
    assert (tmp_path / "out" / "accuracy_over_steps.png").is_file()
    evaluate("--images=5", "--overwrite=true")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "evaluation.json", "verdicts.csv", "accuracy_over_eps.png",
    }  # fmt: skip


@pytest.mark.slow
def test_two_processes_find_what_one_finds(evaluate, checkpoint, tmp_path):
    alone, _ = evaluate(*SEVERAL, output="alone")
    command = [sys.executable, "-m", "lightning_adv", "evaluate", f"--checkpoint={checkpoint}", "--output=shared"]
    command += ["--accelerator=cpu", "--devices=2", *SEVERAL]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert ended.stdout.count("all together") == 2  # once for each eps: one table
    shared = json.loads((tmp_path / "shared" / "evaluation.json").read_text())
    assert shared["processes"] == 2
    assert without_time(shared) == without_time(alone)
    verdicts = [(tmp_path / name / "verdicts.csv").read_text() for name in ("alone", "shared")]
    assert verdicts[0] == verdicts[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", preset_names("evaluation"))
def test_every_preset_runs(name, evaluate):
    results, _ = evaluate(
        f"--config={name}", "--images=3", "--eps={linf: [0.1], l2: [0.5]}", "--suspicion_images=0",
    )  # fmt: skip
    assert results["name"] == name.replace("/", "-")
    assert results["left_out"] == []
    attacks = [attack for threat in results["threat_models"] for attack in threat["attacks"]]
    stopped = {attack["name"] for attack in attacks if attack["attack"]["init_args"].get("early_stop")}
    names = {"PGD-50 × 10 restarts, any iterate", "PGD-50, random targets, any iterate"}
    assert stopped == (names if name == "evaluation/standard" else set())


@pytest.mark.slow
def test_bf16_is_autocast_in_the_attacks_and_in_the_look(evaluate, monkeypatch):
    seen = []
    for name in ("evaluate_chunk", "look"):
        function = getattr(command, name)

        def watched(*args, function=function, **kwargs):
            seen.append(torch.is_autocast_enabled("cpu"))
            return function(*args, **kwargs)

        monkeypatch.setattr(command, name, watched)
    results, _ = evaluate("--images=40", "--precision=bf16-mixed")
    assert results["settings"]["precision"] == "bf16-mixed"
    assert seen == [True, True]


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(checkpoint, tmp_path, monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "evaluate_chunk", interrupt)
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", f"--checkpoint={checkpoint}", "--output=out", "--images=9", "--accelerator=cpu"])
    assert ended.value.code == 130
    assert "The same command again goes on" in capsys.readouterr().err


@pytest.mark.slow
def test_double_precision_finds_what_single_does(evaluate):
    """With a look for suspicions, and with packages that compute in fp32."""
    given = ("--images=40", "--attacks=[{class_path: PGD}, {class_path: AutoAttack, init_args: {attacks: [apgd-ce]}}]")
    double, _ = evaluate(*given, "--precision=64-true", output="double")
    single, _ = evaluate(*given, output="single")
    assert double["clean"] == single["clean"]
    left = [results["threat_models"][0]["all_or_nothing"]["correct"] for results in (double, single)]
    assert abs(left[0] - left[1]) <= 2  # other noise
