"""Networks and their parts: recipes, BatchNorm domains, activations, blocks, weights, and what attacks run on.

What is offered here is public; a module's other names may change with every version. Importing this imports torch, but
neither timm nor torchvision, which come with the first network that is built.
"""

from lightning_adv.nn.activations import (
    ACTIVATIONS,
    ParametricSoftplus,
    SmoothBackwardReLU,
    find_kinks,
    replace_activations,
    smooth_backward,
)
from lightning_adv.nn.backbones import Backbone, create_backbone
from lightning_adv.nn.batchnorm import InDomain, convert_batchnorm, domain, domain_norms, export_plain
from lightning_adv.nn.blocks import Block, choose_blocks, freeze_except, reinitialize, split_blocks
from lightning_adv.nn.domain_batchnorm import DomainBatchNorm
from lightning_adv.nn.layers import named_batchnorms, named_layers, select_layers
from lightning_adv.nn.normalize import Normalize, NormalizedNetwork
from lightning_adv.nn.smooth_relu import SmoothReLU
from lightning_adv.nn.view.attack_view import AttackView, NoViewError
from lightning_adv.nn.weights.domain_states import plain_state_dict, state_domains
from lightning_adv.nn.weights.export import ExportedNetwork, export_network, write_network
from lightning_adv.nn.weights.hub import from_pretrained
from lightning_adv.nn.weights.load import load_weights
from lightning_adv.nn.weights.programs import write_program
from lightning_adv.nn.weights.report import LoadReport

__all__ = [
    "ACTIVATIONS", "AttackView", "Backbone", "Block", "DomainBatchNorm", "ExportedNetwork", "InDomain", "LoadReport",
    "NoViewError", "Normalize", "NormalizedNetwork", "ParametricSoftplus", "SmoothBackwardReLU", "SmoothReLU",
    "choose_blocks", "convert_batchnorm", "create_backbone", "domain", "domain_norms", "export_network", "export_plain",
    "find_kinks", "freeze_except", "from_pretrained", "load_weights", "named_batchnorms", "named_layers",
    "plain_state_dict", "reinitialize", "replace_activations", "select_layers", "smooth_backward", "split_blocks",
    "state_domains", "write_network", "write_program",
]  # fmt: skip
