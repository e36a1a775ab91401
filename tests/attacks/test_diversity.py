import pytest
import torch

from lightning_adv.attacks.diversity import fork_to_host, resize_and_pad
from tests.seeded import seeded


def _box(x, scale, generator):
    """Return the output's size, and the box (top, left, height, width) that the resized image takes in it."""
    padded = resize_and_pad(torch.ones_like(x), scale, generator)[0, 0]
    rows, columns = padded.any(1).nonzero().flatten().tolist(), padded.any(0).nonzero().flatten().tolist()
    assert padded.sum() == len(rows) * len(columns)  # one full rectangle, zeros around it
    return tuple(padded.shape), (rows[0], columns[0], len(rows), len(columns))


@pytest.mark.parametrize("scale", [330 / 299, 2.0, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_every_pixel(scale, seed):
    x = torch.rand(2, 3, 12, 9, generator=seeded(99)) + 0.1
    out = resize_and_pad(x, scale, seeded(seed))
    size, (top, left, height, width) = _box(x, scale, seeded(seed))
    assert out.shape == (2, 3, *size)
    expected = torch.zeros_like(out)
    for i in range(height):
        for j in range(width):  # nearest neighbour: the source pixel over which the target's corner lies
            expected[:, :, top + i, left + j] = x[:, :, i * 12 // height, j * 9 // width]
    torch.testing.assert_close(out, expected, rtol=0, atol=0)


@pytest.mark.slow
def test_the_papers_sizes():
    x = torch.ones(1, 1, 299, 299)
    boxes = [_box(x, 330 / 299, seeded(seed)) for seed in range(400)]
    assert {size for size, _ in boxes} == {(330, 330)}
    assert {box[2] for _, box in boxes} == set(range(299, 330))
    assert {box[3] - box[2] for _, box in boxes} == {0}


@pytest.mark.parametrize(("scale", "side", "sizes"), [(1.5, 12, range(8, 12)), (0.5, 8, range(4, 8))])
def test_all_sizes_and_places_occur(scale, side, sizes):
    x = torch.ones(1, 1, 8, 8)
    generator = seeded()
    boxes = [_box(x, scale, generator) for _ in range(1500)]
    assert {size for size, _ in boxes} == {(side, side)}
    places = {(height, top, left) for _, (top, left, height, _) in boxes}
    assert places == {(s, i, j) for s in sizes for i in range(side - s + 1) for j in range(side - s + 1)}


def test_gradients_reach_the_image():
    x = torch.rand(1, 1, 8, 8, generator=seeded(), requires_grad=True)
    resize_and_pad(x, 1.5, seeded()).sum().backward()
    assert (x.grad > 0).all()


def test_a_fork_lives_on_the_host_and_goes_its_own_way():
    def draws(generator):
        return torch.rand(4, generator=generator).tolist()

    parent = seeded()
    first, second = fork_to_host(parent), fork_to_host(parent)
    assert first.device.type == "cpu"
    assert draws(first) == draws(fork_to_host(seeded()))
    assert len({tuple(draws(generator)) for generator in (first, second, parent, seeded())}) == 4
    again = seeded()
    fork_to_host(again), fork_to_host(again)
    draws(again)
    assert draws(again) == draws(parent)  # how often a fork draws does not matter
