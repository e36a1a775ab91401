"""The page in a real browser: it draws, its controls change what is drawn, on a phone, in the dark and on paper."""

import io
from datetime import datetime

import pytest
from matplotlib.image import imread

from lightning_adv.report.page import build_page
from lightning_adv.report.runs import read_run
from tests.report.fake_runs import write_run
from tests.report.test_page import ATTACK

SECTIONS = ("summary", "training", "bn_drift", "bn_gap", "smoothness", "local_response")
NAMES = ["madry", "advprop", f"goes on {ATTACK}"]


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_run(folder / "madry", weight_decay=1e-3)
    write_run(folder / "advprop", seed=1, domains=("main", "adversarial"))
    write_run(folder / "goes on", seed=2, epochs=3, of=6, domains=("main", "adversarial"))
    runs = [read_run(folder / name) for name in ("madry", "advprop", "goes on")]
    (folder / "report.html").write_text(build_page(NAMES, runs, built=datetime(2026, 1, 2)))
    return folder / "report.html"


@pytest.fixture(scope="module")
def page(open_page, html):
    """A page that tests share: each chooses what it looks at."""
    page = open_page(html)
    draw_all(page)
    return page


def draw_all(page):
    """Scroll through the page, as a reader does."""
    for section in SECTIONS[1:]:
        page.evaluate(f"document.getElementById('{section}').scrollIntoView()")
        page.wait_for_selector(f"#{section} .main-svg", state="attached")


def plots(page, section):
    """Return what Plotly draws in a section: for each plot the x and y of its traces and the positions of its lines."""
    return page.evaluate(
        """id => [...document.querySelectorAll(`#${id} .plot`)].map(plot => ({
            traces: (plot.data ?? []).map(({ name, x, y, z }) => ({ name, x, y, z })),
            lines: (plot.layout?.shapes ?? []).map(shape => shape.x0) }))""",
        section,
    )


def settle(page):
    """Wait until what was asked for is drawn."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_everything_is_drawn(page, html):
    for section in SECTIONS:
        drawn = plots(page, section)
        assert len(drawn) in (2, 3, 4)
        assert all(plot["traces"] for plot in drawn), section
    page.locator("#training-metric0").select_option("val/robust_accuracy")
    (accuracy, *_) = plots(page, "training")
    assert [len(trace["x"]) for trace in accuracy["traces"]] == [6, 6, 3]
    run = read_run(html.parent / "madry")
    assert accuracy["traces"][0]["y"] == pytest.approx(
        [100 * value for _, value in run.metrics["val/robust_accuracy"]], rel=1e-4
    )
    assert page.locator("#figures img").count() == 3
    assert page.locator("#figures img").last.evaluate("image => image.naturalWidth") == 60
    assert page.locator("nav a").count() == 8


def test_a_name_is_text_everywhere(page):
    """The third run's name is a script; it would raise a dialog."""
    assert NAMES[2] in page.locator("#runs").inner_text()
    assert page.locator("#bn_drift-run option").all_inner_texts()[1:] == NAMES[1:]
    assert page.locator("main img[src=x]").count() == 0


def test_the_slider_moves_the_plots(page, html):
    table = read_run(html.parent / "advprop").tables["bn_drift"]
    channels = {3: [], 10: []}
    for channel in channels:
        channels[channel] = table.series["layer1.0.bn1", "adversarial", f"running_variance[{channel}]"]
    for epoch in (5, 2):
        page.locator("#bn_drift-epoch").fill(str(epoch))
        settle(page)
        heatmap, curves, _, variances = plots(page, "bn_drift")
        assert heatmap["lines"] == curves["lines"] == [epoch]
        adversarial = next(trace for trace in variances["traces"] if trace["name"] == "adversarial")
        assert adversarial["y"][:2] == pytest.approx([values[epoch] for values in channels.values()], rel=1e-6)
        assert page.locator("#bn_drift .slider output").inner_text() == str(epoch)
    for section, moving in (("bn_gap", 2), ("smoothness", 2), ("local_response", 0)):
        before = plots(page, section)
        page.locator(f"#{section}-epoch").fill("1")
        settle(page)
        after = plots(page, section)
        assert before[moving] != after[moving]
        assert sum(plot["lines"] == [1] for plot in after) == 2


