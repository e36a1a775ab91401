"""The block studies of Siddiqui & Breuel: what they run, counted by hand, and one of each kind for real."""

import csv
import json
from pathlib import Path

import pytest
from torchvision import models

from lightning_adv.cli import main
from lightning_adv.commands.shared.configs import find_config
from lightning_adv.commands.study.resolving import Resolver
from lightning_adv.nn.blocks import split_blocks
from lightning_adv.studies.cells import count_cells, make_plan
from lightning_adv.studies.grid import expand
from lightning_adv.studies.study_file import make_study, read_study_files

# Rows of the table and runs. Each row ends with a run of its own: 2 ways of retraining on 2 sides of each cut-off and
# the 2 pretrained networks; all subsets, of which the empty one is a pretrained network; and of 2 networks each block
# or layer with initial and with fresh values, and none, beside the 2 trainings.
COUNTS = {
    "digits/blockwise": (3 * (2 * 2 * 3 + 2),) * 2,
    "digits/blockwise_layers": (3 * (2 * 2 * 4 + 2),) * 2,
    "digits/blockwise_combinations": (3 * 2 * 2**4,) * 2,
    "digits/reinitialization": (3 * (2 * 2 * 4 + 2), 3 * (2 * 2 * 4 + 2 + 2)),
    "cifar10/blockwise": (4 * (2 * 2 * 5 + 2),) * 2,
    "cifar10/blockwise_layers": (2 * 2 * 20 + 2,) * 2,
    "cifar10/blockwise_combinations": (2 * 2**6,) * 2,
    "cifar10/reinitialization": (2 * 2 * 54 + 2, 2 * 2 * 54 + 2 + 2),
    "cifar10_folder/blockwise": (2 * 2 * 5 + 2,) * 2,
    "cifar10_folder/blockwise_combinations": (2**6,) * 2,
    "cifar10_folder/reinitialization": (2 * 2 * 6 + 2, 2 * 2 * 6 + 2 + 2),
    "imagenette/blockwise": (4 * (2 * 2 * 5 + 2),) * 2,
    "imagenet/blockwise": (2 * 2 * 5 + 2,) * 2,
    "imagenet/reinitialization": (2 * 2 * 54 + 2, 2 * 2 * 54 + 2 + 2),
}


def read(name):
    return make_study(read_study_files([Path(find_config(f"studies/{name}"))]), name=name)


def few(points, column):
    """Return points that have each value of each axis, but of one column the first and the last value only."""
    values = [point.names[column] for point in points if column in point.names]
    seen: set[tuple[str, str]] = set()
    for point in points:
        if point.names.get(column, values[0]) in (values[0], values[-1]) and not seen.issuperset(point.names.items()):
            seen.update(point.names.items())
            yield point


def chains(name):
    """Return points with the configurations of their cells by stage, as the parser of ``fit`` resolves them."""
    study = read(name)
    points = expand(study)
    column = next(column for column in ("cutoff", "blocks") if column in points[0].names)
    chosen = list(few(points, column))
    made = make_plan(study, chosen, Resolver(study), folders=dict.fromkeys(study.stages, Path("/nowhere")), threads=1)
    for point, chain in zip(made.points, made.chains, strict=True):
        yield point, {stage: made.cells[found].configuration for stage, found in chain.items()}


@pytest.mark.parametrize(("name", "counts"), COUNTS.items())
def test_points_and_cells_are_those_counted_by_hand(name, counts):
    study = read(name)
    points = expand(study)
    assert (len(points), count_cells(study, points)) == counts


def test_the_layers_of_a_resnet50_are_those_that_the_studies_name():
    layers = [block.name for block in split_blocks(models.resnet50(), (3, 32, 32), unit="layer")]
    for name in ("cifar10/reinitialization", "imagenet/reinitialization"):
        assert read(name).grid[0]["model.init_args.blocks"] == [[layer] for layer in layers]


