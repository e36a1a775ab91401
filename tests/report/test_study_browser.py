"""The page of a study in a real browser: its figure over any key, its table, the curves of its runs."""

import json
from datetime import datetime

import pandas
import pytest

from lightning_adv.analysis.training_curves import read_metrics
from lightning_adv.core.files import write_whole
from lightning_adv.report.page import build_page
from lightning_adv.report.runs import read_run_folder
from lightning_adv.report.studies import read_study_folder
from tests.report.fake_runs import write_run
from tests.report.fake_studies import MODULES, SUBSETS, write_study
from tests.report.test_browser import settle
from tests.report.test_page import ATTACK

pytestmark = pytest.mark.slow

SETTINGS = ["adversarial before", "conventional after"]
CUTOFFS = ["m1", "m2", "m3"]
FIGURE = {
    "kind": "lines",
    "x": "cutoff",
    "lines": "setting",
    "panels": None,
    "y": ["robust_accuracy", "clean_accuracy"],
}
FIGURE |= {"reference": {"setting": "only pretrained"}}


def write_page(file, studies, runs=(), **options):
    read = {name: read_study_folder(folder) for name, folder in studies.items()}
    of_runs = [read_run_folder(run) for run in runs]
    page = build_page([run.name for run in runs], of_runs, built=datetime(2026, 1, 2), studies=read, **options)
    write_whole(file, page)
    return file


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    """Two settings × three cut-offs × two seeds and what is only pretrained; a cell has failed, another is missing."""
    return write_study(
        tmp_path_factory.mktemp("studies") / "blocks",
        {"setting": SETTINGS, "cutoff": CUTOFFS},
        seeds=(0, 1),
        figure=FIGURE,
        extra=[{"setting": "only pretrained"}],
        status={3: "failed", 10: "missing"},
    )


@pytest.fixture(scope="module")
def page(open_page, blocks):
    """A page that tests share: each chooses what it looks at."""
    return open_page(write_page(blocks.parent / "report.html", {"blocks": blocks}))


@pytest.fixture
def frame(blocks):
    return pandas.read_csv(blocks / "study.csv")


@pytest.fixture
def choose(page):
    """Choose in the menus, and choose as it was at the end."""
    menus = "[...document.querySelectorAll('#study-0 select')]"
    before = page.evaluate(f"{menus}.map(menu => menu.value)")

    def choose(**values):
        for name, value in values.items():
            page.locator(f"#study-0-{name.replace('_', '-')}").select_option(value)

    yield choose
    page.evaluate(
        f"""before => {{ {menus}.forEach((menu, k) => (menu.value = before[k]));
            document.getElementById('study-0-kind').dispatchEvent(new Event('input', {{ bubbles: true }})); }}""",
        before,
    )


def drawn(page, study=0):
    """What is drawn: for each plot its traces, horizontal lines, texts and caption."""
    return page.evaluate(
        """id => [...document.querySelectorAll(`#${id} [data-plot="study"]`)].map(plot => ({
            traces: (plot.data ?? []).map(({ name, type, meta, x, y, error_y, xaxis, customdata }) =>
                ({ name, type, of: meta, x, y, error: error_y?.array, xaxis: xaxis ?? 'x', rows: customdata })),
            lines: (plot.layout?.shapes ?? []).map(({ y0 }) => y0),
            texts: (plot.layout?.annotations ?? []).map(({ text }) => text),
            axis: plot._fullLayout?.xaxis.type, ticks: plot._fullLayout?.xaxis.ticktext, empty: plot.textContent.trim(),
            wide: plot.parentElement.classList.contains('wide'),
            caption: plot.previousElementSibling.querySelector('span').textContent }))""",
        f"study-{study}",
    )


def means(plot):
    return [trace for trace in plot["traces"] if trace["of"] == "mean"]


def singles(plot):
    return [trace for trace in plot["traces"] if trace["of"] == "run"]


def percent(frame, by, measure="robust_accuracy"):
    """The means by some columns, as pandas computes them."""
    return (100 * frame.groupby(by, sort=False)[measure].mean()).dropna()


