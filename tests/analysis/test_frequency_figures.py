"""The figures show the numbers that they are given."""

import pytest
import torch

from lightning_adv.analysis.images.frequency_figures import (
    plot_frequency_accuracy,
    plot_spectra,
    plot_transformed_accuracy,
)
from lightning_adv.analysis.images.transformed_accuracy import TransformedAccuracy


def frequency_table(filters=("low_pass", "merged", "high_pass")):
    return [
        TransformedAccuracy(name, level, images, 10 * (number + 1) + more, 100)
        for number, name in enumerate(filters)
        for more, level in ((5, 1.4), (0, 0.0))
        for images in ("clean", "adversarial")
    ]


def lines(axes):
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}


@pytest.mark.slow
def test_curves_over_the_frequency_scale(tmp_path):
    figure = plot_frequency_accuracy({"standard": frequency_table(), "Madry": frequency_table()})
    figure.savefig(tmp_path / "figure.png")
    assert len(figure.axes) == 6
    low, merged, high, *_ = figure.axes
    assert lines(low) == {"clean images": ([0, 1.4], [10, 15]), "adversarial images": ([0, 1.4], [10, 15])}
    assert set(lines(merged)) == {"clean images", "adversarial images"}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["clean images", "adversarial images"]
    assert lines(high)["clean images"][1] == [30, 35]
    assert low.get_title() == "Frequencies up to here, standard"
    assert len(low.collections) == 2, "a band of 95 % for each"
    assert figure.axes[-1].get_title() == "Frequencies above here, Madry"
    assert low.get_ylim() == (0, 100)


def test_only_the_filters_that_there_are():
    figure = plot_frequency_accuracy({"": frequency_table(["high_pass"])})
    assert [axes.get_title() for axes in figure.axes] == ["Frequencies above here"]


@pytest.mark.slow
def test_accuracy_on_correctly_classified_images(tmp_path):
    tables = {
        network: [
            TransformedAccuracy("saturation", 64, "correct", 20 + more, 50),
            TransformedAccuracy("saturation", 0.25, "correct", 10 + more, 50),
            TransformedAccuracy("patch_shuffle", 2, "correct", 5 + more, 50),
            TransformedAccuracy("patch_shuffle", 8, "correct", 5 + more, 50),
            TransformedAccuracy("random_filter", 0.1, "correct", 25 + more, 50),
        ]
        for network, more in (("standard", 0), ("Madry", 20))
    }
    figure = plot_transformed_accuracy(tables)
    figure.savefig(tmp_path / "figure.png")
    saturation, patches, random = figure.axes
    assert lines(saturation) == {"standard": ([0.25, 64], [20, 40]), "Madry": ([0.25, 64], [60, 80])}
    assert saturation.get_xscale() == "log"
    assert list(patches.get_xticks()) == [2, 8]
    assert lines(random) == {"standard": ([0.1], [50]), "Madry": ([0.1], [90])}


@pytest.mark.parametrize("plot", [plot_frequency_accuracy, plot_transformed_accuracy])
@pytest.mark.parametrize("tables", [{}, {"standard": []}])
def test_nothing_to_draw_is_an_error(plot, tables):
    with pytest.raises(ValueError, match="must have rows"):
        plot(tables)


@pytest.mark.slow
def test_spectra_and_their_differences(tmp_path):
    clean = torch.arange(12.0).view(3, 4)
    figure = plot_spectra(clean, {"standard": clean + 2, "Madry": clean - 0.5})
    figure.savefig(tmp_path / "figure.png")
    shown = {axes.get_title(): axes.images[0] for axes in figure.axes if axes.images and axes.get_title()}
    assert list(shown) == ["clean", "adversarial, standard", "adversarial, Madry",
                           "adversarial − clean, standard", "adversarial − clean, Madry"]  # fmt: skip
    assert shown["adversarial, standard"].get_array().tolist() == (clean + 2).tolist()
    assert {shown[name].get_clim() for name in list(shown)[:3]} == {(-0.5, 13)}
    assert {shown[name].get_clim() for name in list(shown)[3:]} == {(-2, 2)}
    assert (shown["adversarial − clean, Madry"].get_array() == -0.5).all()
    # four columns -2, ..., 1 and three rows -1, 0, 1 on the frequency scale, each as wide as its step
    assert shown["clean"].get_extent() == pytest.approx([-1.25, 0.75, -1, 1])


@pytest.mark.slow
def test_spectra_of_clean_images_alone_and_of_no_difference(tmp_path):
    clean = torch.zeros(4, 4)
    plot_spectra(clean, {}).savefig(tmp_path / "alone.png")
    plot_spectra(clean, {"": clean}).savefig(tmp_path / "same.png")
    with pytest.raises(ValueError, match=r"one shape \(H, W\), got \(4, 4\) and for Madry \(2, 2\)"):
        plot_spectra(clean, {"Madry": torch.zeros(2, 2)})


def test_rows_of_all_images_are_top_1():
    figure = plot_transformed_accuracy({"madry": [TransformedAccuracy("saturation", 64, "clean", 20, 50)]})
    assert figure.axes[0].get_ylabel() == "Top-1 (%)"
    figure = plot_transformed_accuracy({"madry": [TransformedAccuracy("saturation", 64, "correct", 20, 50)]})
    assert figure.axes[0].get_ylabel() == "Accuracy on correctly classified images (%)"
