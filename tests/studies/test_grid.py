"""Grids, against points that were counted and written down by hand."""

from itertools import chain, combinations

import pytest

from lightning_adv.core.errors import UsageError
from lightning_adv.studies.grid import axis_columns, expand
from lightning_adv.studies.study_file import make_study

STAGES = {"pretrain": {"config": "p", "set": {"a.b": 1}}, "retrain": {"config": "r"}}


def study(grid, **keys):
    return make_study({"stages": STAGES, "grid": grid, **keys}, name="n")


def test_named_axes_times_lists_joined_with_a_point_of_its_own():
    given = study(
        [
            {
                "setting": {
                    "before": {"retrain/m.side": "before"},
                    "plain": {"pretrain/a.b": 2, "retrain/m.attack": None},
                },
                "m.cutoff": ["m1", "m2"],
            },
            {"setting": {"only pretrained": {"retrain": None}}},
        ],
        seeds=[0, 5],
        set={"t.e": 3},
    )  # fmt: skip
    points = expand(given)
    assert [(point.names.get("setting"), point.names.get("cutoff"), point.seed) for point in points] == [
        ("before", "m1", 0), ("before", "m1", 5), ("before", "m2", 0), ("before", "m2", 5),
        ("plain", "m1", 0), ("plain", "m1", 5), ("plain", "m2", 0), ("plain", "m2", 5),
        ("only pretrained", None, 0), ("only pretrained", None, 5),
    ]  # fmt: skip
    assert axis_columns(given) == ["setting", "cutoff"]
    assert points[1].settings == {
        "pretrain": {"a.b": 1, "t.e": 3, "seed_everything": 5},
        "retrain": {"t.e": 3, "m.side": "before", "m.cutoff": "m1", "seed_everything": 5},
    }
    assert points[4].settings["pretrain"] == {"t.e": 3, "a.b": 2, "seed_everything": 0}
    assert points[4].settings["retrain"]["m.attack"] is None
    assert points[-1].settings == {"pretrain": {"a.b": 1, "t.e": 3, "seed_everything": 5}}


def test_subsets_ranges_and_texts():
    items = ["m0", "m1", "m2", "m3", "m4", "m5"]
    points = expand(study({"m.blocks": {"subsets": items}}))
    found = [point.settings["retrain"]["m.blocks"] for point in points]
    assert found == [list(s) for s in chain.from_iterable(combinations(items, size) for size in range(1, 7))]
    assert len(found) == 2**6 - 1
    assert points[6].names == {"blocks": "m0+m1"}
    assert [p.settings["retrain"]["x.k"] for p in expand(study({"x.k": {"range": [2, 5]}}))] == [2, 3, 4, 5]
    assert [p.settings["retrain"]["x.k"] for p in expand(study({"x.k": {"range": [0, 5, 2]}}))] == [0, 2, 4]
    pgd = [{"class_path": "PGD", "init_args": {"steps": steps}} for steps in (1, 7)]
    values = {"x.k": [None, True, 0.1, "8/255", ["a", "b"], []], "y.attack": [*pgd, {"class_path": "FGSM"}]}
    names = [point.names for point in expand(study(values))]
    assert list(dict.fromkeys(name["k"] for name in names)) == ["none", "true", "0.1", "8/255", "a+b", "[]"]
    assert list(dict.fromkeys(name["attack"] for name in names)) == [
        "{class_path: PGD, init_args: {steps: 1}}", "{class_path: PGD, init_args: {steps: 7}}", "{class_path: FGSM}",
    ]  # fmt: skip


def test_columns_are_last_components_or_whole_keys_where_two_would_be_the_same():
    given = study({"pretrain/o.lr": [1], "retrain/o.lr": [1], "d.seed": [1], "m.width": [1]})
    assert axis_columns(given) == ["pretrain/o.lr", "retrain/o.lr", "d.seed", "width"]


def test_a_key_without_a_stage_is_of_the_last_fit_that_there_is_and_a_stage_has_its_own_seed():
    stages = {**STAGES, "attacked": {"command": "evaluate", "config": "e"}}
    stages["pretrain"] = {"config": "p", "seed": 9}
    given = make_study(
        {"stages": stages, "grid": {"only": {"yes": {"retrain": None}, "no": {}}, "x.y": [1]}, "seeds": [0]}, name="n"
    )
    only, both = expand(given)
    assert only.settings == {"pretrain": {"x.y": 1, "seed_everything": 9}, "attacked": {}}
    assert both.settings["pretrain"] == {"seed_everything": 9}
    assert both.settings["retrain"] == {"x.y": 1, "seed_everything": 0}


def test_a_study_without_a_grid_is_one_point_for_each_seed():
    assert [(point.names, point.seed) for point in expand(study({}, seeds=[3, 1]))] == [({}, 3), ({}, 1)]


@pytest.mark.parametrize(
    ("grid", "told"),
    [
        ({"x.y": 3}, "grid.x.y: an axis takes a list of values"),
        ({"x.y": []}, "grid.x.y: an axis takes a list of values"),
        ({"x.y": [1, 1]}, "grid.x.y: the value 1 stands there twice."),
        ({"x.y": [1, "1"]}, "grid.x.y: the value 1 stands there twice."),
        ({"x.y": {"range": [3, 1]}}, "grid.x.y: range takes [first, last]"),
        ({"x.y": {"range": 3}}, "grid.x.y: range takes [first, last]"),
        ({"x.y": {"range": [1, 10**12]}}, "grid.x.y: range has 1,000,000,000,000 values"),
        ({"x.y": {"range": [0, 10**30, 3]}}, "grid.x.y: range has 333,333,333,333,333,333,333,333,333,334 values"),
        ({"a\nb": {"c": {}}}, r"grid: a name is one line without control characters, got 'a\nb'."),
        ({"a": {"c\u2028d": {}}}, "grid.a: a name is one line"),
        ({"x.y": ["c\rd"]}, "grid.x.y: a name is one line"),
        ({" ": {"c": {}}}, "grid: an axis must have a name"),
        ({"x.y": {"subsets": []}}, "grid.x.y: subsets takes a list of 1 to 16 values"),
        ({"pretrian/x.y": [1]}, "grid.pretrian/x.y: there is no stage 'pretrian'. Did you mean 'pretrain'?"),
        ({"retrain": [1]}, "grid.retrain: retrain is a stage"),
        ({"n": {"a": {"retrain": 3}}}, "grid.n.a: retrain is a stage, which null leaves out"),
        ({"n": {"a": 3}}, "grid.n.a: it must be a mapping of the keys that 'a' sets, got 3."),
        ({"n": {"a": {"x.y": 1}}, "x.y": [2]}, "grid.x.y: n sets x.y of retrain too."),
        ({"n": {"a": {"pretrain": None, "retrain": None}}}, "grid: n leave no fit to do."),
        ({"x.seed_everything": [1], "seed_everything": [1]}, "grid.seed_everything: seed_everything is set by seeds"),
        ({"seed": {"a": {}}}, "grid.seed: the table has another column 'seed'"),
        ([{"n": {"a": {"x.y": 1}}}, {"n": {"a": {"x.y": 2}}}], "grid: two points that differ are both called n=a"),
        ({f"x.{n}": {"range": [1, 10]} for n in "abcdef"}, "grid: it has 1,000,000 points"),
    ],
)
def test_a_mistake_is_one_sentence(grid, told):
    with pytest.raises(UsageError) as error:
        expand(study(grid))
    assert str(error.value).startswith(told)
