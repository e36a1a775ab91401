"""What ``lightning_adv.nn`` offers."""

import subprocess
import sys

import pytest

import lightning_adv.nn
from lightning_adv.core.recipe import find_class, public_path
from lightning_adv.nn import Backbone


def test_offers_what_it_lists():
    assert all(hasattr(lightning_adv.nn, name) for name in lightning_adv.nn.__all__)


@pytest.mark.slow
def test_the_libraries_of_networks_come_with_the_first_network():
    late = "{'timm', 'torchvision', 'lightning', 'jsonargparse'}"
    code = f"import sys, lightning_adv.nn; assert not {late} & set(sys.modules), {late} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_files_name_a_backbone_by_the_facade_and_by_where_it_was():
    assert public_path(Backbone) == "lightning_adv.nn.Backbone"
    assert find_class("lightning_adv.nn.backbones.Backbone", Backbone) is Backbone
