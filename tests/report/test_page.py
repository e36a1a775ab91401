"""The page's text: what is in it, and that nothing in a run can become part of the page itself."""

import base64
import json
import math
import struct
from datetime import datetime
from html.parser import HTMLParser

import pytest

from lightning_adv.report.figures import result_figures, run_forms, swatch
from lightning_adv.report.page import build_page
from lightning_adv.report.runs import Run, read_run_folder
from lightning_adv.report.summary import duration, settings_tables, summary_table
from lightning_adv.report.tables import Table, pack_table
from tests.report.fake_runs import write_run

NOW = datetime(2026, 1, 2, 3, 4)
ATTACK = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>&amp;"


class Page(HTMLParser):
    """Collects what a browser would find."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.texts, self._script = [], {}, [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._script = dict(attributes).get("id", "code") if tag == "script" else None

    def handle_data(self, data):
        if self._script is None:
            self.texts.append(data)
        else:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data

    def handle_endtag(self, tag):
        if tag == "script":
            self._script = None


@pytest.fixture
def runs(tmp_path):
    write_run(tmp_path / "madry")
    write_run(tmp_path / "advprop", seed=1, domains=("main", "adversarial"))
    write_run(tmp_path / "goes on", epochs=3, of=9)
    return [read_run_folder(tmp_path / name) for name in ("madry", "advprop", "goes on")]


@pytest.mark.slow
def test_everything_is_inside(runs):
    page = Page(build_page(["a", "b", "c"], runs, built=NOW))
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "base")
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
    (policy,) = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert json.loads(page.scripts["report-data"])["reload"] is None
    assert {name for name in page.scripts if name.endswith("-1")} == {
        *(f"table-{name}-1" for name in ("bn_drift", "bn_gap", "smoothness", "local_response")),
        "figures-1",
    }
    assert (
        base64.b64decode(json.loads(page.scripts["figures-1"])["training_curves"]) == runs[1].figures["training_curves"]
    )


@pytest.mark.slow
def test_nothing_from_a_file_becomes_part_of_the_page(runs):
    harmless = Page(build_page(["a", "b", "c"], runs, built=NOW))
    run = runs[0]
    run.config[ATTACK] = run.config["model"] = ATTACK
    run.results |= {"regime": ATTACK, "dataset": ATTACK, "inference_domain": ATTACK, "precision": ATTACK}
    run.results |= {"threat_model": {"norm": ATTACK, "eps": 0.1}, "domains": {ATTACK: {}, "other" + ATTACK: {}}}
    run.metrics[ATTACK] = run.metrics["train/loss"]
    run.missing.append(ATTACK)
    run.figures[ATTACK] = run.figures["training_curves"]
    run.tables["bn_gap"].series[ATTACK, ATTACK, ATTACK] = [1.0] * 6
    page = Page(build_page([ATTACK, "b", "c"], runs, built=NOW))
    assert page.scripts.keys() == harmless.scripts.keys()
    assert [tag for tag, _ in page.tags if tag in ("script", "img")] == [
        tag for tag, _ in harmless.tags if tag in ("script", "img")
    ]
    assert page.scripts["code"] == harmless.scripts["code"]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert json.loads(page.scripts["report-data"])["runs"][0]["name"] == ATTACK
    assert ATTACK in json.loads(page.scripts["table-bn_gap-0"])["names"]
    assert ATTACK in page.texts  # as a reader would see it


def test_no_library_ends_its_own_script():
    scripts = Page(build_page(["a"], [Run(None, config={"seed": "0"})], built=NOW)).scripts
    assert scripts["code"].rstrip().endswith("})();")


def test_packed_tables_are_the_numbers():
    table = Table([(0, 9), (1, 19)], {("a", "", "max"): [0.1, 2e-30], ("b", "main", "max"): [math.nan, -7.25]})
    packed = pack_table(table)
    assert packed["epochs"] == [0, 1]
    assert packed["steps"] == [9, 19]
    assert [packed[part] for part in ("names", "domains", "statistics")] == [["a", "b"], ["", "main"], ["max"]]
    assert packed["keys"] == [0, 0, 0, 1, 1, 0]
    values = struct.unpack("<4f", b"".join(map(base64.b64decode, packed["values"])))
    assert values[:2] == pytest.approx((0.1, 2e-30), rel=1e-6)
    assert math.isnan(values[2])
    assert values[3] == -7.25


@pytest.mark.slow
def test_a_loss_that_is_no_number_is_a_gap(runs):
    runs[0].metrics["train/loss"] = [(0, 1.234567891), (1, math.nan), (2, math.inf)]
    data = json.loads(Page(build_page(["a", "b", "c"], runs, built=NOW)).scripts["report-data"])
    trace = data["metrics"]["train/loss"]["data"][0]
    assert (trace["x"], trace["y"]) == ([0, 1, 2], [1.2346, None, None])


@pytest.mark.slow
def test_28_runs_look_different():
    run = Run(None, config={}, metrics={"a": [(0, 1.0)]}, results={"clean_accuracy": 0.5, "robust_accuracy": 0.3})
    names = [str(k) for k in range(28)]
    forms = [run_forms(name, k) for k, name in enumerate(names)]
    styles = {
        "lines": [(form["line"]["line"]["color"], form["line"]["line"]["dash"]) for form in forms],
        "bars": [(form["bar"]["marker"]["color"], form["bar"]["marker"]["pattern"]["shape"]) for form in forms],
        "points": [
            (trace["marker"]["color"], trace["marker"]["symbol"])
            for trace in result_figures(names, [run] * 28)[1][2]["data"]
        ],
        "swatches": [swatch(k) for k in range(28)],
    }
    assert {what: len(set(each)) for what, each in styles.items()} == dict.fromkeys(styles, 28)


def test_a_domain_has_one_symbol():
    def run(*domains):
        measured = {"clean_accuracy": 0.5, "robust_accuracy": 0.3}
        return Run(None, config={}, results={**measured, "domains": dict.fromkeys(domains, measured)})

    runs = [run("main", "adversarial"), run("adversarial", "other"), run("other", "main")]
    symbols = {}
    _, (_, key, figure) = result_figures(["a", "b", "c"], runs)
    for trace in figure["data"]:
        symbols.setdefault(trace["name"].split(", ")[1], set()).add(trace["marker"]["symbol"])
    assert symbols == {"main": {"circle"}, "adversarial": {"square"}, "other": {"diamond"}}
    assert key == "● main, ■ adversarial, ◆ other"


@pytest.mark.slow
def test_learning_rates_of_equal_groups_are_one(runs):
    rate = [(0, 0.1), (1, 0.01)]
    runs[0].metrics = {"lr-SGD/decay": rate, "lr-SGD/no_decay": list(rate), "lr-Adam": [(0, 0.5)]}
    data = json.loads(Page(build_page(["a", "b", "c"], runs, built=NOW)).scripts["report-data"])
    rates = {name: len(figure["data"]) for name, figure in data["metrics"].items() if name.startswith("lr-")}
    assert rates == {"lr-": 3, "lr-Adam": 1}


def rows(table):
    """The texts of the cells, row by row."""
    found = [row.split("</tr>")[0] for row in table.split("<tr")[1:]]
    return [" ".join("".join(Page(f"<tr{row}").texts).split()) for row in found]


def test_summary(runs):
    madry = runs[0].results
    low, high = (100 * share for share in madry["robust_interval"])
    _, first, second, auxiliary, last = rows(summary_table(["a", "b", "c"], runs))
    assert first.startswith("a")
    assert f"{100 * madry['robust_accuracy']:.1f}{low:.1f} to {high:.1f}" in first
    for text in ("MadryTraining", "resnet18", "digits", "PGD-20", "Linf, eps 0.2", "6 epochs", "7 min 30 s", "1,840"):
        assert text in first
    assert "bmain BatchNorm" in second
    domain = runs[1].results["domains"]["adversarial"]
    assert auxiliary.startswith(f"adversarial BatchNorm{100 * domain['clean_accuracy']:.1f}")
    assert "no results yet: epoch 3 of 9" in last
    assert f"{100 * runs[2].metrics['val/robust_accuracy'][-1][1]:.1f}validation" in last


def test_settings(runs):
    names = ["a", "b", "c"]
    text = settings_tables(names, runs)
    head, *found = rows(text.split("<details")[0])
    assert head.endswith("abc")
    assert {row.split("ing")[0] for row in found} >= {"seed_everyth"}
    assert any(row == "modelMadryTrainingAdvPropTrainingMadryTraining" for row in found)
    single = rows(settings_tables(names[:1], runs[:1]).split("<details")[0])
    assert "RegimeMadryTraining" in single
    assert "Weight decay0.0005" in single
    assert "config.yaml" in settings_tables(["a"], [Run(None)])


def test_durations():
    assert [duration(seconds) for seconds in (0.04, 59.96, 61, 3599.7, 7265, None)] == [
        *("0.0 s", "1 min 0 s", "1 min 1 s", "1 h 0 min", "2 h 1 min", None)
    ]


def test_the_epoch_of_a_run_without_results():
    """Lightning logs the test with the epoch after the last; who trains by steps has no number of epochs."""

    def said(config, **metrics):
        found = {name.replace("_", "/"): [(0, 0.5), (epoch, 0.6)] for name, epoch in metrics.items()}
        return rows(summary_table(["a"], [Run(None, config=config, metrics=found)]))[1]

    assert said({"trainer.max_epochs": "10"}, train_loss=4).startswith("ano results yet: epoch 5 of 10")
    assert said({"trainer.max_epochs": "10"}, train_loss=4, test_loss=10).startswith("ano results yet: epoch 5 of 10")
    for none in ("-1", "0", "null", "many"):
        assert said({"trainer.max_epochs": none}, train_loss=4).startswith("ano results yet: epoch 5")
        assert " of " not in said({"trainer.max_epochs": none}, train_loss=4)
    assert "yet" not in said({})


def test_settings_of_runs_of_which_one_has_none():
    known = {"seed_everything": "0", "model": "MadryTraining"}
    text = settings_tables(["a", "b", "c"], [Run(None, config=known), Run(None, config=known), Run(None)])
    assert "<p>The runs whose settings are known have the same settings.</p>" in text
    assert "The 2 settings that the runs whose settings are known share" in text
    assert "same settings" not in settings_tables(["a", "b"], [Run(None, config=known), Run(None)])
