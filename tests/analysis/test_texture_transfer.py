import pytest
import torch

from lightning_adv.analysis.images.texture_transfer import (
    TextureTransfer,
    from_laplacian_pyramid,
    laplacian_pyramid,
)
from lightning_adv.core.errors import UsageError
from tests.seeded import seeded


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 1, 19, 24), (1, 3, 8, 9)])
def test_the_pyramid_reconstructs(shape):
    x = torch.rand(shape, generator=seeded(), dtype=torch.float64)
    bands = laplacian_pyramid(x, 3)
    assert len(bands) == 4
    assert torch.allclose(from_laplacian_pyramid(bands), x, atol=1e-14, rtol=0)


def test_a_flat_image_has_no_bands_and_a_checkerboard_only_the_finest():
    flat = laplacian_pyramid(torch.full((1, 1, 16, 16), 0.25), 2)
    assert all(band.abs().max() < 1e-6 for band in flat[:2])
    assert torch.allclose(flat[2], torch.full((1, 1, 4, 4), 0.25))
    board = (torch.arange(16)[:, None] + torch.arange(16)).remainder(2).float()[None, None]
    fine, rest = laplacian_pyramid(board, 1)
    assert torch.allclose(fine[..., 3:-3, 3:-3], (board - 0.5)[..., 3:-3, 3:-3], atol=1e-6)
    assert torch.allclose(rest[..., 1:-1, 1:-1], torch.tensor(0.5), atol=1e-6)


def test_the_bands_have_the_paintings_statistics_afterwards():
    """Of images in the middle of the range, where nothing is clipped."""
    x = 0.45 + 0.1 * torch.rand(2, 3, 32, 32, generator=seeded(), dtype=torch.float64)
    paintings = 0.4 + 0.1 * torch.rand(2, 3, 40, 24, generator=seeded(1), dtype=torch.float64) ** 2
    transfer = TextureTransfer(levels=2)
    style = transfer.statistics(paintings)
    bands = laplacian_pyramid(x, 2)
    by_hand = [
        (band - band.mean((2, 3), keepdim=True)) / (band.var((2, 3), keepdim=True) + 1e-5).sqrt() * of.std + of.mean
        for band, of in zip(bands, style, strict=True)
    ]
    after = transfer(x, style)
    assert after.min() > 0
    assert after.max() < 1
    assert torch.allclose(after, from_laplacian_pyramid(by_hand), atol=1e-12)
    assert torch.allclose(by_hand[-1].mean((2, 3)), laplacian_pyramid(paintings, 2)[-1].mean((2, 3)))


def test_images_that_are_too_small_are_told():
    with pytest.raises(UsageError, match="both sides of the images 2\\^levels, got 3 levels and images of 7 × 16"):
        TextureTransfer().statistics(torch.zeros(1, 3, 7, 16))
    with pytest.raises(UsageError, match="levels must be at least 1"):
        laplacian_pyramid(torch.zeros(1, 3, 8, 8), 0)
