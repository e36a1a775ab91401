"""The figures of the BatchNorm analyses show what is in the table, whatever is in it."""

import math

import pytest

from lightning_adv.analysis.batchnorm_figures import (
    channel_layers,
    plot_channels_by_domain,
    plot_drift,
    plot_gaps,
    plot_running_against_batch,
    references,
)
from lightning_adv.core.table import Row

# BatchNorm drift ------------------------------------------------------------------------------------------------------


def drift_table(epochs, *, domains=("main", "adversarial"), layers=("a", "b"), kl=lambda epoch: epoch + 1.0):
    rows = []
    for epoch in range(epochs):
        for name in layers:
            for number, domain in enumerate(domains):
                at = (epoch, 4 * epoch + 3, name, domain)
                rows.append(Row(*at, "kl_from_start", kl(epoch)))
                if number:
                    rows.append(Row(*at, "kl_from_main", 0.1 * kl(epoch)))
                for channel in (2, 17) if name == "b" else ():
                    rows.append(Row(*at, f"running_mean[{channel}]", epoch + channel + 0.5 * number))
                    rows.append(Row(*at, f"running_variance[{channel}]", 100 + epoch + channel + 0.5 * number))
    return rows


def lines(axes):
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines}


def test_figure_of_domains():
    rows = drift_table(3)
    assert channel_layers(rows) == ["b"]
    mean, variance = plot_channels_by_domain(rows, "b").axes
    assert lines(mean) == {"main": [4, 19], "adversarial": [4.5, 19.5]}
    assert lines(variance) == {"main": [104, 119], "adversarial": [104.5, 119.5]}
    assert [tick.get_text() for tick in mean.get_xticklabels()] == ["2", "17"]


def test_figure_without_domains_is_of_the_first_and_the_last_look():
    mean, _ = plot_channels_by_domain(drift_table(3, domains=("",)), "b").axes
    assert lines(mean) == {"epoch 0": [2, 17], "epoch 2": [4, 19]}
    mean, _ = plot_channels_by_domain(drift_table(1, domains=("",)), "b").axes
    assert lines(mean) == {"epoch 0": [2, 17]}


def test_looks_within_an_epoch_are_told_by_their_step():
    rows = [row._replace(epoch=0) for row in drift_table(3, domains=("",))]
    mean, _ = plot_channels_by_domain(rows, "b").axes
    assert list(lines(mean)) == ["optimizer step 3", "optimizer step 11"]


def test_heat_map():
    rows = drift_table(3)
    assert references(rows) == ["start", "main"]
    *panels, _ = plot_drift(rows, "start").axes
    assert [panel.get_title() for panel in panels] == ["main", "adversarial"]
    for panel in panels:
        (image,) = panel.images
        assert image.get_array().tolist() == [[1, 2, 3], [1, 2, 3]]
    assert [tick.get_text() for tick in panels[0].get_yticklabels()] == ["a", "b"]
    assert panels[0].get_xlabel() == "Epoch"
    panel, _ = plot_drift(rows, "main").axes
    assert panel.get_title() == "adversarial"


@pytest.mark.slow
@pytest.mark.parametrize("values", [(0, 0, 0), (math.nan, 0, 2), (math.inf, 1, 0), (1e-300, 1, 1), (2, 2, 2)])
def test_heat_map_of_what_has_no_logarithm(tmp_path, values):
    figure = plot_drift(drift_table(3, kl=lambda epoch: values[epoch]), "start")
    figure.savefig(tmp_path / "figure.png")
    shown = figure.axes[0].images[0].get_array()
    assert shown[0].compressed().tolist() == [value for value in values if 0 < value < math.inf]


def test_a_resumed_step_counts_once():
    rows = [*drift_table(3), *(row._replace(value=row.value + 100) for row in drift_table(3) if row.step == 11)]
    (image,) = plot_drift(rows, "start").axes[0].images
    assert image.get_array().tolist() == [[1, 2, 103]] * 2


@pytest.mark.slow
def test_many_layers_and_looks(tmp_path):
    layers = [f"layer{n}" for n in range(155)]
    figure = plot_drift(drift_table(100, layers=layers), "start")
    figure.savefig(tmp_path / "figure.png")
    assert len(figure.axes[0].get_yticks()) <= 40
    assert len(figure.axes[0].get_xticks()) <= 10


# Running against batch statistics -------------------------------------------------------------------------------------


def gap_table(epochs, domains=("main", "adversarial")):
    rows = []
    for epoch in range(epochs):
        for number, domain_name in enumerate(domains):
            for layer in ("a", "b"):
                at = (epoch, 4 * epoch + 3, layer, domain_name)
                for kind, more in (("clean", 0), ("adversarial", 1)):
                    for moment, scale in (("mean", 1), ("variance", 10)):
                        gap = scale * (epoch + more + 2 * (layer == "b"))
                        rows.append(Row(*at, f"{kind}_relative_{moment}_gap", gap))
                        for batch in (0, 1) if layer == "b" else ():
                            value = scale * (1 + epoch) + more + 0.1 * batch + 0.01 * number
                            rows.append(Row(*at, f"{kind}_{moment}_batch{batch}[5]", value))
                if layer == "b":
                    rows += [Row(*at, f"running_{moment}[5]", epoch) for moment in ("mean", "variance")]
    return rows


@pytest.mark.slow
def test_figure_of_batches(tmp_path):
    rows = gap_table(3)
    assert channel_layers(rows) == ["b"]
    figure = plot_running_against_batch(rows, "b")
    figure.savefig(tmp_path / "figure.png")
    assert len(figure.axes) == 8
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:2] == ["Mean, clean images, main BatchNorm", "Variance, clean images, main BatchNorm"]
    assert titles[-1] == "Variance, adversarial images, adversarial BatchNorm"
    assert lines(figure.axes[0]) == {"running": [2], "batch 0": [3], "batch 1": [pytest.approx(3.1)]}
    last = {"running": [2], "batch 0": [pytest.approx(31.01)], "batch 1": [pytest.approx(31.11)]}
    assert lines(figure.axes[-1]) == last


@pytest.mark.slow
def test_figure_of_gaps(tmp_path):
    figure = plot_gaps(gap_table(3))
    figure.savefig(tmp_path / "figure.png")
    mean, variance = figure.axes
    curves = {(kind, d): f"{kind} images, {d}" for kind in ("clean", "adversarial") for d in ("main", "adversarial")}
    assert set(lines(mean)) == set(curves.values())
    assert lines(mean)["clean images, main"] == [1, 2, 3], "the mean of the layers epoch and epoch + 2"
    assert lines(variance)["adversarial images, adversarial"] == [20, 30, 40]
    assert list(mean.lines[0].get_xdata()) == [0, 1, 2]
    assert set(lines(plot_gaps(gap_table(2, domains=("",))).axes[0])) == {"clean images", "adversarial images"}


# ----------------------------------------------------------------------------------------------------------------------
