import pytest
import torch

from lightning_adv.analysis.images.version_figures import plot_versions
from lightning_adv.core.errors import UsageError


def test_a_row_for_each_image_and_a_column_for_each_version(tmp_path):
    x = torch.rand(2, 3, 8, 8)
    answers = {"original": {"standard": ["90 %", "50 %"], "madry": ["80 %", "12.3 %"]}}
    figure = plot_versions({"original": x, "p = 8": 1 - x}, answers)
    figure.savefig(tmp_path / "figure.png")
    assert [axes.get_title() for axes in figure.axes] == ["original", "p = 8", "", ""]
    assert figure.axes[2].get_xlabel() == "standard: 50 %\nmadry: 12.3 %"
    assert figure.axes[3].get_xlabel() == ""
    assert torch.equal(torch.tensor(figure.axes[3].images[0].get_array()), (1 - x[1]).permute(1, 2, 0))
    grey = plot_versions({"original": x[:, :1]})
    assert grey.axes[0].images[0].get_clim() == (0, 1)  # not stretched by each image's own contrast


@pytest.mark.parametrize("versions", [{}, {"a": torch.zeros(0, 3, 2, 2)}, {"a": torch.zeros(1, 2, 2, 2)},
                                      {"a": torch.zeros(1, 3, 2, 2), "b": torch.zeros(2, 3, 2, 2)}])  # fmt: skip
def test_what_is_no_row_of_images_is_told(versions):
    with pytest.raises(UsageError, match="versions must be as many images"):
        plot_versions(versions)
