"""Each of our attacks keeps its promises, and each promise that an attack breaks is named."""

import random

import pytest
import torch
from torch.nn import functional as F

from lightning_adv.attacks import (
    APGD,
    FGSM,
    GD,
    MDIFGSM,
    MIFGSM,
    PGD,
    Attack,
    CarliniWagner,
    CarliniWagnerLinf,
    FoolboxAttack,
    Forward,
    RandomNoise,
    StAdv,
    held_still,
)
from lightning_adv.core.errors import UsageError
from lightning_adv.testing import check_attack

# So large a constant that few steps succeed.
NEAREST = {"steps": 10, "learning_rate": 0.05, "initial_const": 1e3, "binary_search_steps": 2, "label": "predicted"}
OURS = [
    FGSM(eps=0.05, batchnorm="batch"),
    PGD(eps=0.05, steps=2, loss="kl", restarts=2),
    PGD(eps=0.5, steps=3, norm="l2", early_stop=True, label="random"),
    PGD(eps=4, steps=2, norm="l1"),
    MIFGSM(eps=0.5, steps=2, norm="l2", label="least_likely"),
    MDIFGSM(steps=2, diversity_scale=0.8),
    GD(steps=2),
    APGD(eps=0.5, steps=3, norm="l2", loss="dlr", restarts=2),
    CarliniWagner(eps=9, **NEAREST),
    CarliniWagnerLinf(steps=2),
    StAdv(steps=3),
    RandomNoise(eps=4, draws=5, norm="l1"),
    FoolboxAttack("L2PGD", eps=0.5, options={"steps": 2}),
]


@pytest.mark.slow
@pytest.mark.parametrize("attack", OURS, ids=lambda attack: type(attack).__name__)
def test_our_attacks_keep_their_promises(attack):
    check_attack(attack)


class Own(Attack):
    """Four lines of one's own: what comes back is attached, and leaves the ball and [0, 1]."""

    norm = "linf"

    def __init__(self, eps=0.1):
        self.eps = eps

    def perturb(self, forward, x, y, generator):
        gradient = torch.autograd.grad(F.cross_entropy(forward(x.requires_grad_()), y, reduction="sum"), x)[0]
        return x + 3 * self.eps * gradient.sign()


@pytest.mark.slow
def test_four_lines_keep_the_promises():
    check_attack(Own())


def test_what_leaves_the_ball_goes_to_its_edge():
    x, network = torch.rand(4, 3, 2, 2), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    x_adv = Own()(network, x, torch.tensor([0, 1, 0, 1]))
    assert torch.equal(x_adv, FGSM(eps=0.1)(network, x, torch.tensor([0, 1, 0, 1])))


def test_a_ball_of_which_only_the_radius_is_known_is_an_error():
    class Nowhere(Own):
        norm = None

    class Unsaid(Attack):
        eps = 0.1

        def perturb(self, forward, x, y, generator):
            return x

    network, x = torch.nn.Flatten(), torch.rand(2, 3, 1, 1)
    Nowhere()(network, x, torch.tensor([0, 1]))
    with pytest.raises(UsageError, match=r"Unsaid has eps 0.1, but says no norm"):
        Unsaid()(network, x, torch.tensor([0, 1]))


@pytest.mark.parametrize("given", [None, torch.zeros(2, 3), torch.zeros(2, 3, 1, 1, dtype=torch.int64)])
def test_what_perturb_must_return(given):
    class Other(Own):
        def perturb(self, forward, x, y, generator):
            return given

    with pytest.raises(
        TypeError, match=r"Other.perturb must return floating-point images of shape \(2, 3, 1, 1\), got "
    ):
        Other()(torch.nn.Flatten(), torch.rand(2, 3, 1, 1), torch.tensor([0, 1]))


def test_an_attribute_error_in_a_property_of_ones_own_keeps_its_line():
    class Asks(Own):
        @property
        def reach(self):
            return self.nowhere.else_

    with pytest.raises(AttributeError, match="no attribute 'nowhere'"):
        Asks().reach  # noqa: B018


def test_restarts_of_ones_own_must_be_a_whole_number():
    class Often(Own):
        restarts = 2.0

    with pytest.raises(UsageError, match=r"restarts must be an integer of at least 1, got 2\.0"):
        Often().stages()


class InOther(Own):
    """Calls another attack on what it was given."""

    def perturb(self, forward, x, y, generator):
        return PGD(eps=self.eps, steps=1)(forward, x, y)


