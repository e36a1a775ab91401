"""The page in a real browser with runs that differ, of which little is known, or of which there are many."""

import io
import math
from datetime import datetime

import pytest
from matplotlib.image import imread

from lightning_adv.report.page import build_page
from lightning_adv.report.runs import Run, Table, read_run
from tests.report.fake_runs import write_run
from tests.report.test_browser import plots, settle
from tests.report.test_page import ATTACK


@pytest.fixture
def show(visit, tmp_path):
    """Open a page of some runs and draw what is in it."""

    def show(runs, **options):
        file = tmp_path / "report.html"
        file.write_text(build_page(list(runs), list(runs.values()), built=datetime(2026, 1, 2)))
        page = visit(file, **options)
        page.emulate_media(media="print")  # draws every section
        settle(page)
        page.emulate_media(media="screen")
        settle(page)
        return page

    return show


def curve(*values):
    return {"train/loss": list(enumerate(values))}


def responses(looks, **layers):
    """A run with one statistic: for each layer its value in each look (epoch, step)."""
    series = {(name, "", "total"): list(values) for name, values in layers.items()}
    return Run(None, config={}, tables={"local_response": Table(looks, series)})


def at_epochs(*epochs):
    return [(epoch, 10 * epoch + 9) for epoch in epochs]


def plot(page, section, number, what):
    return page.locator(f"#{section} .plot").nth(number).evaluate(f"plot => {what}")


def test_negative_values_are_shown_on_a_linear_axis(show, tmp_path):
    page = show({"advprop": read_run(write_run(tmp_path / "run", domains=("main", "adversarial")))})
    assert page.locator("#bn_drift-log").is_checked()
    for statistic, kind in (("kl_from_start", "log"), ("signed_mean_from_main", "linear")):
        page.locator("#bn_drift-statistic").select_option(statistic)
        page.locator("#bn_drift-layer").select_option("bn1")
        assert plot(page, "bn_drift", 1, "plot._fullLayout.yaxis.type") == kind
    (trace,) = plots(page, "bn_drift")[1]["traces"]
    assert min(trace["y"]) < 0
    low, high = plot(page, "bn_drift", 1, "plot._fullLayout.yaxis.range")
    assert low <= min(trace["y"])
    assert high >= max(trace["y"])


def test_negative_values_of_layers_are_shown_on_a_linear_axis(show):
    page = show({"a": responses(at_epochs(0, 1, 2), conv1=[2, 9, 20], layer1=[-3, 3, 90])})
    assert page.locator("#local_response-log").is_checked()
    total = "plot._fullLayout.yaxis.type"
    assert [plot(page, "local_response", number, total) for number in (1, 3)] == ["linear", "linear"]
    page.locator("#local_response-layer").select_option("conv1")
    assert plot(page, "local_response", 3, total) == "log"


def test_layers_at_an_epoch_are_of_the_last_look_before_it(show):
    page = show(
        {
            "often": responses(at_epochs(0, 1, 2, 3), conv1=[1, 2, 3, 4]),
            "seldom": responses(at_epochs(1, 3), conv1=[10, 30]),
            "short": responses(at_epochs(0, 1), conv1=[100, 200]),
        }
    )
    total = page.locator("#local_response .card").nth(1)
    expected = {
        0: {"often": [0, 1], "short": [0, 100]},
        1: {"often": [1, 2], "seldom": [1, 10], "short": [1, 200]},
        2: {"often": [2, 3], "seldom": [1, 10], "short": [1, 200]},
        3: {"often": [3, 4], "seldom": [3, 30], "short": [1, 200]},
    }
    for epoch, runs in expected.items():
        page.locator("#local_response-epoch").fill(str(epoch))
        settle(page)
        traces = plot(
            page, "local_response", 1, "plot.data.map(({ name, y, hovertemplate }) => [name, y, hovertemplate])"
        )
        assert {name: y for name, y, _ in traces} == {name: [value] for name, (_, value) in runs.items()}
        assert all(f"epoch {runs[name][0]}<br>" in hover for name, _, hover in traces)
        differ = ", or the last look before it" if epoch > 1 else ""
        assert total.locator("figcaption span").inner_text() == f"own examples, epoch {epoch}{differ}"