def test_the_figure_is_that_of_the_study(page, frame):
    robust, clean = drawn(page)
    rows = frame[frame["setting"] != "only pretrained"]
    for plot, measure in ((robust, "robust_accuracy"), (clean, "clean_accuracy")):
        assert [trace["name"] for trace in means(plot)] == SETTINGS
        for trace in means(plot):
            expected = percent(rows[rows["setting"] == trace["name"]], "cutoff", measure)
            assert [plot["ticks"][x] for x in trace["x"]] == list(expected.index)
            assert trace["y"] == pytest.approx(list(expected), rel=1e-5)
        reference = percent(frame[frame["setting"] == "only pretrained"], "setting", measure)
        assert plot["lines"] == pytest.approx(list(reference), rel=1e-5)
        assert plot["texts"] == ["only pretrained"]
        assert plot["caption"].startswith("means over seed 0, 1; small points: single runs")
        assert plot["caption"].endswith("2 rows have no number yet")
    assert sum(len(trace["y"]) for trace in singles(robust)) == 8  # two means lack a seed: they are single runs
    first = means(robust)[0]
    (alone,) = [place for place, rows in enumerate(first["rows"]) if len(rows) == 1]
    row = frame.iloc[first["rows"][alone][0]]
    assert first["error"][alone] == pytest.approx(100 * (row["robust_high"] - row["robust_accuracy"]), rel=1e-3)


def test_any_key_can_be_the_axis_the_colours_and_the_panels(page, choose, frame):
    choose(x="setting")  # what was the axis becomes the colours
    assert page.locator("#study-0-lines").input_value() == "cutoff"
    first = drawn(page)[0]
    expected = percent(frame[frame["cutoff"] == "m3"], "setting")
    (trace,) = [each for each in means(first) if each["name"] == "m3"]
    assert dict(zip([first["ticks"][x] for x in trace["x"]], trace["y"], strict=True)) == pytest.approx(
        dict(expected), rel=1e-5
    )
    choose(lines="", panels="cutoff", y0="clean_accuracy")
    first, _ = drawn(page)
    assert first["wide"]
    assert [text for text in first["texts"] if text.startswith("<b>")] == [f"<b>{each}</b>" for each in CUTOFFS]
    assert {trace["xaxis"] for trace in first["traces"]} == {"x", "x2", "x3"}
    expected = percent(frame[frame["cutoff"] == "m1"], "setting", "clean_accuracy")
    assert means(first)[0]["y"] == pytest.approx(list(expected), rel=1e-5)
    choose(x="seed", panels="setting")
    first = drawn(page)[0]
    assert first["axis"] == "linear"
    assert "means over cutoff m1, m2, m3" in first["caption"]
    expected = percent(frame[frame["setting"] == SETTINGS[0]], "seed", "clean_accuracy")
    assert means(first)[0]["y"] == pytest.approx(list(expected), rel=1e-5)


@pytest.mark.parametrize("kind", ["lines", "bars"])
def test_only_some_rows(page, choose, frame, kind):
    choose(kind=kind, only_2="0", only_0="1")
    rows = frame[(frame["seed"] == 0) & (frame["setting"] == SETTINGS[1])]
    (trace,) = means(drawn(page)[0])
    assert trace["type"] == ("bar" if kind == "bars" else "scatter")
    assert trace["y"] == pytest.approx(list(percent(rows, "cutoff")), rel=1e-5)
    assert len(drawn(page)[0]["lines"]) == 1  # the reference stays
    assert "95 % intervals" in drawn(page)[0]["caption"]
    shown = page.locator("#study-0 tbody tr:visible")
    assert shown.count() == 3  # one of which is missing
    assert page.locator("#study-0 .rows output").inner_text() == "3 of 14 rows"
    page.locator("#study-0-search").fill("M3 MISSING")
    assert shown.count() == 1
    assert "missing" in shown.first.inner_text()
    page.locator("#study-0-search").fill("")


def test_scatter(page, choose, frame):
    choose(kind="scatter")
    assert page.locator("#study-0-x").input_value() in ("clean_accuracy", "robust_accuracy")
    choose(x="clean_accuracy")
    first = drawn(page)[0]
    rows = frame[frame["setting"] == SETTINGS[0]]
    assert means(first)[0]["x"] == pytest.approx(list(percent(rows, "cutoff", "clean_accuracy")), rel=1e-5)
    assert means(first)[0]["y"] == pytest.approx(list(percent(rows, "cutoff")), rel=1e-5)
    choose(kind="lines")
    assert page.locator("#study-0-x").input_value() not in ("clean_accuracy", "robust_accuracy")


def test_sorting(page):
    column = page.locator("#study-0 thead th", has_text="robust_accuracy")
    values = "#study-0 tbody tr td:nth-child(7)"
    for order in ("ascending", "descending"):
        column.locator("button").click()
        assert column.get_attribute("aria-sort") == order
        texts = [each.evaluate("cell => cell.firstChild?.data ?? ''") for each in page.locator(values).all()]
        found = [text for text in texts if text]
        assert [float(each) for each in found] == sorted(map(float, found), reverse=order == "descending")
        assert texts[-2:] == ["", ""]
    page.locator("#study-0 thead button", has_text="cutoff").click()
    assert page.locator("#study-0 tbody tr td:nth-child(3)").all_inner_texts()[:4] == ["m1"] * 4


