"""The figure of a study: what is drawn is what the rows say, nothing is averaged or left out without a word."""

import io
import itertools
import math
import statistics
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import yaml

import lightning_adv
from lightning_adv.core.errors import UsageError
from lightning_adv.core.shares import Share
from lightning_adv.studies.collect import parse_collect
from lightning_adv.studies.figures import check_figure, choose_figure, draw_study, medians_by_part, settings_of
from lightning_adv.studies.grid import axis_columns, expand
from lightning_adv.studies.study_file import make_study
from lightning_adv.studies.table import check_columns, expected_measures

ODD = ["$x_{$", "_orig_mod.x", "层.é", "\x1b[31m", "x" * 200, ""]


@pytest.fixture(autouse=True)
def _nothing_global_is_touched():
    before = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == before


def row(names, clean=None, robust=None, *, seed=0, status=None, total=100, **more):
    """A row of a table with numbers of correct answers."""
    found = {**names, "seed": seed, "status": status or ("missing" if clean is None else "done")}
    for kind, correct in (("clean", clean), ("robust", robust)):
        share = None if correct is None else Share(correct, total)
        found[f"{kind}_accuracy"] = None if share is None else share.accuracy
        found[f"{kind}_low"], found[f"{kind}_high"] = (None, None) if share is None else share.interval
    return found | more


def draw(rows, spec=None, title="", *, quiet=False):
    """Draw and render; a figure that has no room or a letter that is not there would warn."""
    figure = draw_study(rows, spec, title)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if quiet else "error")
        figure.savefig(io.BytesIO(), format="png", dpi=20)
    return figure


def panels(figure):
    return [axes for axes in figure.axes if axes.get_visible()]


def curve(axes, number):
    """The points of the lines that have more than dots."""
    line = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata()) > 1][number]
    return np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)


def said(figure):
    return " ".join(figure.get_supxlabel().split())


def legend(figure):
    return [text.get_text() for found in figure.legends for text in found.get_texts()]


# Lines ----------------------------------------------------------------------------------------------------------------


def test_a_single_run_has_its_wilson_interval():
    rows = [row({"cutoff": f"m{k}"}, 90 - k, 10 * k) for k in range(4)]
    figure = draw(rows)
    (axes,) = panels(figure)
    assert curve(axes, 0)[1] == pytest.approx([90, 89, 88, 87])
    assert curve(axes, 1)[1] == pytest.approx([0, 10, 20, 30])
    strokes = [path.vertices[:, 1] for found in axes.collections for path in found.get_paths()]
    for correct in (90, 30):
        assert any(ends == pytest.approx([100 * end for end in Share(correct, 100).interval]) for ends in strokes)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["m0", "m1", "m2", "m3"]
    assert legend(figure) == ["clean accuracy", "robust accuracy"]
    assert said(figure) == "Vertical strokes are 95 % Wilson intervals of one run."


def test_several_seeds_are_a_mean_with_every_run_behind_it():
    robust = {(k, seed): 10 * k + 7 * seed for k in range(3) for seed in range(3)}
    rows = [row({"cutoff": f"m{k}"}, 90, robust[k, seed], seed=seed) for k, seed in robust]
    figure = draw(rows, {"y": "robust_accuracy"})
    (axes,) = panels(figure)
    means = [statistics.mean(robust[k, seed] for seed in range(3)) for k in range(3)]
    assert curve(axes, 0)[1] == pytest.approx(means)
    dots = {(float(x), float(y)) for line in axes.lines if line.get_marker() == "." for x, y in line.get_xydata()}
    assert {(x, round(y)) for x, y in dots} == {(k, correct) for (k, _), correct in robust.items()}
    assert said(figure) == "Lines are means over 3 seeds; each point is one run."


def test_a_column_that_has_no_place_is_never_averaged_over_silently():
    axes = {"a": (1, 2), "b": "pq", "c": "xy", "activation": ("relu", "elu")}
    rows = [row(dict(zip(axes, point, strict=True)), 90, 50) for point in itertools.product(*axes.values())]
    assert "means over 2 values of activation" in said(draw(rows))
    assert "2 values of" not in said(draw([r for r in rows if r["activation"] == "relu"]))