def test_a_run_without_a_look_yet_has_no_channels_yet(show):
    def run(*epochs):
        series = {("bn1", "", f"running_{moment}[3]"): [1.0] * len(epochs) for moment in ("mean", "variance")}
        series["bn1", "", "running_mean"] = [1.0] * len(epochs)
        return Run(None, config={}, tables={"bn_drift": Table(at_epochs(*epochs), series)})

    page = show({"early": run(0, 1, 2), "late": run(2)})
    page.locator("#bn_drift-run").select_option("1")
    page.locator("#bn_drift-epoch").fill("1")
    settle(page)
    assert page.locator("#bn_drift .plot.empty").all_inner_texts() == ["The first look at late was later."] * 2
    assert plots(page, "bn_drift")[0]["lines"] == []


def test_several_looks_in_an_epoch_end_where_a_single_one_is(show):
    every_25_of_50 = [(epoch, 50 * epoch + step) for epoch in (0, 1) for step in (24, 49)]
    page = show(
        {
            "steps": responses([*every_25_of_50, (2, 149)], conv1=[1, 2, 3, 4, 5]),
            "epochs": responses([(0, 49), (1, 99), (2, 149)], conv1=[2, 4, 5]),
        }
    )
    steps, epochs = plots(page, "local_response")[3]["traces"]
    assert steps["x"] == [-0.5, 0, 0.5, 1, 2]
    assert epochs["x"] == [0, 1, 2]
    assert [steps["y"][steps["x"].index(x)] for x in epochs["x"]] == epochs["y"]
    page.locator("#local_response-epoch").fill("2")
    settle(page)
    assert page.locator("#local_response .slider output").inner_text() == "0.5"


def test_layers_keep_every_networks_order_and_lines_are_whole(show):
    one, two, three = (
        ["conv1", "layer0", "layer1", "layer2", "layer3", "layer4"],
        ["conv1", "m0", "layer1", "m2"],
        ["m0", "m0b", "layer1", "layer9"],
    )
    runs = [responses(at_epochs(0), **{name: [2.0] for name in names}) for names in (three, two, one)]
    page = show(dict(zip(("three", "two", "one"), runs, strict=True)))
    order = page.locator("#local_response-layer option").all_inner_texts()
    assert sorted(order) == sorted({*one, *two, *three})
    for names in (one, two, three):
        assert sorted(names, key=order.index) == names
    page.locator("#local_response-log").check()
    for names, trace in zip((three, two, one), plots(page, "local_response")[1]["traces"], strict=True):
        assert trace["y"] == [2.0] * len(names)
        assert [order[at] for at in trace["x"]] == names


BEGUN = {
    "bn_drift": [("bn1", "running_mean[3]"), ("bn1", "running_mean")],
    "bn_gap": [("bn1", "running_mean[3]"), ("bn1", "adversarial_relative_mean_gap")],
    "smoothness": [("", "quadratic_sum"), ("conv1", "norm")],
    "local_response": [("", "images_failed"), ("conv1", "total")],
}


@pytest.mark.parametrize("rows", [1, 2])
def test_tables_that_have_just_begun(show, rows):
    """Of each the first row or two: what can be drawn is drawn, and nothing ends the other sections."""
    tables = {
        analysis: Table([(0, 9)], {(name, "", statistic): [0.5] for name, statistic in keys[:rows]})
        for analysis, keys in BEGUN.items()
    }
    page = show({"a": Run(None, config={}, tables=tables)})
    for analysis in BEGUN:
        drawn = page.locator(f"#{analysis} .plot .main-svg, #{analysis} .plot.empty").count()
        assert drawn or page.locator(f"#{analysis} .nothing").inner_text() == "No layer has been written down yet."


def test_a_long_run(show):
    """A call takes about a hundred thousand arguments, and a run may have logged more."""
    rates = [(step / 1000, 0.1 / (1 + step)) for step in range(150_000)]
    page = show({"a": Run(None, config={}, metrics={"lr-SGD": rates})})
    (trace,) = plots(page, "training")[0]["traces"]
    assert len(trace["x"]) == 150_000
    assert plot(page, "training", 0, "plot._fullLayout.yaxis.type") == "log"


