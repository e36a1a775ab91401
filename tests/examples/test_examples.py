"""Each script of examples/ runs as it stands, in a folder of its own."""

import runpy

import pytest

from tests.docs.pages import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.stem)
def test_it_runs(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(script.parent)
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out


def test_there_are_examples_and_they_are_short():
    assert {"any_module", "attack", "evaluate_any_network", "loss", "observer", "regime"} <= {
        script.stem for script in EXAMPLES
    }
    assert all(len(script.read_text().splitlines()) <= 60 for script in EXAMPLES)
