"""``lightning-adv transfer`` between the checkpoints of real runs."""

from __future__ import annotations

import csv
import json

import pytest
import torch

from lightning_adv.attacks import FGSM
from lightning_adv.cli import main
from lightning_adv.commands.shared.configs import preset_names
from lightning_adv.commands.transfer import TRANSFER
from lightning_adv.data import DigitsDataModule
from lightning_adv.evaluation.transfer.rates import ensemble_rates, transfer_rates
from lightning_adv.regimes import AdvPropTraining, MadryTraining
from tests.commands.shortened import fit


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    home = tmp_path_factory.mktemp("transfer")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        return {name: str(home / fit(config=f"digits/{name}") / "checkpoints" / "best.ckpt")
                for name in ("madry", "advprop")}  # fmt: skip


@pytest.fixture
def transfer(checkpoints, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        given = [f"--networks={json.dumps(checkpoints)}", "--eps=0.1", "--accelerator=cpu"]
        main(["transfer", *given, *arguments])
        return json.loads((tmp_path / "transfer" / "transfer.json").read_text()), capsys.readouterr().out

    return run


@pytest.mark.slow
def test_fgsm_by_hand(transfer, checkpoints, tmp_path):
    """FGSM draws nothing: its rates are recomputed with the regimes' own networks, over three chunks."""
    found, printed = transfer("--attacks=[{class_path: FGSM, init_args: {eps: 1}}]", "--batch_size=150")
    classes = {"madry": MadryTraining, "advprop": AdvPropTraining}
    regimes = {name: classes[name].load_from_checkpoint(path, weights_only=True).eval()
               for name, path in checkpoints.items()}  # fmt: skip
    data = DigitsDataModule()
    data.setup()
    x, y = (torch.cat(parts) for parts in zip(*data.test_dataloader(), strict=True))
    with torch.no_grad():
        correct = torch.stack([regime(x).argmax(1) == y for regime in regimes.values()]).all(0)
    x, y = x[correct], y[correct]
    assert found["classified_correctly_by_all"] == len(y) > 50
    rates = {(row["source"], row["target"]): row for row in found["rates"]}
    assert len(rates) == 4
    for source, regime in regimes.items():
        x_adv = FGSM(eps=0.1)(regime.network, x, y, domain="main" if source == "advprop" else None)
        for target, other in regimes.items():
            with torch.no_grad():
                fooled = int((other(x_adv).argmax(1) != y).sum())
            row = rates[source, target]
            assert (row["fooled"], row["total"], row["white_box"]) == (fooled, len(y), source == target)
    ensembles = {(row["source"], row["target"]): row["fooled"] for row in found["ensemble_rates"]}
    # with two networks the ensemble of all but one is the other one
    assert ensembles["-madry", "madry"] == rates["advprop", "madry"]["fooled"]
    assert ensembles["-madry", "-madry"] == rates["advprop", "advprop"]["fooled"]
    with (tmp_path / "transfer" / "transfer.csv").open(newline="") as file:
        assert [int(row["fooled"]) for row in csv.DictReader(file)] == [
            row["fooled"] for row in found["rates"] + found["ensemble_rates"]
        ]
    assert {path.name for path in (tmp_path / "transfer").iterdir()} == {
        "transfer.json", "transfer.csv", "transfer.png", "transfer_ensembles.png",
    }  # fmt: skip
    assert "all but madry" in printed.replace("\n", " ")


@pytest.mark.slow
def test_the_result_can_be_repeated(transfer, tmp_path):
    transfer("--images=50", "--attacks=[{class_path: FGSM}]")
    first, _ = transfer("--images=60", "--ensembles=false", "--overwrite=true")
    again, _ = transfer("--images=60", "--ensembles=false", "--overwrite=true")
    assert first == again
    assert not (tmp_path / "transfer" / "transfer_ensembles.png").exists()
    assert first["ensemble_rates"] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", preset_names("transfer"))
def test_every_preset_runs(name, transfer):
    found, _ = transfer(f"--config={name}", "--images=60")
    assert {row["attack"] for row in found["rates"]} == {"FGSM", "IFGSM-18", "DIFGSM-18", "MIFGSM-18", "MDIFGSM-18"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--domains={other: main}"], "domains has 'other'; the networks are madry, advprop"),
        (["--domains={advprop: auxiliary}"],
         "'auxiliary'; it has main, adversarial: name one of them"),
        (["--output=file"], "output: file cannot be written"),
        (["--output=file/below"], "output: file/below cannot be written"),
        ([f"--output={'long' * 100}"], "long cannot be written (File name too long)"),
        (
            ["--accelerator=gpus"],
            "accelerator, devices and precision must be those of this machine, got accelerator 'gp",
        ),
        (["--networks={m: a.ckpt, -m: b.ckpt}", "--data=DigitsDataModule"], "networks has '-m'"),
        (["--data={class_path: DigitsDataModule, init_args: {val_fraction: 2}}"],
         "transfer: error: data.val_fraction must lie in (0, 1), got 2.0."),
        (["--data=tests.commands.evaluate.test_bad_input.Given", "--data.size=9"],
         "best.ckpt was trained on images of shape (1, 8, 8), but those of Given have the shape (1, 9, 9)"),
        (["--attacks=[{class_path: CarliniWagner}]"], "no attack fits"),
        (["--networks={only: missing.ckpt}"], "networks must be at least two"),
        (["--networks={a: missing.ckpt, b: other.ckpt}", "--data=DigitsDataModule"], "there is no file missing.ckpt"),
        (["--networks={a: missing.ckpt, b: other.ckpt}"], "data must be given"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured(transfer, tmp_path, capsys, monkeypatch, arguments, message):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("lightning_adv.commands.transfer.tracked", None)  # nothing may be computed before
    with pytest.raises(SystemExit) as ended:
        transfer(*arguments)
    error = capsys.readouterr().err.splitlines()[-1]
    assert (ended.value.code, message in error) == (1, True), error
    assert not (tmp_path / "transfer").exists()


@pytest.mark.slow
def test_ctrl_c_ends_with_one_line_and_no_folder(transfer, tmp_path, capsys, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning_adv.commands.transfer.transfer_rates", interrupt)
    with pytest.raises(SystemExit) as ended:
        transfer("--images=60")
    assert ended.value.code == 130
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("Stopped.")
    assert "Traceback" not in error
    assert not (tmp_path / "transfer").exists()


@pytest.mark.slow
def test_attacks_of_one_name_with_a_ball_and_without_are_two(transfer):
    own = "{class_path: PGD, init_args: {steps: 2, project: %s}}"
    found, _ = transfer(f"--attacks=[{own % 'true'}, {own % 'false'}]", "--images=60", "--ensembles=false")
    assert list(found["attacks"]) == ["PGD-2", "PGD-2 (no ball of a norm)"]
    assert [attack["init_args"]["project"] for attack in found["attacks"].values()] == [True, False]
    assert {row["attack"] for row in found["rates"]} == set(found["attacks"])


@pytest.mark.slow
def test_networks_are_printed_by_the_names_that_they_were_given(transfer, checkpoints):
    names = dict(zip(("[/m0]", ":ok:"), checkpoints.values(), strict=True))
    found, printed = transfer(f"--networks={json.dumps(names)}", "--attacks=[{class_path: FGSM}]", "--images=50")
    assert list(found["networks"]) == list(names)
    assert all(printed.count(name) >= 2 for name in names)


@pytest.mark.slow
def test_an_attack_of_another_norm_is_said_to_be_left_out(transfer):
    found, printed = transfer("--attacks=[{class_path: FGSM}, {class_path: CarliniWagner}]", "--images=50")
    assert found["left_out"] == ["CarliniWagner-1000 (l2)"]
    assert "Left out, since eps is of another norm: CarliniWagner-1000 (l2)" in printed


@pytest.mark.slow
def test_as_many_images_are_attacked_at_a_time_as_were_asked_for(transfer, monkeypatch):
    sizes = []
    for name, function in (("transfer_rates", transfer_rates), ("ensemble_rates", ensemble_rates)):
        monkeypatch.setattr(
            f"lightning_adv.commands.transfer.{name}",
            lambda *given, function=function, batch_size=256, **named: (
                sizes.append(batch_size) or function(*given, batch_size=batch_size, **named)
            ),
        )
    transfer("--attacks=[{class_path: FGSM}]", "--batch_size=400")
    assert sizes == [400, 400]


@pytest.mark.slow
def test_results_are_not_lost(transfer, tmp_path, capsys):
    transfer("--images=50", "--ensembles=false")
    before = (tmp_path / "transfer" / "transfer.json").read_bytes()
    with pytest.raises(SystemExit):
        transfer("--images=60")
    assert "is there already: give another --output, or --overwrite" in capsys.readouterr().err
    assert (tmp_path / "transfer" / "transfer.json").read_bytes() == before


def test_the_folder_has_a_short_name():
    settings, plain = TRANSFER.settings(["--networks={a: there.ckpt}", "--eps=0.1", "-o", "elsewhere"])
    assert settings.output == plain["output"] == "elsewhere"