def test_28_runs_look_different(show):
    def run(k):
        results = {"clean_accuracy": 0.5 + k / 100, "robust_accuracy": 0.3}
        table = Table([(0, 9)], {("conv1", "", "norm"): [1.0 + k]})
        return Run(None, config={}, metrics=curve(2 + k, 1), results=results, tables={"smoothness": table})

    page = show({f"run {k:02d}": run(k) for k in range(28)})
    styles = {
        "lines": plot(page, "training", 0, "plot.data.map(({ line }) => line.color + line.dash)"),
        "points": plot(page, "summary", 1, "plot.data.map(({ marker }) => marker.color + marker.symbol)"),
        "swatches": page.locator("#runs .swatch").evaluate_all("all => all.map(each => each.innerHTML)"),
    }
    assert {what: len(set(each)) for what, each in styles.items()} == dict.fromkeys(styles, 28)
    page.locator("#runs button", has_text="none").click()
    for k in (2, 9, 16, 23):
        page.locator("#runs input").nth(k).check()
    bars = plot(
        page, "smoothness", 1, "plot.data.map(({ type, marker }) => [type, marker.color, marker.pattern.shape])"
    )
    assert {kind for kind, _, _ in bars} == {"bar"}
    assert len({colour for _, colour, _ in bars}) == 1
    assert len({pattern for _, _, pattern in bars}) == 4
    picture = imread(io.BytesIO(page.locator("#smoothness .plot").nth(1).screenshot()))[..., :3]
    green = abs(picture - [0, 158 / 255, 115 / 255]).max(axis=2) < 0.02  # the colour that all four have
    columns = green.sum(axis=0)
    bars = (columns[1:] > 20) & (columns[:-1] <= 20)
    assert columns.max() > 100
    assert bars.sum() >= 4  # each of them begins somewhere


def test_a_domain_has_one_symbol(show):
    def run(*domains):
        measured = {"clean_accuracy": 0.5, "robust_accuracy": 0.3}
        return Run(None, config={}, results={**measured, "domains": dict.fromkeys(domains, measured)})

    page = show({"a": run("main", "adversarial"), "b": run("adversarial", "other"), "c": run("other", "main")})
    found = plot(page, "summary", 1, "plot.data.map(({ name, marker }) => [name, marker.symbol])")
    symbols = {}
    for name, symbol in found:
        symbols.setdefault(name.split(", ")[1], set()).add(symbol)
    assert symbols == {"main": {"circle"}, "adversarial": {"square"}, "other": {"diamond"}}
    caption = page.locator("#summary figcaption span").nth(1).inner_text()
    assert caption == "● main, ■ adversarial, ◆ other"


def test_names_that_every_object_has(show):
    """No run has logged a metric `constructor`, until one has."""
    table = Table([(0, 9)], {("conv1", "", name): [1.0] for name in ("constructor", "kl_from_toString", "a<b>b</b>")})
    one = Run(None, config={}, metrics={"constructor": [(0, 1.0)]}, tables={"bn_drift": table})
    page = show({"one": one, "other": Run(None, config={}, metrics={"a<b>b</b>": [(0, 1.0)]})})
    page.locator("#training-metric0").select_option("constructor")
    assert [trace["name"] for trace in plots(page, "training")[0]["traces"]] == ["one"]
    assert page.locator("#bn_drift-statistic option").all_inner_texts() == [
        *("Constructor", "Symmetric KL divergence from the toString domain", "A<b>b</b>")
    ]
    page.locator("#training-metric0").select_option("a<b>b</b>")
    page.locator("#bn_drift-statistic").select_option("a<b>b</b>")
    titles = [
        page.locator(f"#{section} .ytitle").nth(k).text_content() for section, k in (("training", 0), ("bn_drift", 0))
    ]
    assert titles == ["a<b>b</b>", "A<b>b</b>"]


@pytest.mark.parametrize("width", [1280, 390])
def test_long_names_do_not_widen_the_page(show, tmp_path, width):
    run = read_run(write_run(tmp_path / "run"))
    page = show({"x" * 200: run, "a name with spaces " * 10: run, ATTACK: run}, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("#runs label").first.evaluate("label => label.getBoundingClientRect().width") < 330
    assert page.locator("#runs label span:last-child").first.get_attribute("title") == "x" * 200
    assert page.locator("#summary tbody th").first.evaluate("cell => cell.getBoundingClientRect().width") < 460


@pytest.mark.parametrize(("width", "media"), [(1280, "screen"), (390, "screen"), (720, "print")])
def test_the_name_of_a_domain_is_below_that_of_its_run(show, tmp_path, width, media):
    page = show({"a": read_run(write_run(tmp_path / "run", domains=("main", "adversarial")))}, width=width)
    page.emulate_media(media=media)
    left = "each => each.getBoundingClientRect().left + parseFloat(getComputedStyle(each).paddingLeft)"
    used, other = (page.locator(f"#summary tbody {each}").first.evaluate(left) for each in ("th small", "tr.domain th"))
    assert abs(used - other) < 3


def test_values_that_are_not_finite_are_gaps(show):
    page = show({"a": responses(at_epochs(0, 1, 2), conv1=[1, math.inf, 3])})
    assert plots(page, "local_response")[3]["traces"][0]["y"] == [1, None, 3]
