"""``lightning-adv push``, to a hub on this machine: what timm and this package find there, and what the card says."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
import yaml
from torchvision.transforms import functional as transforms

from lightning_adv.cli import main
from lightning_adv.commands.push.repository import push
from lightning_adv.core.trust import trust, trusting_for_a_command
from lightning_adv.nn import Backbone, export_network, from_pretrained, write_network
from lightning_adv.regimes import MadryTraining
from tests.fake_hub import serve

FIXTURES = Path(__file__).parents[2] / "tests" / "fixtures" / "v0.1.0"
X = torch.linspace(0, 1, 3 * 64).view(3, 1, 8, 8)
FILES = {"README.md", "config.json", "model.json", "model.safetensors"}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run with an evaluation; the working directory is empty."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return shutil.copytree(FIXTURES / "madry", tmp_path / "run")


def front_matter(folder):
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def card(folder):
    return (folder / "README.md").read_text().split("---\n", 2)[2]


def export(name, folder, **arguments):
    """Export a network of one's own with weights as they are drawn; return it."""
    torch.manual_seed(0)
    recipe = Backbone(name, **arguments)
    network = recipe.build(10).eval()
    facts = {"class_names": list("abcdefghij"), "image_shape": [recipe.in_channels, 32, 32]}
    write_network(export_network(network, recipe.architecture(), 10, facts=facts), folder)
    return network


@pytest.mark.slow
def test_timm_and_this_package_find_what_is_pushed(run, tmp_path, capsys):
    regime = MadryTraining.load_from_checkpoint(run / "checkpoints" / "best.ckpt", weights_only=True).eval()
    with torch.no_grad():
        wanted = regime(X)
    with serve(tmp_path) as hub:
        main(["push", str(run), "--repo", "somebody/digits", "--private", "--license", "mit"])
        told = capsys.readouterr().out
        network = from_pretrained("somebody/digits")
        plain = timm.create_model("hf-hub:somebody/digits", pretrained=True, cache_dir=tmp_path / "timm").eval()
    assert re.fullmatch(r"The network is in http://127.0.0.1:\d+/somebody/digits\n", told)
    assert hub.created[0]["visibility"] == "private"
    assert "Bearer hf_of_the_tests" in hub.tokens
    folder = hub.folder / "somebody" / "digits"
    assert {path.name for path in folder.iterdir()} == FILES
    images = timm.data.resolve_model_data_config(plain)
    assert images["input_size"] == (1, 8, 8)
    with torch.no_grad():
        assert torch.equal(network(X), wanted)
        assert torch.equal(plain(transforms.normalize(X, images["mean"], images["std"])), wanted)
    assert plain.pretrained_cfg["label_names"] == list("0123456789")
    assert network.description["class_names"] == list("0123456789")


