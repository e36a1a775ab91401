"""How far work is, where nobody looks on."""

from lightning_adv.commands.shared import progress
from lightning_adv.commands.shared.progress import tracked


def test_lines_of_a_pipe_say_how_far_and_how_long_to_go(monkeypatch, capsys):
    """Four seconds an item: a line after ten seconds, and the next a minute later."""
    clock = iter(range(0, 4000, 4))
    now = [next(clock)]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    for _ in tracked(range(40), "attacking", 40):
        now[0] = next(clock)
    assert capsys.readouterr().out.splitlines() == [
        "attacking: 3 of 40, 12 s, about 148 s to go",
        "attacking: 18 of 40, 72 s, about 88 s to go",
        "attacking: 33 of 40, 132 s, about 28 s to go",
    ]


def test_short_work_says_nothing(capsys):
    assert list(tracked("abc", "attacking", 3)) == ["a", "b", "c"]
    assert capsys.readouterr().out == ""
