"""The page in a real browser: it draws, its controls change what is drawn, on a phone, in the dark and on paper."""

import io
from datetime import datetime

import pytest
from matplotlib.image import imread

from lightning_adv.core.files import write_whole
from lightning_adv.report.page import build_page
from lightning_adv.report.runs import read_run_folder
from tests.report.fake_runs import write_run
from tests.report.test_page import ATTACK

pytestmark = pytest.mark.slow

TABLES = ("bn_drift", "bn_gap", "smoothness", "local_response")
NAMES = ["madry", "advprop", f"goes on {ATTACK}"]


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_run(folder / "madry", weight_decay=1e-3)
    write_run(folder / "advprop", seed=1, domains=("main", "adversarial"))
    write_run(folder / "goes on", seed=2, epochs=3, of=6, domains=("main", "adversarial"))
    return write_page(folder / "report.html", NAMES, [folder / name for name in ("madry", "advprop", "goes on")])


def write_page(file, names, folders, **options):
    runs = [read_run_folder(folder) for folder in folders]
    write_whole(file, build_page(names, runs, built=datetime(2026, 1, 2), **options))  # as the command does
    return file


@pytest.fixture(scope="module")
def page(open_page, html):
    """A page that tests share: each chooses what it looks at."""
    return open_page(html)


def plots(page, section):
    """Return what Plotly draws in a section: for each plot the x and y of its traces and the positions of its lines."""
    return page.evaluate(
        """id => [...document.getElementById(id).querySelectorAll('.plot')].map(plot => ({
            kind: plot.dataset.plot,
            traces: (plot.data ?? []).map(({ name, x, y, z }) => ({ name, x, y, z })),
            lines: (plot.layout?.shapes ?? []).map(shape => shape.x0) }))""",
        section,
    )


def settle(page):
    """Wait until what was asked for is drawn."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_everything_is_drawn_at_once(page, html):
    """Without scrolling: a capture of the whole page has every plot."""
    kinds = {"summary": ["result"] * 2, "training": ["metric"] * 4}
    kinds |= {f"table-{name}": ["heatmap", "curve", "profile"] for name in TABLES}
    for name in ("bn_drift", "bn_gap"):
        kinds[f"table-{name}"] += ["channels"] * 2
    for section, expected in kinds.items():
        drawn = plots(page, section)
        assert [plot["kind"] for plot in drawn] == expected
        assert all(plot["traces"] for plot in drawn), section
    accuracy = plots(page, "training")[0]
    assert [len(trace["x"]) for trace in accuracy["traces"]] == [6, 6, 3]
    run = read_run_folder(html.parent / "madry")
    logged = [100 * value for _, value in run.metrics["val/robust_accuracy"]]
    assert accuracy["traces"][0]["y"] == pytest.approx(logged, rel=1e-4)
    assert page.locator("#figures img").count() == 3
    assert page.locator("#figures img").last.evaluate("image => image.naturalWidth") == 60
    assert page.locator("nav a").count() == 8


def test_a_name_is_text_everywhere(page):
    """The third run's name is a script; it would raise a dialog."""
    assert NAMES[2] in page.locator("#runs").inner_text()
    assert page.locator("#table-bn_drift-run option").all_inner_texts() == NAMES
    assert page.locator("main img[src=x]").count() == 0


def test_the_slider_moves_the_plots(page, html):
    table = read_run_folder(html.parent / "advprop").tables["bn_drift"]
    of = [table.series["layer1.0.bn1", "adversarial", f"running_variance[{channel}]"] for channel in (3, 10)]
    for epoch in (5, 2):
        page.locator("#table-bn_drift-look").fill(str(epoch))
        heatmap, curves, layers, _, variances = plots(page, "table-bn_drift")
        assert heatmap["lines"] == curves["lines"] == [epoch]
        kl = table.series["layer1.0.bn1", "adversarial", "kl_from_start"][epoch]
        assert layers["traces"][1]["y"][1] == pytest.approx(kl, rel=1e-6)
        adversarial = next(trace for trace in variances["traces"] if trace["name"] == "adversarial")
        assert adversarial["y"][:2] == pytest.approx([values[epoch] for values in of], rel=1e-6)
        assert page.locator("#table-bn_drift output").inner_text() == str(epoch)
    page.locator("#table-bn_drift-axis").select_option("steps")
    assert page.locator("#table-bn_drift output").inner_text() == "49"
    assert plots(page, "table-bn_drift")[1]["traces"][0]["x"] == [49, 99, 149, 199, 249, 299]
    page.locator("#table-bn_drift-axis").select_option("epochs")