def curves(page):
    return page.evaluate(
        """() => [...document.querySelectorAll('#study-0-curves .plot')].map(plot => (plot.data ?? []).map(
            ({ name, x, y }) => ({ name, x, y })))"""
    )


def logged(blocks, row, metric):
    run = blocks / pandas.read_csv(blocks / "study.csv")["run"][row]
    return [value for _, value in read_metrics(run / "metrics.csv")[metric]]


def test_a_point_and_a_row_show_the_curves_of_their_runs(visit, blocks, tmp_path):
    page = visit(write_page(tmp_path / "report.html", {"blocks": blocks}))
    assert page.locator("#study-0-curves .grid").is_hidden()
    point = page.evaluate(
        """() => { const plot = document.querySelector('#study-0 [data-plot="study"]');
            plot.scrollIntoView(); const { xaxis, yaxis } = plot._fullLayout; const box = plot.getBoundingClientRect();
            const trace = plot.data.find(({ meta }) => meta === "mean");
            return [box.x + xaxis._offset + xaxis.d2p(trace.x[0]),
                box.y + yaxis._offset + yaxis.d2p(trace.y[0]), trace.customdata[0]]; }"""
    )
    page.mouse.move(*point[:2])
    page.mouse.click(*point[:2])
    settle(page)
    robust = curves(page)[0]
    assert [trace["name"] for trace in robust] == [f"{SETTINGS[0]}, m1, seed {seed}" for seed in (0, 1)]
    for trace, row in zip(robust, point[2], strict=True):
        assert trace["x"] == [0, 1, 2, 3]
        assert trace["y"] == pytest.approx(
            [100 * each for each in logged(blocks, row, "val/robust_accuracy")], rel=1e-5
        )
    line = page.locator("#study-0 tbody tr").nth(4)
    line.locator("td").nth(2).click()
    assert line.locator("input").is_checked()
    assert len(curves(page)[0]) == 3
    page.locator("#study-0-metric0").select_option("train/loss")
    assert curves(page)[0][2]["y"] == pytest.approx(logged(blocks, 4, "train/loss"), rel=1e-5)
    assert page.locator("#study-0-curves .chosen li").count() == 3
    page.reload()  # as a page that follows does
    assert len(curves(page)[0]) == 3
    page.locator("#study-0-curves .chosen button").first.click()
    assert [trace["name"] for trace in curves(page)[0]] == [f"{SETTINGS[0]}, m1, seed 1", f"{SETTINGS[0]}, m3, seed 0"]
    page.locator("#study-0-stage").select_option("pretrain")
    assert len(curves(page)[0]) == 2
    folders = page.locator("#study-0-curves .chosen code").all_inner_texts()
    assert all(folder.startswith("cells/pretrain-") for folder in folders)


def test_what_failed_and_what_is_missing_is_in_the_table(page):
    lines = page.locator("#study-0 tbody tr")
    (failed,) = lines.filter(has_text="failed").all_inner_texts()
    assert "retrain: ValueError: the loss is NaN" in failed
    assert lines.filter(has_text="missing").count() == 1


def test_all_subsets(visit, tmp_path):
    """The medians with and without each part are those that pandas finds."""
    figure = {"kind": "with_without", "x": "modules", "lines": None, "panels": None, "y": ["robust_accuracy"]}
    folder = write_study(tmp_path / "subsets", {"modules": SUBSETS}, figure=figure, epochs=1)
    page = visit(write_page(tmp_path / "report.html", {"subsets": folder}))
    frame = pandas.read_csv(folder / "study.csv")
    medians = page.evaluate(
        """() => document.querySelector('#study-0 [data-plot="study"]').calcdata.map(
            trace => trace.map(({ med }) => med))"""
    )
    for has, found in zip((True, False), medians, strict=True):
        rows = [frame[frame["modules"].str.contains(module) == has] for module in MODULES]
        assert found == pytest.approx([100 * each["robust_accuracy"].median() for each in rows], rel=1e-5)
    assert page.locator("#study-0-lines").is_hidden()
    page.locator("#study-0-kind").select_option("bars")
    (trace,) = drawn(page)[0]["traces"]
    assert len(trace["x"]) == 63
    assert drawn(page)[0]["wide"]
    assert page.evaluate("document.documentElement.scrollWidth") == 1280


