"""Rules that warn of collapses, on runs whose signals are made up."""

import pytest


@pytest.fixture
def collapses(script):
    return script("collapses")


def run(collapses, collapsing, seed, robust, signal, fall=0.2):
    curves = {"robust_accuracy": robust, "signal": signal}
    return collapses.Run(collapsing, seed, {name: dict(enumerate(curve)) for name, curve in curves.items()}, fall)


def test_a_fall_is_measured_from_the_best_so_far(collapses):
    robust = [0.1, 0.5, 0.4, 0.2, 0.4]
    assert run(collapses, True, 0, robust, robust).onset == 3
    assert run(collapses, True, 0, robust, robust, fall=0.09).onset == 2
    assert run(collapses, True, 0, robust, robust, fall=0.5).onset is None


@pytest.mark.parametrize(
    ("kind", "sign", "threshold", "expected"),
    [
        ("level", 1, 5.5, 4),
        ("level", -1, -2.5, 5),
        ("lowest", 1, 3.5, 4),
        ("highest", -1, 6.5, 5),
        ("level", 1, 9, None),
    ],
)
def test_a_rule_warns_at_the_first_look_beyond_its_threshold(collapses, kind, sign, threshold, expected):
    """Three looks are left out, but count as the lowest and the highest so far."""
    seen = run(collapses, True, 0, [0.5] * 6, [9, 2, 3, 4, 6, 1])
    rule = collapses.Rule("signal", kind, sign, threshold)
    assert rule.alarm(seen) == expected


def test_the_rule_is_chosen_on_one_half_of_the_seeds_and_judged_on_the_other(collapses):
    falling = [0.5, 0.5, 0.5, 0.5, 0.5, 0.1]
    halves = [
        [
            run(collapses, True, half, falling, [0, 0, 0, 0, top, top]),
            run(collapses, False, half, [0.5] * 6, [0, 0, 0, 0, 0, low]),
        ]
        for half, (top, low) in enumerate([(4, 2), (8, 6)])
    ]
    rule, gained = collapses.choose(halves[0], "signal")
    assert gained == 1
    assert 2 < rule.threshold < 4
    found = collapses.crossed(halves, "signal")
    # the threshold of the first half is too low for the second, that of the second too high for the first
    assert (found["warned"], found["falls"], found["false_alarms"], found["sound"]) == (1, 2, 1, 2)
    assert found["median_lead"] == 1
