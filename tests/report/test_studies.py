"""Study folders as data, also those that are half there."""

import json
import os
import shutil

import pandas
import pytest

from lightning_adv.analysis.training_curves import read_metrics
from lightning_adv.report.figures import one_rate
from lightning_adv.report.studies import failure, is_finished, is_study, read_study_folder, signature
from lightning_adv.report.study_curves import pack_curves
from lightning_adv.report.study_table import read_axis
from tests.report.fake_runs import write_run
from tests.report.fake_studies import MEASURES, SUBSETS, write_study

GRID = {"setting": ["before", "after"], "eps": ["8/255", "4/255"]}
FIGURE = {"kind": "lines", "x": "eps", "lines": "setting", "panels": None, "y": ["robust_accuracy"]}


@pytest.fixture
def folder(tmp_path):
    return write_study(tmp_path / "study", GRID, seeds=(0, 1), figure=FIGURE, epochs=2)


def change(folder, **keys):
    said = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps(said | keys))
    return said


def test_a_whole_study(folder):
    study = read_study_folder(folder)
    assert (study.missing, study.damaged, study.title) == ([], {}, "A study")
    assert study.axes == list(GRID)
    assert study.measures == MEASURES
    frame = pandas.read_csv(folder / "study.csv", dtype=str, keep_default_na=False)
    assert study.rows == frame.to_dict("records")
    assert study.figure == {**FIGURE, "panels": "", "reference": {}}
    for row, point in zip(study.rows, study.points, strict=True):
        logged = read_metrics(folder / row["run"] / "metrics.csv")
        assert study.curves[point["retrain"]] == one_rate(logged)
    assert len(study.curves) == len(study.rows) + 2  # and one pretraining for each seed


def test_numbers_are_in_their_order_and_names_in_that_of_the_grid(folder):
    eps, setting = (read_axis(read_study_folder(folder), name) for name in ("eps", "setting"))
    assert (eps.values, eps.numbers) == (["4/255", "8/255"], [4 / 255, 8 / 255])
    assert eps.at == [1, 1, 0, 0] * 2
    assert (setting.values, setting.numbers) == (["before", "after"], None)


def test_a_failed_cell_and_those_that_wait_for_it_say_why(tmp_path):
    folder = write_study(tmp_path / "study", GRID, status={1: "failed", 2: "missing"}, error="ValueError: NaN")
    study = read_study_folder(folder)
    assert [failure(study, row) for row in range(4)] == ["", "retrain: ValueError: NaN", "", ""]
    said = json.loads((folder / "study.json").read_text())
    for cell in said["cells"].values():
        if cell["stage"] == "pretrain":
            cell |= {"status": "failed", "error": None}
    change(folder, cells=said["cells"])
    assert failure(read_study_folder(folder), 0) == "pretrain: its error is not known"


def test_without_points_rows_are_joined_to_cells_by_run_and_names(folder):
    whole = read_study_folder(folder)
    said = change(folder, points=None)
    assert read_study_folder(folder).points == whole.points
    change(folder, points=said["points"][:-1])
    assert read_study_folder(folder).points == whole.points


def test_a_study_that_is_not_described_is_guessed_from_its_table(folder):
    whole = read_study_folder(folder)
    (folder / "study.json").unlink()
    study = read_study_folder(folder)
    assert (study.title, study.axes, study.measures) == ("study", whole.axes, whole.measures)
    assert study.figure == {"kind": "lines", "x": "eps", "lines": "setting", "panels": "", "y": MEASURES[::-1]} | {
        "reference": {}
    }
    assert study.missing == ["There is no study.json: what varies is guessed from the table."]


def test_a_study_without_its_table_lists_its_cells(folder):
    (folder / "study.csv").unlink()
    study = read_study_folder(folder)
    assert study.missing == ["There is no study.csv: there are no accuracies."]
    assert study.damaged == {}
    assert [row["stage"] for row in study.rows].count("retrain") == 8
    assert study.axes == list(GRID)
    assert study.measures == []
    assert all(len(point) == 1 for point in study.points)


