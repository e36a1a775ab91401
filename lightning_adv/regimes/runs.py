"""The network of a run of this package, built again from its checkpoint as it was trained."""

from __future__ import annotations

import os

from lightning_adv.core.errors import UsageError
from lightning_adv.nn.domain_batchnorm import keep_domain
from lightning_adv.nn.weights.domain_states import state_domains
from lightning_adv.nn.weights.load import say
from lightning_adv.nn.weights.runs import NotARunError, RunCheckpoint, RunNetwork, load_recipes_network, read_run
from lightning_adv.regimes.base import Regime
from lightning_adv.regimes.rebuilding import REPLACED, asked_by, modules_digest


def changes_its_network(path: str | os.PathLike[str], *, argument: str) -> bool:
    """Return whether a file is the checkpoint of a run whose regime changed its network.

    Raises:
        UsageError: The file cannot be read, or is such a checkpoint and incomplete.
    """
    try:
        return read_run(path, argument=argument).unlike_recipe is not None
    except NotARunError:
        return False


def load_run(
    path: str | os.PathLike[str], *, argument: str, domain: str | None = None, domain_argument: str | None = None
) -> RunNetwork:
    """Build the network of a run's checkpoint again, with its weights.

    What the backbone's recipe gives is built by the recipe alone, and needs no regime. Where the regime changed its
    network (``build_network``, ``prepare_network``), the regime's own class builds it: it must be trusted, as
    :func:`~lightning_adv.core.recipe.find_class` says, and give the modules that were trained.

    Args:
        path: The checkpoint that a regime was saved in.
        argument: What an error calls it.
        domain: The BatchNorm domain; None takes the one that the regime predicts with.
        domain_argument: What an error calls that; None is ``argument`` with ``_domain`` behind it.

    Raises:
        UsageError: The file is not such a checkpoint, has no such domain, or its network cannot be built again.
    """
    run = read_run(path, argument=argument)
    if run.unlike_recipe is None:
        return load_recipes_network(path, run, argument=argument, domain=domain, domain_argument=domain_argument)
    regime = _rebuild(path, run, argument)
    domains = state_domains(regime.network.state_dict())
    if domain is not None and domain not in domains:
        has = (
            f"has no BatchNorm domain {domain!r}; it has {', '.join(domains)}"
            if domains
            else "has no BatchNorm domains"
        )
        raise UsageError(f"{path} {has}.", key=f"{argument}_domain" if domain_argument is None else domain_argument)
    built_by = str(run.content["regime"]["class_path"])
    if not domains:
        return RunNetwork(regime.network, None, run, built_by)
    chosen = domain or regime.inference_domain or "main"
    return RunNetwork(keep_domain(regime.network, chosen), chosen, run, built_by)


def _rebuild(path: str | os.PathLike[str], run: RunCheckpoint, argument: str) -> Regime:
    """Build a regime again that changed its network.

    Raises:
        UsageError: Its class is not trusted, or gives something else than what was trained.
    """
    saved = run.content["regime"]
    class_path, changed_by = saved["class_path"], saved.get("network_changed_by")
    if changed_by is None or "modules" not in saved:  # it does not say enough to compare with what is built
        raise UsageError(f"{path} {run.unlike_recipe}", key=argument)
    try:
        regime = Regime.load_from_checkpoint(path, map_location="cpu")
    except UsageError as error:
        if changed_by == REPLACED:  # which the class does not do when it builds
            raise UsageError(f"{path} {run.unlike_recipe}", key=argument) from error
        why = f"which {changed_by} changed: only {class_path} builds it again"
        raise UsageError(f"{path} is of a network {why}. {error}", key=argument) from error
    same = modules_digest(regime.network) == saved["modules"]
    if asked_by(regime) is not None or (not same and changed_by == REPLACED):
        raise UsageError(f"{path} {run.unlike_recipe}", key=argument)
    if not same:
        raise UsageError(
            f"{path} is of another network than {class_path} builds now: the modules differ from those that were "
            "trained.",
            key=argument,
        )
    regime.network._compiled_call_impl = None  # compile: true was for the training
    say(f"{argument}: {path}: the network was built again by {saved['class_path']}")
    return regime
