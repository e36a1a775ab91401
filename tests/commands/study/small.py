"""Cells of small networks, as the command makes them."""

from __future__ import annotations

import json
import re

from lightning_adv.commands.study.resolving import Resolver
from lightning_adv.studies.attempts import result_of
from lightning_adv.studies.cells import make_plan
from lightning_adv.studies.folder import write_cell
from lightning_adv.studies.grid import expand
from lightning_adv.studies.study_file import make_study

SMALL = {
    "trainer.max_epochs": 2,
    "trainer.limit_train_batches": 3,
    "trainer.limit_val_batches": 1,
    "trainer.limit_test_batches": 1,
    "trainer.num_sanity_val_steps": 0,
    "trainer.accelerator": "cpu",
    "model.init_args.backbone.options.width": 4,
    "model.init_args.evaluation_attack.init_args.steps": 2,
}


def make_cells(folder, content):
    """Return the cells of a study file, in their folders below one."""
    study = make_study({"set": SMALL, **content}, name="small")
    folders = dict.fromkeys(study.stages, folder)
    plan = make_plan(study, expand(study), Resolver(study), folders=folders, threads=1)
    for cell in plan.cells.values():
        write_cell(cell)
    return list(plan.cells.values())


def result(cell):
    """Return the results of a cell without what is another each time: times and places."""
    told = json.loads(result_of(cell.folder, cell.command).read_text())
    assert told
    return without_times(told)


def without_times(told):
    if isinstance(told, list):
        return [without_times(one) for one in told]
    if not isinstance(told, dict):
        return told
    varies = re.compile(r".*seconds|images_per_second|since|output")
    return {key: without_times(value) for key, value in told.items() if not varies.fullmatch(key)}
