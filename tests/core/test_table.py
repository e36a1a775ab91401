import math

import pandas
import pytest

from lightning_adv.core.table import Row, append_rows, continue_table, looks, read_table, series
from tests.faults.disk import full_disk

ROWS = [
    Row(0, 9, "layer1.0.bn1", "main", "running_mean[17]", 0.1),
    Row(0, 9, "", "", "quadratic_sum", 4123.456789),
    Row(1, 19, 'odd, "name"', "", "max", math.nan),
    Row(1, 19, "layer1", "", "max", math.inf),
]


def same(a, b):
    return repr(a) == repr(b)  # nan is itself


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "analyses" / "bn_drift.csv"
    append_rows(path, ROWS[:2])
    append_rows(path, ROWS[2:])
    assert same(read_table(path), [row._replace(value=float(f"{row.value:.9g}")) for row in ROWS])


def test_pandas_reads_it(tmp_path):
    append_rows(tmp_path / "table.csv", ROWS)
    table = pandas.read_csv(tmp_path / "table.csv", keep_default_na=False)
    assert list(table.columns) == ["epoch", "step", "name", "domain", "statistic", "value"]
    assert table.name.tolist() == [row.name for row in ROWS]
    assert table[table.statistic == "quadratic_sum"].value.astype(float).item() == pytest.approx(4123.456789)


def test_single_precision_survives(tmp_path):
    import torch

    values = torch.randn(100, generator=torch.Generator().manual_seed(0)) ** 9
    append_rows(tmp_path / "table.csv", [Row(0, 0, "", "", "v", value.item()) for value in values])
    assert torch.equal(torch.tensor([row.value for row in read_table(tmp_path / "table.csv")]), values)


@pytest.mark.parametrize("cut", range(1, 30))
def test_an_unfinished_last_line_is_left_out(tmp_path, cut):
    path = tmp_path / "table.csv"
    append_rows(path, ROWS[:1])
    whole = path.read_text()
    append_rows(path, ROWS[1:2])
    path.write_text(path.read_text()[:-cut])
    assert path.read_text().startswith(whole)
    assert read_table(path) == ROWS[:1]


def test_a_table_of_which_nothing_is_written_yet(tmp_path):
    (tmp_path / "table.csv").write_text("epoch,st")
    assert read_table(tmp_path / "table.csv") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "is no table of an analysis"),
        (
            "epoch,step,name,domain,statistic,value\n1,2\n",
            "than there are columns are left out: 1, in line 2",
        ),
    ],
)
def test_other_files(tmp_path, text, message):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / "table.csv")


def test_series_are_of_one_number():
    rows = [Row(1, 19, "a", "", "max", 2.0), Row(0, 9, "a", "", "max", 1.0), Row(0, 9, "b", "", "max", 3.0)]
    assert series(rows, "a", "", "max") == [(9, 1.0), (19, 2.0)]


def test_looks_stand_at_their_epochs_or_at_their_steps_if_an_epoch_has_several():
    rows = [Row(epoch, step, "", "", "max", 1.0) for epoch, step in ((1, 19), (0, 9), (1, 19), (2, 29))]
    assert looks(rows) == ({9: 0, 19: 1, 29: 2}, "epoch")
    assert list(looks(rows).at) == [9, 19, 29]
    assert looks([*rows, Row(2, 24, "", "", "max", 1.0)]) == ({9: 9, 19: 19, 24: 24, 29: 29}, "optimizer step")


def test_a_table_goes_on_after_the_last_look_that_is_remembered(tmp_path):
    path = tmp_path / "table.csv"
    continue_table(path, 3)
    assert not path.exists()
    rows = [Row(0, step, "größe", "naïve", "max", 1.0) for step in range(5)]
    append_rows(path, rows)
    continue_table(path, 4)
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]
    continue_table(path, 2)
    assert read_table(path) == rows[:3]
    assert read_table(tmp_path / "table-until-resume-1.csv") == rows


def test_excels_mark_is_not_a_name(tmp_path):
    path = tmp_path / "table.csv"
    append_rows(path, ROWS[:1])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_table(path) == ROWS[:1]


def test_after_a_full_disk_rows_go_on_at_a_line_of_their_own(tmp_path):
    path, rows = tmp_path / "table.csv", [Row(0, step, "layer", "", "norm", 0.5) for step in range(20)]
    append_rows(path, rows[:5])
    with full_disk(path.stat().st_size + 30), pytest.raises(OSError, match=r"table\.csv"):
        append_rows(path, rows[5:15])
    append_rows(path, rows[15:])
    assert read_table(path) == rows[:5] + rows[15:]


def test_names_are_kept_once(tmp_path):
    append_rows(tmp_path / "table.csv", [Row(epoch, epoch, "layer1.0.conv1", "main", "max", 0.5) for epoch in range(3)])
    first, *others = read_table(tmp_path / "table.csv")
    for row in others:
        assert row.name is first.name
        assert row.domain is first.domain
        assert row.statistic is first.statistic
