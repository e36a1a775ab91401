"""The public names of the analyses: each is there, and nothing heavy comes before one is used."""

import ast
import inspect
import subprocess
import sys

import pytest

from lightning_adv import analysis
from lightning_adv.analysis import features, images, signals


@pytest.mark.parametrize("facade", [analysis, features], ids=lambda facade: facade.__name__)
def test_every_name_is_there_and_is_what_type_checkers_see(facade):
    tree = ast.parse(inspect.getsource(facade))
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    declared = {each.asname: (node.module, each.name) for block in blocks for node in block.body for each in node.names}
    assert sorted(declared) == sorted(facade.__all__)
    for name, (module, own) in declared.items():
        value = getattr(facade, name)
        assert inspect.ismodule(value) or value is getattr(sys.modules[module], own)
    for room in images, signals:
        assert all(hasattr(room, name) for name in room.__all__)


@pytest.mark.slow
def test_it_imports_only_what_is_used():
    code = (
        "import sys, lightning_adv.analysis as a; a.read_metrics; print('torch' in sys.modules);"
        "a.running_statistics, a.images.low_pass;"
        "print([m for m in ('matplotlib', 'torchvision', 'lightning') if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split("\n")[:2] == ["False", "[]"]