@pytest.mark.parametrize(
    ("control", "value", "plot"),
    [
        ("training-metric0", "val/clean_loss", 0),
        ("table-bn_drift-run", "2", 0),
        ("table-bn_drift-name", "bn1", 1),
        ("table-bn_drift-domain", "main", 0),
        ("table-bn_drift-statistic", "variance_from_last", 2),
        ("table-bn_gap-statistic", "clean_relative_mean_gap", 3),
        ("table-bn_gap-domain", "main", 4),
    ],
)
def test_a_choice_changes_the_plot(page, control, value, plot):
    section = control.rpartition("-")[0]
    before = plots(page, section)[plot]
    chosen = page.locator(f"#{control}").input_value()
    page.locator(f"#{control}").select_option(value)
    assert plots(page, section)[plot] != before
    page.locator(f"#{control}").select_option(chosen)
    assert plots(page, section)[plot] == before


def test_a_choice_shows_the_numbers_of_the_table(page):
    """Transferred examples, failed attacks, of layer3."""
    page.locator("#table-local_response-statistic").select_option("transferred_total_failed")
    page.locator("#table-local_response-name").select_option("layer3")
    trace = plots(page, "table-local_response")[1]["traces"][1]
    size = [(1 + 2.5 * 4 * (1 - 0.5 * epoch / 5)) / (1 + 400 * 5e-4) / 2 for epoch in range(6)]
    assert trace["y"] == pytest.approx([900 * each * 0.4 * 0.7 / 5 for each in size], rel=1e-6)


def test_a_layer_without_the_statistic_cannot_be_chosen(page):
    names = page.locator("#table-smoothness-name option")
    page.locator("#table-smoothness-statistic").select_option("quadratic_sum")
    assert page.locator("#table-smoothness-name").input_value() == ""
    assert names.evaluate_all("all => all.filter(each => !each.disabled).map(each => each.text)") == [
        "the whole network"
    ]
    assert len(plots(page, "table-smoothness")[1]["traces"]) == 3
    page.locator("#table-smoothness-statistic").select_option("norm")
    assert page.locator("#table-smoothness-name").input_value() == "conv1"


def test_runs_can_be_hidden(page):
    page.locator("#runs input").first.uncheck()
    assert [len(plot["traces"]) for plot in plots(page, "training")] == [2, 2, 2, 2]
    page.locator("#runs button", has_text="none").click()
    assert page.locator("#training .plot.empty").count() == 4
    page.locator("#runs button", has_text="all").click()
    assert [len(plot["traces"]) for plot in plots(page, "training")] == [3, 3, 3, 3]


def test_a_run_of_another_network_brings_its_layer(visit, tmp_path):
    write_run(tmp_path / "resnet")
    write_run(tmp_path / "cnn", layers=("layer1.1", "layer2.1", "layer3.1"), channels=4, epochs=3)
    page = visit(write_page(tmp_path / "report.html", ["resnet", "cnn"], [tmp_path / "resnet", tmp_path / "cnn"]))
    layer = page.locator("#table-bn_drift-name")
    assert layer.input_value() == "layer1.0.bn1"
    page.locator("#table-bn_drift-run").select_option("1")
    assert layer.input_value() == "layer2.1"
    assert [len(trace["x"]) for trace in plots(page, "table-bn_drift")[3]["traces"]] == [12, 4, 4]
    layer.select_option("layer3.1")
    said = "Of cnn, single channels were written down of layer2.1; not of layer3.1."
    assert page.locator("#table-bn_drift .plot.empty").all_inner_texts() == [said] * 2


def test_a_click_on_the_heat_map_chooses_layer_and_look(page):
    page.locator("#table-bn_drift-name").select_option("bn1")
    heatmap = page.locator("#table-bn_drift .plot").first
    heatmap.scroll_into_view_if_needed()
    area = heatmap.locator(".nsewdrag").bounding_box()
    page.mouse.click(area["x"] + 1.5 * area["width"] / 6, area["y"] + 0.9 * area["height"])
    settle(page)
    assert page.locator("#table-bn_drift-name").input_value() == "layer2.0.bn1"
    assert page.locator("#table-bn_drift output").inner_text() == "1"


def test_a_reload_keeps_what_was_chosen(visit, html):
    page = visit(html)
    page.locator("#table-bn_gap-statistic").select_option("clean_mean_gap")
    page.locator("#table-bn_gap-look").fill("2")
    page.locator("#runs input").first.uncheck()
    page.evaluate("document.getElementById('table-bn_gap').scrollIntoView()")
    before = page.evaluate("scrollY")
    page.reload()
    assert page.locator("#table-bn_gap-statistic").input_value() == "clean_mean_gap"
    assert page.locator("#table-bn_gap output").inner_text() == "2"
    assert page.locator("#table-bn_drift output").inner_text() == "5"
    assert not page.locator("#runs input").first.is_checked()
    assert before > 1000
    assert abs(page.evaluate("scrollY") - before) < 200


