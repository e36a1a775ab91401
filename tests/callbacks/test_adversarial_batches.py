"""An adversary for every LightningModule: what its training step gets, and that nothing else changes."""

import re
from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.demos.boring_classes import ManualOptimBoringModel
from torch.utils.data import DataLoader

from lightning_adv.attacks import FGSM, PGD, AutoAttack
from lightning_adv.callbacks import AdversarialBatches
from lightning_adv.regimes import StandardTraining
from tests.callbacks.foreign import MEAN, STD, Task, classes, dicts, images
from tests.regimes.toy import BACKBONE, quiet_trainer

FIRST = FGSM(eps=0.1)
NOISY = PGD(eps=0.1, steps=2, step_size=0.05)
PARTS = {"network": "model", "batch": ["image", "label"]}


def fit(folder, adversary, module=None, data=None, path=None, **options):
    """Train two epochs; return the module."""
    module = Task() if module is None else module
    callbacks = [*options.pop("callbacks", []), *([] if adversary is None else [adversary])]
    trainer = quiet_trainer(folder, **{"max_epochs": 2, "callbacks": callbacks, "num_sanity_val_steps": 0} | options)
    trainer.fit(module, dicts(classes()) if data is None else data, ckpt_path=path, weights_only=True)
    return module


def fgsm_by_hand(module, x, loss, eps=0.1):
    """One step along the sign of a loss's gradient, with the network in eval mode."""
    flags = {each: each.training for each in module.modules()}
    module.eval()
    leaf = x.clone().requires_grad_()
    gradient = torch.autograd.grad(loss(leaf), leaf)[0]
    for each, flag in flags.items():
        each.training = flag
    return (x + eps * gradient.sign()).clamp(0, 1)


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_is_that_of_a_loop_by_hand(tmp_path, accumulate):
    trained = fit(tmp_path, AdversarialBatches(FIRST, **PARTS), accumulate_grad_batches=accumulate)
    expected = Task()
    optimizer = expected.configure_optimizers()
    for _ in range(2):
        for number, batch in enumerate(dicts(classes()), start=1):
            x, y = batch["image"], batch["label"]
            x_adv = fgsm_by_hand(expected.model, x, lambda leaf, y=y: F.cross_entropy(expected.model(leaf), y))
            (F.cross_entropy(expected.model(x_adv), y) / accumulate).backward()
            if number % accumulate == 0:
                optimizer.step()
                optimizer.zero_grad()
    for name, value in expected.state_dict().items():
        assert torch.allclose(trained.state_dict()[name], value, atol=1e-6), name


def test_a_ball_of_no_radius_changes_nothing(tmp_path):
    """Weights, buffers, what is logged and every draw are those of the module alone, normalised images too."""

    class Drawing(Task):
        def training_step(self, batch, batch_idx):
            self.seen.append({"draw": torch.rand(3)})
            return super().training_step(batch, batch_idx)

    runs = []
    for adversary in (None, AdversarialBatches(PGD(eps=0, steps=2), mean=MEAN, std=STD, **PARTS)):
        module = Drawing()
        torch.manual_seed(3)
        fit(tmp_path, adversary, module, dicts(classes(), (images() - 0.5) / 0.25), log_every_n_steps=1)
        runs.append((module.state_dict(), module.trainer.logged_metrics, *module.seen))
    assert all(same(*pair) for pair in zip(*runs, strict=True))


def test_the_attack_is_in_pixels_where_images_are_normalised(tmp_path):
    plain, normalised = Task(), Task()
    fit(tmp_path, AdversarialBatches(FGSM(eps=0.1), **PARTS), plain, max_steps=1)
    adversary = AdversarialBatches(FGSM(eps=0.1), mean=MEAN, std=STD, **PARTS)
    fit(tmp_path, adversary, normalised, dicts(classes(), (images() - 0.5) / 0.25), max_steps=1)
    seen = normalised.seen[0]["image"] * 0.25 + 0.5
    x, y = images()[:4], classes()[:4]
    network = Task().model
    expected = fgsm_by_hand(network, x, lambda leaf: F.cross_entropy(network((leaf - 0.5) / 0.25), y))
    assert torch.allclose(seen, expected, atol=1e-6)
    assert not torch.allclose(plain.seen[0]["image"], expected, atol=1e-3)


