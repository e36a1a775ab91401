"""The folder of an evaluation: nobody else's files, and no number out of a damaged or missing part."""

from __future__ import annotations

import json

import pytest

from lightning_adv.evaluation import ChunkVerdicts
from lightning_adv.run.evaluation.folder import EvaluationFolder

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
    folder.remember("suspicions", list)
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


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"cases": {"a": {}}}', '{"cases": []}'])
def test_a_damaged_part_is_named(tmp_path, content):
    folder = begun(tmp_path, 0)
    (tmp_path / "parts" / "000000.json").write_text(content)
    with pytest.raises(ValueError, match=r"output: .*000000\.json is damaged: remove it"):
        folder.read(0)


def test_damaged_settings_are_named(tmp_path):
    begun(tmp_path, 0)
    path = tmp_path / "parts" / "settings.json"
    path.write_text(json.dumps(SETTINGS)[:5])
    with pytest.raises(ValueError, match=r"settings\.json is damaged"):
        EvaluationFolder(tmp_path).begin(SETTINGS, overwrite=False)
    assert not EvaluationFolder(tmp_path).begin(SETTINGS, overwrite=True)