def test_an_attack_on_what_is_not_a_network():
    with pytest.raises(UsageError, match=r"must be a torch.nn.Module, got a Forward.*its own perturb"):
        InOther()(torch.nn.Flatten(), torch.rand(2, 3, 1, 1), torch.tensor([0, 1]))


class Whole(Attack):
    """One of version 0.1, which writes __call__ as a whole; a subclass breaks one thing."""

    norm = "linf"
    batchnorm = "eval"

    def __init__(self, eps=0.1):
        self.eps = eps

    def __call__(self, model, x, y, *, domain=None, generator=None):
        with held_still(model, batchnorm=self.batchnorm, domain=domain) as network:
            clean = x.detach().clone()
            return self.give(self.step(Forward(network, clean.dtype), clean, y.clone(), generator), clean)

    def step(self, forward, x, y, generator):
        gradient = torch.autograd.grad(F.cross_entropy(forward(x.requires_grad_()), y, reduction="sum"), x)[0]
        return x + 0.9 * self.eps * gradient.sign()

    def give(self, x_adv, clean):
        return x_adv.clamp(0, 1).detach().to(clean.dtype)


@pytest.mark.slow
def test_an_attack_of_version_0_1_works_as_before():
    check_attack(Whole())
    with pytest.raises(NotImplementedError, match="Whole writes __call__ as a whole, and no perturb"):
        Whole().perturb(None, None, None, None)


class Attached(Whole):
    def give(self, x_adv, clean):
        return super().give(x_adv, clean) + 0 * clean


class Outside(Whole):
    def give(self, x_adv, clean):
        return x_adv.detach().to(clean.dtype)


class TooFar(Whole):
    def give(self, x_adv, clean):
        return super().give(clean + 2 * (x_adv - clean), clean)


class OtherPrecision(Whole):
    def give(self, x_adv, clean):
        return super().give(x_adv, clean).float()


class InTrainMode(Whole):
    def __call__(self, model, x, y, *, domain=None, generator=None):
        x_adv = super().__call__(model, x, y, domain=domain, generator=generator)
        model.train()
        return x_adv


class MovesStatistics(Whole):
    def __call__(self, model, x, y, *, domain=None, generator=None):
        model(x)
        return super().__call__(model, x, y, domain=domain, generator=generator)


class FillsGradients(Whole):
    def __call__(self, model, x, y, *, domain=None, generator=None):
        x_adv = super().__call__(model, x, y, domain=domain, generator=generator)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        return x_adv


class LeftHalfway(Whole):
    def __call__(self, model, x, y, *, domain=None, generator=None):
        flags = [module.training for module in model.modules()]
        model.eval()
        x_adv = super().__call__(model, x, y, domain=domain, generator=generator)
        for module, flag in zip(model.modules(), flags, strict=True):
            module.training = flag
        return x_adv


class WritesToImages(Whole):
    def __call__(self, model, x, y, *, domain=None, generator=None):
        x_adv = super().__call__(model, x, y, domain=domain, generator=generator)
        x.copy_(x_adv)
        return x_adv


class NormOfTheBatch(Whole):
    def step(self, forward, x, y, generator):
        ahead = super().step(forward, x, y, generator) - x
        return x + ahead * x.mean() / 2


class MeanOfTheBatch(Own):
    """Its steps follow the length of the gradient, which a mean divides by the number of samples."""

    def perturb(self, forward, x, y, generator):
        return x + torch.autograd.grad(F.cross_entropy(forward(x.requires_grad_()), y), x)[0]


class Underflows(Whole):
    def __call__(self, model, x, y, *, domain=None, generator=None):
        with held_still(model, batchnorm=self.batchnorm, domain=domain) as network:
            clean = x.detach().clone().requires_grad_()
            gradient = torch.autograd.grad(F.cross_entropy(network(clean).float(), y.clone()), clean)[0]
            return self.give(clean + 0.9 * self.eps * gradient.sign(), clean)


class NeedsGradients(Whole):
    def __call__(self, model, x, y, *, domain=None, generator=None):
        if not torch.is_grad_enabled():
            raise RuntimeError("element 0 of tensors does not require grad")
        return super().__call__(model, x, y, domain=domain, generator=generator)


class ThroughTheWrapper(Whole):
    def __call__(self, model, x, y, *, domain=None, generator=None):
        x_adv = super().__call__(model, x, y, domain=domain, generator=generator)
        with held_still(model, domain=domain), torch.no_grad():
            model(x.clone())
        return x_adv