def test_phone(visit, html):
    page = visit(html, width=390, height=844, has_touch=True, is_mobile=True)
    assert page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    widths = page.eval_on_selector_all(".plot .main-svg", "all => all.map(each => each.getBoundingClientRect().right)")
    assert len(widths) > 60
    assert max(widths) <= 390
    assert page.locator("#summary .scrolling").evaluate("box => box.scrollWidth > box.clientWidth")


def picture(page, **options):
    """The pixels of the screen, in [0, 1]."""
    return imread(io.BytesIO(page.screenshot(**options)))[..., :3]


def test_dark_and_light(visit, html):
    page = visit(html, color_scheme="dark")
    assert picture(page).mean() < 0.25
    text = "document.querySelector('#training .plot')._fullLayout.xaxis.title.font.color"
    assert page.evaluate(text) == "#e7e9ec"
    page.locator("#theme").select_option("light")
    assert picture(page).mean() > 0.75
    assert page.evaluate(text) == "#1b1f24"
    page.locator("#theme").select_option("")
    page.emulate_media(color_scheme="light")
    assert picture(page).mean() > 0.75


def test_a_capture_of_the_whole_page_has_the_plots_below_the_fold(visit, html):
    """Right after the page has loaded; in each plot there is something in the colour of a run or of a scale."""
    page = visit(html)
    pixels = picture(page, full_page=True)
    places = page.evaluate(
        """[...document.querySelectorAll('.plot')].map(plot => plot.getBoundingClientRect()).map(
            ({ x, y, width, height }) => [x, y + scrollY, width, height].map(Math.round))"""
    )
    assert len(places) == 22
    assert pixels.shape[0] > max(y + height for _, y, _, height in places)
    for x, y, width, height in places:
        plot = pixels[y : y + height, x : x + width]
        assert ((plot.max(axis=2) - plot.min(axis=2)) > 0.3).sum() > 50


def test_paper(visit, html):
    """Printed from the dark: light, without controls, every plot drawn, none wider than the page."""
    page = visit(html, color_scheme="dark")
    page.evaluate(
        """addEventListener('beforeprint', () => {
            window.printed = [...document.querySelectorAll('.plot .main-svg')].map(each => each.clientWidth); })"""
    )
    assert page.pdf().startswith(b"%PDF")
    printed = page.evaluate("window.printed")
    assert (len(printed), set(printed)) == (3 * 22, {335, 690})  # pixels of a column and of a page
    page.set_viewport_size({"width": 720, "height": 900})
    page.emulate_media(media="print", color_scheme="dark")
    settle(page)
    assert page.locator(".plot .main-svg").count() == 3 * 22
    assert not page.locator("select:visible:not(figcaption select), nav:visible, input:visible").count()
    assert page.evaluate("document.querySelector('#training .plot')._fullLayout.xaxis.title.font.color") == "#1b1f24"
    widths = page.eval_on_selector_all(".plot .main-svg", "all => all.map(each => each.getBoundingClientRect().right)")
    assert max(widths) <= 720
    assert picture(page, full_page=True).mean() > 0.75
    page.emulate_media(media="screen", color_scheme="dark")
    settle(page)
    assert picture(page).mean() < 0.25


def test_labels_and_keyboard(page):
    unnamed = page.evaluate(
        """[...document.querySelectorAll('select, input, button')].filter(each => !(each.labels?.length
            || each.getAttribute('aria-label') || each.textContent.trim())).map(each => each.outerHTML)"""
    )
    assert unnamed == []
    slider = page.locator("#table-smoothness-look")
    slider.fill("5")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert slider.get_attribute("aria-valuetext") == "epoch 4"
    play = page.locator("#table-smoothness button")
    play.click()
    for element, text in (("output", "5"), ("button", "▶")):  # it plays to the end, and stops
        page.locator(f"#table-smoothness {element}", has_text=text).wait_for()
    assert page.locator(".plot:not([aria-label])").count() == 0


def test_a_page_that_follows_loads_itself_again(visit, html, tmp_path):
    folders = [html.parent / "madry"]
    page = visit(write_page(tmp_path / "report.html", ["first"], folders, reload_seconds=1))
    page.wait_for_selector("#reloading", state="visible")
    write_page(tmp_path / "report.html", ["second"], folders)
    page.wait_for_selector("h1:text-is('second')")
    page.wait_for_selector("#reloading", state="hidden")
