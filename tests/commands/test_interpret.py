"""``lightning-adv interpret`` over the checkpoints of real runs."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
import torch

from lightning_adv.attacks import FGSM, PGD
from lightning_adv.cli import main
from lightning_adv.commands.shared.configs import preset_names
from lightning_adv.data import DigitsDataModule
from lightning_adv.interpretation import interpret as interpret_in_python
from lightning_adv.regimes import AdvPropTraining, MadryTraining
from tests.interpretation.own_sections import Brightness

RUNS = Path(__file__).parents[1] / "fixtures" / "v0.1.0"
NETWORKS = {name: str(RUNS / name / "checkpoints" / "best.ckpt") for name in ("madry", "advprop")}
OWN = "--sections=[{class_path: tests.interpretation.own_sections.Brightness}]"
FGSM_02 = "--attacks={fgsm: {class_path: FGSM, init_args: {eps: 0.2}}}"


@pytest.fixture
def interpret(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)

    def run(*arguments, networks=NETWORKS):
        main(["interpret", f"--networks={json.dumps(networks)}", "--accelerator=cpu", *arguments])
        written, told = capfd.readouterr()
        sys.stderr.write(told)
        return json.loads((tmp_path / "interpretation" / "interpretation.json").read_text()), written

    return run


def table(name):
    with Path("interpretation", f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_command_finds_what_python_finds(interpret):
    told, printed = interpret(OWN, FGSM_02, "--images=20", "--seed=3")
    classes = {"madry": MadryTraining, "advprop": AdvPropTraining}
    networks = {name: classes[name].load_from_checkpoint(path, weights_only=True).network
                for name, path in NETWORKS.items()}  # fmt: skip
    data = DigitsDataModule()
    data.setup()
    x, y = (torch.cat(parts) for parts in zip(*data.test_dataloader(), strict=True))
    drawn = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:20]
    found = interpret_in_python(
        networks, x[drawn], y[drawn], {"fgsm": FGSM(eps=0.2)}, [Brightness()], domains={"advprop": "main"}, seed=3
    )["brightness"].findings
    assert len(found) == 4
    for row, expected in zip(table("brightness"), found, strict=True):
        assert (row["network"], row["images"]) == (expected.network, expected.images)
        assert float(row["value"]) == pytest.approx(expected.value, rel=1e-8)
    assert [row["images"] for row in table("brightness")] == ["fgsm", "fgsm of advprop", "fgsm of madry", "fgsm"]
    assert told["sections"] == {
        "brightness": {"table": "brightness.csv", "figures": {"line": "figures/brightness_line.png"}}
    }
    assert Path("interpretation/figures/brightness_line.png").read_bytes().startswith(b"\x89PNG")
    assert (told["images"], told["seed"], told["image_shape"]) == (20, 3, [1, 8, 8])
    assert {name: network["domain"] for name, network in told["networks"].items()} == {"madry": None, "advprop": "main"}
    assert all(len(network["sha256"]) == 64 for network in told["networks"].values())
    assert told["attacks"]["fgsm"]["init_args"]["eps"] == 0.2
    assert told["settings"]["sections"][0]["init_args"] == {"factor": 1.0}
    assert {"torch", "lightning-adv", "captum"} <= told["versions"].keys()
    assert "brightness: 4 numbers, 1 pictures" in printed


def test_a_folder_is_replaced_when_it_is_said(interpret, capfd):
    interpret(OWN, FGSM_02, "--images=4")
    with pytest.raises(SystemExit) as ended:
        interpret(OWN, FGSM_02, "--images=4")
    assert ended.value.code == 1
    assert "is there already: give another --output, or --overwrite." in capfd.readouterr().err
    Path("interpretation/figures/mine.png").write_text("my own")
    interpret(OWN.replace("Brightness", "Brightness, init_args: {factor: 2}"), FGSM_02, "--images=4", "--overwrite")
    names = {path.relative_to("interpretation").as_posix() for path in Path("interpretation").rglob("*.*")}
    assert names == {
        "interpretation.json", "brightness.csv", "figures/brightness_other line.png", "figures/mine.png",
    }  # fmt: skip


def test_attacks_are_moved_to_eps(interpret, capfd):
    attacks = "--attacks={pgd: {class_path: PGD, init_args: {eps: 8/255, steps: 2, step_size: 2/255}}}"
    told, _ = interpret(OWN, attacks, "--images=4")
    assert told["attacks"]["pgd"]["init_args"]["eps"] == pytest.approx(8 / 255)
    told, _ = interpret(OWN, attacks, "--images=4", "--eps=0.2", "--overwrite")
    assert told["attacks"]["pgd"] == PGD(eps=0.2, steps=2, step_size=0.05).to_config()


def test_an_attack_of_another_data_set_is_told(interpret, capfd):
    interpret(OWN, FGSM_02.replace("0.2", "8/255"), "--images=4")
    assert "attacks: fgsm has eps 8/255, and madry was tested at 0.2: --eps moves all." in capfd.readouterr().err
    interpret(OWN, FGSM_02, "--images=4", "--overwrite")
    assert "was tested at" not in capfd.readouterr().err


def test_all_test_images_are_taken_where_they_are_few(interpret):
    told, _ = interpret(OWN, FGSM_02, "-o", "interpretation")
    assert told["images"] == 360


def test_ctrl_c_leaves_no_folder(interpret, capfd):
    with pytest.raises(SystemExit) as ended:
        interpret(OWN.replace("Brightness", "Stopped"), FGSM_02, "--images=4")
    assert ended.value.code == 130
    assert capfd.readouterr().err.splitlines()[-1] == "Stopped. The same command again starts from the beginning."
    assert not Path("interpretation").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", preset_names("interpret"))
def test_every_preset_runs(name, interpret):
    told, _ = interpret(f"--config={name}", "--images=24", "--eps=0.2")
    assert told["sections"]
    for section in told["sections"]:
        assert table(section)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--domains={other: main}"], "domains has 'other'; the networks are madry, advprop"),
        (["--domains={advprop: auxiliary}"], "'auxiliary'; it has main, adversarial: name one of them"),
        (["--images=0"], "images must be at least 1, got 0."),
        (["--images=361"], "images is 361, but the test set of DigitsDataModule has 360 images."),
        (["--batch_size=0"], "batch_size must be at least 1, got 0."),
        (["--eps=-1"], "eps must"),
        (["--networks={a: missing.ckpt}", "--data=DigitsDataModule"], "networks.a: there is no file missing.ckpt"),
        (["--networks={a: missing.ckpt}"], "data must be given"),
        (["--networks={runs/a: missing.ckpt}"], "networks has 'runs/a': a name is that of files too"),
        (["--networks={}"], "networks must be at least one, got none."),
        (["--output=file"], "output: file cannot be written"),
        (["--data=tests.commands.evaluate.test_bad_input.Given", "--data.size=9"],
         "best.ckpt was trained on images of shape (1, 8, 8), but those of Given have the shape (1, 9, 9)"),
        (["--sections=[{class_path: tests.interpretation.own_sections.Brightness, init_args: {factor: 0}}]"],
         "factor must be above 0, got 0.0."),
        (["--sections=[LocalProperty]"], "there is no class 'LocalProperty'. Did you mean 'LocalProperties'?"),
        (["--sections=[LocalProperties, LocalProperties]"], "sections has two of the name 'local_properties'"),
        (["--sections=[LocalProperties]", "--attacks={}"],
         "local_properties needs adversarial examples: attacks must be at least one, got none."),
        (["--sections=[{class_path: LocalProperties, init_args: {layers: layer9}}]"],
         "local_properties: madry: layers has the pattern 'layer9', which no layer matches."),
        (["--sections=[{class_path: LocalProperties, init_args: {frequency_attack: pgd}}]"],
         "local_properties.frequency_attack is 'pgd'; the attacks are fgsm."),
        (["--sections=[{class_path: LocalProperties, init_args: {radii: [2]}}]"], "radius must lie in [0,"),
    ],
)  # fmt: skip
def test_what_cannot_be_looked_at(interpret, capfd, monkeypatch, arguments, message):
    Path("file").write_text("")
    monkeypatch.setattr("lightning_adv.interpretation.crafted.attack_in_batches", None)  # nothing is computed before
    with pytest.raises(SystemExit) as ended:
        interpret(OWN, FGSM_02, *arguments)
    error = capfd.readouterr().err
    assert message in error, error
    assert "Traceback" not in error
    assert ended.value.code in (1, 2)
    assert not Path("interpretation").exists()