HEAD = "setting,eps,seed,status,robust_accuracy\n"
DAMAGE = {
    "json half": ("study.json", '{"title": "A', "cannot be read (it is no JSON"),
    "json list": ("study.json", "[]", "it describes no study"),
    "json nested": ("study.json", "[" * 100_000, "nested too deeply"),
    "csv half": ("study.csv", HEAD + "before,8/255,0,done,0.5\nafter,8/2", "has 1 of 8 rows"),
    "csv empty": ("study.csv", "", "it is empty"),
    "csv of another kind": ("study.csv", "epoch,step\n0,1\n", "has no column status"),
    "csv column twice": ("study.csv", "status,a,a\n", "its column a stands twice"),
    "csv wider": ("study.csv", HEAD + "a,b,0,done,0.5,0.6\n", "than there are columns are left out: 1, in line 2"),
    "csv latin-1": ("study.csv", HEAD.encode() + b"\xe9,b,0,done,0.5\n", "not UTF-8"),
    "csv without a column": ("study.csv", "setting,seed,status\nbefore,0,done\n", "lacks columns"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_damaged_is_named_and_the_rest_is_shown(folder, kind):
    name, content, reason = DAMAGE[kind]
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    study = read_study_folder(folder)
    assert any(reason in said for said in study.damaged[name]), study.damaged
    assert set(study.damaged) == {name}
    assert len(study.points) == len(study.rows)


STRANGE = {
    "axes": "setting",
    "measures": [1],
    "title": ["A"],
    "figure": {"x": ["eps"], "y": 3},
    "cells": {"0a": 5, "0b": {"folder": 3, "status": None}},
    "points": [1],
    "stages": [],
    "rows": "many",
    "version": "new",
}


@pytest.mark.parametrize("key", STRANGE)
def test_a_strange_part_of_the_description_is_named(folder, key):
    change(folder, **{key: STRANGE[key]})
    study = read_study_folder(folder)
    (said,) = study.damaged["study.json"]
    assert said.startswith(f"study.json holds what cannot be shown: {key}")
    assert len(study.rows) == len(study.points) == 8


@pytest.mark.parametrize("key", ["cells", "stages"])
def test_a_cell_or_a_stage_that_is_null_is_named_and_the_rest_is_shown(folder, key):
    known = json.loads((folder / "study.json").read_text())[key]
    change(folder, **{key: {**known, "odd": None}})
    study = read_study_folder(folder)
    assert study.damaged["study.json"] == [f"study.json holds what cannot be shown: {key}.odd."]
    assert set(getattr(study, key)) == set(known)
    assert signature(folder)
    is_finished(folder)


def test_a_description_without_its_version_is_shown(folder):
    change(folder, version=None)
    assert read_study_folder(folder).damaged == {}


def test_a_study_of_a_newer_version_is_shown_with_a_note(folder):
    change(folder, version=2, new={"kind": "of thing"})
    study = read_study_folder(folder)
    assert study.damaged["study.json"][0].startswith("study.json is of version 2, and this version of lightning_adv")
    assert len(study.rows) == 8


def test_neither_file(folder):
    (folder / "study.csv").unlink()
    (folder / "study.json").write_text("{")
    with pytest.raises(ValueError, match=r"study is the folder of a study that cannot be read: study\.json cannot be"):
        read_study_folder(folder)
    (folder / "study.json").unlink()
    (folder / "study.yaml").write_text("title: A study\n")
    assert is_study(folder)
    with pytest.raises(ValueError, match=r"There is no study\.json"):
        read_study_folder(folder)


def test_cells_that_were_moved_are_missing(folder):
    """The table is whole without them."""
    whole = read_study_folder(folder)
    shutil.rmtree(folder / "cells")
    study = read_study_folder(folder)
    assert study.rows == whole.rows
    assert study.curves == {}
    assert study.damaged == {}
    (said,) = study.missing
    assert said.startswith("The folders of 10 runs are not there: they were moved or deleted")


def test_cells_outside_of_the_study(tmp_path):
    write_study(tmp_path / "study", GRID, epochs=2, cells="../shared")
    assert len(read_study_folder(tmp_path / "study").curves) == 5


def test_only_folders_of_cells_are_read(folder, tmp_path):
    """A page is often passed on: a study.json that somebody else wrote names no other files of this machine."""
    other = write_run(tmp_path / "private" / "version_0", analyses=())
    said = json.loads((folder / "study.json").read_text())
    first, second, *_ = said["cells"]
    said["cells"][first]["folder"] = "../private"
    run = folder / said["cells"][second]["folder"] / "version_0" / "metrics.csv"
    run.unlink()
    run.symlink_to(other / "metrics.csv")
    change(folder, cells=said["cells"])
    study = read_study_folder(folder)
    assert {first, second}.isdisjoint(study.curves)
    assert len(study.curves) == 8
    assert any("leads out of the run folder" in each for of_file in study.damaged.values() for each in of_file)


def test_damaged_metrics_are_named_once_each(folder):
    said = json.loads((folder / "study.json").read_text())
    where = next(iter(said["cells"].values()))["folder"] + "/version_0/metrics.csv"
    (folder / where).write_text("epoch,step,a\n0,1,1\n1,2\n")
    known = {}
    for _ in range(2):  # the second time from what is known
        study = read_study_folder(folder, known)
        (sentence,) = study.damaged[where]
        assert "is damaged: rows with more or fewer cells than there are columns are left out: 1, in line 3" in sentence


def test_only_metrics_that_have_changed_are_read_again(folder, monkeypatch):
    known = {}
    before = read_study_folder(folder, known)
    row = before.rows[0]["run"]
    with (folder / row / "metrics.csv").open("a") as file:
        file.write(f"2,149,{',' * 5}\n")
    read = []
    from lightning_adv.report import studies

    whole = studies.salvage_metrics
    monkeypatch.setattr(studies, "salvage_metrics", lambda path: read.append(path) or whole(path))
    read_study_folder(folder, known)
    assert [os.path.relpath(path.parent, folder) for path in read] == [row]


def test_a_study_has_ended_when_no_cell_will_run(tmp_path):
    ended = write_study(tmp_path / "ended", GRID, status={1: "failed", 2: "waits"}, epochs=1)
    assert is_finished(ended)
    for number, status in enumerate(("missing", "begun")):
        assert not is_finished(write_study(tmp_path / str(number), GRID, status={3: status}, epochs=1))
    (ended / "study.json").write_text("{")
    assert not is_finished(ended)


def test_the_signature_changes_with_every_file(folder):
    run = folder / read_study_folder(folder).rows[0]["run"]
    for path in (folder / "study.csv", folder / "study.json", run / "metrics.csv"):
        before = signature(folder)
        assert signature(folder) == before
        with path.open("a") as file:
            file.write(" ")
        assert signature(folder) != before, path


def test_curves_that_are_too_many_are_thinned_out():
    curves = {f"{k:010x}": {"train/loss": [(float(epoch), 1.0) for epoch in range(100)]} for k in range(3)}
    packed, every = pack_curves(curves, most=200)
    assert every == 3
    (place, epochs, values) = packed["runs"]["0000000000"][0]
    assert (place, len(epochs), len(values)) == (0, 184, 184)  # 34 numbers of four bytes, in base64
    packed, every = pack_curves(curves)
    assert (every, packed["runs"]["0000000000"][0][1]) == (1, "")


def test_subsets_are_no_numbers():
    from lightning_adv.report.study_files import number

    assert number("1e+3") == 1000
    assert all(number(each) is None for each in SUBSETS)
