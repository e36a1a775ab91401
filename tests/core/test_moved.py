import importlib
import sys

import pytest

from lightning_adv.core.moved import _MOVED, new_path


@pytest.mark.parametrize("old", [f"lightning_adv.{path}" for path in _MOVED])
def test_an_old_path_gives_the_module_itself(old, monkeypatch):
    """A second copy would have classes of its own, of which nothing here is an instance."""
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=f"^{old} is .* the old path is taken until version 0.4"):
        found = importlib.import_module(old)
    assert found is importlib.import_module(new_path(old))