class GlobalNoise(Whole):
    def step(self, forward, x, y, generator):
        ahead = super().step(forward, x, y, generator)
        return x + 0.5 * (ahead - x) + 0.01 * torch.rand(x.shape)


class PythonsNoise(Whole):
    def step(self, forward, x, y, generator):
        ahead = super().step(forward, x, y, generator)
        return x + 0.5 * (ahead - x) + 0.01 * random.random()


class ItsOwnMode(Whole):
    @property
    def batchnorm(self):
        return "batch"

    @batchnorm.setter
    def batchnorm(self, mode):
        pass


class NoDomain(Whole):
    def __call__(self, model, x, y, *, domain=None, generator=None):
        return super().__call__(model, x, y, generator=generator)


class ForgetsAnArgument(Whole):
    def __init__(self, eps=0.1, share=0.9):
        self.eps = eps * share
        self.share = share


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (Attached, "'result': it is attached to a graph"),
        (Outside, "'result': it leaves [0, 1]"),
        (TooFar, "'result': it is 0.18 away, and eps is 0.1"),
        (OtherPrecision, "'result': for torch.bfloat16 images of shape (6, 3, 8, 8) it gives torch.float32"),
        (InTrainMode, "'network': after the attack module"),
        (MovesStatistics, "'network': after the attack 1.running_mean has other values"),
        (FillsGradients, "'network': after the attack 0.weight.grad has other values"),
        (LeftHalfway, "'network': after an attack that failed midway module '' is in eval mode"),
        (WritesToImages, "'network': it writes to the images"),
        (NormOfTheBatch, "'independence': a sample's result depends on the others"),
        (MeanOfTheBatch, "'independence': a result depends on how many samples there are"),
        (Underflows, "'precision': on a confident network it changes"),
        (NeedsGradients, "'surroundings': within no_grad it fails: element 0"),
        (ThroughTheWrapper, "'surroundings': under DDP it goes through the wrapper"),
        (GlobalNoise, "'randomness': it moves a global random state"),
        (PythonsNoise, "'randomness': it moves a global random state"),
        (ItsOwnMode, "'batchnorm': with batchnorm='eval' BatchNorms have training flags {True}"),
        (NoDomain, "'batchnorm': asked for domain 'adversarial', it goes through {'main'}"),
        (ForgetsAnArgument, "'recipe': built again of the arguments that it keeps"),
    ],
)
def test_a_broken_promise_is_named(broken, told):
    with pytest.raises(AssertionError) as error:
        check_attack(broken())
    assert f"{broken.__name__} breaks the promise {told}" in str(error.value)


class Darker(Own):
    def perturb(self, forward, x, y, generator):
        return x - self.eps


def test_an_attack_that_looks_at_no_network_keeps_the_promises():
    check_attack(Darker())


@pytest.mark.slow
def test_a_promise_can_be_left_out():
    check_attack(NormOfTheBatch(), leave_out=["independence"])


@pytest.mark.parametrize("said", ["attribute", "class"])
def test_the_old_name_of_selects_by_success(said):
    class Says(Own):
        pass

    attack = Says()
    if said == "class":
        Says.judges = False
    else:
        attack.judges = False
    with pytest.warns(DeprecationWarning, match="judges is Attack.selects_by_success"):
        assert attack.selects_by_success is False
    assert Own().selects_by_success is True
    with pytest.warns(DeprecationWarning, match="judges is Attack.selects_by_success"):
        assert PGD().judges is False


def test_the_old_name_of_held_still():
    with pytest.warns(DeprecationWarning, match="attacking is held_still now"):
        from lightning_adv.attacks import attacking
    assert attacking is held_still


def test_the_old_name_of_the_network():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    x, y = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    attack, noise = PGD(0.1, 2, 0.05), [torch.Generator().manual_seed(0) for _ in range(5)]
    expected = attack(network, x, y, generator=noise[0])
    with pytest.warns(DeprecationWarning, match=r"Attack.__call__ takes network now; its old name model is"):
        assert torch.equal(attack(model=network, x=x, y=y, generator=noise[1]), expected)
    assert torch.equal(attack(network=network, x=x, y=y, generator=noise[2]), expected)
    with pytest.warns(DeprecationWarning, match="PGD.iterates takes network now"):
        assert torch.equal(attack.iterates(model=network, x=x, y=y, at=[2], generator=noise[3])[0], expected)
    with (
        pytest.raises(TypeError, match=r"multiple values for argument .network"),
        pytest.warns(DeprecationWarning, match="takes network now"),
    ):
        attack(network, x, y, model=network)
