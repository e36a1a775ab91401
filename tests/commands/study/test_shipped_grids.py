"""The grids of the papers that are no block studies: what they run, counted by hand, and one of each kind for real."""

import csv
from pathlib import Path

import pytest

from lightning_adv.cli import main
from lightning_adv.commands.shared.configs import find_config
from lightning_adv.commands.study.resolving import Resolver
from lightning_adv.studies.cells import count_cells, make_plan
from lightning_adv.studies.grid import expand
from lightning_adv.studies.study_file import make_study, read_study_files

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


def read(name):
    return make_study(read_study_files([Path(find_config(f"studies/{name}"))]), name=name)


def covering(points):
    """Return points that have each value of each axis at least once."""
    seen: set[tuple[str, str]] = set()
    for point in points:
        if not seen.issuperset(point.names.items()):
            seen.update(point.names.items())
            yield point


def plan(name):
    """Return what each value of each axis sets, through the parser of its command, as cells by what varies."""
    study = read(name)
    points = list(covering(expand(study)))
    folders = dict.fromkeys(study.stages, Path("/nowhere"))
    made = make_plan(study, points, Resolver(study), folders=folders, threads=1)
    return {tuple(point.names.values()): made.cells[[*chain.values()][-1]].configuration
            for point, chain in zip(made.points, made.chains, strict=True)}  # fmt: skip


@pytest.mark.parametrize(("name", "counts"), COUNTS.items())
def test_points_and_cells_of_the_grid_are_those_counted_by_hand(name, counts):
    study = read(name)
    points = expand(study)
    assert (len(points), count_cells(study, points)) == counts
