"""With numbers worked out by hand and networks whose answers are known."""

import csv
import io
import json

import pytest
import torch
from torch import nn
from torchvision.models import AlexNet_Weights

from lightning_adv.core.shares import wilson_interval
from lightning_adv.evaluation.corruptions.corrupt import CORRUPTIONS, corrupt
from lightning_adv.evaluation.corruptions.errors import (
    ALEXNET_CLEAN_ERROR,
    ALEXNET_ERRORS,
    CorruptionError,
    corruption_errors,
    mce,
    mean_error,
    mean_errors,
    read_errors,
    relative_mce,
    sum_errors,
)
from lightning_adv.testing.untouched import Snapshot


class Brighter(nn.Module):
    """Answers 1 where the mean of an image is above a threshold."""

    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold
        self.largest_batch = 0

    def forward(self, x):
        self.largest_batch = max(self.largest_batch, len(x))
        score = x.mean((1, 2, 3)) - self.threshold
        return torch.stack([-score, score], 1)


def rows_of(errors, total=100):
    """Rows of {corruption: [wrong at severity 1, 2, ...]}."""
    return [
        CorruptionError(name, severity, "by hand", total - wrong, total)
        for name, several in errors.items()
        for severity, wrong in enumerate(several, start=1)
    ]


def test_brightness_moves_grey_images_over_a_threshold():
    """By 0.05, 0.1, 0.15, 0.2, 0.3, the published constants; the first image passes 0.555 at severity 3."""
    x = torch.tensor([0.42, 0.3, 0.9, 0.1]).view(4, 1, 1, 1).expand(4, 3, 32, 32)
    y = torch.tensor([1, 1, 1, 1])
    rows = corruption_errors(Brighter(0.555), x, y, seed=0, corruptions=["brightness", "pixelate"])
    assert rows == [
        CorruptionError(name, severity, "cifar, regenerated", correct, 4)
        for name, counts in (("brightness", (1, 1, 2, 2, 3)), ("pixelate", (1, 1, 1, 1, 1)))
        for severity, correct in enumerate(counts, start=1)
    ]
    assert [row.error for row in rows[:5]] == [0.75, 0.75, 0.5, 0.5, 0.25]
    assert rows[0].interval == wilson_interval(3, 4)
    assert mean_errors(rows) == pytest.approx({"brightness": 0.55, "pixelate": 0.75})
    assert mean_error(rows) == pytest.approx(0.65)


@pytest.mark.slow
def test_all_seventy_five_against_a_loop_over_images():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).double()
    x, y = torch.rand(12, 1, 8, 8, dtype=torch.float64), torch.randint(5, (12,))
    rows = corruption_errors(network, x, y, seed=5, index=100, batch_size=5)
    assert [row[:2] for row in rows] == [(name, severity) for name in CORRUPTIONS for severity in range(1, 6)]
    for row in rows:
        answers = [
            int(network(corrupt(x[k : k + 1], row.corruption, row.severity, seed=5, index=100 + k)).argmax())
            for k in range(12)
        ]
        assert row.correct == sum(answer == label for answer, label in zip(answers, y.tolist(), strict=True))
        assert row.total == 12
    assert 0 < mean_error(rows) < 1


def test_parts_of_a_data_set_add_up_to_the_whole():
    torch.manual_seed(1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    x, y = torch.rand(30, 3, 8, 8), torch.randint(10, (30,))
    settings = {"seed": 0, "corruptions": ["gaussian_noise", "fog"], "severities": [1, 5]}
    whole = corruption_errors(network, x, y, **settings)
    parts = [corruption_errors(network, x[k::3], y[k::3], index=list(range(k, 30, 3)), **settings) for k in range(3)]
    assert sum_errors(parts) == whole
    assert [(row.corruption, row.severity) for row in whole] == [
        ("gaussian_noise", 1), ("gaussian_noise", 5), ("fog", 1), ("fog", 5)
    ]  # fmt: skip
    assert any(row.correct != corrected.correct for row, corrected in zip(
        whole, corruption_errors(network, x, y, **settings | {"seed": 1}), strict=True))  # fmt: skip


def test_batches_stay_small():
    network = Brighter(0.5)
    corruption_errors(network, torch.rand(20, 3, 8, 8), torch.ones(20, dtype=torch.int64), seed=0,
                      corruptions=["contrast"], severities=[1], batch_size=6)  # fmt: skip
    assert network.largest_batch == 6


def test_the_network_is_left_as_it_was():
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(128, 2)).train()
    before, x, y = Snapshot(network), torch.rand(40, 3, 8, 8), torch.randint(2, (40,))
    (row,) = corruption_errors(network, x, y, seed=0, corruptions=["fog"], severities=[1])
    assert before.difference() is None
    assert row.correct == int((network.eval()(corrupt(x, "fog", 1, seed=0)).argmax(1) == y).sum())


