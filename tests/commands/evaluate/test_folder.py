"""The folder of an evaluation: nobody else's files, and no number out of a damaged or missing part."""

from __future__ import annotations

import json

import pytest

from lightning_adv.commands.evaluate.folder import EvaluationFolder
from lightning_adv.commands.evaluate.suspicions import is_suspicion
from lightning_adv.evaluation import ChunkVerdicts

SETTINGS = {"images": 4}


def begun(path, *numbers):
    folder = EvaluationFolder(path)
    folder.begin(SETTINGS, overwrite=False)
    for number in numbers:
        folder.write(ChunkVerdicts(number, [2 * number, 2 * number + 1], [0, 1], [0, 1]))
    return folder


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_that_name_that_was_there_before_is_left_alone(tmp_path, overwrite):
    theirs = tmp_path / "parts" / "thesis.tex"
    theirs.parent.mkdir()
    theirs.write_text("years of work")
    folder = EvaluationFolder(tmp_path)
    folder.begin(SETTINGS, overwrite=overwrite)
    folder.write(ChunkVerdicts(0, [0], [0], [0]))
    folder.finish({})
    assert theirs.read_text() == "years of work"
    assert [path.name for path in theirs.parent.iterdir()] == ["thesis.tex"]


def test_nothing_of_an_evaluation_is_left_behind(tmp_path):
    folder = begun(tmp_path, 0, 1)
    folder.remember("suspicions", list, is_suspicion)
    folder.finish({"clean": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]


def test_to_begin_anew_forgets_what_was_known(tmp_path):
    begun(tmp_path, 0, 1)
    folder = EvaluationFolder(tmp_path)
    assert not folder.begin({"images": 5}, overwrite=True)
    assert folder.read(0) is None


def test_a_missing_part_is_not_left_out_of_the_count(tmp_path):
    folder = begun(tmp_path, 0, 2)
    with pytest.raises(ValueError, match=r"1 of 3 parts of the evaluation are missing, such as .*000001\.json"):
        folder.read_all(3)
    folder.write(ChunkVerdicts(1, [2, 3], [0, 1], [0, 1]))
    assert [chunk.chunk for chunk in folder.read_all(3)] == [0, 1, 2]


CASE = {"verdicts": ["broken"], "predicted": [1], "distance": [0.1], "stage": [0], "seconds": 1.0}
PART = {"chunk": 0, "index": [0], "labels": [0], "predicted": [0], "cases": {"a": CASE}}
OTHERS = [
    *({"chunk": chunk} for chunk in (1, "0", True, None)),
    *({name: value} for name in ("index", "labels", "predicted") for value in (5, "0", [0, 1], ["0"], [0.5], [10**30])),
    *({"cases": {"a": {**CASE, "verdicts": verdicts}}} for verdicts in ([], ["won"], "broken", ["survived"], [[]])),
    *({"cases": {"a": {**CASE, name: [None]}}} for name in ("predicted", "stage")),
    *({"cases": {"a": {**CASE, "distance": value}}} for value in (["far"], [float("nan")], 1)),
    *({"predicted": [1]}, {"cases": {"a": {**CASE, "seconds": "long"}}}, {"curves": {"a": [1, "2"]}}),
    *({"curve_images": None}, {"corruptions": {"fog": [["fog", 1, "", 5, 4]]}}, {"corruptions": {"fog": [["fog"]]}}),
]


@pytest.mark.parametrize("other", OTHERS, ids=json.dumps)
def test_a_part_whose_values_are_of_another_kind_is_damaged(tmp_path, other):
    folder = begun(tmp_path)
    path = tmp_path / "parts" / "000000.json"
    path.write_text(json.dumps(PART))
    assert folder.read(0).cases["a"].stage == [0]
    path.write_text(json.dumps(PART | other))
    with pytest.raises(ValueError, match=r"output: .*000000\.json is damaged: remove it"):
        folder.read(0)


SUSPICION = {"name": "a", "message": "b", "evidence": {}, "norm": "linf", "eps": 0.1, "images": 2}


@pytest.mark.parametrize("content", ["{}", "5", "[1]", '[{"name": "a"}]', "[", json.dumps([SUSPICION | {"eps": "0"}])])
def test_damaged_suspicions_are_named(tmp_path, content):
    folder = begun(tmp_path)
    (tmp_path / "parts" / "suspicions.json").write_text(content)
    assert folder.remember("others", lambda: [SUSPICION], is_suspicion) == [SUSPICION]
    with pytest.raises(ValueError, match=r"suspicions\.json is damaged"):
        folder.remember("suspicions", list, is_suspicion)


NESTED = "[" * 100_000


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"cases": {"a": {}}}', '{"cases": []}', NESTED])
def test_a_damaged_part_is_named(tmp_path, content):
    folder = begun(tmp_path, 0)
    (tmp_path / "parts" / "000000.json").write_text(content)
    with pytest.raises(ValueError, match=r"output: .*000000\.json is damaged: remove it"):
        folder.read(0)


@pytest.mark.parametrize("content", [json.dumps(SETTINGS)[:5], "[]", "5", '{"images": 4, "images": 4}'])
def test_damaged_settings_are_named(tmp_path, content):
    begun(tmp_path, 0)
    path = tmp_path / "parts" / "settings.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"settings\.json is damaged"):
        EvaluationFolder(tmp_path).begin(SETTINGS, overwrite=False)
    assert not EvaluationFolder(tmp_path).begin(SETTINGS, overwrite=True)