def test_what_is_missing_is_a_gap_and_counted():
    rows = [row({"eps": 1}, 90, 50), row({"eps": 2}, 90, 50), row({"eps": 4}, status="failed"), row({"eps": 5}, 90, 50)]
    rows += [row({"eps": 6}), row({"eps": 7}, 90) | {"robust_accuracy": math.nan}]
    figure = draw(rows)
    (axes,) = panels(figure)
    x, y = curve(axes, 0)
    assert x.tolist() == [1, 2, 4, 5, 6, 7]
    assert np.isnan(y).tolist() == [False, False, True, False, True, False]
    assert "Without all numbers: 3 of 6 runs (1 failed, 1 missing, 1 done)." in said(figure)


def test_numbers_stand_where_they_are_and_decades_on_a_logarithmic_axis():
    def scale(values):
        (axes,) = panels(draw([row({"weight_decay": value}, 90, 50) for value in values], {"kind": "lines"}))
        return axes.get_xscale(), curve(axes, 0)[0].tolist()

    assert scale(["0.3", "0.1", "0.2"]) == ("linear", [0.1, 0.2, 0.3])
    assert scale(["1e-2", "1e-4"]) == ("log", [1e-4, 1e-2])
    assert scale(["0", "1e-2", "1e-4"]) == ("symlog", [0, 1e-4, 1e-2])
    assert scale(["8/255", "16/255", "none"]) == ("linear", [0, 1, 2])  # none is no number: side by side


def four_settings():
    settings = ["adversarial before", "adversarial after"]
    rows = [row({"setting": s, "cutoff": f"m{k}"}, 90, 10 * k) for s in settings for k in (1, 2, 3)]
    return [*rows, row({"setting": "only pretrained"}, 99, 2)]


@pytest.mark.parametrize("reference", [{"setting": "only pretrained"}, None])
def test_a_reference_is_a_horizontal_line_in_every_panel(reference):
    spec = {"x": "cutoff", "panels": "setting", "lines": None, "reference": reference}
    figure = draw(four_settings(), spec)
    drawn = panels(figure)
    assert [axes.get_title() for axes in drawn] == ["adversarial before", "adversarial after"]
    for axes in drawn:
        heights = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "None"]
        assert heights == pytest.approx([99, 2])
    assert "only pretrained" in legend(figure)


def test_a_reference_of_each_panel_stands_in_its_own():
    rows = [row({"network": n, "cutoff": f"m{k}"}, 90, 10) for n in "ab" for k in range(2)]
    rows += [row({"network": n, "cutoff": None}, 99, height) for n, height in (("a", 20), ("b", 40))]
    figure = draw(rows, {"panels": "network", "lines": None, "y": "robust_accuracy"})
    for axes, height in zip(panels(figure), (20, 40), strict=True):
        assert [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "None"] == pytest.approx([height])


def test_numbers_that_are_no_shares_have_a_panel_of_their_own():
    rows = [row({"eps": eps}, 90, 50, loss=2.5 - eps, epochs=20) for eps in (1, 2)]
    drawn = panels(draw(rows, {"y": ["robust_accuracy", "loss", "epochs"]}))
    assert [axes.get_ylabel() for axes in drawn] == ["Accuracy (%)", "Loss", "Epochs"]
    assert curve(drawn[1], 0)[1].tolist() == [1.5, 0.5]


def test_many_measures_of_a_few_stages_are_told_apart():
    measures = [f"{stage}_{box}_box_rate" for box in ("black", "white") for stage in "abcdefgh"]
    rows = [
        row({"steps": steps}, 90, 50)
        | dict.fromkeys(measures, 0.1 * steps)
        | dict.fromkeys(["a_loss", "b_loss", "c_loss", "d_loss"], 2)
        for steps in (1, 2)
    ]
    (axes,) = panels(draw(rows, {"y": measures}))
    drawn = {(str(line.get_color()), line.get_linestyle()) for line in axes.lines}
    assert len(drawn) == len(measures)
    figure = draw(rows, {"y": ["robust_accuracy", "clean_accuracy", *(f"{m}_loss" for m in "abcd")]})
    assert legend(figure) == ["robust accuracy", "clean accuracy"]  # the others have panels of their own


