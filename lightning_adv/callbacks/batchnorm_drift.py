"""How the running statistics of BatchNorm move while a network trains, and how far those of its domains are apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, cast

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng

from lightning_adv.analysis import batchnorm_figures as figures
from lightning_adv.analysis.batchnorm_drift import (
    ChannelStatistics,
    Statistics,
    average_over_layers,
    drift_records,
    running_statistics,
    sample_channels,
    tracked_batchnorms,
)
from lightning_adv.callbacks.any_module import class_name
from lightning_adv.callbacks.layer_selection import LayerSelection
from lightning_adv.callbacks.observed import NETWORK_AND_DOMAINS, ObservedModule, headline_domain, networks_of
from lightning_adv.callbacks.observer import Observer, ObserverParts
from lightning_adv.core.errors import UsageError
from lightning_adv.core.keywords import Unpack
from lightning_adv.core.table import Record, Row
from lightning_adv.nn.libraries import classifier_names
from lightning_adv.nn.weights.load import load_weights, say
from lightning_adv.regimes import Regime
from lightning_adv.regimes.runs import changes_its_network, load_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_REFERENCES = ("start", "last", "checkpoint")


class BatchNormDrift(Observer):
    """Compares the running statistics of every BatchNorm with those at other times and of other networks.

    Xie 2020 (section 6.4.2, figure 6.5) finds those of adversarial images larger than those of clean ones. Each look
    compares them, layer by layer and for each BatchNorm domain, with

    * ``start``: those before the first step, in a resumed run those of the run that it goes on with,
    * ``last``: those of the look before; at the first look, of the start,
    * ``checkpoint``: those of another network, if one is given,
    * the first domain, for every other domain.

    The table says what the distances are: :func:`~lightning_adv.analysis.batchnorm_drift.drift_records`. The loggers
    get ``bn_drift/mean``, ``bn_drift/variance`` and ``bn_drift/kl``, from the start, in the domain of inference, and
    where there are several domains ``bn_drift/domains_mean`` and so on, between them; all are averages over the layers.
    Figures: ``channels_<layer>`` (figure 6.5) and ``from_<reference>`` (layers × looks).

    No image is looked at. BatchNorms without running statistics are left out.

    Args:
        layers: The BatchNorms to look at: patterns as in ``layer3.**``.
        channel_layers: Those of which single channels are written down and drawn; None is the one in the middle.
        channels: How many channels of each of them; which ones follows from the layer's name.
        checkpoint: A weights file of the same network, such as the pretrained one that the run starts from or a
            checkpoint of another run; None for no such comparison.
        checkpoint_domain: The BatchNorm domain to take from a checkpoint that has domains. None takes the one that its
            regime predicts with, else ``main``.
        every_n_epochs: Look at the end of every this many training epochs, after validation. This is the default,
            with 1, where neither is given.
        every_n_steps: Look after every this many optimizer steps instead.
        figures_every_n_looks: Draw at the first look and then at every this many, and at the end of training.
        **parts: ``name``, and where a LightningModule that is no regime has its network and images: ``network``,
            ``batch``, ``mean``, ``std`` and ``evaluation_attack``, as of :class:`~lightning_adv.callbacks.Observer`.

    Raises:
        UsageError: An argument is out of its range.
    """

    analysis = "bn_drift"
    needs = NETWORK_AND_DOMAINS

    def __init__(
        self,
        layers: str | list[str] = "**",
        channel_layers: str | list[str] | None = None,
        channels: int = 20,
        checkpoint: str | None = None,
        checkpoint_domain: str | None = None,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        figures_every_n_looks: int = 10,
        **parts: Unpack[ObserverParts],
    ) -> None:
        super().__init__(every_n_epochs, every_n_steps, figures_every_n_looks, **parts)
        self.check_positive(channels=channels)
        if checkpoint_domain is not None and checkpoint is None:
            raise UsageError(
                f"bn_drift.checkpoint_domain is {checkpoint_domain!r}, but there is no bn_drift.checkpoint."
            )
        self.layers = layers
        self.channel_layers = channel_layers
        self.channels = channels
        self.checkpoint = checkpoint
        self.checkpoint_domain = checkpoint_domain
        self._names: list[str] = []
        self._sampled: dict[str, list[int]] = {}
        self._start: Statistics = {}
        self._last: Statistics = {}
        self._foreign: Mapping[str, ChannelStatistics] = {}

    def prepare(self, trainer: Trainer, module: ObservedModule) -> None:
        """Find the layers, read the checkpoint, and keep the statistics of the start.

        Raises:
            UsageError: There is no such layer, or the checkpoint is not one of this network.
        """
        taken = [domain for domain in module.domains if domain in _REFERENCES]
        if taken:
            raise UsageError(
                f"bn_drift cannot tell the BatchNorm domain {taken[0]!r} from its references {', '.join(_REFERENCES)}: "
                "give the domain another name."
            )
        self._names, self._sampled = choose_layers(self, module)
        everything = _statistics(module)  # of all layers: a run may be resumed with other patterns
        if trainer.global_step == 0 or not self._start:  # else a checkpoint has brought it
            self._start = self._last = everything
            if trainer.global_step:
                rank_zero_warn(
                    f"BatchNormDrift was not there when this run started: its start is step {trainer.global_step}."
                )
        if self.checkpoint is not None:
            own = next(iter(everything.values()))
            self._foreign = self._read(self.checkpoint, module, {name: own[name] for name in self._names})

    def observe(self, trainer: Trainer, module: ObservedModule) -> list[Record]:
        """Compare the statistics with each reference."""
        everything = _statistics(module)
        now = {domain: {name: layers[name] for name in self._names} for domain, layers in everything.items()}
        references = {"start": self._start, "last": self._last}
        if self.checkpoint is not None:
            references["checkpoint"] = dict.fromkeys(now, self._foreign)
        self._last = everything
        return drift_records(now, references, self._sampled)

    def headline(self, module: ObservedModule, records: Sequence[Record]) -> dict[str, float]:
        """Return the distances from the start and between domains, averaged over the layers."""
        first, *others = networks_of(module)
        scalars: dict[str, float] = {}
        for name in ("mean", "variance", "kl"):
            scalars[name] = average_over_layers(records, f"{name}_from_start", [headline_domain(module)])
            if others:
                scalars[f"domains_{name}"] = average_over_layers(records, f"{name}_from_{first}", others)
        return scalars

    def draw(self, rows: Sequence[Row]) -> Mapping[str, Figure]:
        """Draw figure 6.5 for each layer with single channels, and the distances over the run."""
        drawn = {
            f"channels_{layer}": figures.plot_channels_by_domain(rows, layer) for layer in figures.channel_layers(rows)
        }
        for reference in figures.references(rows):
            if reference != "last":
                drawn[f"from_{reference}"] = figures.plot_drift(rows, reference)
        return drawn

    def state(self) -> dict[str, Any]:
        """Return the statistics of the start and of the last look."""
        return {"start": _to_plain(self._start), "last": _to_plain(self._last)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on with the statistics of another run's start and last look."""
        self._start, self._last = (_from_plain(state[name]) for name in ("start", "last"))

    def release(self) -> None:
        """Let go of the checkpoint's statistics."""
        self._foreign = {}

    def _read(
        self, path: str, module: ObservedModule, own: Mapping[str, ChannelStatistics]
    ) -> dict[str, ChannelStatistics]:
        """Return the running statistics that a weights file of the module's network has for some layers."""
        argument = f"{self.analysis}.checkpoint"
        if not isinstance(module, Regime):
            raise UsageError(
                f"{argument} is read into the network that a regime's backbone builds: {class_name(module)} is not a "
                "Regime."
            )
        if changes_its_network(path, argument=argument):
            with isolate_rng():
                changed = load_run(path, argument=argument, domain=self.checkpoint_domain).network
            return self._of_layers(running_statistics(changed), own, argument, type(module).__name__)
        recipe, classes = module.backbone.without_weights(), cast(int, module.num_classes)
        with isolate_rng():  # weights are drawn before they are loaded
            network = recipe.build(classes)
            plain = replace(recipe, activation=None, activation_options={}).build(classes)
        learnt = network.network.state_dict().keys() - plain.network.state_dict().keys()  # by the activations
        report = load_weights(
            network,
            path,
            argument=argument,
            domain=self.checkpoint_domain,
            head=classifier_names(network.network),
            optional=sorted(learnt),
            recipe=recipe.to_config()["init_args"],
        )
        say(f"{argument}: {report}")
        return self._of_layers(running_statistics(network), own, argument, f"backbone {recipe.name!r}")

    @staticmethod
    def _of_layers(
        found: dict[str, ChannelStatistics], own: Mapping[str, ChannelStatistics], argument: str, of_what: str
    ) -> dict[str, ChannelStatistics]:
        """Return the statistics that were found, if each layer of the network that is trained has its own."""
        other = [name for name, of in own.items() if name not in found or found[name].mean.shape != of.mean.shape]
        if other:
            raise UsageError(
                f"{argument} is compared with the network of {of_what}, which has no BatchNorm "
                f"{other[0]!r} like the one that is trained."
            )
        return found