def test_three_axes_are_averaged_over_what_is_not_shown(visit, tmp_path):
    grid = {"p": ["0.25", "1"], "decay": ["0", "0.0001", "0.005"], "attack": ["pgd", "fgsm"]}
    folder = write_study(tmp_path / "three", grid, seeds=(0, 1), epochs=1)
    page = visit(write_page(tmp_path / "report.html", {"three": folder}), width=390)
    frame = pandas.read_csv(folder / "study.csv")
    page.locator("#study-0-x").select_option("decay")
    page.locator("#study-0-lines").select_option("")
    plot = drawn(page)[0]
    assert (plot["axis"], plot["ticks"]) == ("linear", grid["decay"])  # zero has no place on a logarithmic axis
    assert means(plot)[0]["x"] == [0, 1, 2]
    assert means(plot)[0]["y"] == pytest.approx(list(percent(frame, "decay")), rel=1e-5)
    assert plot["caption"].startswith("means over p 0.25, 1 and attack pgd, fgsm and seed 0, 1; small points")
    assert len(singles(plot)[0]["y"]) == 24
    page.locator("#study-0-panels").select_option("p")
    page.locator("#study-0-lines").select_option("attack")
    assert drawn(page)[0]["texts"] == ["<b>p 0.25</b>", "<b>p 1</b>"]
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_studies_and_runs_on_one_page(visit, tmp_path):
    folders = {name: write_study(tmp_path / name, {"eps": ["1", "2"]}, epochs=2) for name in ("one", "other")}
    run = write_run(tmp_path / "alone", analyses=("bn_gap",))
    page = visit(write_page(tmp_path / "report.html", folders, [run]))
    assert page.locator("nav a").count() == 7
    assert [len(drawn(page, study)) for study in (0, 1)] == [2, 2]
    assert page.locator("#training .main-svg").count() == 12
    page.locator("#study-1 tbody input").first.check()
    assert page.locator("#study-1-curves .main-svg").count() == 12
    assert page.locator("#study-0-curves .grid").is_hidden()


def test_odd_names_and_a_study_of_which_little_is_known(visit, tmp_path):
    """Names are scripts, what every object has, and of one study nothing has been measured yet."""
    odd = ["__proto__", "constructor", ATTACK]
    figure = {"kind": "lines", "x": "constructor", "lines": ATTACK, "y": ["robust_accuracy"]}
    folder = write_study(
        tmp_path / "odd", {"constructor": odd, ATTACK: odd}, figure=figure, title=ATTACK, status={1: "failed"}, epochs=1
    )
    begun = write_study(tmp_path / "begun", {"eps": ["1", "2"]}, status={0: "begun", 1: "missing"})
    (begun / "study.csv").unlink()
    page = visit(write_page(tmp_path / "report.html", {ATTACK: folder, "begun": begun}))
    assert page.locator("h2").first.inner_text() == ATTACK
    first = drawn(page)[0]
    assert [trace["name"] for trace in first["traces"]][:2] == odd[:2]
    assert first["ticks"][:2] == odd[:2]
    assert first["ticks"][2].startswith("&lt;/script")
    assert len(first["traces"]) == 3
    page.locator("#study-0-x").select_option(ATTACK)
    page.locator("#study-0 tbody input").first.check()
    assert page.locator("main img[src=x]").count() == 0
    assert page.locator("#study-1 .plot:visible").count() == 0
    assert page.locator("#study-1 tbody tr").count() == 3


def test_what_is_chosen_outlives_a_reload_in_which_a_cell_ends(visit, tmp_path):
    folder = write_study(tmp_path / "study", {"eps": ["1", "2", "3"]}, status={2: "missing"})
    file = write_page(tmp_path / "report.html", {"study": folder}, reload_seconds=1)
    page = visit(file)
    page.locator("#study-0-kind").select_option("bars")
    page.locator("#study-0 tbody input").nth(1).check()
    described = json.loads((folder / "study.json").read_text())
    write_study(tmp_path / "ended", {"eps": ["1", "2", "3"]})
    (folder / "study.csv").write_text((tmp_path / "ended" / "study.csv").read_text())
    (folder / "study.json").write_text(json.dumps(described | {"title": "Ended"}))
    write_page(file, {"study": folder})
    page.wait_for_selector("h2:text-is('Ended')")
    page.wait_for_selector("#reloading", state="hidden")
    assert page.locator("#study-0-kind").input_value() == "bars"
    assert len(drawn(page)[0]["traces"][0]["y"]) == 3
    assert [trace["name"] for trace in curves(page)[0]] == ["eps 2"]