# With and without -----------------------------------------------------------------------------------------------------


def subsets(parts):
    return [
        "none",
        *("+".join(chosen) for n in range(1, len(parts) + 1) for chosen in itertools.combinations(parts, n)),
    ]


def test_medians_are_those_of_brute_force():
    generator = np.random.default_rng(0)
    parts = [f"m{k}" for k in range(5)]
    rows = [
        row({"blocks": subset}, 90, int(generator.integers(100)), seed=s) for subset in subsets(parts) for s in (0, 1)
    ]
    rows[3] = row({"blocks": rows[3]["blocks"]}, status="failed")
    found = medians_by_part(rows, "blocks", "robust_accuracy")
    assert list(found) == parts
    for bit, part in enumerate(parts):
        table = {True: [], False: []}
        for mask in range(2 ** len(parts)):
            name = "+".join(parts[k] for k in range(len(parts)) if mask >> k & 1) or "none"
            values = [r["robust_accuracy"] for r in rows if r["blocks"] == name and r["robust_accuracy"] is not None]
            table[bool(mask >> bit & 1)] += values
        assert found[part].with_it == pytest.approx(np.median(table[True]))
        assert found[part].without_it == pytest.approx(np.median(table[False]))
        assert sorted(found[part].all_with) == sorted(table[True])


def test_a_name_that_is_in_another_is_another_part():
    rows = [
        row({"blocks": text}, 90, correct) for text, correct in (("m1", 10), ("m10", 30), ("m10+m1", 50), (None, 0))
    ]
    found = medians_by_part(rows, "blocks", "robust_accuracy")
    assert (found["m1"].with_it, found["m1"].without_it) == pytest.approx((0.3, 0.15))
    assert found["m10"].with_it == pytest.approx(0.4)


def test_with_and_without_draws_the_medians():
    rows = [row({"blocks": text}, 90, 80 if "m0" in text else 5) for text in subsets(["m0", "m1"])]
    figure = draw(rows)
    (axes,) = panels(figure)
    robust = [line.get_ydata() for line in axes.lines if line.get_marker() == "o"][2:]
    assert robust[0] == pytest.approx([80, 42.5])  # with m0, with m1
    assert robust[1] == pytest.approx([5, 42.5])
    assert legend(figure)[2:] == ["median with it", "median without it"]
    assert "Medians are over all subsets" in said(figure)


# Bars, scatter --------------------------------------------------------------------------------------------------------


def test_bars_are_groups_of_the_measures():
    rows = [row({"network": n}, c, r) for n, c, r in (("vgg16", 90, 40), ("resnet18", 95, 50))]
    (axes,) = panels(draw(rows))
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([90, 95, 40, 50])
    assert [text.get_text() for text in axes.get_xticklabels()] == ["vgg16", "resnet18"]


def test_bars_of_several_seeds_are_means():
    rows = [row({"network": "vgg16"}, 90 + s, 40, seed=s) for s in range(3)]
    figure = draw(rows, {"kind": "bars", "y": "clean_accuracy"})
    assert [bar.get_height() for bar in panels(figure)[0].patches] == pytest.approx([91])
    assert said(figure) == "Bars are means over 3 seeds; each point is one run."


def test_a_scatter_has_a_point_for_each_row():
    rows = [row({"network": n}, c, r, seed=s) for n, c, r in (("a", 90, 40), ("b", 95, 50)) for s in (0, 1)]
    figure = draw([*rows, row({"network": "a"}, seed=2)], {"kind": "scatter"})
    (axes,) = panels(figure)
    points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines]
    assert np.array(points) == pytest.approx(np.array([[90, 40]] * 2 + [[95, 50]] * 2))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Clean accuracy (%)", "Robust accuracy (%)")
    assert legend(figure) == ["a", "b"]
    assert "1 of 5 runs (1 missing)" in said(figure)


