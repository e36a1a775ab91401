"""The page in a real browser with runs that differ, of which little is known, or of which there are many."""

import math
from datetime import datetime

import pytest

from lightning_adv.report.page import build_page
from lightning_adv.report.runs import Run, read_run_folder
from lightning_adv.report.tables import Table
from tests.report.fake_runs import write_run
from tests.report.test_browser import plots
from tests.report.test_page import ATTACK

pytestmark = pytest.mark.slow


@pytest.fixture
def show(visit, tmp_path):
    """Open a page of some runs."""

    def show(runs, **options):
        file = tmp_path / "report.html"
        file.write_text(build_page(list(runs), list(runs.values()), built=datetime(2026, 1, 2)))
        return visit(file, **options)

    return show


def responses(looks, **layers):
    """A run with one statistic: for each layer its value in each look (epoch, step)."""
    series = {(name, "", "total"): list(values) for name, values in layers.items()}
    return Run(None, config={}, tables={"local_response": Table(looks, series)})


def at_epochs(*epochs):
    return [(epoch, 10 * epoch + 9) for epoch in epochs]


def drawn(page, table, kind, what):
    """Evaluate something of the plot of a kind in a table's section."""
    return page.locator(f"#table-{table} [data-plot={kind}]").evaluate(f"plot => {what}")


def test_negative_values_are_shown_on_a_linear_axis(show):
    page = show({"a": responses(at_epochs(0, 1, 2), conv1=[2, 9, 20], layer1=[-3, 3, 90])})
    assert page.locator("#table-local_response-log").is_checked()
    axis = "plot._fullLayout.yaxis"
    for layer, kind in (("layer1", "linear"), ("conv1", "log")):
        page.locator("#table-local_response-name").select_option(layer)
        assert drawn(page, "local_response", "curve", f"{axis}.type") == kind
    assert drawn(page, "local_response", "profile", f"{axis}.type") == "linear"
    low, high = drawn(page, "local_response", "profile", f"{axis}.range")
    assert low <= -3
    assert high >= 90
    assert drawn(page, "local_response", "heatmap", "plot.data[0].zmid") == 0


def test_layers_at_an_epoch_are_of_the_last_look_before_it(show):
    page = show(
        {
            "often": responses(at_epochs(0, 1, 2, 3), **{"conv1": [1, 2, 3, 4], "0": [1, 2, 3, 4]}),
            "seldom": responses(at_epochs(1, 3), **{"conv1": [10, 30], "0": [10, 30]}),
            "short": responses(at_epochs(0, 1), **{"conv1": [100, 200], "0": [100, math.inf]}),
        }
    )
    expected = {
        0: {"often": [0, 1], "short": [0, 100]},
        1: {"often": [1, 2], "seldom": [1, 10], "short": [1, 200]},
        2: {"often": [2, 3], "seldom": [1, 10], "short": [1, 200]},
    }
    for epoch, runs in expected.items():
        page.locator("#table-local_response-look").fill(str(epoch))
        traces = drawn(
            page, "local_response", "profile", "plot.data.map(({ name, y, customdata }) => [name, y, customdata])"
        )
        assert {name: y[0] for name, y, _ in traces} == {name: value for name, (_, value) in runs.items()}
        assert all(f"conv1, epoch {runs[name][0]}" == hover[0] for name, _, hover in traces)
        caption = page.locator("#table-local_response figcaption span").last.inner_text()
        assert caption == f"every layer, epoch {epoch}{', or the last look before it' if epoch > 1 else ''}"
    assert traces[2][1] == [200, None]  # what is not finite is a gap


def test_a_run_without_a_look_yet_has_no_channels_yet(show):
    def run(*epochs):
        series = {("bn1", "", f"running_{moment}[3]"): [1.0] * len(epochs) for moment in ("mean", "variance")}
        series["bn1", "", "running_mean"] = [1.0] * len(epochs)
        return Run(None, config={}, tables={"bn_drift": Table(at_epochs(*epochs), series)})

    page = show({"early": run(0, 1, 2), "late": run(2)})
    page.locator("#table-bn_drift-run").select_option("1")
    page.locator("#table-bn_drift-look").fill("1")
    said = page.locator("#table-bn_drift .plot.empty").all_inner_texts()
    assert said == ["The first look at late was later."] * 2


