"""The benchmark of an evaluation runs, and its two contenders come to the same verdicts. No time is asserted."""

from __future__ import annotations

import json

import pytest
import torch

from lightning_adv.attacks import FGSM, PGD, Attack
from lightning_adv.evaluation import make_plan
from tests.commands.shortened import fit


@pytest.fixture(scope="module")
def benchmark(script):
    return script("evaluation")


def test_the_preset_is_measured(benchmark, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    checkpoint = str(fit() / "checkpoints" / "best.ckpt")
    settings = ["--config=evaluation/quick", "--images=40", "--batch-size=30", "--rounds=2", "--eps", "0.1", "0.2"]
    benchmark.main([checkpoint, *settings, "--json=out.json"])
    printed = capsys.readouterr().out
    assert "evaluation/quick, eps [0.1, 0.2] in Linf, 40 digits, 2 rounds" in printed
    (row,) = [line for line in printed.splitlines() if line.startswith("| runs")]
    assert row.split("|")[1].strip() == checkpoint
    seconds = json.loads((tmp_path / "out.json").read_text())[checkpoint]
    assert {name: len(times) for name, times in seconds.items()} == {benchmark.SKIPPING: 2, benchmark.EVERY: 2}


def test_early_stop_is_measured(benchmark, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    checkpoint = str(fit() / "checkpoints" / "best.ckpt")
    settings = ["--early-stop", "--images=40", "--batch-size=30", "--steps=4", "--rounds=2", "--eps", "0.1", "0.2"]
    benchmark.main([checkpoint, *settings, "--json=out.json"])
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| runs")]
    assert [row[2].strip() for row in rows] == ["0.1", "0.2"]
    for row in rows:
        assert 100 >= float(row[3]) >= float(row[4]) >= 0  # any iterate breaks what the last one breaks
    seconds = json.loads((tmp_path / "out.json").read_text())
    assert list(seconds) == [f"{checkpoint}, eps 0.1", f"{checkpoint}, eps 0.2"]
    for times in seconds.values():
        assert {name: len(own) for name, own in times.items()} == {
            benchmark.FULL: 2, benchmark.AGAIN: 2, benchmark.EARLY: 2,
        }  # fmt: skip


def test_early_stop_is_that_of_a_network(benchmark, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--early-stop"])
    assert "--early-stop needs checkpoints" in capsys.readouterr().err


def test_the_attacks_on_every_sample_run_to_the_end(benchmark):
    attack = PGD(early_stop=True)
    assert not benchmark.without_early_stop(attack).early_stop
    assert attack.early_stop
    assert benchmark.without_early_stop(FGSM()).to_config() == FGSM().to_config()


def test_the_libraries_are_measured(benchmark, capsys):
    benchmark.main(["--steps=1", "--rounds=1"])
    printed = capsys.readouterr().out
    for name in ("resnet18", "small_cnn"):
        assert f"PGD-1, {name}" in printed
    assert printed.count("| eager bound | ") == printed.count("| 1.000 | 1.000 to 1.000 |") == 2
    assert printed.count("| lightning_adv PGD |") == 2


class Counted(Attack):
    """FGSM that counts the images that it is given."""

    given = 0

    def __init__(self, eps=0.2, norm="linf"):
        self.eps = eps
        self.norm = FGSM(eps=eps, norm=norm).norm

    def __call__(self, model, x, y, *, domain=None, generator=None):
        Counted.given += len(x)
        return FGSM(eps=self.eps)(model, x, y)


def test_one_sees_every_sample_and_the_other_what_is_left(benchmark):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    x, _ = benchmark.digits(60)
    y = network(x).argmax(1)
    plan = make_plan([FGSM(eps=0.2), Counted()], {"linf": [0.2]})
    benchmark.on_every_sample(network, x, y, plan, 25)
    assert Counted.given == 60
    Counted.given = 0
    left = benchmark.skipping(network, x, y, plan, 25)
    assert Counted.given == round(float(left) / 100 * 60) < 60
