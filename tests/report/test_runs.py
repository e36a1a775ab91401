"""Run folders as data, also those that are half there."""

import json
import math
from pathlib import Path

import pandas
import pytest
import yaml

from lightning_adv.core.table import Row, append_rows
from lightning_adv.report import runs as runs_module
from lightning_adv.report.runs import is_finished, name_runs, read_run_folder, signature
from lightning_adv.report.summary import summary_table
from lightning_adv.report.tables import arrange_table, merge
from tests.report.fake_runs import TABLES, png, write_run


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "advprop" / "version_0", domains=("main", "adversarial"))


def test_a_whole_run(folder):
    run = read_run_folder(folder)
    assert run.missing == []
    assert run.config["model"] == "AdvPropTraining"
    assert run.results == json.loads((folder / "results.json").read_text())
    assert run.figures == {"training_curves": (folder / "figures" / "training_curves.png").read_bytes()}
    metrics = pandas.read_csv(folder / "metrics.csv")
    assert [value for _, value in run.metrics["val/robust_accuracy"]] == list(metrics["val/robust_accuracy"].dropna())


def test_tables_are_those_that_pandas_reads(folder):
    for name, table in read_run_folder(folder).tables.items():
        frame = pandas.read_csv(folder / "analyses" / f"{name}.csv", keep_default_na=False)
        assert table.looks == list(frame[["epoch", "step"]].drop_duplicates().itertuples(index=False, name=None))
        groups = frame.groupby(["name", "domain", "statistic"])["value"]
        assert {key: list(values) for key, values in groups} == table.series


def test_a_run_that_goes_on(tmp_path):
    """Its tables end in half a line, and its metrics in half a number."""
    folder = write_run(tmp_path / "run", epochs=3, of=9)
    with (folder / "metrics.csv").open("a") as file:
        file.write("3,199,,0.4")
    run = read_run_folder(folder)
    assert run.missing == ["There is no results.json: the run goes on, or stopped before its test."]
    assert [epoch for epoch, _ in run.metrics["train/loss"]] == [0, 1, 2]
    assert {name: len(table.looks) for name, table in run.tables.items()} == dict.fromkeys(TABLES, 3)
    assert not is_finished(folder)


def test_a_statistic_that_some_looks_lack(tmp_path):
    (tmp_path / "analyses").mkdir()
    lines = ["epoch,step,name,domain,statistic,value", "0,9,a,,max,1.5", "0,9,b,,max,2.5", "1,19,a,,max,3.5"]
    (tmp_path / "analyses" / "bn_gap.csv").write_text("\n".join(lines) + "\n")
    series = read_run_folder(tmp_path).tables["bn_gap"].series
    assert series["a", "", "max"] == [1.5, 3.5]
    assert series["b", "", "max"][0] == 2.5
    assert math.isnan(series["b", "", "max"][1])


def test_a_run_without_observers(tmp_path):
    run = read_run_folder(write_run(tmp_path / "run", analyses=()))
    assert run.missing == ["There are no analyses: no observer looked at this run."]
    one = read_run_folder(write_run(tmp_path / "other", analyses=("bn_gap",)))
    assert (one.missing, list(one.tables)) == ([], ["bn_gap"])


def test_the_table_of_any_observer_is_read(folder):
    append_rows(folder / "analyses" / "dead_units.csv", [Row(0, 9, "fc", "", "share", 0.5)])
    run = read_run_folder(folder)
    assert run.tables["dead_units"].series == {("fc", "", "share"): [0.5]}
    assert (run.missing, run.damaged) == ([], {})


def test_a_table_of_many_looks_is_thinned_out(folder, monkeypatch):
    """Of each three looks the last stays, and the page says so."""
    rows = [Row(look, 10 * look, name, "", "norm", look + 0.5) for look in range(11) for name in ("a", "b")]
    path = folder / "analyses" / "many.csv"
    append_rows(path, rows)
    table, _ = arrange_table(path, most_cells=9)
    assert (table.every, table.looks) == (3, [(1, 10), (4, 40), (7, 70), (10, 100)])
    assert table.series["a", "", "norm"] == [1.5, 4.5, 7.5, 10.5]
    monkeypatch.setattr(runs_module, "arrange_table", lambda path: arrange_table(path, most_cells=9))
    said = "analyses/many.csv has more looks than a page can show: one in 3 is shown."
    assert said in read_run_folder(folder).missing
    monkeypatch.setattr(runs_module, "_MOST_CELLS", 2)
    (sentence,) = read_run_folder(folder).damaged["analyses/bn_drift.csv"]
    assert sentence.endswith("is not shown: the tables are too large together.")


@pytest.mark.parametrize(
    "lists",
    [
        [["conv1", "layer0", "layer1", "layer2"], ["conv1", "m0", "layer1", "m2"], ["m0", "m0b", "layer1", "layer9"]],
        [["a", "b"], ["c", "d"], []],
    ],
)
def test_merged_names_keep_the_order_of_each(lists):
    merged = merge(lists)
    assert sorted(merged) == sorted({name for each in lists for name in each})
    for each in lists:
        assert sorted(each, key=merged.index) == each


