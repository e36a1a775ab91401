"""Names are the users', and are printed as they are: what rich would take for markup or for an emoji too."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_adv.attacks import FGSM
from lightning_adv.commands.evaluate.output import print_summary
from lightning_adv.commands.evaluate.suspicions import print_suspicions
from lightning_adv.commands.fit.results import print_results
from lightning_adv.commands.shared.progress import shown_progress
from lightning_adv.core.shares import Share
from lightning_adv.evaluation import Case, Plan, ThreatModel
from lightning_adv.evaluation.corruptions.errors import CorruptionError
from lightning_adv.evaluation.summary import CaseSummary, Summary
from tests.commands.test_results import RESULTS

ODD = "[/m0] :ok: [b]x"


def summary_of(name):
    threat = ThreatModel("linf", 0.1)
    case = Case(threat, name, FGSM(eps=0.1))
    found = CaseSummary(case, 9, 3, None, Share(6, 10), (3,), 0.1)
    corrupted = (CorruptionError(name, 1, name, 5, 10),)
    plan = Plan((case,), left_out=(name,), unfit=(f"{name} takes no such images",))
    return plan, Summary(Share(9, 10), (found,), {threat: Share(6, 10)}, (), corrupted)


def test_tables_and_sentences_have_names_as_they_are(capsys):
    plan, summary = summary_of(ODD)
    print_summary(ODD, plan, summary, None, Path("runs") / "[x]")
    print_suspicions([{"name": "odd", "message": ODD, "norm": "linf", "eps": 0.1, "images": 5}], looked=True)
    print_results(RESULTS | {"network": ODD, "dataset": ODD}, Path("runs") / "[/x]")
    said = capsys.readouterr().out
    # the titles of three tables, the second of which has it twice, an attack, a corruption, and four sentences
    assert " ".join(said.split()).count(ODD) == 10
    assert "Everything is in runs/[x]" in said
    assert "runs/[/x]" in said


def test_a_bar_has_the_name_of_the_work_as_it_is(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    with shown_progress(ODD, 2) as advance:
        advance(2)
    assert ODD in capsys.readouterr().out


@pytest.mark.parametrize("name", ["output", "suspicions"])
def test_what_is_bold_still_is(name, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    if name == "output":
        print_summary("t", *summary_of("FGSM"), None, Path("runs"))
        assert f"\x1b[1m{ThreatModel('linf', 0.1)} " in capsys.readouterr().out
    else:
        print_suspicions([{"name": "odd", "message": "m", "norm": "linf", "eps": 0.1, "images": 5}], looked=True)
        assert "\x1b[1mSuspicious: odd\x1b[0m (" in capsys.readouterr().out