@pytest.mark.parametrize(
    ("control", "value", "plot"),
    [
        ("training-metric0", "val/clean_loss", 0),
        ("bn_drift-run", "2", 0),
        ("bn_drift-layer", "bn1", 1),
        ("bn_drift-domain", "main", 0),
        ("bn_drift-statistic", "variance_from_last", 0),
        ("bn_gap-layer", "bn1", 1),
        ("bn_gap-domain", "main", 3),
        ("bn_gap-kind", "clean", 1),
        ("bn_gap-scale", "", 0),
        ("smoothness-whole", "high_frequency_share", 0),
        ("smoothness-statistic", "norm", 2),
        ("smoothness-layer", "conv1", 1),
        ("local_response-examples", "transferred_", 0),
        ("local_response-group", "_failed", 1),
        ("local_response-layer", "layer1", 2),
        ("local_response-domain", "adversarial", 3),
    ],
)
def test_a_choice_changes_the_plot(page, control, value, plot):
    section = control.split("-")[0]
    before = plots(page, section)[plot]
    chosen = page.locator(f"#{control}").input_value()
    page.locator(f"#{control}").select_option(value)
    assert plots(page, section)[plot] != before
    page.locator(f"#{control}").select_option(chosen)
    assert plots(page, section)[plot] == before


def test_a_choice_shows_the_numbers_of_the_table(page):
    """Transferred examples, failed attacks, of layer3."""
    for control, value in (("examples", "transferred_"), ("group", "_failed"), ("layer", "layer3")):
        page.locator(f"#local_response-{control}").select_option(value)
    trace = plots(page, "local_response")[3]["traces"][1]
    size = [(1 + 2.5 * 4 * (1 - 0.5 * epoch / 5)) / (1 + 400 * 5e-4) for epoch in range(6)]
    assert trace["y"] == pytest.approx([900 * each * 0.4 * 0.7 / 5 for each in size], rel=1e-6)


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
    page_file = tmp_path / "report.html"
    runs = [read_run(tmp_path / name) for name in ("resnet", "cnn")]
    page_file.write_text(build_page(["resnet", "cnn"], runs, built=datetime(2026, 1, 2)))
    page = visit(page_file)
    draw_all(page)
    assert page.locator("#bn_drift-layer").input_value() == "layer1.0.bn1"
    page.locator("#bn_drift-run").select_option("1")
    assert page.locator("#bn_drift-layer").input_value() == "layer2.1"
    assert [len(trace["x"]) for trace in plots(page, "bn_drift")[2]["traces"]] == [12, 4, 4]
    page.locator("#bn_drift-layer").select_option("layer3.1")
    assert (
        "cnn, single channels were written down of layer2.1; not of layer3.1."
        in page.locator("#bn_drift .plot.empty").first.inner_text()
    )


def test_a_click_on_the_heat_map_chooses_layer_and_epoch(page):
    page.evaluate("document.getElementById('bn_drift').scrollIntoView()")
    page.locator("#bn_drift-layer").select_option("bn1")
    area = page.locator("#bn_drift .plot").first.locator(".nsewdrag").bounding_box()
    page.mouse.click(area["x"] + 1.5 * area["width"] / 6, area["y"] + 0.9 * area["height"])
    settle(page)
    assert page.locator("#bn_drift-layer").input_value() == "layer2.0.bn1"
    assert page.locator("#bn_drift .slider output").inner_text() == "1"


