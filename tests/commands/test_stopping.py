"""What a scheduler and a user see of a command that is stopped."""

import os
import shlex
import signal
import time
from pathlib import Path

import pytest
import torch

from lightning_adv.callbacks import Throughput
from lightning_adv.cli import main
from lightning_adv.regimes import Regime
from tests.commands.shortened import FAST_ATTACK, SHORT, fit, results


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def stop_at(monkeypatch, step):
    """Send SIGTERM to this process once a step was made."""
    count = Throughput.on_train_batch_end

    def stopped(self, trainer, *args):
        count(self, trainer, *args)
        if trainer.global_step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Throughput, "on_train_batch_end", stopped)


@pytest.mark.slow
def test_sigterm_has_its_status_and_the_command_that_goes_on(monkeypatch, capsys):
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        with pytest.raises(SystemExit) as ended:
            fit()
    assert ended.value.code == 128 + signal.SIGTERM
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("Stopped by SIGTERM. To go on: lightning-adv fit ")
    run = Path("runs/digits-madry/version_0")
    assert not (run / "results.json").exists()
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 3
    main(shlex.split(told.partition("lightning-adv ")[2]))
    assert results(run)["epochs"] == 2


@pytest.mark.slow
def test_nothing_is_advised_where_nothing_was_saved(monkeypatch, capsys):
    stop_at(monkeypatch, 2)
    with pytest.raises(SystemExit) as ended:
        fit()
    assert ended.value.code == 143
    assert capsys.readouterr().err.strip().splitlines()[-1] == "Stopped by SIGTERM."


@pytest.mark.slow
def test_sigterm_ends_predict_without_half_a_table(monkeypatch, capsys):
    predict = Regime.predict_step

    def stopped(self, batch, batch_idx):
        os.kill(os.getpid(), signal.SIGTERM)
        return predict(self, batch, batch_idx)

    monkeypatch.setattr(Regime, "predict_step", stopped)
    with pytest.raises(SystemExit) as ended:
        main(["predict", "--config", "digits/madry", *SHORT, *FAST_ATTACK])
    assert ended.value.code == 143
    assert not list(Path().rglob("*predictions*"))


@pytest.mark.slow
def test_sigterm_ends_an_evaluation_as_ctrl_c_does(monkeypatch, capsys):
    run = fit()

    def slow(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    monkeypatch.setattr("lightning_adv.commands.evaluate.command.evaluate_chunk", lambda *_, **__: slow())
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "--checkpoint", str(run / "checkpoints/best.ckpt"), "--images=8", "--suspicion_images=0"])
    assert ended.value.code == 143
    assert capsys.readouterr().err.strip().splitlines()[-1] == "Stopped. The same command again goes on from here."
    assert signal.getsignal(signal.SIGTERM) is before
