"""Block-wise retraining (Siddiqui & Breuel 2021): some blocks of a network are trained anew, the rest is frozen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_adv.attacks import PGD, Attack
from lightning_adv.core.arguments import check_choices
from lightning_adv.core.errors import UsageError
from lightning_adv.core.seeds import derive_seed, run_seed
from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.blocks import Block, choose_blocks, freeze_except, reinitialize, split_blocks
from lightning_adv.nn.libraries import default_image_shape
from lightning_adv.nn.normalize import NormalizedNetwork
from lightning_adv.nn.weights.runs import INITIAL
from lightning_adv.regimes.keywords import AdversarialKeywords, Unpack
from lightning_adv.regimes.madry import MadryTraining
from lightning_adv.regimes.objectives import CrossEntropy, Objective


class BlockwiseRetraining(MadryTraining):
    """Retrain chosen blocks of a pretrained network, conventionally or adversarially (section 3, figure 1).

    The network's weights come from ``backbone.checkpoint`` (a run of any regime, or a weights file) or
    ``backbone.pretrained``. Frozen parameters are in no optimizer, and frozen modules stay in eval mode. In 0 epochs
    blocks are reinitialised without retraining (section 5.3, figure 7).

    Args:
        backbone: What network to build, with ``checkpoint`` or ``pretrained``.
        blocks: Names of the blocks to retrain, such as ``[m0, m2]`` (section 5.2). None leaves it to ``cutoff``.
        cutoff: The network is cut before this block: its name, or its number from 1. With neither ``blocks`` nor
            ``cutoff`` all blocks are retrained.
        side: Which side of the cut is retrained, ``"before"`` or ``"after"`` (section 4).
        unit: ``"block"`` for the modules between down-samplings, ``"layer"`` for single layers (section 5.1).
        reinitialize: What the chosen blocks start from, parameters and buffers: ``True`` or ``"fresh"`` values that are
            drawn anew, by the run's seed (as in the paper); ``"initial"`` those that the pretraining began with (Zhang
            et al. 2019); ``False`` their pretrained ones.
        initial_weights: The weights file for ``"initial"``. None takes ``init.ckpt`` beside ``backbone.checkpoint``.
        only_batchnorm: Train nothing but the BatchNorms of the chosen blocks: with ``blocks``, ``cutoff`` and
            ``reinitialize`` left out or false, the fine-tuning of Xie & Yuille 2020, section 6.4.4.
        attack: The attack of adversarial retraining; None retrains conventionally, on clean images only. The default
            is that of section 3.2, on predicted labels.
        objective: The default has a clean image for each adversarial one, as the paper on CIFAR-10 and Imagenette;
            on ImageNet it has none (section 3.2).
        **kwargs: The other arguments of :class:`~lightning_adv.regimes.madry.MadryTraining`.

    Raises:
        UsageError: An argument is out of its range, a block does not exist, or there are no pretrained weights.

    Example:
        >>> trained = Backbone("small_cnn", in_channels=1)  # with checkpoint="runs/.../best.ckpt", to be trained
        >>> BlockwiseRetraining(trained, num_classes=10, cutoff="m2", side="after").objective
        CrossEntropy(clean_fraction=1.0, logit_pairing=0.0)
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        blocks: list[str] | None = None,
        cutoff: int | str | None = None,
        side: Literal["before", "after"] = "before",
        unit: Literal["block", "layer"] = "block",
        reinitialize: bool | Literal["fresh", "initial"] = True,
        initial_weights: str | None = None,
        only_batchnorm: bool = False,
        attack: Attack | None = PGD(eps="8/255", steps=7, label="predicted"),  # noqa: B008
        objective: Objective = CrossEntropy(clean_fraction=1.0),  # noqa: B008 (recipes)
        **kwargs: Unpack[AdversarialKeywords],
    ) -> None:
        self.side = side
        self.unit = unit
        self.reinitialize = reinitialize
        check_choices(self, BlockwiseRetraining)
        if blocks is not None and cutoff is not None:
            raise UsageError(f"blocks is {blocks} and cutoff is {cutoff!r}: give one of them.")
        if only_batchnorm and reinitialize:
            raise UsageError("only_batchnorm trains on filters that are there: set reinitialize to false.")
        if initial_weights is not None and reinitialize != "initial":
            raise UsageError(f"initial_weights is given, and reinitialize is {reinitialize!r}: set it to 'initial'.")
        ignored = [
            name for name in ("weight_perturbation", "eps_warmup_epochs", "clean_after_epochs") if kwargs.get(name)
        ]
        ignored += [] if isinstance(Objective.from_config(objective), CrossEntropy) else ["objective"]
        if attack is None and ignored:
            raise UsageError(f"attack is null, which retrains conventionally: leave {ignored[0]} out.")
        self.conventional = attack is None
        super().__init__(backbone, attack=PGD() if attack is None else attack, objective=objective, **kwargs)
        self.blocks = blocks
        self.cutoff = cutoff
        self.initial_weights = initial_weights
        self.only_batchnorm = only_batchnorm
        self.retrained: list[Block] = []
        self.reinitialized: dict[str, Any] | None = None
        self._frozen: list[str] = []
        self._loaded = False

    @property
    def adversarial(self) -> bool:
        """Whether the chosen blocks are retrained adversarially."""
        return not self.conventional

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note that there are trained weights, beside the checks of every regime (a Lightning hook)."""
        super().on_load_checkpoint(checkpoint)
        self._loaded = True

    def prepare_network(self) -> None:
        """Choose, freeze and reinitialise, at the start of training only.

        Raises:
            UsageError: A block does not exist, or there are no pretrained weights.
        """
        super().prepare_network()
        if self._trainer is None or self.trainer.state.fn != "fit" or self.retrained:
            return
        own = type(self).build_network is not MadryTraining.build_network  # which may load weights by itself
        if not self.backbone.brings_weights and not self._loaded and not own:
            raise UsageError(
                "backbone.checkpoint must name the trained network whose blocks are retrained, or backbone.pretrained "
                "be true: without one, the frozen blocks would stay at random weights."
            )
        network = self._without_normalization(self.network)
        blocks = split_blocks(network, self._image_shape(), unit=self.unit)
        self.retrained = choose_blocks(blocks, names=self.blocks, cutoff=self.cutoff, side=self.side)
        if self.reinitialize:
            self._reinitialize(network)
        frozen = set(freeze_except(network, self.retrained, only_batchnorm=self.only_batchnorm))
        self._check_frozen(network, blocks)
        # By name: SyncBatchNorm's converters put other modules in their place.
        self._frozen = [name for name, module in network.named_modules(remove_duplicate=False) if module in frozen]

    def _check_frozen(self, network: nn.Module, blocks: list[Block]) -> None:
        """What started anew must be retrained: frozen, it would stay at random weights."""
        new = self.network.new if isinstance(self.network, NormalizedNetwork) else ()
        parameters = dict(network.named_parameters())
        left = [key for key in new if key in parameters and not parameters[key].requires_grad]
        if left:
            owner = next(block for block in blocks if any(left[0].startswith(f"{name}.") for name in block.modules))
            whole = ", and not its BatchNorms only" if self.only_batchnorm else " (blocks or cutoff)"
            raise UsageError(
                f"{left[0]} has no pretrained weights, since it has another size there, and would be frozen as it was "
                f"drawn: retrain block {owner.name} too{whole}."
            )

    def _image_shape(self) -> tuple[int, ...]:
        """Shape (C, H, W) of the data's images; where nobody says it, one that the network was designed for."""
        shape = getattr(self.trainer.datamodule, "image_shape", None)  # type: ignore[attr-defined]
        if shape is not None:
            return tuple(shape)
        recipe, network = self.backbone, self._without_normalization(self.network)
        return default_image_shape(network, recipe.stem, recipe.in_channels, recipe.options)

    @staticmethod
    def _without_normalization(network: nn.Module) -> nn.Module:
        """Return what has the blocks: none of them holds the normalisation."""
        return network.network if isinstance(network, NormalizedNetwork) else network

    def _reinitialize(self, network: nn.Module) -> None:
        """Put fresh or initial values into the chosen blocks, and keep for the results which they are."""
        names = [block.name for block in self.retrained]
        if self.reinitialize != "initial":
            other = self._built_anew(self.backbone.without_weights())
            self._check_anew(network, other)
            self.reinitialized = {"blocks": names, "values": "fresh", "from": None}
        else:
            path = self._initial_file()
            try:
                other = self._built_anew(replace(self.backbone, pretrained=False, checkpoint=path))
            except UsageError as error:
                if error.key != "backbone.checkpoint":
                    raise
                raise UsageError(error.message, key="initial_weights") from error
            if type(self).build_network is not MadryTraining.build_network:
                self._check_anew(network, other)
            self.reinitialized = {"blocks": names, "values": "initial", "from": path}
        reinitialize(network, self._without_normalization(other), self.retrained)

    def _initial_file(self) -> str:
        """Return the file of the initial weights.

        Raises:
            UsageError: It is not there.
        """
        if self.initial_weights is not None:
            return self.initial_weights
        checkpoint = self.backbone.checkpoint
        beside = None if checkpoint is None else Path(checkpoint).expanduser().with_name(INITIAL)
        if beside is None or not beside.is_file():
            where = "backbone.checkpoint names no file" if beside is None else f"there is no {beside}"
            raise UsageError(
                f"reinitialize is 'initial', but {where}: a run keeps the weights that it begins with in "
                f"checkpoints/{INITIAL} unless initial_checkpoint.keep is false. Train the network again with it, name "
                "another file as initial_weights, or take 'fresh' values."
            )
        return str(beside)

    def _built_anew(self, backbone: Backbone) -> nn.Module:
        """Build the network of another recipe; what is drawn depends on the run's seed only.

        Raises:
            UsageError: A chosen block has values in it that the recipe's weights file does not give.
        """
        recipe, self.backbone = self.backbone, backbone
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive_seed(run_seed(), "reinitialize"))
                built = self.build_network(self.hparams["num_classes"])
        finally:
            self.backbone = recipe
        new = built.new if isinstance(built, NormalizedNetwork) and backbone.checkpoint is not None else ()
        if left := [key for key in new if key.startswith(self._chosen())]:
            raise UsageError(
                f"{backbone.checkpoint} has no values for {left[0]}, since it has another size there: leave its block "
                "out, or take 'fresh' values.",
                key="initial_weights",
            )
        return built

    def _chosen(self) -> tuple[str, ...]:
        """What the keys of the chosen blocks begin with."""
        return tuple(f"{path}." for block in self.retrained for path in block.modules)

    def _check_anew(self, network: nn.Module, other: nn.Module) -> None:
        """What an override of ``build_network`` loads by itself, it loads into the other network too."""
        pair = (network, self._without_normalization(other))
        own, anew = ({key: p for key, p in of.named_parameters() if key.startswith(self._chosen())} for of in pair)
        if own.keys() == anew.keys() and all(torch.equal(own[key].cpu(), anew[key].cpu()) for key in own):
            told = "true" if self.reinitialize is True else f"'{self.reinitialize}'"
            raise UsageError(
                f"reinitialize is {told}, but {type(self).__name__}.build_network gives block "
                f"{self.retrained[0].name} the same weights each time: let it load weights where "
                "self.backbone.checkpoint names them only, or set reinitialize to false."
            )

    def held_in_eval(self) -> Iterable[nn.Module]:
        """Return the frozen modules, and what every regime holds still."""
        network = self._without_normalization(self.network)
        return [*(network.get_submodule(name) for name in self._frozen), *super().held_in_eval()]

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of adversarial or of conventional retraining."""
        return self.clean_loss(x, y) if self.conventional else super().loss(x, y)