def test_no_run(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="empty is no run folder"):
        read_run_folder(tmp_path / "empty")
    with pytest.raises(ValueError, match="nowhere is not there"):
        read_run_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="file is a file"):
        read_run_folder(tmp_path / "file")
    with pytest.raises(ValueError, match=r"Did you mean .*advprop/version_0"):
        read_run_folder(folder.parent)


def test_names_are_short_and_differ():
    assert name_runs([Path("runs/madry/version_0"), Path("runs/standard/version_3")]) == ["madry", "standard"]
    paths = ["runs/madry/version_0", "runs/madry/version_1", "runs/sat/version_0"]
    assert name_runs([Path(path) for path in paths]) == ["madry/version_0", "madry/version_1", "sat"]
    assert name_runs([Path("here/seed/version_0"), Path("there/seed/version_0")]) == [
        "here/seed/version_0",
        "there/seed/version_0",
    ]


def test_the_signature_changes_with_every_file(folder):
    before = signature(folder)
    with (folder / "analyses" / "bn_gap.csv").open("a") as file:
        file.write("6,")
    assert signature(folder) != before
    assert signature(folder) == signature(folder)
    before = signature(folder)
    (folder / "figures" / "new.png").write_bytes(png())
    assert signature(folder) != before


def test_a_resumed_run_has_the_settings_of_its_resume(folder):
    before = signature(folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["trainer"]["max_epochs"] = 60
    (folder / "config-resumed.yaml").write_text(yaml.safe_dump(config))
    assert signature(folder) != before
    assert read_run_folder(folder).config["trainer.max_epochs"] == "60"
    (folder / "config-resumed.yaml").write_text("model: [")
    run = read_run_folder(folder)
    assert run.config is None
    assert run.damaged["config-resumed.yaml"][0].startswith("config-resumed.yaml cannot be read (")


HEADER = "epoch,step,name,domain,statistic,value\n"


@pytest.mark.parametrize("content", ["", HEADER, HEADER + "0,49,bn1,,kl_from_st", HEADER[:20]])
def test_a_table_without_a_look_is_missing(folder, content):
    (folder / "analyses" / "bn_gap.csv").write_text(content)
    run = read_run_folder(folder)
    assert list(run.tables) == [name for name in sorted(TABLES) if name != "bn_gap"]
    assert run.missing == ["analyses/bn_gap.csv has no whole row yet: this analysis is not shown."]


STRANGE = {
    "domains": ({"main": 5, "other": [1], "odd": {"clean_accuracy": "much"}}, "main, other, odd.clean_accuracy"),
    "clean_accuracy": (math.nan, ""),
    "robust_accuracy": (10**400, ""),
    "clean_interval": (["a", "b"], ""),
    "robust_interval": ([0.1, 0.2, 0.3], ""),
    "epochs": (math.inf, ""),
    "images_per_second": (-1, ""),
    "training_seconds": (True, ""),
    "regime": (["MadryTraining"], ""),
    "threat_model": ({"norm": "Linf", "eps": [1]}, "eps"),
    "evaluation_attack": ("PGD", ""),
}


@pytest.mark.parametrize("key", STRANGE)
def test_a_strange_part_of_the_results_is_named_and_the_rest_is_shown(folder, key):
    value, parts = STRANGE[key]
    whole = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps(whole | {key: value}))
    run = read_run_folder(folder)
    keys = ", ".join(f"{key}.{part}" if part else key for part in parts.split(", "))
    assert run.damaged == {"results.json": [f"results.json holds what cannot be shown: {keys}."]}
    assert {name: run.results[name] for name in whole if name != key} == {
        name: whole[name] for name in whole if name != key
    }
    assert summary_table(["a"], [run]).count('<tr class="run">') == 1


def test_what_is_not_finite_is_counted(folder):
    with (folder / "analyses" / "smoothness.csv").open("a") as file:
        file.write("5,299,conv1,,norm,inf\n5,299,conv1,,decay_rate,nan\n")
    (folder / "metrics.csv").write_text("epoch,step,train/loss\n0,1,0.5\n1,2,nan\nnan,3,0.4\ninf,4,0.3\n")
    run = read_run_folder(folder)
    assert run.damaged == {
        "metrics.csv": [
            "metrics.csv is damaged: rows with an epoch that cannot be are left out: 2, the first in line 4.",
            "metrics.csv has 1 value that is NaN or infinite: there are gaps in the curves.",
        ],
        "analyses/smoothness.csv": [
            "analyses/smoothness.csv has 2 values that are NaN or infinite: there are gaps in the curves."
        ],
    }
    assert [epoch for epoch, _ in run.metrics["train/loss"]] == [0, 1]


def test_a_folder_of_predictions_is_no_run_that_goes_on(folder):
    (folder / "results.json").unlink()
    (folder / "predictions.csv").write_text("index\n")
    assert read_run_folder(folder).missing == ["There is no results.json: there are no results."]
