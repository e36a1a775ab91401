"""What a cell's folder tells of it, also where a file of it is damaged."""

import json

import pytest

from lightning_adv.studies.attempts import Failure, counting_seconds, is_done, read_failure, read_seconds, result_of


@pytest.mark.parametrize("content", ['{"seconds": "x", "began": []}', '{"seconds": null}', "[1]", "{", ""])
def test_damaged_seconds_stop_no_attempt(tmp_path, content):
    (tmp_path / "seconds.json").write_text(content)
    with counting_seconds(tmp_path):
        pass
    assert 0 <= read_seconds(tmp_path) < 1


def test_the_seconds_of_all_attempts_are_added(tmp_path):
    (tmp_path / "seconds.json").write_text(json.dumps({"seconds": 100.0}))
    with counting_seconds(tmp_path):
        pass
    assert 100 <= read_seconds(tmp_path) < 101


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00", "null"], ids=repr)
def test_a_result_that_cannot_be_read_is_none(tmp_path, content):
    """Counted as done it would stay so for ever, with an empty row; now it is a failure, which --retry runs again."""
    path = result_of(tmp_path, "fit")
    path.parent.mkdir()
    assert not is_done(tmp_path, "fit")
    assert read_failure(tmp_path, "fit") is None
    path.write_text(content)
    assert not is_done(tmp_path, "fit")
    assert read_failure(tmp_path, "fit").error.startswith("results.json cannot be read: it is ")
    path.write_text('{"clean_accuracy": 1}')
    assert is_done(tmp_path, "fit")
    assert read_failure(tmp_path, "fit") is None


@pytest.mark.parametrize("content", ['{"error": 3}', "[]", '{"error": "no", "attempts": "x", "traceback": []}', "{"])
def test_a_damaged_failure_ends_nothing(tmp_path, content):
    (tmp_path / "failed.json").write_text(content)
    assert read_failure(tmp_path, "fit") == (Failure("no") if "no" in content else None)
