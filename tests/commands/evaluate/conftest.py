"""A run whose checkpoint is evaluated."""

from __future__ import annotations

import json

import pytest

from lightning_adv.cli import main
from tests.commands.shortened import fit


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The folder of a short run of digits/madry, at eps 0.2."""
    home = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        return home / fit("--data.init_args.evaluation_batch_size=256")


@pytest.fixture
def checkpoint(run):
    return str(run / "checkpoints" / "best.ckpt")


@pytest.fixture
def evaluate(checkpoint, tmp_path, monkeypatch, capsys):
    """Run the command on the run's checkpoint, and return the results and what was printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, output="out"):
        main(["evaluate", f"--checkpoint={checkpoint}", f"--output={output}", "--accelerator=cpu", *arguments])
        return json.loads((tmp_path / output / "evaluation.json").read_text()), capsys.readouterr().out

    return run


@pytest.fixture
def refused(checkpoint, tmp_path, monkeypatch, capsys):
    """Run the command; return the error that it ends with. Nothing may have been written."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, checkpoint=checkpoint, status=1, output="refused"):
        given = [] if checkpoint is None else [f"--checkpoint={checkpoint}"]
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", *given, f"--output={output}", "--accelerator=cpu", *arguments])
        captured = capsys.readouterr()
        assert ended.value.code == status, captured.err
        assert "Traceback" not in captured.err
        assert not (tmp_path / "refused").exists()
        return captured.err.splitlines()[-1] if status == 1 else captured.err

    return run


def without_time(results):
    """Return results without what no two runs share: seconds, and how many processes there were."""
    results = json.loads(json.dumps(results))
    for threat in results["threat_models"]:
        for attack in threat["attacks"]:
            del attack["seconds"]
    results.pop("processes", None)
    return results