BEFORE = {"adversarial": "conventional", "conventional": "adversarial"}
REGIMES = {"conventional": "StandardTraining", "adversarial": "MadryTraining"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in COUNTS if "blockwise" in name])
def test_what_is_retrained_and_how(name):
    """Adversarial retraining is of the conventional network, conventional retraining of the adversarial one."""
    for point, chain in chains(name):
        if "retrain" not in chain:
            ((stage, pretrained),) = chain.items()
            assert pretrained["model"]["class_path"].endswith(REGIMES[stage])
            continue
        how, side = [point.names.get("retraining"), point.names.get("side")]
        if "setting" in point.names:
            how, side = point.names["setting"].split()
        assert list(chain) == [BEFORE[how], "retrain"]
        model = check_network_of(chain, "retrain", BEFORE[how])
        assert (model["attack"] is None) == (how == "conventional")
        assert model["unit"] == ("layer" if name.endswith("layers") else "block")
        if "blocks" in point.names:
            assert ("+".join(model["blocks"]), model["cutoff"]) == (point.names["blocks"], None)
        else:
            assert (str(model["cutoff"]), model["side"]) == (point.names["cutoff"], side)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in COUNTS if "blockwise" not in name])
def test_what_is_reinitialized(name):
    for point, chain in chains(name):
        assert list(chain) == [point.names["network"], "reinitialized"]
        model = check_network_of(chain, "reinitialized", point.names["network"])
        assert model["reinitialize"] == {"none": False}.get(point.names["values"], point.names["values"])
        assert model["blocks"] == ([point.names["blocks"]] if "blocks" in point.names else None)
        assert model["evaluation_attack"]["init_args"]["steps"] == 200
        assert chain["reinitialized"]["trainer"]["max_epochs"] == 0


def check_network_of(chain, stage, before):
    """Check that a stage has the network of the one before it; return the arguments of its regime."""
    own, other = (chain[name]["model"]["init_args"] for name in (stage, before))
    assert chain[before]["model"]["class_path"].endswith(REGIMES[before])
    backbone = own["backbone"]["init_args"]
    assert f"/nowhere/{before}" in backbone["checkpoint"]
    assert {**backbone, "checkpoint": None} == other["backbone"]["init_args"]
    return own


SHORT = [
    "--set.trainer.max_epochs=1", "--set.trainer.limit_train_batches=2", "--set.trainer.limit_val_batches=1",
    "--set.trainer.limit_test_batches=1", "--set.trainer.num_sanity_val_steps=0", "--seeds=[0]",
    "--set.model.init_args.evaluation_attack.init_args.steps=2",
]  # fmt: skip


def first_values(axis):
    if isinstance(axis, dict):
        return {"subsets": axis["subsets"][:1]} if "subsets" in axis else axis
    return axis[:1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "retrained", "pretrained"),
    [
        ("digits/blockwise", [("before", "m1"), ("after", "m1")], ("only pretrained", "")),
        ("digits/blockwise_combinations", [("m0",)], ("",)),
        ("digits/reinitialization", [("initial", "m0"), ("fresh", "m0")], ("none", "")),
    ],
)
def test_a_study_of_digits_runs(name, retrained, pretrained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = [{key: first_values(axis) for key, axis in axes.items()} for axes in read(name).grid]
    Path("short.yaml").write_text(json.dumps({"grid": grid}))
    main(["study", f"--config=studies/{name}", "--config=short.yaml", "-o", "out", *SHORT])
    with open("out/study.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    axes = [column for column in ("side", "values", "cutoff", "blocks") if column in rows[0]]
    first = next(column for column in ("retraining", "network") if column in rows[0])
    hows = list(dict.fromkeys(row[first] for row in rows))
    expected = [(how, *values) for how in hows for values in retrained] + [(how, *pretrained) for how in hows]
    assert [tuple(row[column] for column in (first, *axes)) for row in rows] == expected
    assert {row["status"] for row in rows} == {"done"}
    assert all(0 <= float(row["robust_accuracy"]) <= 1 for row in rows)
    pretrained_cells = {path.name.partition("-")[0] for path in Path("runs/pretrained").glob("*-*")}
    assert pretrained_cells == set(hows) == {"adversarial", "conventional"}
    assert Path("out/study.png").stat().st_size > 10_000
