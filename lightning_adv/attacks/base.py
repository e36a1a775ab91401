"""What an attack is, and the one context in which every attack runs."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, Self, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from lightning_adv.core.errors import UsageError
from lightning_adv.core.recipe import Recipe

Forward: TypeAlias = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) to logits (N, K)."""

BatchNormMode: TypeAlias = Literal["eval", "batch"]
"""BatchNorm during an attack: ``eval`` normalises by the running statistics, ``batch`` by those of the batch."""


class Attack(Recipe, ABC):
    """The inner maximisation: ``x_adv = attack(model, x, y)``.

    Every attack keeps six promises, whatever the network, the norm, the BatchNorm mode and the precision:

    1. ``x_adv`` is detached, has the dtype and device of ``x``, lies in [0, 1] and within ``eps`` of ``x``.
    2. The model is left as it was: train flags, ``requires_grad``, ``.grad`` and buffers, module by module.
    3. Parameters take part in no gradient; losses are summed, so that samples do not see each other.
    4. It works inside ``no_grad``, ``inference_mode``, autocast, DDP and a compiled model.
    5. Randomness comes from ``generator``; the global random state is left alone.
    6. BatchNorm mode and domain are a choice.
    """

    _unseeded_calls = 0

    @property
    def black_box(self) -> bool:
        """Whether the attack sees the network's outputs only, and no gradient."""
        return False

    @property
    def judges(self) -> bool:
        """Whether what comes back depends on where the attack itself saw the network fooled.

        Such an example lies just behind the decision boundary that the attack saw. So it must see the network that it
        is judged by, to the precision: by one that rounds otherwise, part of them are classified correctly again.
        """
        return True

    @abstractmethod
    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        domain: str | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the adversarial examples.

        Args:
            model: Maps images (N, C, H, W) to logits (N, K).
            x: Clean images (N, C, H, W) in [0, 1].
            y: True labels (N,), integers in [0, K).
            domain: The BatchNorm domain to attack through; None leaves the active one.
            generator: The source of randomness. None takes a new one for each call, seeded by
                ``torch.initial_seed()`` and the number of calls so far.

        Returns:
            Adversarial images (N, C, H, W), detached, in ``x``'s dtype and on its device.

        Raises:
            UsageError: ``x`` leaves [0, 1], ``y`` leaves [0, K), or their shapes do not agree.
        """

    def scaled(self, factor: float) -> Self:
        """Return the same attack with ``eps`` and ``step_size`` multiplied by ``factor`` (a warm-up's step).

        An attack without a ``step_size`` has ``eps`` alone scaled.
        """
        scaled = copy.copy(self)
        # Counted as a call: of copies made one a step, each must draw noise of its own.
        self._unseeded_calls += 1
        for name in ("eps", "step_size"):
            if hasattr(self, name):
                setattr(scaled, name, factor * getattr(self, name))
        return scaled

    @property
    def reach(self) -> float | None:
        """How far the steps can lead away from where they start, in the ball's norm; None where nobody can say.

        An attack that has ``steps`` and a ``step_size`` goes as far as these multiply to. One whose ``step_size`` is
        something else says what it is here.
        """
        steps, step_size = getattr(self, "steps", None), getattr(self, "step_size", None)
        if not isinstance(steps, int) or not isinstance(step_size, int | float):
            return None
        return steps * float(step_size)

    def stages(self) -> list[Attack]:
        """Return the attacks that are this one if each is run on what the ones before it have left unbroken.

        An evaluation skips what is broken: restarts and the parts of an ensemble need not see it again. An attack with
        ``restarts`` is as many runs of itself; most attacks are one stage.
        """
        restarts = getattr(self, "restarts", 1)
        if restarts == 1:
            return [self]
        once = copy.copy(self)
        once.restarts = 1  # type: ignore[attr-defined]  # some attacks have them
        return [once] * restarts

    def part(self, stages: Sequence[Attack]) -> Attack | None:
        """Return this attack with some of its :meth:`stages` only; None where it cannot be taken apart.

        An evaluation leaves out what a network does not allow, such as gradients of one that has none.
        """
        return self if len(stages) == len(self.stages()) else None

    def check_available(self) -> None:
        """Check, before anything is computed, that what the attack needs is installed.

        Raises:
            UsageError: A package is missing; the message says how to install it.
        """

    def check_fits(self, shape: tuple[int, ...], num_classes: int) -> None:
        """Check, before anything is computed, that the attack can be run on images and a network.

        Args:
            shape: Shape (C, H, W) of an image.
            num_classes: Number of classes K of the network.

        Raises:
            UsageError: It cannot.
        """

    def _generator(self, given: torch.Generator | None) -> torch.Generator:
        if given is not None:
            return given
        # A counter and not a stored generator: attacks stay plain data that deepcopy and pickle take.
        self._unseeded_calls += 1
        generator = torch.Generator()
        generator.manual_seed((torch.initial_seed() + 0x9E3779B97F4A7C15 * self._unseeded_calls) % 2**63)
        return generator


@contextmanager
def attacking(model: nn.Module, *, batchnorm: BatchNormMode = "eval", domain: str | None = None) -> Iterator[nn.Module]:
    """Hold a model still while it is attacked, and give it back as it was.

    Inside, every module is in eval mode (with ``batchnorm="batch"`` the BatchNorms use batch statistics and update
    nothing), no parameter requires a gradient, and gradients to the input work even within ``no_grad`` or
    ``inference_mode``. The tensors that enter must be cloned inside: an inference tensor cannot require a gradient.

    Args:
        model: Any network. DDP is unwrapped: a forward through the wrapper would start a gradient reduction.
        batchnorm: The BatchNorm mode.
        domain: The domain of the model's domain BatchNorms; None leaves the active one.

    Yields:
        The network to call.

    Raises:
        UsageError: ``domain`` is given and the model has no such domain, or ``batchnorm`` is ``"batch"`` and the model
            a view whose BatchNorms are folded.
    """
    if isinstance(model, DistributedDataParallel):
        model = model.module
    modules = list(model.modules())
    if batchnorm == "batch" and any(getattr(module, "folds_batchnorm", False) for module in modules):
        raise UsageError(
            "batchnorm='batch' needs the statistics of each batch, and the model is a view with its BatchNorms folded: "
            "attack the network itself."
        )
    # Flags are set one by one: train() and eval() would overwrite those of frozen parts on the way back.
    training = [module for module in modules if module.training]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    tracked: list[_BatchNorm] = []
    buffers = _Buffers(modules)
    norms = [module for module in modules if isinstance(module, _BatchNorm)] if batchnorm == "batch" else []
    try:
        for module in training:
            # Networks such as LeViT keep for eval mode what they compute from weights, until they hear of training.
            if type(module).train is not nn.Module.train:
                module.train(True)
        for module in modules:
            module.training = False
        for norm in norms:
            norm.training = True
            if norm.track_running_stats:
                tracked.append(norm)
                norm.track_running_stats = False  # with this flag off, a forward writes to no buffer
        for parameter in trainable:
            parameter.requires_grad_(False)
        with ExitStack() as stack:
            for module in modules:
                if getattr(module, "folds_batchnorm", False):
                    stack.enter_context(cast(Any, module).held())  # it takes its network over as it is now
            if domain is not None:
                _select_domain(stack, modules, domain)
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            yield model
    finally:
        for module in modules:
            module.training = False
        for parameter in trainable:
            parameter.requires_grad_(True)
        for norm in tracked:
            norm.track_running_stats = True
        for module in training:
            module.training = True
        buffers.put_back()


class _Buffers:
    """Buffers that a network may write to in eval mode: what a fake-quantiser observes, say, but no BatchNorm's."""

    def __init__(self, modules: list[nn.Module]) -> None:
        shown = {inner for module in modules if getattr(module, "folds_batchnorm", False) for inner in module.modules()}
        self._kept = [
            (module, name, buffer, -1 if buffer.is_inference() else buffer._version, buffer.clone())
            for module in modules
            if not isinstance(module, _BatchNorm) and module not in shown  # a view takes over its network's
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]

    def put_back(self) -> None:
        """Undo what was written, and what was replaced."""
        for module, name, buffer, version, numbers in self._kept:
            if buffer.is_inference() or buffer._version != version:  # an inference tensor counts no versions
                with torch.inference_mode(buffer.is_inference()), torch.no_grad():
                    buffer.resize_(numbers.shape).copy_(numbers)
            module._buffers[name] = buffer


def _select_domain(stack: ExitStack, modules: list[nn.Module], domain: str) -> None:
    # Found by its attribute, so that attacks need not know how domain BatchNorm is built.
    switches = {id(s): s for m in modules if (s := getattr(m, "domain_switch", None)) is not None}
    if not switches:
        raise UsageError(f"domain={domain!r} was given, but the model has no domain BatchNorm.")
    for module in modules:
        if getattr(module, "chooses_domain", False) and module.domain != domain:
            raise UsageError(f"domain={domain!r} was given, and the network is in {module.domain!r} already.")
    for switch in switches.values():
        stack.enter_context(switch.select(domain))


def at_least_fp32(tensor: Tensor) -> Tensor:
    """Return a tensor of a half precision in fp32, and any other as it is."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def forward_in(network: nn.Module, dtype: torch.dtype) -> Forward:
    """Return the network as a function that takes its images in ``dtype`` and gives logits in fp32 or more.

    Raises:
        UsageError: In a call: the network gives something else than logits (N, K).
    """

    def forward(images: Tensor) -> Tensor:
        return at_least_fp32(check_logits(network(images.to(dtype)), len(images)))

    return forward


def check_logits(output: object, images: int) -> Tensor:
    """Return what a network gave for a number of images, if it is logits (N, K) of at least two classes.

    Raises:
        UsageError: It is not.
    """
    if isinstance(output, Tensor) and output.ndim == 2 and len(output) == images and output.shape[1] > 1:
        return output
    if isinstance(output, Tensor):
        told = f"a tensor of shape {tuple(output.shape)}"
    elif isinstance(output, Mapping):
        told = f"a {type(output).__name__} with the keys {', '.join(map(str, output))}"
    elif isinstance(output, tuple | list):
        told = f"a {type(output).__name__} of {len(output)}"
    else:
        told = f"a {type(output).__name__}"
    advice = "" if isinstance(output, Tensor) else ": wrap it in a module that returns its logits alone"
    raise UsageError(f"The network must give logits ({images}, K) with K of at least 2, got {told}{advice}.")


class NoGradientError(UsageError):
    """A network's logits have no gradient to its images."""

    def __init__(self) -> None:
        super().__init__(
            "The network's logits have no gradient to its images, as where a forward pass rounds, compares, detaches "
            "or runs under no_grad: no gradient attack can be run on it; a black-box attack can, such as RandomNoise "
            "or AutoAttack(attacks=['square'])."
        )


def gradient_to(images: Tensor, logits: Tensor, ascent: Tensor) -> Tensor:
    """Return the gradient (N, ...) to images of the logits (N, K) weighted by ``ascent`` (N, K).

    Raises:
        NoGradientError: There is none.
    """
    gradient = torch.autograd.grad(logits, images, ascent, allow_unused=True)[0] if logits.requires_grad else None
    if gradient is None:
        raise NoGradientError
    return gradient


def check_gradient(forward: Forward, images: Tensor) -> None:
    """Check that logits have a gradient to images (N, ...), for an attack of another package, which would not say so.

    Raises:
        NoGradientError: They have none.
    """
    with torch.enable_grad():
        leaf = images.detach().clone().requires_grad_()
        logits = forward(leaf)
        gradient_to(leaf, logits, torch.ones_like(logits))


def round_towards(x: Tensor, adversarial: Tensor) -> Tensor:
    """Cast to ``x``'s dtype so that rounding never leaves the ball: towards ``x``, entry by entry."""
    adversarial = adversarial.detach()
    if x.dtype == adversarial.dtype:
        return adversarial
    cast, clean = adversarial.to(x.dtype), x.detach()
    outside = (cast.float() - clean.float()).abs() > (adversarial - clean.float()).abs()
    return torch.where(outside, torch.nextafter(cast, clean), cast)


def check_images(x: Tensor, y: Tensor) -> None:
    """Check that ``x`` (N, ...) are images in [0, 1] and ``y`` (N,) integer labels.

    Raises:
        UsageError: They are not.
    """
    for name, given in (("x", x), ("y", y)):
        if not isinstance(given, Tensor):
            raise UsageError(f"{name} must be a tensor, got a {type(given).__name__}.")
    if not x.is_floating_point() or x.ndim < 2:
        raise UsageError(f"x must be floating-point images (N, C, H, W), got {x.dtype} of shape {tuple(x.shape)}.")
    if y.is_floating_point() or y.shape != x.shape[:1]:
        raise UsageError(
            f"y must be integer labels of shape ({len(x)},), one for each image, got {y.dtype} of shape "
            f"{tuple(y.shape)}."
        )
    if x.numel():
        low, high = torch.stack(torch.aminmax(x.detach())).tolist()  # one read: on an accelerator each of them waits
        if not (low >= 0 and high <= 1):  # written so that NaN fails too
            raise UsageError(
                f"x must lie in [0, 1], got values from {low:g} to {high:g}. Leave normalisation to the network "
                "(Backbone's mean and std), so that eps is a distance in pixels."
            )


def check_labels(y: Tensor, num_classes: int) -> None:
    """Check that labels (N,) lie in [0, ``num_classes``).

    Raises:
        UsageError: They do not.
    """
    if y.numel():
        low, high = torch.stack(torch.aminmax(y)).tolist()
        if low < 0 or high >= num_classes:
            raise UsageError(f"y must lie in [0, {num_classes}), got labels from {low} to {high}.")
