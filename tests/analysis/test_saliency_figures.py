"""Pictures of saliency maps: what stands where."""

import pytest
import torch

from lightning_adv.analysis.features import plot_saliency, plot_saliency_numbers, plot_saliency_over_training
from lightning_adv.core.errors import UsageError
from lightning_adv.core.figures import to_png
from lightning_adv.core.table import Row


def shown(axes):
    return [torch.as_tensor(image.get_array()) for image in axes.images]


@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_has_a_map_of_each_network_beside_it(channels):
    x = torch.rand(6, channels, 4, 4)
    own = {"a": 1 - x, "b": x / 2}
    networks = {"a": torch.randn(6, channels, 4, 4), "b": torch.zeros(6, channels, 4, 4)}
    figure = plot_saliency({"clean": x, "pgd": own}, {"clean": networks, "pgd": networks}, ["zero"])
    drawn = [axes for axes in figure.axes if axes.images]
    assert len(drawn) == 6 * (3 + 2 + 2)  # image and maps; under them the examples, and their maps
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["zero", "a", "b"] + ["image", "a", "b"] * 5
    names = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert names == ["clean", "pgd", "pgd,\nmaps"] * 2  # four images across
    image = x[0].permute(1, 2, 0) if channels == 3 else x[0, 0]
    torch.testing.assert_close(shown(drawn[0])[0], image)
    assert shown(drawn[1])[0].max() == 1
    assert shown(drawn[2])[0].max() == 0
    to_png(figure, dpi=20)


def test_what_does_not_belong_together_is_told():
    x = torch.rand(2, 1, 4, 4)
    for images, maps, told in [
        ({"clean": x}, {"other": {"a": x}}, "same versions"),
        ({}, {}, "same versions"),
        ({"clean": x}, {"clean": {}}, "at least one"),
        ({"clean": x, "pgd": {"b": x}}, {"clean": {"a": x}, "pgd": {"a": x}}, r"same networks .* got \['b'\]"),
        ({"clean": x[:1]}, {"clean": {"a": x}}, "one shape"),
        ({"clean": x.repeat(1, 2, 1, 1)}, {"clean": {"a": x.repeat(1, 2, 1, 1)}}, "one or three channels"),
    ]:
        with pytest.raises(UsageError, match=told):
            plot_saliency(images, maps)


def test_maps_over_training_have_a_column_for_each_look():
    pictures = {3: torch.rand(2, 4, 4), 6: torch.rand(2, 4, 4)}
    figure = plot_saliency_over_training(torch.rand(2, 3, 4, 4), pictures, "step")
    assert [axes.get_title() for axes in figure.axes] == ["image", "step 3", "step 6", "", "", ""]
    torch.testing.assert_close(shown(figure.axes[5])[0], pictures[6][1])


def test_numbers_have_a_line_for_each_domain_and_statistic():
    statistics = ("gini", "l2_from_first", "l2_from_last", "cosine_from_last")
    rows = [
        Row(epoch, epoch, "", domain, statistic, epoch / 10)
        for epoch in (0, 1)
        for domain in ("main", "adversarial")
        for statistic in statistics
    ]
    panels = plot_saliency_numbers(rows).axes
    assert [len(axes.lines) for axes in panels] == [2, 4, 2]
    assert [line.get_label() for line in panels[1].lines][:2] == ["From first, main", "From last, main"]
    assert panels[0].lines[0].get_ydata().tolist() == [0.0, 0.1]