def test_a_resumed_run_draws_the_same_noise(tmp_path):
    """Whatever the global seed is then: the checkpoint keeps the run's."""
    torch.manual_seed(5)
    whole = fit(tmp_path, AdversarialBatches(NOISY, **PARTS))
    torch.manual_seed(5)
    half = fit(tmp_path, AdversarialBatches(NOISY, **PARTS), max_epochs=1)
    half.trainer.save_checkpoint(tmp_path / "half.ckpt")
    torch.manual_seed(6)
    resumed = fit(tmp_path, AdversarialBatches(NOISY, **PARTS), path=tmp_path / "half.ckpt")
    assert same(whole.state_dict(), resumed.state_dict())
    assert all(same(*pair) for pair in zip(whole.seen[4:], resumed.seen, strict=True))
    first, again = whole.seen[0]["image"], whole.seen[4]["image"]  # the same images, an epoch later
    assert not torch.equal(first - images()[:4], again - images()[:4])


def test_it_is_trained_in_mixed_precision(tmp_path):
    module = fit(tmp_path, AdversarialBatches(NOISY, **PARTS), precision="bf16-mixed")
    moved = module.seen[0]["image"] - images()[:4]
    assert moved.dtype == torch.float32
    assert 0.05 < moved.abs().max() <= 0.1 + 1e-6


@pytest.mark.parametrize("options", [{}, {"loss": F.cross_entropy}])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_images_of_another_precision_than_the_networks(tmp_path, dtype, options):
    class Casts(Task):
        def training_step(self, batch, batch_idx):
            return super().training_step({"image": batch["image"].float(), "label": batch["label"]}, batch_idx)

    x, y = images().to(dtype), classes()
    module = fit(tmp_path, AdversarialBatches(FIRST, **PARTS, **options), Casts(), dicts(y, x), max_steps=1)
    network = Task().model
    expected = fgsm_by_hand(network, x[:4].float(), lambda leaf: F.cross_entropy(network(leaf), y[:4]))
    torch.testing.assert_close(module.seen[0]["image"], expected, rtol=0, atol=4 * torch.finfo(dtype).eps + 1e-6)
    assert (module.seen[0]["image"] - x[:4].float()).abs().max() <= 0.1 + 1e-6


# Batches of every kind ----------------------------------------------------------------------------------------------

Pair = namedtuple("Pair", "image label")


@dataclass
class Sample:
    image: torch.Tensor
    label: torch.Tensor


class OwnClass:
    def __init__(self, image, label):
        self.image, self.label = image, label


class SameObjects:
    """A loader that hands out the same batch in each epoch."""

    def __init__(self, batch):
        self.batch = batch

    def __iter__(self):
        yield self.batch

    def __len__(self):
        return 1


class Anything(Task):
    """Takes batches of any kind."""

    def training_step(self, batch, batch_idx):
        x, y = self.options["take"](batch)
        return super().training_step({"image": x, "label": y}, batch_idx)


KINDS = {
    "tuple": (lambda x, y: (x, y), None, tuple),
    "list of three": (lambda x, y: [y, "name", x], [2, 0], lambda batch: (batch[2], batch[0])),
    "named tuple": (Pair, ["image", "label"], tuple),
    "dataclass": (Sample, ["image", "label"], lambda batch: (batch.image, batch.label)),
    "own class": (OwnClass, ["image", "label"], lambda batch: (batch.image, batch.label)),
    "nested": (
        lambda x, y: {"a": {"x": x}, "y": y},
        lambda batch: (batch["a"]["x"], batch["y"]),
        lambda b: (b["a"]["x"], b["y"]),
    ),
}


