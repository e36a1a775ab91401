"""Every configuration runs through the real command line, shortened."""

import shlex
from pathlib import Path

import pytest
import timm
import torch
import yaml
from torchvision import models

from lightning_adv.cli import main
from lightning_adv.commands.shared.configs import addition_names, config_names, find_config
from lightning_adv.nn.backbones import Backbone
from lightning_adv.regimes import advprop_attack
from tests.commands.shortened import fit, results
from tests.data.fake_cifar10 import write_fake_cifar10
from tests.data.fake_folder import write_class_folders, write_dataset

ONE_STEP = [
    "--trainer.max_epochs=1",
    "--model.init_args.evaluation_attack.init_args.steps=1",
    "--last_checkpoint.every_n_epochs=2",  # large networks are slow to write
    "--initial_checkpoint.keep=false",
]
SMALL_BATCHES = [
    "--data.init_args.batch_size=4",
    "--data.init_args.evaluation_batch_size=4",
    "--trainer.limit_train_batches=1",
    "--model.init_args.optimizer.init_args.lr=0.001",  # the recipe's may be too much for a step on four images
]

# The run that leaves the checkpoint that a configuration starts from.
FIRST = {
    "digits/blockwise": "digits/standard",
    "cifar10/blockwise": "cifar10/blockwise_standard",
    "cifar10/blockwise_vgg": "cifar10/blockwise_standard",
    "cifar10_folder/blockwise": "cifar10_folder/blockwise_standard",
    "imagenet/batchnorm_finetuning": "imagenet/madry",
    "imagenette/blockwise": "imagenette/standard",
}


def read(config):
    return yaml.safe_load(Path(find_config(config)).read_text())


def comment(config):
    """Return the comment at the head of a configuration."""
    lines = Path(find_config(config)).read_text().splitlines()
    return [line.removeprefix("#").strip() for line in lines if line.startswith("#")]


@pytest.fixture
def data_arguments(tmp_path, monkeypatch):
    """Write a small copy of the data set that a configuration asks for."""

    def write(config):
        root = tmp_path / "images"
        if config.startswith("cifar10/"):
            write_fake_cifar10(root, monkeypatch, images_per_batch=20)
            return [*SMALL_BATCHES, f"--data.init_args.root={root}", "--data.init_args.val_fraction=0.2"]
        if config.startswith(("imagenet/", "imagenette/", "caltech256/", "cifar10_folder/", "finetune/")):
            if config.startswith("caltech256/"):  # its class folders have no split
                write_class_folders(root, classes=("cat", "dog"))
            else:
                write_dataset(root, test="val", classes=("cat", "dog"))
            return [
                *SMALL_BATCHES,
                f"--data.init_args.root={root}",
                "--data.init_args.image_size=32",
                "--data.init_args.num_workers=0",
                "--data.init_args.val_fraction=0.5",
            ]
        return []

    return write


@pytest.fixture
def torchvision_weights(monkeypatch):
    """Make torchvision "download" the weights of a network that was just drawn, of the name in the URL."""
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url",
        lambda url, *args, **kwargs: models.get_model(url.rpartition("/")[2].partition("-")[0]).state_dict(),
    )


@pytest.fixture
def timm_weights(monkeypatch):
    """Make timm "download" the weights of a ResNet-50 that was just drawn; their names are torchvision's."""
    monkeypatch.setattr(
        "timm.models._builder.load_state_dict_from_hf",
        lambda *args, **kwargs: models.resnet50(weights=None).state_dict(),
    )


def shortened_attack(config):
    """Return the argument that makes the attack of training one step, where there is one."""
    attacks = read(config)["model"]["init_args"].get("attack") is not None
    return ["--model.init_args.attack.init_args.steps=1"] if attacks else []


def for_a_short_run(config):
    """Return what a run of one step on two classes must change beyond its length."""
    changes = []
    if read(config)["model"]["init_args"].get("running_statistics_epochs"):  # some epoch must come before the last ones
        changes += ["--trainer.max_epochs=2", "--model.init_args.running_statistics_epochs=1"]
    if config == "imagenet/blockwise":  # ImageNet's classifier has 1,000 classes; a new one cannot be frozen
        changes += ["--model.init_args.side=after"]
    if config == "cifar10/robustbench":
        layout = "{depth: 10, widen_factor: 1}"
        small = Backbone("wide_resnet", options={"depth": 10, "widen_factor": 1}).build(10).network
        torch.save(small.state_dict(), "weights.pt")
        backbone = "--model.init_args.backbone"
        changes += [f"{backbone}.checkpoint=weights.pt", f"{backbone}.options={layout}"]
    return changes


