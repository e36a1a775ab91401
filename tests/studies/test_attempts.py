"""What a cell's folder tells of it, also where a file of it is damaged."""

import json

import pytest

from lightning_adv.studies.attempts import counting_seconds, read_seconds


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