@pytest.mark.parametrize("own_loss", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_every_kind(tmp_path, kind, own_loss):
    make, parts, take = KINDS[kind]
    module = Anything(take=take)
    if own_loss:
        module.adversarial_loss = lambda batch: F.cross_entropy(module.model(take(batch)[0]), take(batch)[1])
    batch = make(images()[:4].clone(), classes()[:4])
    fit(tmp_path, AdversarialBatches(FIRST, network="model", batch=parts), module, SameObjects(batch))
    network = Task().model
    expected = fgsm_by_hand(network, images()[:4], lambda leaf: F.cross_entropy(network(leaf), classes()[:4]))
    assert torch.equal(module.seen[0]["image"], expected)
    assert torch.equal(take(batch)[0], images()[:4])
    assert (module.seen[1]["image"] - images()[:4]).abs().max() <= 0.1 + 1e-6


@pytest.mark.parametrize("failing", ["raises", "leaves the epoch"])
def test_a_batch_without_an_end_gets_its_images_back(tmp_path, failing):
    class Failing(Task):
        def training_step(self, batch, batch_idx):
            raise RuntimeError("out of memory")

        def on_train_batch_start(self, batch, batch_idx):
            return -1 if failing == "leaves the epoch" else None

    batch = {"image": images()[:4].clone(), "label": classes()[:4]}
    if failing == "raises":
        with pytest.raises(RuntimeError, match="out of memory"):
            fit(tmp_path, AdversarialBatches(FIRST, **PARTS), Failing(), SameObjects(batch))
    else:
        fit(tmp_path, AdversarialBatches(FIRST, **PARTS), Failing(), SameObjects(batch))
    assert torch.equal(batch["image"], images()[:4])


# Losses of every kind -----------------------------------------------------------------------------------------------


class MultiLabel(Task):
    def __init__(self, per_sample=True):
        super().__init__(outputs=3)
        self.per_sample = per_sample

    def criterion(self, outputs, labels):
        return F.binary_cross_entropy_with_logits(outputs, labels)

    def adversarial_loss(self, batch):
        reduction = "none" if self.per_sample else "mean"
        loss = F.binary_cross_entropy_with_logits(self.model(batch["image"]), batch["label"], reduction=reduction)
        return loss.mean(1) if self.per_sample else loss


def many_labels():
    return torch.rand(16, 3, generator=torch.Generator().manual_seed(2)).round()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_loss_of_a_module_by_sample_or_as_a_mean(tmp_path, norm):
    attack = PGD(eps=0.2, steps=3, step_size=0.1, norm=norm, start="zero")
    by_sample, mean = MultiLabel(), MultiLabel(per_sample=False)
    for module in (by_sample, mean):
        fit(tmp_path, AdversarialBatches(attack, batch=["image"]), module, dicts(many_labels()), max_steps=1)
    first, second = by_sample.seen[0]["image"], mean.seen[0]["image"]
    assert torch.allclose(first, second, atol=1e-5)
    fresh = MultiLabel()
    fresh.eval()
    clean, moved = (fresh.adversarial_loss({"image": x, "label": many_labels()[:4]}) for x in (images()[:4], first))
    assert (moved > clean).all()


class Dense(Task):
    """One class for each pixel."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3, padding=1), torch.nn.Dropout(0.5))


def test_dense_outputs_by_a_function_of_outputs_and_labels(tmp_path):
    masks = torch.randint(0, 3, (16, 6, 6), generator=torch.Generator().manual_seed(2))
    module = Dense()
    fit(tmp_path, AdversarialBatches(FIRST, loss=F.cross_entropy, **PARTS), module, dicts(masks), max_steps=1)
    network = Dense().model
    expected = fgsm_by_hand(network, images()[:4], lambda leaf: F.cross_entropy(network(leaf), masks[:4]))
    assert torch.equal(module.seen[0]["image"], expected)


@pytest.mark.parametrize("shape", [(16,), (16, 1)])
def test_heights_in_another_shape_are_not_compared_in_all_pairs(tmp_path, shape):
    class Regression(Task):
        def criterion(self, outputs, labels):
            return F.mse_loss(outputs, labels.view_as(outputs))

    heights = torch.rand(shape, generator=torch.Generator().manual_seed(2))
    module = Regression(outputs=1)
    fit(tmp_path, AdversarialBatches(FIRST, loss=F.mse_loss, **PARTS), module, dicts(heights), max_steps=1)
    network = Task(outputs=1).model
    expected = fgsm_by_hand(
        network, images()[:4], lambda leaf: ((network(leaf)[:, 0] - heights.flatten()[:4]) ** 2).sum()
    )
    assert torch.equal(module.seen[0]["image"], expected)


def test_lightnings_own_demo_with_manual_optimization(tmp_path):
    """Its batch is one tensor, and its loss needs no labels."""

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, number):
            return images()[number].flatten()[:32]

    def loss(outputs, labels):
        assert labels is None
        return F.mse_loss(outputs, torch.ones_like(outputs))

    class Seen(ManualOptimBoringModel):
        def step(self, batch):
            self.seen = batch.clone()
            return super().step(batch)

    torch.manual_seed(0)
    module = Seen()
    before = module.layer.weight.clone()
    data = DataLoader(Rows(), batch_size=8)
    fit(tmp_path, AdversarialBatches(FIRST, loss=loss), module, data, max_steps=1, limit_val_batches=0)
    x = torch.stack([Rows()[number] for number in range(8)])
    torch.manual_seed(0)
    fresh = ManualOptimBoringModel()
    expected = fgsm_by_hand(fresh, x, lambda leaf: F.mse_loss(fresh(leaf), torch.ones(8, 2)))
    assert torch.equal(module.seen, expected)
    assert not torch.equal(module.layer.weight, before)


# Bad input ----------------------------------------------------------------------------------------------------------


class TakesTheLoader(Task):
    def training_step(self, dataloader_iter):
        return None


class Softmax(Task):
    def __init__(self):
        super().__init__()
        self.model.append(torch.nn.Softmax(1))


class LossOfTwo(Task):
    def adversarial_loss(self, batch):
        return self.model(batch["image"])


class Detached(Task):
    def adversarial_loss(self, batch):
        return self.model(batch["image"]).detach().sum()


def halved(batch):
    return batch["image"] / 2, batch["label"]


ERRORS = {
    "no such submodule": (
        {"network": "modle"},
        Task,
        "adversarial_batches.network is 'modle', and Task has no such submodule. Did you mean 'model'? It has model.",
    ),
    "no forward": (
        {"network": None},
        Task,
        "adversarial_batches.network must be the name of the submodule that takes images, since Task has no forward of "
        "its own. It has model.",
    ),
    "no such key": (
        {"batch": ["images", "label"]},
        Task,
        "adversarial_batches.batch has 'images', which is not in the batch, a dict with the keys image, label. Did you "
        "mean 'image'?",
    ),
    "no parts": (
        {"batch": None},
        Task,
        "adversarial_batches.batch must say where a batch has its images and labels, as in [image, label] or [0, 1]: "
        "this one is not a pair, but a dict with the keys image, label.",
    ),
    "computed": ({"batch": halved}, Task, "must give a tensor that stands in the batch itself"),
    "computed, own loss": ({"batch": halved}, LossOfTwo, "must give a tensor that stands in the batch itself"),
    "no labels": ({"batch": ["image"]}, Task, "adversarial_batches.batch must give integer labels beside the images"),
    "normalised images": (
        {"mean": MEAN, "std": [9.0]},
        Task,
        "adversarial_batches: the images must lie in [0, 1], where eps is a distance in pixels, and go from",
    ),
    "half a normalisation": ({"mean": MEAN}, Task, "adversarial_batches.mean and adversarial_batches.std belong"),
    "no deviation": ({"mean": MEAN, "std": [0.0]}, Task, "adversarial_batches.std: must be positive and finite"),
    "a regime": (
        {},
        lambda: StandardTraining(BACKBONE, num_classes=2),
        "AdversarialBatches is for a LightningModule that is no regime, and StandardTraining says by itself",
    ),
    "takes the loader": ({}, TakesTheLoader, "TakesTheLoader.training_step(dataloader_iter) takes its batches by its"),
    "probabilities": ({}, Softmax, "adversarial_batches: the network gives probabilities, which sum to 1"),
    "loss of a matrix": (
        {},
        LossOfTwo,
        "LossOfTwo.adversarial_loss must give one number for each image, shape (4,), or one for all, got torch.float32 "
        "of shape (4, 2).",
    ),
    "detached loss": ({}, Detached, "Detached.adversarial_loss has no gradient to the images"),
    "attack of classes": (
        {"attack": AutoAttack(eps=0.1)},
        LossOfTwo,
        "adversarial_batches.attack: AutoAttack keeps what leaves a class",
    ),
    "early stop": (
        {"attack": PGD(eps=0.1, early_stop=True), "loss": F.cross_entropy},
        Task,
        "adversarial_batches.attack.early_stop is True, which goes by the logits of classes",
    ),
    "parts of another kind": ({"batch": "image"}, Task, "adversarial_batches.batch must be the keys or positions"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_bad_input_is_told_before_the_first_step(tmp_path, name):
    arguments, module, message = ERRORS[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        fit(tmp_path, AdversarialBatches(**{"attack": FIRST, **PARTS} | arguments), module())


def test_a_precision_that_rounds_what_an_attack_does(tmp_path):
    with pytest.raises(ValueError, match=r"trainer.precision is bf16-true, which rounds an image"):
        fit(tmp_path, AdversarialBatches(FIRST, **PARTS), precision="bf16-true")