@pytest.mark.slow
@pytest.mark.parametrize("config", config_names())
@pytest.mark.usefixtures("torchvision_weights", "timm_weights")
def test_config_runs(config, data_arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = data_arguments(config)
    if first := FIRST.get(config):
        fit(*data, *ONE_STEP, *shortened_attack(first), *command_in_comment(config), config=first)
    run = fit(*data, *ONE_STEP, *shortened_attack(config), *for_a_short_run(config), config=config)
    found = results(run)
    assert found["dataset"] in ("digits", "cifar10", "cifar10_folder", "imagenette", "caltech256", "images")
    assert 0 <= found["robust_accuracy"] <= 1
    assert {path.name for path in run.iterdir()} == {
        "config.yaml", "metrics.csv", "checkpoints", "results.json", "figures",
    }  # fmt: skip
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["hyper_parameters"]["num_classes"] >= 2


def callbacks_of(run):
    found = yaml.safe_load((run / "config.yaml").read_text())["trainer"]["callbacks"]
    return [callback["class_path"].rpartition(".")[2] for callback in found]


ANALYSES = ["BatchNormDrift", "RunningVsBatch", "WeightSmoothness", "LocalResponse"]


@pytest.mark.slow
@pytest.mark.parametrize("config", ["digits/madry", "digits/advprop"])
def test_analyses_are_added_to_a_run(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = fit("--config", "analyses", *ONE_STEP, *shortened_attack(config), config=config)
    assert callbacks_of(run) == ANALYSES
    tables = {"bn_drift.csv", "bn_gap.csv", "smoothness.csv", "local_response.csv"}
    assert {path.name for path in (run / "analyses").iterdir()} == tables
    taken = results(run)["observer_seconds"]
    assert list(taken) == ANALYSES
    assert all(seconds > 0 for seconds in taken.values())


@pytest.mark.slow
def test_analyses_are_added_to_other_callbacks_and_to_the_saved_configuration(tmp_path, monkeypatch):
    """Before them those of another file, after them those of the command line; the saved configuration repeats all."""
    monkeypatch.chdir(tmp_path)
    average = "{class_path: lightning.pytorch.callbacks.EMAWeightAveraging, init_args: {decay: 0.9}}"
    Path("average.yaml").write_text(f"trainer: {{callbacks: [{average}]}}\n")
    more = ["--trainer.callbacks+=EarlyWarning", "--trainer.callbacks.images=20"]
    first = fit("--config", "average.yaml", "--config", "analyses", *more, "--trainer.max_epochs=1")
    assert callbacks_of(first) == ["EMAWeightAveraging", *ANALYSES, "EarlyWarning"]
    main(["fit", "--config", str(first / "config.yaml")])
    again = first.with_name("version_1")
    assert callbacks_of(again) == callbacks_of(first)
    tables = [{path.name: path.read_text() for path in (run / "analyses").iterdir()} for run in (first, again)]
    assert tables[0] == tables[1]
    assert len(tables[0]) == len(ANALYSES)


@pytest.mark.slow
def test_analyses_added_twice(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="1"):
        fit("--config", "analyses", "--config", "analyses")
    assert "trainer.callbacks has BatchNormDrift 2 times" in capsys.readouterr().err.strip().splitlines()[-1]


def command_in_comment(config):
    """Return the arguments that a comment adds to the run that comes first: its last paragraph, if it is a command."""
    told = " ".join(comment(config))
    _, found, command = told.partition(f"lightning-adv fit --config {FIRST[config]} ")
    return shlex.split(command) if found else []


@pytest.mark.slow
def test_configs_of_cifar10_run_on_image_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "data" / "cifar10", test="test", classes=("cat", "dog"))
    told = " ".join(comment("cifar10_folder/standard"))
    data = shlex.split(told[told.index("--data ") :])
    small = [*SMALL_BATCHES, "--data.init_args.val_fraction=0.5"]
    run = fit(*data, *small, *ONE_STEP, *shortened_attack("cifar10/advprop"), config="cifar10/advprop")
    assert results(run)["dataset"] == "cifar10_folder"


def test_attacks_of_advprop_follow_the_papers_rule():
    names = [name for name in config_names() if name.startswith("imagenet/advprop")]
    assert len(names) == 3
    for name in names:
        attack = read(name)["model"]["init_args"]["attack"]["init_args"]
        assert attack["steps"] == {"1/255": 1, "2/255": 3, "3/255": 4, "4/255": 5}[attack["eps"]]  # section 7.5.1
        assert attack["step_size"] == "1/255"
        assert advprop_attack(attack["eps"]).steps == attack["steps"]


def test_table_of_efficientnets_agrees_with_timm():
    rows = [line.split() for line in comment("imagenet/advprop") if line.startswith("tf_efficientnet_b")]
    assert [row[0] for row in rows] == [f"tf_efficientnet_b{i}" for i in range(8)]
    for name, size, crop, *_ in rows:
        config = timm.get_pretrained_cfg(name)
        assert config.input_size == (3, int(size), int(size))
        assert config.crop_pct == float(crop)


@pytest.mark.parametrize("config", [*config_names(), *addition_names()])
def test_lines_are_at_most_120_characters(config):
    assert max(map(len, Path(find_config(config)).read_text().splitlines())) <= 120
