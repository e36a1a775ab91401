"""Help texts: sentences for people, who read no reStructuredText and cannot look up where another class says it."""

import inspect
import re

import pytest

import lightning_adv.attacks
import lightning_adv.callbacks
import lightning_adv.data
import lightning_adv.regimes
from lightning_adv.cli import main
from lightning_adv.commands.shared.help_texts import plain_text
from lightning_adv.commands.shared.parser import Parser
from lightning_adv.nn.backbones import Backbone

COMMANDS = ["fit", "validate", "test", "predict", "evaluate", "transfer", "interpret", "export", "report", "stylize"]
MARKS = re.compile(r":\w+:`|`|\bSee (there|:)|Likewise")
PACKAGES = (lightning_adv.attacks, lightning_adv.callbacks, lightning_adv.data, lightning_adv.regimes)
PUBLIC = [getattr(package, name) for package in PACKAGES for name in vars(package)]
CLASSES = {Backbone, *(kind for kind in PUBLIC if inspect.isclass(kind) and kind.__init__ is not object.__init__)}


@pytest.mark.parametrize(
    "arguments", [*([command, "--help"] for command in COMMANDS), ["fit", "--model.help=MadryTraining"]]
)
def test_help_is_plain_text(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    told = capsys.readouterr().out
    assert ended.value.code in (0, None)
    assert "-" in told
    assert not MARKS.search(told), MARKS.search(told)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(CLASSES, key=str), ids=lambda kind: kind.__name__)
def test_every_argument_of_a_class_is_told_by_itself(kind):
    parser = Parser()
    parser.add_class_arguments(kind, "part")
    told = parser.format_help()
    assert not MARKS.search(told), MARKS.search(told)
    arguments = [action for action in parser._actions if action.dest.startswith("part.") and ".help" not in action.dest]
    assert [action.dest for action in arguments if not (action.help or "").strip()] == []


def test_marks_of_docstrings_become_the_text_that_they_show():
    shown = {
        ":class:`~a.b.Name` and :func:`name`": "Name and name",
        ":py:meth:`A.b` of :class:`the other <a.b.Other>`": "A.b of the other",
        '``"linf"`` or `N`': '"linf" or N',
        "`Guide <https://example.org/a_b>`__.": "Guide (https://example.org/a_b).",
        "no marks: {a: 1} <T> a_b *": "no marks: {a: 1} <T> a_b *",
    }
    assert {text: plain_text(text) for text in shown} == shown
