"""Figures of odd tables: names that are no words, numbers that are none. A picture must not end an evaluation.

Nor does any figure change what is global to matplotlib.
"""

import io
import itertools
import math
import warnings

import matplotlib
import pytest
import torch

from lightning_adv.analysis.batchnorm_figures import (
    channel_layers,
    plot_channels_by_domain,
    plot_drift,
    plot_gaps,
    plot_running_against_batch,
)
from lightning_adv.analysis.images.frequency_figures import plot_frequency_accuracy, plot_transformed_accuracy
from lightning_adv.analysis.images.perturbation_figures import plot_perturbations
from lightning_adv.analysis.images.transformed_accuracy import TransformedAccuracy
from lightning_adv.analysis.local_response_figures import plot_last_responses, plot_responses
from lightning_adv.analysis.training_curves import plot_training_curves
from lightning_adv.analysis.weight_smoothness_figures import plot_kernels, plot_smoothness
from lightning_adv.core.figures import label
from lightning_adv.core.table import Row
from lightning_adv.evaluation.corruptions.errors import CorruptionError
from lightning_adv.evaluation.corruptions.figures import plot_corruption_errors
from lightning_adv.evaluation.transfer.figures import plot_ensemble_transfer, plot_transfer
from lightning_adv.evaluation.transfer.rates import TransferRate
from tests.report.fake_runs import _drift, _gap, _response, _smoothness

NAMES = ["$x_{$", "_orig_mod.x", "层.é", "\x1b[31m", "\udcff", "x" * 200]
DOMAINS = ["main", "_$y^{$"]
VALUES = [math.nan, math.inf, -math.inf, 0.0, -1.0, 3e38]


@pytest.fixture(autouse=True)
def _nothing_global_is_touched():
    before, backend = dict(matplotlib.rcParams), matplotlib.rcParams._get("backend")
    yield
    assert (dict(matplotlib.rcParams), matplotlib.rcParams._get("backend")) == (before, backend)


def draw(figure):
    """Return the texts of a figure, after it was drawn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs that the font lacks, and panels without room
        figure.savefig(io.BytesIO(), format="png", dpi=20)
    return {text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))}


def rows(writer, layers, domains, values, looks):
    """The table of an analysis; with `values` these, one after the other."""
    other = itertools.cycle(values)
    return [
        Row(look, 50 * look + 49, *key, next(other) if values else number)
        for look in range(looks)
        for key, number in writer(look / 2, domains, layers, 2, 5e-4, 0)
    ]


def figures(layers, domains, values=(), looks=2):
    """Every figure of the four analyses."""
    drift, gap, smoothness, response = (
        rows(writer, layers, domains, values, looks) for writer in (_drift, _gap, _smoothness, _response)
    )
    yield plot_drift(drift)
    yield plot_channels_by_domain(drift, channel_layers(drift)[0])
    yield plot_gaps(gap)
    yield plot_running_against_batch(gap, channel_layers(gap)[0])
    yield plot_smoothness(smoothness)
    yield plot_kernels(smoothness)
    yield plot_responses([row._replace(name=row.name and f"{layers[0]}{row.name}") for row in response], domains[0])
    yield plot_last_responses([row._replace(name=row.name and f"{layers[0]}{row.name}") for row in response])


@pytest.mark.slow
def test_names_of_layers_and_domains_are_written_as_they_are():
    for figure in figures(NAMES, DOMAINS):
        texts = draw(figure)
        assert any(label(name) in text for name in (NAMES[0], DOMAINS[1]) for text in texts)


@pytest.mark.slow
def test_values_that_are_no_numbers_leave_gaps():
    for figure in figures(["bn1"], [""], VALUES, looks=1):
        draw(figure)


@pytest.mark.slow
@pytest.mark.parametrize("value", [math.nan, math.inf, 3e38])
def test_curves_that_are_no_numbers_leave_gaps(value):
    curves = {key: [(0, value), (1, value)] for key in ("val/clean_accuracy", "train/loss", "lr-SGD")}
    draw(plot_training_curves(curves))
    draw(plot_training_curves({"val/clean_accuracy": [], "lr-SGD": [(0, value)]}))


@pytest.mark.slow
def test_names_of_networks_and_attacks_are_written_as_they_are():
    name = "_a$x_{$"
    drawn = [
        plot_training_curves({f"val/clean_accuracy_{name}": [(0, 0.5)], f"lr-{name}": [(0, 0.1)]}),
        plot_corruption_errors({name: [CorruptionError("fog", 1, name, 1, 2)]}),
        plot_transfer([rate(name, name, name, True)]),
        plot_ensemble_transfer([rate(name, f"-{name}", f"-{name}", True), rate(name, f"-{name}", name, False)]),
        plot_frequency_accuracy({name: [transformed("low_pass")]}),
        plot_transformed_accuracy({name: [transformed("saturation")]}),
        plot_perturbations(torch.rand(1, 1, 4, 4), {name: torch.rand(1, 1, 4, 4)}, [name]),
    ]
    for figure in drawn:
        assert any(label(name).strip() in text for text in draw(figure))


def rate(attack, source, target, white_box):
    fields = dict.fromkeys(TransferRate._fields, 1) | {"white_box": white_box}
    return TransferRate(**fields | {"attack": attack, "source": source, "target": target})


def transformed(transform):
    fields = dict.fromkeys(TransformedAccuracy._fields, 1)
    return TransformedAccuracy(**fields | {"transform": transform, "images": "clean"})
