"""Perturbations of single pixels, and attacks whose outcome is known."""

import pytest
import torch
from torch import nn

from lightning_adv.analysis.images.perturbation_figures import plot_perturbations
from lightning_adv.analysis.images.perturbations import attack_outcomes, perturbation_views


def example():
    """Grey images; the first has its top left pixel changed by +8, -8 and +4 grey levels."""
    x = torch.full((2, 3, 2, 2), 0.5)
    x_adv = x.clone()
    x_adv[0, :, 0, 0] += torch.tensor([8.0, -8, 4]) / 255
    return x, x_adv


def test_views():
    x, x_adv = example()
    views = perturbation_views(x, x_adv)
    assert views.scale == pytest.approx(8 / 255)
    assert views.overall[0, :, 0, 0].tolist() == pytest.approx([1, 0, 0.75], abs=1e-6)
    assert views.overall[0, :, 1, 1].tolist() == [0.5] * 3
    assert views.mean[0].flatten().tolist() == pytest.approx([4 / 3 / 255, 0, 0, 0], abs=1e-7)
    assert views.channels[0, :, 0, 0].tolist() == pytest.approx([8 / 255, -8 / 255, 4 / 255])
    assert views.channels[1].abs().max() == 0


def test_no_perturbation_is_grey():
    x, _ = example()
    views = perturbation_views(x, x)
    assert (views.overall == 0.5).all()
    assert views.scale == 0


def test_outcomes():
    """A network that answers 1 for images that are brighter than grey."""

    class Brightness(nn.Module):
        def forward(self, x):
            score = x.mean((1, 2, 3)) - 0.5
            return torch.stack([-score, score], 1)

    def bright(*levels):
        return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)

    x, x_adv = bright(0.6, 0.9, 0.4, 0.4), bright(0.45, 0.7, 0.6, 0.3)
    outcomes = attack_outcomes(Brightness(), x, x_adv, torch.tensor([1, 1, 1, 1]), batch_size=3)
    assert outcomes.successful.tolist() == [True, False, False, False]
    assert outcomes.failed.tolist() == [False, True, False, False]


def shown(figure, column, columns=13, row=0):
    return figure.axes[row * columns + column].images[0]


@pytest.mark.slow
def test_figure_of_two_networks(tmp_path):
    x, x_adv = example()
    figure = plot_perturbations(x, {"Madry": x_adv, "standard": x}, {"Madry": ["bird", "frog"]})
    figure.savefig(tmp_path / "figure.png")
    views = ["overall", "mean", "red", "green", "blue"]
    titles = ["clean", "Madry\nadversarial", *views, "standard\nadversarial", *views]
    assert [axes.get_title() for axes in figure.axes[:13]] == titles
    assert shown(figure, 4).get_array()[0, 0] == pytest.approx(8)
    assert shown(figure, 5).get_array()[0, 0] == pytest.approx(-8)
    assert shown(figure, 4).get_clim() == pytest.approx((-8, 8))
    assert shown(figure, 12).get_clim() == pytest.approx((-8, 8)), "all networks on one scale"
    assert shown(figure, 2).get_array()[0, 0].tolist() == pytest.approx([1, 0, 0.75], abs=1e-6)
    assert shown(figure, 4, row=1).get_array().max() == 0
    assert [figure.axes[13 * row + 1].get_xlabel() for row in (0, 1)] == ["bird", "frog"]


@pytest.mark.slow
def test_figure_of_grey_images(tmp_path):
    x, x_adv = (images[:, :1] for images in example())
    figure = plot_perturbations(x, {"": x_adv}, ["first", "second"])
    figure.savefig(tmp_path / "figure.png")
    assert [axes.get_title() for axes in figure.axes[:3]] == ["clean", "\nadversarial", "perturbation"]
    assert shown(figure, 2, columns=3).get_array()[0, 0] == pytest.approx(8)
    assert [figure.axes[3 * row].get_xlabel() for row in (0, 1)] == ["first", "second"]
    plot_perturbations(x, {"": x}).savefig(tmp_path / "same.png")


def test_errors():
    x, x_adv = example()
    for call, told in [
        (lambda: perturbation_views(x, x_adv[:1]), r"one shape, at least one, got \(2, 3, 2, 2\) and \(1, 3, 2, 2\)"),
        (lambda: perturbation_views(x[:0], x_adv[:0]), "at least one"),
        (lambda: perturbation_views(x, x_adv + 1), "x_adv must be images"),
        (lambda: plot_perturbations(x[:, :2], {"": x_adv[:, :2]}), "one or three channels"),
        (lambda: plot_perturbations(x, {}), "at least one network"),
    ]:
        with pytest.raises(ValueError, match=told):
            call()