def test_the_card_has_the_numbers_of_the_files_and_no_others(run):
    push(run, "user/digits", output=Path("out"))
    text, about = card(Path("out")), front_matter(Path("out"))
    results = json.loads((run / "results.json").read_text())
    evaluation = json.loads((run / "evaluation-quick" / "evaluation.json").read_text())
    threat = evaluation["threat_models"][0]
    rows = [re.split(r" *\| *", line)[1:-1] for line in text.splitlines() if line.startswith("|")][2:]

    def numbers(images, accuracy, interval):
        return [str(images), f"{100 * accuracy:.1f} %", f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"]

    def share(of):
        return numbers(evaluation["images"], of["accuracy"], of["interval"])

    steps = "restarts 1, label true, loss cross_entropy)"
    of_run, of_evaluation = "results.json", "evaluation-quick/evaluation.json"
    clean, robust = (
        numbers(results["test_images"], results[f"{kind}_accuracy"], results[f"{kind}_interval"])
        for kind in ("clean", "robust")
    )
    assert rows == [
        [of_run, "none: clean images", "", *clean],
        [of_run, "Linf 0.2", f"PGD-3 (steps 3, step_size 0.1, {steps}", *robust],
        [of_evaluation, "none: clean images", "", *share(evaluation["clean"])],
        [of_evaluation, "Linf 0.2", "FGSM (label true)", *share(threat["attacks"][0]["alone"])],
        [
            of_evaluation,
            "Linf 0.2",
            f"PGD-20 (steps 20, step_size 0.02, {steps}",
            *share(threat["attacks"][1]["alone"]),
        ],
        [of_evaluation, "Linf 0.2", "all together", *share(threat["all_or_nothing"])],
    ]
    told = [cell for row in rows for cell in row[4:]]
    assert sorted(re.findall(r"[\d.]+ (?:to [\d.]+ )?%", text)) == sorted(
        [*told, "95 %"]
    )  # nowhere a percentage besides
    assert [metric["value"] for each in about["model-index"][0]["results"] for metric in each["metrics"]] == [
        results["clean_accuracy"], results["robust_accuracy"], evaluation["clean"]["accuracy"],
        threat["all_or_nothing"]["accuracy"],
    ]  # fmt: skip
    assert (about["license"], about["library_name"]) == ("unknown", "timm")
    assert "MadryTraining" in text
    assert re.search(r"written: \d{4}-\d\d-\d\d, with lightning-adv \d", text)


def test_a_card_without_accuracies_says_so_and_other_weights_have_none(run, caplog):
    other = json.loads((run / "evaluation-quick" / "evaluation.json").read_text())
    other["settings"]["network"]["sha256"] = "0" * 64
    (run / "evaluation-quick" / "evaluation.json").write_text(json.dumps(other))
    (run / "results.json").unlink()
    caplog.set_level("INFO", "lightning_adv")
    push(run, "user/digits", output=Path("out"))
    assert "Nothing is known: the files that were pushed have no accuracy of these weights." in card(Path("out"))
    assert "%" not in card(Path("out"))
    assert "model-index" not in front_matter(Path("out"))
    assert "evaluation.json does not stand in the card: it is of other weights" in caplog.text
    with pytest.raises(ValueError, match=r"^--evaluation: .*evaluation.json cannot stand in the card: it is of other"):
        push(run, "user/digits", evaluations=[run / "evaluation-quick"], output=Path("out"), overwrite=True)


def test_an_evaluation_of_the_pushed_network_stands_in_its_next_card(run):
    push(run, "user/digits", output=Path("out"))
    (command,) = re.findall(r"^lightning-adv (evaluate .*)$", card(Path("out")), re.MULTILINE)  # as the card has it
    command = command.replace("hf-hub:user/digits", "out").replace("FOLDER", "evaluation-of-out")
    command = command.replace("DATA_MODULE", "DigitsDataModule")  # a run of 0.1.0 does not say it
    main([*shlex.split(command), "--images=20", "--suspicion_images=0", "--accelerator=cpu"])
    evaluation = json.loads(Path("evaluation-of-out/evaluation.json").read_text())
    assert evaluation["settings"]["network"]["checkpoint"] == "out"
    push(Path("out"), "user/again", evaluations=[Path("evaluation-of-out")], output=Path("again"))
    assert "| evaluation-of-out/evaluation.json | none: clean images |  | 20 |" in card(Path("again"))
    assert (Path("out") / "model.safetensors").read_bytes() == (Path("again") / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("class_path", "named"),
    [("lightning_adv.data.digits.DigitsDataModule", "DigitsDataModule"), ("my_data.Stripes", "my_data.Stripes")],
)
def test_the_card_names_the_data_module_as_the_command_does(class_path, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = Backbone("small_cnn", in_channels=1)
    facts = {"trained_on": {"class_path": class_path, "name": "images"}}
    write_network(export_network(recipe.build(10).eval(), recipe.architecture(), 10, facts=facts), Path("exported"))
    push(Path("exported"), "user/digits", output=Path("out"))
    assert f"--checkpoint hf-hub:user/digits --data {named} --output FOLDER" in card(Path("out"))


def test_doubts_of_an_evaluation_and_its_corruptions_stand_in_the_card(run):
    path = run / "evaluation-quick" / "evaluation.json"
    evaluation = json.loads(path.read_text())
    doubt = {"name": "zero_gradients", "message": "Gradients are zero.", "norm": "linf", "eps": 0.2, "images": 64}
    corruptions = {"images": "64 images", "mean_error": 0.4321}
    path.write_text(json.dumps(evaluation | {"suspicions": [doubt], "corruptions": corruptions}))
    push(run, "user/digits", output=Path("out"))
    assert "**Doubt** (Linf 0.2, 64 images): Gradients are zero." in card(Path("out"))
    assert "Common corruptions (evaluation-quick/evaluation.json, 64 images): mean error 43.2 %." in card(Path("out"))


def test_the_domain_is_the_one_asked_for(tmp_path):
    told = push(FIXTURES / "advprop", "user/digits", domain="adversarial", output=tmp_path / "out")
    assert told.endswith("out, through the domain adversarial")
    assert "- BatchNorm domain: adversarial" in card(tmp_path / "out")
    assert "| results.json |" not in card(tmp_path / "out")  # its accuracies are those of the other domain
    push(FIXTURES / "advprop", "user/digits", output=tmp_path / "main")
    assert "| results.json |" in card(tmp_path / "main")
    with pytest.raises(ValueError, match=r"^--domain is 'main', but .* was exported through 'adversarial'"):
        push(tmp_path / "out", "user/digits", domain="main", output=tmp_path / "again")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("resnet18", {"stem": "cifar"}, r"it has the stem for images of 32×32 \(stem: cifar\)"),
        ("resnet18", {"activation": "silu"}, "it has the activation silu"),
        ("torchvision/resnet18", {}, r"resnet18 is not one of its networks \(torchvision\)"),
    ],
)
def test_what_timm_does_not_build_is_told_in_card_and_config(tmp_path, name, arguments, reason):
    network = export(name, tmp_path / "export", **arguments)
    push(tmp_path / "export", "user/net", output=tmp_path / "out")
    assert re.search(f"timm does not build this network, since {reason}", card(tmp_path / "out"))
    assert "timm.create_model" not in card(tmp_path / "out")
    assert front_matter(tmp_path / "out")["library_name"] == "lightning-adv"
    with pytest.raises(
        RuntimeError, match=rf"Unknown model \(.*since {reason}: lightning_adv.nn.from_pretrained loads"
    ):
        timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(from_pretrained(tmp_path / "out")(x), network(x))