def test_a_reload_keeps_what_was_chosen(visit, html):
    page = visit(html)
    draw_all(page)
    page.locator("#bn_gap-kind").select_option("clean")
    page.locator("#bn_gap-epoch").fill("2")
    page.locator("#runs input").first.uncheck()
    page.evaluate("document.getElementById('bn_gap').scrollIntoView()")
    before = page.evaluate("scrollY")
    page.reload()
    page.wait_for_selector("#bn_gap .main-svg", state="attached")
    assert page.locator("#bn_gap-kind").input_value() == "clean"
    assert page.locator("#bn_gap .slider output").inner_text() == "2"
    assert not page.locator("#runs input").first.is_checked()
    assert abs(page.evaluate("document.getElementById('bn_gap').getBoundingClientRect().top")) < 600
    assert before > 1000


def test_phone(visit, html):
    page = visit(html, width=390, height=844, has_touch=True, is_mobile=True)
    draw_all(page)
    assert page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    widths = page.eval_on_selector_all(".plot .main-svg", "all => all.map(each => each.getBoundingClientRect().right)")
    assert max(widths) <= 390
    assert page.locator("#summary .scrolling").evaluate("box => box.scrollWidth > box.clientWidth")


def brightness(page):
    """The mean of the screen's pixels, in [0, 1]."""
    return imread(io.BytesIO(page.screenshot()))[..., :3].mean()


def test_dark_and_light(visit, html):
    page = visit(html, color_scheme="dark")
    page.wait_for_selector("#training .main-svg", state="attached")
    assert brightness(page) < 0.25
    text = "document.querySelector('#training .plot').layout.xaxis.title.font.color"
    assert page.evaluate(text) == "#e7e9ec"
    page.locator("#theme").select_option("light")
    assert brightness(page) > 0.75
    assert page.evaluate(text) == "#1b1f24"
    page.locator("#theme").select_option("")
    page.emulate_media(color_scheme="light")
    assert brightness(page) > 0.75


def test_paper(visit, html):
    """Printed from the dark: light, without controls, every section drawn, and no plot wider than the page."""
    page = visit(html, color_scheme="dark", width=720)
    page.emulate_media(media="print", color_scheme="dark")
    for section in SECTIONS:
        page.wait_for_selector(f"#{section} .main-svg", state="attached")
    assert page.locator("#figures img").count() == 3
    assert not page.locator(".controls:visible, nav:visible, #theme:visible").count()
    assert page.locator("#bn_drift .print-settings").inner_text().endswith("Epoch: 5")
    assert page.evaluate("document.querySelector('#training .plot').layout.xaxis.title.font.color") == "#1b1f24"
    assert imread(io.BytesIO(page.screenshot(full_page=True)))[..., :3].mean() > 0.75
    assert page.pdf().startswith(b"%PDF")
    page.emulate_media(media="screen", color_scheme="dark")
    settle(page)
    assert brightness(page) < 0.25


def test_labels_and_keyboard(page):
    unnamed = page.evaluate(
        """[...document.querySelectorAll('select, input, button')].filter(each => !(each.labels?.length
            || each.getAttribute('aria-label') || each.textContent.trim())).map(each => each.outerHTML)"""
    )
    assert unnamed == []
    slider = page.locator("#smoothness-epoch")
    slider.fill("5")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    settle(page)
    assert slider.get_attribute("aria-valuetext") == "epoch 4"
    assert page.locator(".plot:not([aria-label])").count() == 0


def test_a_page_that_follows_loads_itself_again(visit, html, tmp_path):
    runs = [read_run(html.parent / "madry")]
    page_file = tmp_path / "report.html"
    page_file.write_text(build_page(["first"], runs, built=datetime(2026, 1, 2), reload_seconds=1))
    page = visit(page_file)
    page.wait_for_selector("#reloading", state="visible")
    page_file.write_text(build_page(["second"], runs, built=datetime(2026, 1, 2)))
    page.wait_for_selector("h1:text-is('second')")
    page.wait_for_selector("#reloading", state="hidden")
