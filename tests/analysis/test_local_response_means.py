"""Means of local response differences over images, and their figures: against numbers that can be added by hand."""

import math

import pytest
import torch

from lightning_adv.analysis.local_response import Comparison, LocalResponses
from lightning_adv.analysis.local_response_figures import plot_last_responses, plot_responses
from lightning_adv.core.table import Row


def seen(maximum, total, clean, adversarial):
    """A comparison of one layer whose networks answer the given classes, of two."""
    return Comparison(
        {"layer": torch.tensor(maximum)}, {"layer": torch.tensor(total)}, torch.eye(2)[clean], torch.eye(2)[adversarial]
    )


def test_means_over_successful_and_failed_attacks():
    metric = LocalResponses(["layer"])
    # misclassified to begin with, turned, withstood, turned
    metric.update(seen([8.0, 1, 2, 3], [80.0, 10, 20, 30], [1, 0, 1, 1], [1, 1, 1, 0]), torch.tensor([0, 0, 1, 1]))
    assert metric.compute() == {
        "": {"images": 4, "images_successful": 2, "images_failed": 1},
        "layer": {
            "max": 14 / 4,
            "max_successful": 2,
            "max_failed": 2,
            "total": 140 / 4,
            "total_successful": 20,
            "total_failed": 20,
        },
    }


def test_batches_and_processes_add_up():
    drawn = torch.Generator().manual_seed(0)
    maximum, total = torch.rand(2, 100, generator=drawn).tolist()
    clean, adversarial, y = torch.randint(2, (3, 100), generator=drawn)
    whole, parts = LocalResponses(["layer"]), [LocalResponses(["layer"]) for _ in range(2)]
    whole.update(seen(maximum, total, clean, adversarial), y)
    for number, begin in enumerate(range(0, 100, 7)):
        part = slice(begin, begin + 7)
        parts[number % 2].update(seen(maximum[part], total[part], clean[part], adversarial[part]), y[part])
    gathered = LocalResponses(["layer"])
    for name, reduction in gathered._reductions.items():  # what torchmetrics does across processes
        setattr(gathered, name, reduction(torch.stack([getattr(part, name) for part in parts])))
    gathered._update_count = 1
    ours, theirs = gathered.compute(), whole.compute()
    assert ours[""] == theirs[""]
    assert ours["layer"] == pytest.approx(theirs["layer"], rel=1e-12)
    turned = [m for m, c, a, t in zip(maximum, clean, adversarial, y, strict=True) if c == t != a]
    assert theirs["layer"]["max_successful"] == pytest.approx(sum(turned) / len(turned))


def test_no_images_have_no_mean_and_an_overflow_stays_where_it_is():
    metric = LocalResponses(["layer"])
    metric.update(seen([1.0, math.inf], [1.0, math.inf], [0, 1], [0, 1]), torch.tensor([0, 0]))
    numbers = metric.compute()
    assert numbers[""] == {"images": 2, "images_successful": 0, "images_failed": 1}
    assert numbers["layer"] == {"max": math.inf, "total": math.inf, "max_failed": 1, "total_failed": 1}


def test_sums_are_in_double_precision():
    metric = LocalResponses(["layer"])
    metric.update(seen([1e8], [1e8], [0], [0]), torch.tensor([0]))
    for _ in range(10):
        metric.update(seen([1.0], [1.0], [0], [0]), torch.tensor([0]))
    assert metric.compute()["layer"]["max"] == (1e8 + 10) / 11


# Figures --------------------------------------------------------------------------------------------------------------


def rows_of(epochs, names=("conv1", "layer0"), domains=("",), prefixes=("",)):
    rows = []
    for epoch in range(epochs):
        for domain in domains:
            for prefix in prefixes:
                for depth, name in enumerate(names):
                    for statistic, scale in (("max", 1.0), ("total", 1000.0)):
                        for group in ("", "_successful", "_failed"):
                            value = scale * (depth + 1) / (epoch + 1) + len(prefix) + len(group)
                            at = (epoch, 10 * epoch + 9, name, domain)
                            rows.append(Row(*at, f"{prefix}{statistic}{group}", value))
                rows.append(Row(epoch, 10 * epoch + 9, "", domain, f"{prefix}images", 256.0))
    return rows


def test_curves_show_own_examples_through_one_domain():
    rows = rows_of(3, domains=("main", "adversarial"), prefixes=("", "transferred_"))
    rows = [row._replace(value=-1.0) if row.domain == "main" else row for row in rows]
    largest, total = plot_responses(rows, "adversarial").axes
    assert [line.get_label() for line in largest.lines] == ["conv1", "layer0"]
    assert tuple(largest.lines[1].get_ydata()) == pytest.approx((2, 1, 2 / 3))
    assert tuple(total.lines[0].get_ydata()) == pytest.approx((1000, 500, 1000 / 3))
    assert (largest.get_yscale(), total.get_yscale()) == ("linear", "log")


def test_the_last_look_by_layer():
    rows = rows_of(2, domains=("main", "adversarial"), prefixes=("", "transferred_"))
    axes = plot_last_responses(rows).axes
    assert len(axes) == 4
    labels = [line.get_label() for line in axes[0].lines]
    assert labels == ["own examples", "transferred examples", "own, attack successful", "own, attack failed"]
    assert tuple(axes[0].lines[0].get_ydata()) == pytest.approx((0.5, 1))
    assert tuple(axes[2].lines[1].get_ydata()) == pytest.approx((512, 1012))


def test_a_look_without_any_difference_can_be_drawn():
    rows = [row._replace(value=0.0) for row in rows_of(1)]
    assert plot_responses(rows).axes[1].get_yscale() == "linear"
    assert plot_last_responses(rows).axes[0].get_yscale() == "linear"
