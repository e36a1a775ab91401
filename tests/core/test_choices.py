import re
from typing import Literal

import pytest

from lightning_adv.core.arguments import check_choices
from lightning_adv.core.errors import UsageError


class Sampler:
    """Something with choices; a subclass may hand on what it likes."""

    def __init__(
        self,
        order: Literal["random", "sorted"] = "random",
        times: Literal[1, 2] | None = None,
        label: Literal["true", "no", True] = "true",
        size: int = 1,
    ) -> None:
        self.order, self.times, self.label, self.size = order, times, label, size
        check_choices(self, Sampler)


class Derived(Sampler):
    def __init__(self, given):
        super().__init__(given)


@pytest.mark.parametrize("given", [{}, {"order": "sorted"}, {"times": 2}, {"label": True}, {"size": "any"}])
def test_what_is_allowed(given):
    Sampler(**given)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: Sampler("up"), "order must be one of random, sorted, got 'up'."),
        (lambda: Sampler(times=3), "times must be one of 1, 2, got 3."),
        (lambda: Sampler(times=True), "times must be one of 1, 2, got True."),
        (lambda: Sampler(label="yes"), "label must be one of true, no, got 'yes'."),
        (lambda: Derived(None), "order must be one of random, sorted, got None."),
    ],
)
def test_what_is_not(build, told):
    with pytest.raises(UsageError, match=re.escape(told)):
        build()
