import sys

import timm
import torch

import lightning_adv
from lightning_adv.core.versions import versions


def test_the_versions_are_those_that_the_packages_tell_themselves():
    assert versions("timm") == {
        "lightning-adv": lightning_adv.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "torch": torch.__version__,
        "timm": timm.__version__,
    }