def test_several_looks_in_an_epoch_end_where_a_single_one_is(show):
    every_25_of_50 = [(epoch, 50 * epoch + step) for epoch in (0, 1) for step in (24, 49)]
    page = show(
        {
            "steps": responses([*every_25_of_50, (2, 149)], conv1=[1, 2, 3, 4, 5]),
            "epochs": responses([(0, 49), (1, 99), (2, 149)], conv1=[2, 4, 5]),
        }
    )
    for axis, expected in (("epochs", [-0.5, 0, 0.5, 1, 2]), ("steps", [24, 49, 74, 99, 149])):
        page.locator("#table-local_response-axis").select_option(axis)
        steps, epochs = drawn(page, "local_response", "curve", "plot.data.map(({ x, y }) => ({ x, y }))")
        assert steps["x"] == expected
        assert epochs["x"] == [expected[1], *expected[3:]]
        assert [steps["y"][steps["x"].index(x)] for x in epochs["x"]] == epochs["y"]


@pytest.mark.parametrize("rows", [1, 2])
def test_tables_that_have_just_begun(show, rows):
    """Of each the first row or two: what can be drawn is drawn, and nothing ends the other sections."""
    begun = {
        "bn_drift": [("bn1", "running_mean[3]"), ("bn1", "running_mean")],
        "bn_gap": [("bn1", "running_mean[3]"), ("bn1", "adversarial_relative_mean_gap")],
        "smoothness": [("", "quadratic_sum"), ("conv1", "norm")],
        "somebodys": [("", "share"), ("fc", "share")],
    }
    tables = {
        name: Table([(0, 9)], {(layer, "", statistic): [0.5] for layer, statistic in keys[:rows]})
        for name, keys in begun.items()
    }
    page = show({"a": Run(None, config={}, tables=tables)})
    for name in begun:
        curve = next(plot for plot in plots(page, f"table-{name}") if plot["kind"] == "curve")
        assert [trace["y"] for trace in curve["traces"]] == [[0.5]]


def test_a_long_run(show):
    """A call takes about a hundred thousand arguments, and a run may have logged more."""
    rates = [(step / 1000, 0.1 / (1 + step)) for step in range(150_000)]
    page = show({"a": Run(None, config={}, metrics={"lr-SGD": rates})})
    (trace,) = plots(page, "training")[0]["traces"]
    assert len(trace["x"]) == 150_000
    assert page.locator("#training .plot").first.evaluate("plot => plot._fullLayout.yaxis.type") == "log"


def test_names_that_every_object_has(show):
    """No run has logged a metric `constructor`, until one has; and a table may be called as anything."""
    table = Table([(0, 9)], {("conv1", "", name): [1.0] for name in ("constructor", "kl_from_toString", "a<b>b</b>")})
    tables = {"bn_drift": table, "summary": table, ATTACK: table}
    one = Run(None, config={}, metrics={"constructor": [(0, 1.0)]}, tables=tables)
    page = show({"one": one, "other": Run(None, config={}, metrics={"a<b>b</b>": [(0, 1.0)]})})
    page.locator("#training-metric0").select_option("constructor")
    assert [trace["name"] for trace in plots(page, "training")[0]["traces"]] == ["one"]
    assert page.locator("#table-bn_drift-statistic option").all_inner_texts() == [
        *("Constructor", "Symmetric KL divergence from the toString domain", "A<b>b</b>")
    ]
    page.locator("#training-metric0").select_option("a<b>b</b>")
    page.locator("#table-bn_drift-statistic").select_option("a<b>b</b>")
    titles = [page.locator(f"#{section} .ytitle").first.text_content() for section in ("training", "table-bn_drift")]
    assert titles == ["a<b>b</b>", "A<b>b</b>"]
    assert plots(page, f"table-{ATTACK}")[0]["traces"][0]["y"] == [1]
    page.locator("nav a").nth(4).click()
    assert abs(page.locator("section").nth(4).evaluate("section => section.getBoundingClientRect().top")) < 200


@pytest.mark.parametrize("width", [1280, 390])
def test_long_names_do_not_widen_the_page(show, tmp_path, width):
    run = read_run_folder(write_run(tmp_path / "run", domains=("main", "adversarial"), analyses=("bn_drift",)))
    page = show({"x" * 200: run, "a name with spaces " * 10: run, ATTACK: run}, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("#runs label").first.evaluate("label => label.getBoundingClientRect().width") < 330
    assert page.locator("#runs label span:last-child").first.get_attribute("title") == "x" * 200
    assert page.locator("#summary tbody th").first.evaluate("cell => cell.getBoundingClientRect().width") < 460
    left = "each => each.getBoundingClientRect().left + parseFloat(getComputedStyle(each).paddingLeft)"
    used, other = (page.locator(f"#summary tbody {each}").first.evaluate(left) for each in ("th small", "tr.domain th"))
    assert abs(used - other) < 3  # the name of a domain is below that of its run