class LooksAtBatchNorm(Protocol):
    """The arguments that the observers of BatchNorm share."""

    analysis: str
    layers: str | list[str]
    channel_layers: str | list[str] | None
    channels: int


def choose_layers(observer: LooksAtBatchNorm, module: ObservedModule) -> tuple[list[str], dict[str, list[int]]]:
    """Return the BatchNorms that an observer was asked to look at, and the channels that it writes down one by one.

    Raises:
        UsageError: There are none.
    """
    try:
        tracked = tracked_batchnorms(next(iter(networks_of(module).values())))
    except UsageError as error:
        raise UsageError(f"{type(observer).__name__} needs BatchNorms with running statistics. {error}") from error
    norms = LayerSelection(observer.layers, f"{observer.analysis}.layers").among(tracked)
    singled_out = LayerSelection(observer.channel_layers, f"{observer.analysis}.channel_layers").among(norms)
    by_channel = None if observer.channel_layers is None else list(singled_out)
    return list(norms), sample_channels(norms, by_channel, observer.channels)


def _statistics(module: ObservedModule) -> dict[str, dict[str, ChannelStatistics]]:
    return {domain: running_statistics(network) for domain, network in networks_of(module).items()}


def _to_plain(statistics: Statistics) -> dict[str, dict[str, dict[str, Any]]]:
    return {
        domain: {name: of_layer._asdict() for name, of_layer in layers.items()} for domain, layers in statistics.items()
    }


def _from_plain(state: dict[str, dict[str, dict[str, Any]]]) -> Statistics:
    return {
        domain: {name: ChannelStatistics(**of_layer) for name, of_layer in layers.items()}
        for domain, layers in state.items()
    }