def test_mce_by_hand():
    """CE of fog (10 + 20) / (40 + 60) = 0.3, of snow (30 + 50) / (50 + 50) = 0.8."""
    rows = rows_of({"fog": [10, 20], "snow": [30, 50]})
    baseline = rows_of({"snow": [100, 100], "fog": [80, 120], "frost": [1, 1]}, total=200)
    assert mce(rows, baseline) == pytest.approx((0.3 + 0.8) / 2)
    assert mce(baseline, baseline) == pytest.approx(1)
    # Clean errors 5 % and 20 %: (30 - 10) / (100 - 40) and (80 - 10) / (100 - 40)
    relative = relative_mce(rows, baseline, clean_error=0.05, baseline_clean_error=0.2)
    assert relative == pytest.approx((20 / 60 + 70 / 60) / 2)
    assert relative_mce(rows, baseline, clean_error=0, baseline_clean_error=0) == mce(rows, baseline)
    assert mean_error(rows) == pytest.approx(0.275)


def test_alexnet_is_the_measure_of_imagenet():
    exact = [
        CorruptionError(name, severity, "published", round(1e6 * (1 - error)), 1_000_000)
        for name, error in ALEXNET_ERRORS.items()
        for severity in range(1, 6)
    ]
    assert mce(exact, ALEXNET_ERRORS) == pytest.approx(1)
    assert tuple(ALEXNET_ERRORS) == tuple(CORRUPTIONS)
    told = AlexNet_Weights.IMAGENET1K_V1.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    assert abs(ALEXNET_CLEAN_ERROR - (1 - told / 100)) < 5e-4
    assert relative_mce(exact, ALEXNET_ERRORS, clean_error=0.435, baseline_clean_error=0.435) == pytest.approx(1)


def test_rows_come_back_from_csv_and_json():
    rows = rows_of({"fog": [10, 20], "snow": [30, 50]})
    file = io.StringIO()
    writer = csv.DictWriter(file, [*CorruptionError._fields, "epoch"])
    writer.writeheader()
    writer.writerows(row._asdict() | {"epoch": 3} for row in rows)
    file.seek(0)
    assert read_errors(csv.DictReader(file)) == rows
    assert read_errors(json.loads(json.dumps([row._asdict() for row in rows]))) == rows
    assert read_errors([{"corruption": "fog", "severity": 1, "correct": 1, "total": 2}])[0].images == ""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"corruption": "fogg"}, "Did you mean 'fog'?"),
        ({"severity": "6"}, "severity must be one of"),
        ({"severity": None}, "must have a corruption, a severity, correct and total"),
        ({"correct": 3}, "got 3 of 2"),
        ({"total": "two"}, "two"),
    ],
)
def test_bad_records_are_told(change, told):
    record = {"corruption": "fog", "severity": 1, "correct": 1, "total": 2}
    with pytest.raises(ValueError, match=told):
        read_errors([record | change])
    with pytest.raises(ValueError, match="'total'"):
        read_errors([{"corruption": "fog", "severity": 1, "correct": 1}])


def test_incomplete_tables_are_told():
    rows = rows_of({"fog": [10, 20], "snow": [30, 50]})
    for given, told in [
        ([], "got none"),
        (rows[:3], r"snow at the severities of the others, \[1, 2\], got \[1\]"),
        (rows + rows[:1], "fog at severity 1 twice; sum_errors"),
    ]:
        with pytest.raises(ValueError, match=told):
            mean_error(given)
    for baseline, told in [
        (rows_of({"fog": [1, 2]}), "snow is missing"),
        (rows_of({"fog": [1], "snow": [2]}), r"same severities, got \[1, 2\] and \[1\]"),
        (ALEXNET_ERRORS, r"same severities, got \[1, 2\] and \[1, 2, 3, 4, 5\]"),
        (rows_of({"fog": [0, 0], "snow": [1, 1]}), "error on fog must be above 0 .* got 0"),
    ]:
        with pytest.raises(ValueError, match=told):
            mce(rows, baseline)
    with pytest.raises(ValueError, match=r"clean_error must lie in \[0, 1\], got 23.9"):
        relative_mce(rows, rows, clean_error=23.9, baseline_clean_error=0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"severities": [1, 7]}, "got 7"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"x": torch.zeros(0, 3, 8, 8), "y": torch.zeros(0, dtype=torch.int64)}, "at least one image"),
        ({"x": torch.full((3, 3, 8, 8), 1.5)}, r"x must lie in \[0, 1\]"),
        ({"y": torch.zeros(3)}, "y must be integer labels"),
    ],
)
def test_bad_input_is_told_before_the_network_runs(arguments, told):
    network = Brighter(0.5)
    given = {"x": torch.ones(3, 3, 8, 8), "y": torch.ones(3, dtype=torch.int64), "seed": 0} | arguments
    with pytest.raises(ValueError, match=told):
        corruption_errors(network, **given)
    assert network.largest_batch == 0
