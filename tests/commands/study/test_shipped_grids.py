"""The grids of the papers that are no block studies: what they run, counted by hand, and one of each kind for real."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_adv.cli import main
from lightning_adv.commands.shared.configs import find_config
from lightning_adv.commands.study.resolving import Resolver
from lightning_adv.core.table import read_table
from lightning_adv.studies.cells import count_cells, make_plan
from lightning_adv.studies.grid import expand
from lightning_adv.studies.study_file import Study, make_study, read_study_files

# Rows of the table, and runs: seeds times values of the axes, and for each transfer study its trained networks.
COUNTS = {
    "digits/weight_decay": (3 * 5, 15),
    "digits/clean_fraction": (3 * 6, 18),
    "digits/diversity": (2 * 5, 10 + 3),
    "digits/attack_steps": (2 * 5, 10 + 3),
    "digits/attack_step_size": (2 * 5, 10 + 3),
    "digits/advprop_eps": (3 * 3 * 4, 36),
    "digits/activations": (3 * 7, 21),
    "digits/elu_celu": (3 * 2 * 6, 36),
    "digits/scaling": (3 * 4 * 2, 24),
    "digits/depth": (3 * 2 * 3, 18),
    "digits/clean_finetuning": (3 * 3 * 2, 18),
    "digits/eleven_networks": (3 * 11, 33),
    "digits/collapses": (10 * 3, 30),
    "cifar10_folder/collapses": (10 * 3, 30),
    "cifar10/weight_decay": (5, 5),
    "cifar10/activations": (7, 7),
    "cifar10/eleven_networks": (11, 11),
    "caltech256/eleven_networks": (11, 11),
    "imagenet/clean_fraction": (6, 6),
    "imagenet/diversity": (2 * 6, 12 + 6),
    "imagenet/attack_steps": (2 * 5, 10 + 6),
    "imagenet/attack_step_size": (2 * 5, 10 + 6),
    "imagenet/advprop_eps": (8 * 4, 32),
    "imagenet/activations": (7, 7),
    "imagenet/elu_celu": (2 * 6, 12),
    "imagenet/sat_resnets": (8, 8),
    "imagenet/sat_efficientnets": (8, 8),
    "imagenet/depth": (2 * 5, 10),
    "imagenet/clean_finetuning": (2 * 3, 6),
}


# Those whose keys stand in no other: every value of every axis goes through the parser of its command.
PARSED = [
    "digits/weight_decay",
    "digits/attack_step_size",
    "digits/advprop_eps",
    "digits/elu_celu",
    "digits/depth",
    "digits/clean_finetuning",
    "digits/eleven_networks",
    "cifar10_folder/collapses",
    "imagenet/sat_resnets",
    "imagenet/clean_finetuning",
]


def read(name):
    return make_study(read_study_files([Path(find_config(f"studies/{name}"))]), name=name)


def covering(points):
    """Return points that have each value of each axis at least once."""
    seen: set[tuple[str, str]] = set()
    for point in points:
        if not seen.issuperset(point.names.items()):
            seen.update(point.names.items())
            yield point


@pytest.mark.parametrize(("name", "counts"), COUNTS.items())
def test_points_and_cells_of_the_grid_are_those_counted_by_hand(name, counts):
    study = read(name)
    points = expand(study)
    assert (len(points), count_cells(study, points)) == counts


@pytest.fixture(scope="module")
def configurations():
    """By study and the text of what varies, the configuration of the last stage; one parser serves all studies."""
    studies = {name: read(name) for name in COUNTS}
    stages = {
        f"{name}:{stage}": replace(made, name=f"{name}:{stage}")
        for name, study in studies.items()
        for stage, made in study.stages.items()
    }
    resolve = Resolver(Study("all", "all", stages))
    found = {}
    for name, study in studies.items():
        points = list(covering(expand(study))) if name in PARSED else expand(study)[-1:]
        folders = dict.fromkeys(study.stages, Path("nowhere"))
        plan = make_plan(
            study, points, lambda stage, keys, name=name: resolve(f"{name}:{stage}", keys), folders=folders, threads=1
        )
        for point, chain in zip(points, plan.chains, strict=True):
            found[name, *point.names.values()] = plan.cells[[*chain.values()][-1]].configuration
    return found


def regime(configuration):
    return configuration["model"]["class_path"].rpartition(".")[2]


@pytest.mark.slow
def test_every_key_exists_and_sets_what_the_paper_says(configurations):
    """Zhang & Zhu, A.2: signed steps in L2, FGSM of one step; Xie, section 7.5.1: eps + 1 steps, but one at eps 1."""

    def attack(*names):
        return configurations[names]["model"]["init_args"]["attack"]

    l2 = attack("digits/eleven_networks", "PGD-L2: 4")["init_args"]
    assert (l2["norm"], l2["eps"], l2["steps"], l2["step_size"]) == ("l2", 0.4, 20, "2/255")
    assert (l2["start"], l2["direction"]) == ("zero", "sign")
    assert attack("digits/eleven_networks", "FGSM: 4")["class_path"].endswith("FGSM")
    assert attack("digits/eleven_networks", "FGSM: 4")["init_args"]["eps"] == 0.1
    stopping = configurations["digits/eleven_networks", "Underfit"]["trainer"]["callbacks"][0]
    assert stopping["init_args"]["stopping_threshold"] == 0.95
    assert regime(configurations["digits/eleven_networks", "Underfit"]) == "StandardTraining"
    steps = {
        eps: attack("digits/advprop_eps", "16", eps)["init_args"]["steps"] for eps in ("0.05", "0.1", "0.15", "0.2")
    }
    assert list(steps.values()) == [1, 3, 4, 5]
    wide = configurations["imagenet/sat_resnets", "ResNeXt-152-32x8d, 380 pixels"]
    assert wide["model"]["init_args"]["backbone"]["init_args"]["options"] == {"layers": [3, 8, 36, 3]}
    assert wide["data"]["init_args"]["image_size"] == 380
    switched = configurations["imagenet/clean_finetuning", "B3", "adversarial, then clean"]
    assert (switched["model"]["init_args"]["clean_after_epochs"], switched["trainer"]["max_epochs"]) == (175, 350)
    assert regime(configurations["imagenet/clean_finetuning", "B3", "clean"]) == "StandardTraining"
    last = configurations["imagenet/diversity", "M-DI2-FGSM", "1.0"]["attacks"][0]["init_args"]
    assert (last["momentum"], last["diversity_probability"], last["steps"]) == (1.0, 1.0, 18)


SHORT = ["--set.trainer.max_epochs=1", "--set.trainer.limit_train_batches=2", "--set.trainer.limit_val_batches=1"]


@pytest.mark.slow
def test_a_grid_of_fits_collects_what_its_observers_saw(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    observers = "[{class_path: WeightSmoothness}, {class_path: LocalResponse, init_args: {images: 8}}]"
    grid = "{model.init_args.optimizer.init_args.weight_decay: [0.0001, 0.5]}"
    main([
        "study", "--config", "studies/digits/weight_decay", "-o", "out", *SHORT, "--seeds", "[0]", "--grid", grid,
        f"--set.trainer.callbacks={observers}", "--set.model.init_args.evaluation_attack.init_args.steps=1",
    ])  # fmt: skip
    rows = list(csv.DictReader(Path("out/study.csv").read_text().splitlines()))
    assert [row["status"] for row in rows] == ["done", "done"]
    assert float(rows[0]["parameters"]) > float(rows[1]["parameters"]) > 0  # the larger decay leaves less
    table = read_table(Path("out") / rows[0]["run"] / "analyses" / "local_response.csv")
    seen = [row.value for row in table if (row.name, row.statistic) == ("conv1", "max")]
    assert float(rows[0]["max_conv1"]) == seen[-1]


@pytest.mark.slow
def test_a_grid_of_attacks_shares_its_trained_networks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = "{attack: {DI2: {attacked/attacks.init_args.momentum: 0.0}}, attacked/attacks.init_args.steps: [1, 2]}"
    main([
        "study", "--config", "studies/digits/attack_steps", "-o", "out", "--set.trainer.max_epochs=2",
        "--set.model.init_args.evaluation_attack.init_args.steps=1", "--grid", grid,
    ])  # fmt: skip
    rows = list(csv.DictReader(Path("out/study.csv").read_text().splitlines()))
    assert [row["status"] for row in rows] == ["done", "done"]
    assert all(0 <= float(row[f"{name}_black_box_rate"]) <= 1 for row in rows for name in ("narrow", "wide", "madry"))
    assert len(list(Path("runs/digits-transfer-networks").glob("*/version_0/results.json"))) == 3
