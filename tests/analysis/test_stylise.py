import io
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_adv.analysis.images.adain import AdaIN
from lightning_adv.analysis.images.stylise import Paintings, to_file
from lightning_adv.analysis.images.texture_transfer import TextureTransfer
from lightning_adv.core.errors import UsageError
from tests.analysis.test_adain import decoder_weights, torchvision_weights
from tests.seeded import seeded


@pytest.fixture
def folder(tmp_path):
    for number in range(4):
        values = torch.randint(256, (20, 24 + number, 3), generator=seeded(number), dtype=torch.uint8).numpy()
        (tmp_path / f"{number}").mkdir()
        Image.fromarray(values).save(tmp_path / f"{number}" / "painting.png")
    return tmp_path


def test_the_painting_depends_on_the_seed_and_the_index_only(folder):
    paintings = Paintings(folder, TextureTransfer())
    drawn = [paintings.number_for(index, seed=0) for index in range(400)]
    assert drawn == [Paintings(folder, TextureTransfer()).number_for(index, seed=0) for index in range(400)]
    assert drawn != [paintings.number_for(index, seed=1) for index in range(400)]
    assert set(drawn) == set(range(4))
    assert all(70 < count < 130 for count in Counter(drawn).values())


@pytest.mark.parametrize("way", [TextureTransfer(), AdaIN(torchvision_weights(), decoder_weights())])
def test_images_are_restyled_as_they_are_alone(folder, way):
    x = torch.rand(3, 3, 16, 16, generator=seeded())
    paintings = Paintings(folder, way, size=None)
    together = paintings.restyle(x, [5, 6, 11], seed=3)
    for row, index in enumerate([5, 6, 11]):
        number = paintings.number_for(index, 3)
        painting = (
            torch.tensor(np.array(Image.open(folder / f"{number}" / "painting.png"))).permute(2, 0, 1)[None] / 255
        )
        assert torch.allclose(together[row : row + 1], way(x[row : row + 1], way.statistics(painting)), atol=1e-5)


def test_paintings_are_resized_by_their_shorter_side(folder):
    seen = []

    class Sizes(TextureTransfer):
        def statistics(self, paintings):
            seen.append(tuple(paintings.shape))
            return super().statistics(paintings)

    paintings = Paintings(folder, Sizes(), size=10)
    paintings.restyle(torch.rand(8, 3, 8, 8, generator=seeded()), range(8), seed=0)
    drawn = {paintings.number_for(index, 0) for index in range(8)}
    assert sorted(seen) == sorted((1, 3, 10, round((24 + number) / 2)) for number in drawn)  # each of them once


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".tif", ".webp", ".JPEG"])
def test_what_is_written_is_read_again(suffix):
    x = torch.linspace(0, 1, 16).repeat(3, 16, 1)
    read = np.asarray(Image.open(io.BytesIO(to_file(x, f"a/b{suffix}"))).convert("RGB")) / 255
    most = 0.03 if suffix == ".JPEG" else 0.5 / 255 + 1e-6
    assert np.abs(read - x.permute(1, 2, 0).numpy()).max() <= most


def test_bad_paintings_are_told(tmp_path, folder):
    with pytest.raises(UsageError, match=r"style_folder is .*nowhere', which is not a folder"):
        Paintings(tmp_path / "nowhere", TextureTransfer())
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"style_folder is .*empty', which has no image"):
        Paintings(tmp_path / "empty", TextureTransfer())
    (tmp_path / "empty" / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(UsageError, match=r"style_folder holds .*a.png, which cannot be decoded"):
        Paintings(tmp_path / "empty", TextureTransfer()).restyle(torch.zeros(1, 3, 16, 16), [0], 0)
    with pytest.raises(UsageError, match=r"style_folder holds .*painting.png, which cannot be a style: levels must"):
        Paintings(folder, TextureTransfer(levels=6), size=None).restyle(torch.zeros(1, 3, 64, 64), [0], 0)
    with pytest.raises(UsageError, match=r"a\.gif is not the name of an image"):
        to_file(torch.zeros(3, 1, 1), "a.gif")
