"""Which of many networks the fast tests take."""

import pytest


def slow_but(names, *fast):
    """Return the names as parameters, all marked slow but some."""
    assert set(fast) <= set(names)
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]