def test_the_card_says_how_a_network_by_its_path_is_loaded(tmp_path, monkeypatch):
    """A function of a module is called only if the module is trusted: the card's program says that it is."""
    (tmp_path / "nets_of_the_card.py").write_text(
        "from torch import nn\n\n\n"
        "def flat(num_classes, in_channels=3):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 1024, num_classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    network = export("nets_of_the_card.flat", tmp_path / "export")
    with trusting_for_a_command():
        trust("nets_of_the_card")
        push(tmp_path / "export", "user/net", output=tmp_path / "out")
    assert "since nets_of_the_card.flat is of a package of its own" in card(tmp_path / "out")
    assert "--output FOLDER --trust nets_of_the_card\n" in card(tmp_path / "out")
    (program,) = re.findall(r"```python\n(.*?)```", card(tmp_path / "out"), re.DOTALL)
    loaded = {}
    with trusting_for_a_command():
        exec(program.replace("user/net", str(tmp_path / "out")), loaded)
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded["network"](x), network(x))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet18.a1_in1k", {"in_channels": 1, "activation": "smooth_backward_relu"}),
        pytest.param("vit_tiny_patch16_224", {"options": {"img_size": 32, "patch_size": 8}}, marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}, marks=pytest.mark.slow),
    ],
)
def test_networks_of_timm_are_built_by_timm(tmp_path, name, arguments):
    network = export(name, tmp_path / "export", **arguments)
    push(tmp_path / "export", "user/net", output=tmp_path / "out")
    plain = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    images = timm.data.resolve_model_data_config(plain)
    x = torch.rand(2, *images["input_size"])
    with torch.no_grad():
        assert torch.equal(plain(transforms.normalize(x, images["mean"], images["std"])), network(x))
    assert "import lightning_adv" not in card(tmp_path / "out")
    assert front_matter(tmp_path / "out")["library_name"] == "timm"