# What is drawn where nothing is said ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"cutoff": ["m1", "m2"]}, ("lines", "cutoff", None, None)),
        ({"setting": ["a", "b"], "cutoff": ["m1", "m2"]}, ("lines", "cutoff", "setting", None)),
        ({"network": ["a", "b"], "attack": ["x", "y"], "data": ["p", "q"]}, ("bars", "network", "attack", "data")),
        ({"network": ["a", "b"], "eps": ["0.1", "8/255"], "one": ["z"]}, ("lines", "eps", "network", None)),
        ({"setting": ["a", "b"], "blocks": ["m0", "m0+m1"]}, ("with_without", "blocks", None, "setting")),
        ({"width": ["16"]}, ("bars", None, None, None)),
        ({}, ("bars", None, None, None)),
        ({"layer": ["layer1.0", "layer1.1", "layer2.0"]}, ("lines", "layer", None, None)),
        ({"layer": ["conv1", "layer1.0", "fc"]}, ("bars", "layer", None, None)),
    ],
    ids=str,
)  # fmt: skip
def test_the_default_is_chosen_from_the_grid(columns, expected):
    found = choose_figure(None, columns, ["clean_accuracy", "robust_accuracy", "loss"])
    assert (found.kind, found.x, found.lines, found.panels) == expected
    assert found.y == ("clean_accuracy", "robust_accuracy")


def test_null_is_a_choice_and_references_count_as_no_value():
    columns = {"setting": ["a", "only pretrained"], "cutoff": ["m1", "m2"], "data": ["p", "q"]}
    assert choose_figure({"lines": None, "panels": None}, columns, ["loss"]).panels is None
    found = choose_figure({"reference": {"setting": "only pretrained"}}, columns, ["loss"])
    assert (found.x, found.lines, found.panels, found.y) == ("cutoff", "data", None, ("loss",))


MEASURES = ["clean_accuracy", "robust_accuracy", "attacked_robust_accuracy", "auxiliary"]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("lines", "figure: it must be a mapping"),
        ({"sort": 1}, r"figure\.sort: there is no such setting"),
        ({"kind": "line"}, r"figure\.kind: it must be lines.* Did you mean 'lines'"),
        ({"x": "cutof"}, r"figure\.x: there is no column 'cutof'. Did you mean 'cutoff'"),
        ({"x": "cutoff", "lines": "cutoff"}, r"figure\.lines: 'cutoff' is x already"),
        ({"y": ["roubst_accuracy"]}, r"figure\.y: there is no measure .* Did you mean 'robust_accuracy'"),
        ({"y": "attackd_robust_accuracy"}, r"figure\.y: .* Did you mean 'attacked_robust_accuracy'"),
        ({"kind": "scatter", "x": "cutoff"}, r"figure\.x: there is no measure 'cutoff'"),
        ({"kind": "with_without", "lines": "setting"}, r"figure\.lines: with_without draws no lines"),
        ({"reference": "only pretrained"}, r"figure\.reference: it must be a mapping"),
        ({"reference": {"settin": "b"}}, r"figure\.reference\.settin: there is no such column"),
        ({"reference": {"setting": "onlypretrained"}}, r"figure\.reference\.setting: .* mean 'only pretrained'"),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_setting_is_one_sentence_before_anything_is_trained(spec, told):
    columns = {"setting": ["a", "only pretrained"], "cutoff": ["m1", "m2"]}
    with pytest.raises(UsageError, match=told):
        check_figure(spec, columns, MEASURES)


@pytest.mark.parametrize(
    "y", ["robust_accuracy", "auxiliary_robust_accuracy", "attacked_robust_accuracy_Linf_8/255", ["auxiliary"], None]
)
def test_measures_that_only_results_know_are_taken(y):
    check_figure({"kind": "lines", "x": "seed", "y": y}, ["setting"], MEASURES)


