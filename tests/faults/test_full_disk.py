"""A disk that is full, a folder that vanishes, a file that nobody may write: one sentence, and no loss."""

import json
import os
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from lightning_adv.callbacks import TrainingCurves
from lightning_adv.regimes import MadryTraining
from tests.commands.shortened import FAST_ATTACK, SHORT
from tests.faults.disk import read_only, small_disk
from tests.faults.told import check_readable, told

FIT = [
    "fit", "--config=digits/madry", "--trainer.logger.init_args.version=0", "--last_checkpoint.every_n_train_steps=1",
    *SHORT, *FAST_ATTACK, "--model.init_args.backbone={name: small_cnn, options: {width: 4}}",
]  # fmt: skip
RUN = Path("runs/digits-madry/version_0")
LAST = RUN / "checkpoints" / "last.ckpt"


@pytest.fixture
def disk(tmp_path, monkeypatch):
    with small_disk(tmp_path / "disk") as found:
        monkeypatch.chdir(found.path)
        yield found
        monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    before = Path.cwd()
    folder = tmp_path_factory.mktemp("trained")
    os.chdir(folder)
    try:
        assert told(*FIT)[0] == 0
    finally:
        os.chdir(before)
    return folder / RUN


def refused(*command, names):
    """Run a command that ends with a sentence naming a file; return it."""
    status, text = told(*command)
    assert status == 1, text
    last = [line for line in text.splitlines() if "error: " in line]
    assert len(last) == 1, text
    assert "Traceback" not in text
    assert names in last[0], text
    return last[0]


def at_step(monkeypatch, step, do):
    """Do something in the run once, before a step."""
    training_step = MadryTraining.training_step

    def done(self, batch, batch_idx):
        if self.trainer.global_step == step and not self.trainer.sanity_checking:
            do()
        return training_step(self, batch, batch_idx)

    monkeypatch.setattr(MadryTraining, "training_step", done)


def whole(path):
    return torch.load(path, weights_only=True)["global_step"]


@pytest.mark.slow
def test_fit_on_a_full_disk_is_refused_before_training(disk, monkeypatch):
    at_step(monkeypatch, 0, lambda: pytest.fail("it has trained"))
    disk.fill()
    refused(*FIT, names="runs/digits-madry")
    disk.empty()
    assert not list(disk.path.rglob("*.*")), "nothing is left"


@pytest.mark.slow
def test_fit_whose_disk_is_full_in_the_middle_keeps_its_checkpoint(disk, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(patch, 2, disk.fill)
        line = refused(*FIT, names=str(LAST.parent))
    disk.empty()
    assert "No space left" in line or "File too large" in line
    assert f"To go on: lightning-adv fit --config {RUN / 'config.yaml'} --ckpt_path {LAST}" in line
    assert sorted(path.name for path in LAST.parent.iterdir()) == ["init.ckpt", "last.ckpt"]
    assert whole(LAST) == 2
    status, text = told("fit", f"--config={RUN / 'config.yaml'}", f"--ckpt_path={LAST}")
    assert status == 0, text
    assert whole(LAST) == 6


@pytest.mark.slow
def test_a_picture_without_room_is_missing_and_the_run_is_tested(disk, monkeypatch):
    """Room for the results is there again when the test has ended."""
    draw = TrainingCurves.on_fit_end

    def full(self, trainer, module):
        disk.fill()
        draw(self, trainer, module)
        disk.empty()

    monkeypatch.setattr(TrainingCurves, "on_fit_end", full)
    refused(*FIT, names="training_curves.png")
    assert json.loads((RUN / "results.json").read_text())["epochs"] == 2
    assert not list((RUN / "figures").iterdir())


@pytest.mark.slow
def test_results_without_room_are_told_all_the_same(disk, monkeypatch, capsys):
    at_end = MadryTraining.on_test_epoch_end

    def full(self):
        at_end(self)
        disk.fill()

    monkeypatch.setattr(MadryTraining, "on_test_epoch_end", full)
    shown = []
    monkeypatch.setattr("lightning_adv.commands.fit.reporting.print_results", lambda results, _: shown.append(results))
    refused(*FIT, names="results.json")
    disk.empty()
    assert len(shown) == 1
    assert whole(LAST) == 6


@pytest.mark.slow
def test_metrics_that_nobody_may_write_are_missing_and_training_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    metrics = RUN / "metrics.csv"
    kept = []
    with ExitStack() as files, monkeypatch.context() as patch:

        def protect():
            files.enter_context(read_only(metrics))
            kept.append(metrics.read_text())

        at_step(patch, 3, protect)
        line = refused(*FIT, names="metrics.csv")
    assert metrics.read_text().startswith(kept[0])
    assert "Not everything could be written" in line
    assert json.loads((RUN / "results.json").read_text())["epochs"] == 2


@pytest.mark.slow
def test_a_run_folder_that_vanishes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    at_step(monkeypatch, 3, lambda: shutil.rmtree(RUN))
    line = refused(*FIT, names="metrics.csv")
    assert "removed while the run went on" in line
    assert whole(LAST) == 6
    assert json.loads((RUN / "results.json").read_text())["epochs"] == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "found"),
    [
        (
            ["evaluate", "--eps.linf=[0.1]", "--images=9", "--suspicion_images=0", "--attacks=[FGSM]"],
            "evaluation.json",
        ),
        (["transfer", "--eps=0.1", "--images=20", "--attacks=[FGSM]"], "transfer.json"),
        (["export"], "model.json"),
        (["report"], "report.html"),
        (["predict"], "predictions.csv"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_command_on_a_full_disk_leaves_what_was_there(disk, trained, command, found):
    name, best = command[0], trained / "checkpoints" / "best.ckpt"
    output = disk.path / "out"
    given = {
        "evaluate": [f"--checkpoint={best}", f"--output={output}", "--accelerator=cpu"],
        "transfer": [f"--networks={{a: {best}, b: {best}}}", f"--output={output}", "--accelerator=cpu"],
        "export": [f"--checkpoint={best}", f"--output={output}"],
        "report": [str(trained), f"--output={output / 'report.html'}"],
        "predict": [
            f"--config={trained / 'config.yaml'}", f"--ckpt_path={best}",
            f"--trainer.logger.init_args.save_dir={output}", "--trainer.logger.init_args.name=",
            "--trainer.logger.init_args.version=x", "--trainer.limit_predict_batches=1",
        ],
    }[name]  # fmt: skip
    room = 2000
    disk.fill(leave=room)
    line = refused(*command, *given, names=str(output))
    check_readable(1, line)
    disk.empty()
    assert not [path for path in output.rglob("*") if path.name.endswith((".part", ".lock"))]
    status, text = told(*command, *given)
    assert status == 0, text
    [path] = output.rglob(found)
    before = path.read_bytes()
    if name == "predict":
        given = [*given[:-1], "--trainer.limit_predict_batches=2"]
    again = [*command, *given, *([] if name in ("report", "predict") else ["--overwrite"])]
    disk.fill(leave=room)
    refused(*again, names=str(output))
    disk.empty()
    assert name == "evaluate" or path.read_bytes() == before