def test_a_network_that_timm_builds_otherwise_is_not_pushed_as_timms(tmp_path, monkeypatch):
    export("small_cnn", tmp_path / "export", in_channels=3)
    created = timm.create_model

    def other(*arguments, **options):
        network = created(*arguments, **options)
        torch.nn.init.zeros_(network.fc.weight)
        return network

    monkeypatch.setattr(timm, "create_model", other)
    with pytest.raises(ValueError, match=r"^timm builds another network than this one by the name small_cnn"):
        push(tmp_path / "export", "user/net", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_card_has_no_folder_of_the_machine(run):
    config = (run / "config.yaml").read_text()
    hidden = config.replace("checkpoint: null", "checkpoint: /home/somebody/secret/start.pt")
    assert hidden != config
    (run / "config.yaml").write_text(hidden)
    push(run, "user/digits", output=Path("out"))
    assert "checkpoint: start.pt" in card(Path("out"))
    assert "weight_decay: 0.0005" in card(Path("out"))
    written = "".join(path.read_text() for path in Path("out").iterdir() if path.suffix != ".safetensors")
    assert "/home" not in written
    assert "secret" not in written


def test_what_was_there_stays_unless_asked(run):
    Path("out").mkdir()
    (Path("out") / "README.md").write_text("mine")
    with pytest.raises(ValueError, match=r"README.md is there already: choose another folder, or overwrite it"):
        push(run, "user/digits", output=Path("out"))
    assert [path.read_text() for path in Path("out").iterdir()] == ["mine"]
    push(run, "user/digits", output=Path("out"), overwrite=True)
    assert {path.name for path in Path("out").iterdir()} == FILES


def test_mistakes_are_told_in_a_line(run, tmp_path, capsys):
    Path("empty").mkdir()
    damaged = json.loads((FIXTURES / "advprop" / "export" / "model.json").read_text())
    shutil.copytree(FIXTURES / "advprop" / "export", "damaged")
    Path("damaged/model.json").write_text(json.dumps(damaged | {"results": {"clean_accuracy": 1}}))
    cases = {
        ("absent", "--repo=user/name"): (1, "SOURCE: there is no file absent"),
        ("empty", "--repo=user/name"): (1, "SOURCE: empty is neither a run with checkpoints/best.ckpt nor an export"),
        ("damaged", "--repo=user/name", "--output=out"): (
            1,
            "SOURCE: its accuracies are damaged (KeyError: 'test_images')",
        ),
        (str(run), "--repo=name"): (1, "--repo: 'name' is not a repository such as user/name"),
        (str(run), "--repo=user/na me"): (1, "--repo: 'user/na me' is not a repository such as user/name"),
        (str(run), "--repo=user/name", "--evaluation=empty"): (1, "--evaluation: empty/evaluation.json cannot stand"),
        (str(run),): (2, "--repo"),
    }
    with serve(tmp_path) as hub:
        for refusal, sentence in (
            (
                (401, None),
                "--repo: the hub refuses user/name with status 401: log in with a token that may write there",
            ),
            (
                (403, None),
                "--repo: the hub refuses user/name with status 403: log in with a token that may write there",
            ),
        ):
            hub.refusal = refusal
            _told(capsys, (str(run), "--repo=user/name"), 1, sentence)
        for arguments, (status, sentence) in cases.items():
            _told(capsys, arguments, status, sentence)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
        _told(capsys, (str(run), "--repo=user/name"), 1, "--repo: the hub cannot be reached for user/name: ")


def _told(capsys, arguments, status, sentence):
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(["push", *arguments])
    told = capsys.readouterr()
    assert caught.value.code == status
    assert sentence in told.err.splitlines()[-1 if status == 1 else 0]
    assert "Traceback" not in told.err