def test_a_measure_may_come_later_but_not_when_all_is_done():
    rows = [row({"cutoff": "m0"}, 90, 50), row({"cutoff": "m1"})]
    assert settings_of(rows, {"y": "moved_black_box_rate"}).y == ("moved_black_box_rate",)
    assert "2 of 2 runs" in said(draw(rows, {"y": "moved_black_box_rate"}))
    with pytest.raises(UsageError, match=r"figure\.y: there is no measure 'moved_black_box_rate'"):
        draw_study(rows[:1], {"y": "moved_black_box_rate"})


CONFIGS = Path(lightning_adv.__file__).parent / "configs" / "studies"


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*/*.yaml")), ids=lambda file: "/".join(file.parts[-2:]))
def test_the_figure_of_each_study_of_the_package_is_checked_and_drawn(file):
    study = make_study(yaml.safe_load(file.read_text()), name=file.stem)
    points, stages = expand(study), {name: stage.command for name, stage in study.stages.items()}
    columns = {
        axis: list(dict.fromkeys(p.names[axis] for p in points if axis in p.names)) for axis in axis_columns(study)
    }
    measures = expected_measures(stages, parse_collect(study.collect, stages))
    check_columns(columns, stages, study.collect)
    check_figure(study.figure, columns, measures)
    blank = dict.fromkeys(columns)
    rows = [row(blank | dict(p.names), 90, 50, seed=p.seed) | dict.fromkeys(measures, 0.5) for p in points]
    figure = draw_study(rows, study.figure, study.title)
    assert panels(figure)
    assert "Without all numbers" not in said(figure)


# Odd tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lines", "bars", "with_without", "scatter"])
def test_odd_names_and_numbers_end_no_figure(kind):
    numbers = itertools.cycle([math.nan, math.inf, None, 0.0, -1.0, 3e38])
    places = [*zip(ODD, itertools.cycle(ODD[3:]), strict=False), ("a", ODD[0])]
    rows = [
        row({"x": x, "line": line}, 50, 50) | {"clean_accuracy": next(numbers), "odd": next(numbers)}
        for x, line in places
    ]  # fmt: skip
    spec = {"kind": kind, "y": ["robust_accuracy", "odd"], "panels": "line"} | ({} if kind == "scatter" else {"x": "x"})
    draw(rows, spec, "$x_{$ \x1b[31m", quiet=True)


@pytest.mark.parametrize("kind", ["lines", "bars", "with_without", "scatter", None])
@pytest.mark.parametrize(
    "rows", [[], [row({})], [row({"a": "b"})], [row({"a": "b"}, 90, 50)], [row({"a": None}, 90, 50)]]
)
def test_hardly_anything_is_a_figure_too(kind, rows):
    draw(rows, {} if kind is None else {"kind": kind}, "Title")


@pytest.mark.slow
def test_many_values_leave_room_for_all():
    rows = [row({"blocks": text}, 90, 50) for text in subsets([f"m{k}" for k in range(6)])]
    assert draw(rows, {"kind": "bars", "x": "blocks"}, "A title " * 30).get_figwidth() < 20
    told = draw(rows, {"kind": "bars", "x": "blocks"}, "Networks and their blocks " * 4 + "(figure 2)").get_suptitle()
    assert told.endswith("(figure 2)")  # titles of the shipped studies have about a hundred letters
    many = [row({"layer": f"layer{k}.weight", "eps": eps}, 90, 50) for k in range(70) for eps in (1, 2)]
    assert "The legend has the first 60 of 72." in said(draw_study(many, {"x": "eps", "lines": "layer"}))
    assert "The first 24 of 70 panels are drawn." in said(draw_study(many, {"x": "eps", "panels": "layer"}))


def test_rows_from_pandas_are_the_same_figure():
    pandas = pytest.importorskip("pandas")
    rows = [row({"width": width}, 90, 50) for width in (8, 16, None)]
    frame = pandas.DataFrame(rows).to_dict("records")
    assert isinstance(frame[0]["width"], float)
    ours, theirs = draw(rows), draw(frame)
    assert said(ours) == said(theirs)
    assert [t.get_text() for t in panels(theirs)[0].get_xticklabels()] == ["8", "16"]
    assert legend(ours) == legend(theirs)
