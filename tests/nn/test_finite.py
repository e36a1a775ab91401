import math

import pytest
import torch

from lightning_adv.nn.weights.finite import not_finite


def test_finite_numbers_whose_sum_is_not_are_finite():
    huge = torch.full((8,), torch.finfo(torch.float32).max)
    assert not_finite({"huge": huge, "half": torch.full((9,), 6e4, dtype=torch.float16), "n": torch.tensor(3)}) == []
    assert not_finite({"huge": huge, "broken": torch.tensor([math.nan, 1.0])}) == ["broken"]


@pytest.mark.parametrize("values", [[math.inf, 1.0], [math.inf, -math.inf], [math.nan, math.inf], [0.0, -math.inf]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64])
def test_what_is_not_finite_has_no_finite_sum(values, dtype):
    """Wherever it lies among a thousand numbers."""
    tensor = torch.linspace(-1, 1, 1000).to(dtype)
    tensor[[17, 801]] = torch.tensor(values).to(dtype)
    assert not_finite({"sound": torch.ones(3), "broken": tensor, "other": None}) == ["broken"]
