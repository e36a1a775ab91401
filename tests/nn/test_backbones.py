from __future__ import annotations

import argparse
import logging

import jsonargparse
import pytest
import timm
import torch
from timm.utils import CheckpointSaver
from torch import nn
from torchvision import models
from torchvision.transforms import functional as transforms

from lightning_adv.nn.activations import SmoothReLU
from lightning_adv.nn.backbones import Backbone, create_backbone
from lightning_adv.nn.batchnorm import convert_batchnorm
from lightning_adv.nn.libraries import classifier_names, default_image_shape, use_cifar_stem
from lightning_adv.nn.normalize import Normalize, NormalizedNetwork

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])

NETWORKS = [
    # name, side of the images, other arguments
    ("resnet18", 32, {"stem": "cifar"}),
    ("seresnet18", 32, {"in_channels": 1, "stem": "cifar"}),
    ("efficientnet_b0", 32, {}),
    ("convnext_atto", 32, {"in_channels": 4}),
    ("vit_tiny_patch16_224", 32, {"options": {"img_size": 32, "patch_size": 8, "depth": 2}}),
    ("torchvision/resnet18", 32, {"stem": "cifar"}),
    ("torchvision/resnet18", 32, {"in_channels": 1}),
    ("torchvision/squeezenet1_1", 32, {"in_channels": 1}),
    ("torchvision/googlenet", 32, {}),
    ("torchvision/inception_v3", 75, {}),
    ("vit_b_16", 32, {"in_channels": 1, "options": {"image_size": 32}}),  # only torchvision has this name
    ("preact_resnet18", 32, {}),
    ("wide_resnet28_10", 32, {"options": {"depth": 10, "widen_factor": 2}}),
    ("small_cnn", 8, {"in_channels": 1, "options": {"width": 8}}),
]


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "size", "arguments"), NETWORKS)
def test_every_network_gives_logits_of_the_classes_asked_for(name, size, arguments, training):
    network = create_backbone(name, 7, **arguments).train(training)
    logits = network(torch.rand(2, arguments.get("in_channels", 3), size, size))
    assert isinstance(logits, torch.Tensor)  # no tuple with auxiliary logits
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


def test_torchvisions_vgg_has_the_head_of_the_classes_asked_for():
    with torch.device("meta"):  # its 129 million parameters are slow to draw
        network = create_backbone("torchvision/vgg11_bn", 7)
    assert network.network.classifier[6].weight.shape == (7, 4096)
    assert network.to_empty(device="cpu")(torch.rand(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("resnet18", "timm"),
        ("timm/resnet18", "timm"),
        ("torchvision/resnet18", "torchvision"),
        ("vit_b_16", "torchvision"),
    ],
)
def test_prefix_picks_the_library_and_timm_comes_first(name, library):
    with torch.device("meta"):
        network = create_backbone(name, 2).network
    assert type(network).__module__.partition(".")[0] == library


def test_the_name_alone_fixes_the_architecture():
    """A checkpoint is loaded into a network that is built without the pretrained weights."""
    with torch.device("meta"):
        network = create_backbone("vit_b_16.IMAGENET1K_SWAG_E2E_V1", 2).network
    assert network.encoder.pos_embedding.shape == (1, (384 // 16) ** 2 + 1, 768)  # these weights are for 384×384


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("resnet81", "resnet18"),
        ("torchvision/resnet81", "torchvision/resnet18"),
        ("small_cn", "small_cnn"),
        ("torchvision/resnet50.IMAGENET1K_V9", "IMAGENET1K_V1"),
        ("torchvision/vgg16.IMAGENET1K_FEATURES", "IMAGENET1K_V1"),  # their classifier is NaN
    ],
)
def test_unknown_name_gets_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=f"name: '.*{name.rpartition('/')[2]}'.*nearest.*{nearest}"):
        create_backbone(name, 10)


@pytest.mark.parametrize(
    "name",
    [
        "fasterrcnn_resnet50_fpn",  # detection
        "torchvision/fcn_resnet50",  # segmentation
        "quantized_resnet18",
        "torchvision/preact_resnet18",  # ours, in timm
        "timm/vit_b_16",  # torchvision's
        "",
    ],
)
def test_what_is_no_classifier_of_the_library_is_refused(name):
    with pytest.raises(ValueError, match=f"name: '{name}' is not a classifier of timm or torchvision"):
        create_backbone(name, 10)


def test_unknown_tag_is_refused():
    with pytest.raises(ValueError, match=r"resnet18\.a9_in1k.*Invalid pretrained tag"):
        create_backbone("resnet18.a9_in1k", 10)


# Normalisation --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "in_channels", "mean", "std"),
    [
        ("resnet18", 3, *IMAGENET),
        ("torchvision/resnet18", 3, *IMAGENET),
        ("vit_tiny_patch16_224", 3, [0.5] * 3, [0.5] * 3),
        ("tf_efficientnet_b0.in1k", 3, *IMAGENET),
        ("tf_efficientnet_b0.ap_in1k", 3, [0.5] * 3, [0.5] * 3),  # AdvProp's, in the Inception networks' scale
        ("torchvision/efficientnet_v2_l", 3, [0.5] * 3, [0.5] * 3),
        ("wide_resnet28_10", 3, [0.0] * 3, [1.0] * 3),
        ("small_cnn", 3, [0.5] * 3, [0.5] * 3),  # its own is for one channel
        ("resnet18", 1, [0.449], [0.226]),
        ("torchvision/resnet18", 1, [0.449], [0.226]),
    ],
)
def test_normalization_is_the_networks_own(name, in_channels, mean, std):
    normalize = create_backbone(name, 10, in_channels=in_channels).normalize
    assert normalize.mean.shape == normalize.std.shape == (in_channels, 1, 1)
    assert normalize.mean.flatten().tolist() == pytest.approx(mean)
    assert normalize.std.flatten().tolist() == pytest.approx(std)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normalization_inside_equals_torchvisions_outside(dtype):
    mean, std = (0.1, 0.4, 0.7), (0.2, 0.5, 0.3)
    network = create_backbone("small_cnn", 4, in_channels=3, mean=mean, std=std).eval().to(dtype)
    x = torch.rand(5, 3, 28, 28, dtype=dtype)
    torch.testing.assert_close(network(x), network.network(transforms.normalize(x, list(mean), list(std))))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_normalization_keeps_the_dtype_of_the_images_under_autocast(dtype):
    normalize = Normalize((0.5,), (0.25,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = normalize(torch.ones(1, 1, 2, 2, dtype=dtype))
    assert z.dtype == dtype
    assert (z == 2).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": (0.5,)}, "mean: needs one value for each of the 3 channels"),
        ({"std": (0.5, 0.5)}, "std: needs one value for each of the 3 channels"),
        ({"std": (0.5, 0.0, 0.5)}, "std: must be positive and finite in every channel"),
        ({"std": (0.5, float("nan"), 0.5)}, "std: must be positive"),
        ({"std": (0.5, 1e-60, 0.5)}, "std: must be positive"),  # 0 in the network's fp32
        ({"mean": (0.5, float("nan"), 0.5)}, "mean: must be finite in every channel"),
    ],
)
def test_bad_normalization_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_backbone("small_cnn", 4, **arguments)


def test_normalize_refuses_lengths_that_differ():
    with pytest.raises(ValueError, match="got 1 and 3 values"):
        Normalize((0.5,), (0.5, 0.5, 0.5))


# CIFAR stems ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "torchvision/resnet18"])
def test_cifar_stem_keeps_the_resolution(name):
    network = create_backbone(name, 10, stem="cifar").network
    shapes = {}
    for layer in ("conv1", "layer1", "layer4"):
        getattr(network, layer).register_forward_hook(
            lambda module, inputs, output, layer=layer: shapes.update({layer: tuple(output.shape[2:])})
        )
    network.eval()(torch.rand(1, 3, 32, 32))
    assert shapes == {"conv1": (32, 32), "layer1": (32, 32), "layer4": (4, 4)}
    assert network.conv1.weight.shape == (64, 3, 3, 3)
    assert network.conv1.bias is None
    # He initialisation over 64 filters of 3×3, as both libraries have it
    assert network.conv1.weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.1)


@pytest.mark.parametrize("name", ["resnet18", "torchvision/resnet18"])
def test_cifar_resnet18_has_its_published_size(name):
    network = create_backbone(name, 10, stem="cifar")  # kuangliu/pytorch-cifar's ResNet-18
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_173_962


def _vgg(name, **arguments):
    """Build a VGG without drawing its millions of parameters twice."""
    with torch.device("meta"):
        network = create_backbone(name, 10, stem="cifar", **arguments)
    return network.to_empty(device="cpu")


def test_cifar_vgg_pools_its_features_to_one_pixel():
    network = _vgg("torchvision/vgg11_bn").eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.network.classifier[0].weight[0] = 1.0
    seen = []
    network.network.features.register_forward_hook(lambda module, inputs, output: torch.rand(2, 512, 2, 2))
    network.network.features.register_forward_hook(lambda module, inputs, output: seen.append(output))
    network.network.classifier[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 10)
    features, first = seen
    torch.testing.assert_close(first[:, 0], features.sum((1, 2, 3)) / 4)  # the mean over 2×2 pixels of each channel


def test_cifar_vgg11_has_the_size_counted_by_hand():
    channels = [(3, 64), (64, 128), (128, 256), (256, 256), (256, 512), (512, 512), (512, 512), (512, 512)]
    features = sum(9 * before * after + after + 2 * after for before, after in channels)  # with bias, and BatchNorm
    classifier = (512 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 10
    assert features + classifier == 28_149_514
    assert sum(parameter.numel() for parameter in _vgg("torchvision/vgg11_bn").parameters()) == 28_149_514


def test_cifar_vgg_draws_its_new_layer_as_torchvision_does():
    with torch.device("meta"):
        network = models.vgg11()
    torch.manual_seed(0)
    assert use_cifar_stem(network, "vgg11") == "the first linear layer"
    first = network.classifier[0]
    assert first.weight.shape == (4096, 512)
    assert first.weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert not first.bias.any()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "resnet18d",
        "vgg11_bn",  # timm's, whose first linear layer is a convolution of 7×7
        "torchvision/densenet121",
        "vit_tiny_patch16_224",
        "preact_resnet18",
        "torchvision/shufflenet_v2_x0_5",
    ],
)
def test_cifar_stem_is_refused_where_there_is_none(name):
    with pytest.raises(ValueError, match=r"stem: 'cifar' is for the ResNets .*resnet18.*torchvision/vgg11_bn"):
        create_backbone(name, 10, stem="cifar")


# Other arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "num_classes", "arguments", "message"),
    [
        ("small_cnn", 1, {}, "num_classes must be at least 2, got 1"),
        ("small_cnn", 10, {"stem": "cifr"}, "stem: must be 'default' or 'cifar', got 'cifr'"),
        ("small_cnn", 10, {"in_channels": 0}, "in_channels: must be at least 1, got 0"),
        ("small_cnn", 10, {"options": {"in_chans": 1}}, "options: cannot hold 'in_chans'"),
        ("small_cnn", 10, {"options": {"widht": 8}}, "options: .* do not fit small_cnn: .*'widht'"),
        ("torchvision/resnet18", 10, {"options": {"depth": 8}}, "options: .* do not fit resnet18: .*'depth'"),
        ("resnet18", 10, {"pretrained": True, "checkpoint": "w.pth"}, "pretrained: is given with a checkpoint"),
        (
            "small_cnn",
            10,
            {"checkpoint_domain": "main"},
            "checkpoint_domain: is 'main', but there is no checkpoint",
        ),
        ("small_cnn", 10, {"activation_options": {"alpha": 1.0}}, "activation_options: are .*no activation"),
        ("small_cnn", 10, {"activation": "sliu"}, "activation must be one of .*got 'sliu'. Did you mean 'silu'"),
        ("torchvision/resnet18", 10, {"pretrained": True, "in_channels": 1}, "in_channels: must be 3 .* got 1"),
    ],
)
def test_bad_arguments_are_refused(name, num_classes, arguments, message):
    with pytest.raises(ValueError, match=message):
        create_backbone(name, num_classes, **arguments)


# Pretrained weights ---------------------------------------------------------------------------------------------------


@pytest.fixture
def pretrained_by_torchvision(monkeypatch):
    """Make torchvision "download" the weights of a network that we hold."""

    def prepare(name, **arguments):
        torch.manual_seed(1)
        source = models.get_model(name, weights=None, **arguments)
        monkeypatch.setattr(
            "torchvision.models._api.load_state_dict_from_url", lambda *args, **kwargs: source.state_dict()
        )
        return source

    return prepare


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "head"), [("resnet18", "fc"), ("squeezenet1_1", "classifier.1"), ("mobilenet_v3_small", "classifier.3")]
)
def test_torchvisions_pretrained_weights_get_a_new_classifier(pretrained_by_torchvision, name, head):
    source = pretrained_by_torchvision(name).state_dict()
    state = create_backbone(f"torchvision/{name}", 7, pretrained=True).network.state_dict()
    assert {key for key in source if source[key].shape != state[key].shape} == {f"{head}.weight", f"{head}.bias"}
    assert len(state[f"{head}.weight"]) == len(state[f"{head}.bias"]) == 7
    assert all(torch.equal(state[key], source[key]) for key in source if not key.startswith(head))


@pytest.mark.slow
def test_torchvisions_pretrained_classifier_stays_where_the_classes_are_as_many(pretrained_by_torchvision):
    source = pretrained_by_torchvision("resnet18").eval()
    network = create_backbone("torchvision/resnet18.IMAGENET1K_V1", 1000, pretrained=True).eval()
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(network(x), source(transforms.normalize(x, *IMAGENET)))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size", "first"), [("googlenet", 32, "conv1"), ("inception_v3", 75, "Conv2d_1a_3x3")])
def test_pretrained_networks_with_auxiliary_logits(pretrained_by_torchvision, name, size, first):
    source = pretrained_by_torchvision(name, init_weights=False, aux_logits=True, transform_input=True)
    network = create_backbone(f"torchvision/{name}", 1000, pretrained=True)
    x = torch.rand(2, 3, size, size)
    assert isinstance(network.train()(x), torch.Tensor)
    assert network.state_dict().keys() == create_backbone(f"torchvision/{name}", 1000).state_dict().keys()
    # torchvision turns ImageNet's normalisation into another inside the network: the first layer sees the same
    seen = []
    for model in (source.eval(), network.network.eval()):
        getattr(model, first).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    source(transforms.normalize(x, *IMAGENET))
    network(x)
    torch.testing.assert_close(*seen)


@pytest.fixture(scope="module")
def timm_weights(tmp_path_factory):
    """A file with the weights of timm's ResNet-18 for 1000 classes, and these weights."""
    torch.manual_seed(2)
    state = timm.create_model("resnet18").state_dict()
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(state, path)
    return path, state


@pytest.mark.slow
@pytest.mark.parametrize("stem", ["default", "cifar"])
def test_timms_pretrained_weights_get_a_new_classifier_and_cifar_stem(timm_weights, stem):
    path, source = timm_weights
    overlay = {"file": str(path), "mean": (0.1, 0.2, 0.3)}
    network = create_backbone("resnet18", 7, pretrained=True, stem=stem, options={"pretrained_cfg_overlay": overlay})
    state = network.network.state_dict()
    new = {"fc.weight", "fc.bias"} | ({"conv1.weight"} if stem == "cifar" else set())
    assert {key for key in source if not torch.equal(source[key], state[key])} == new
    assert network.normalize.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])


# Checkpoints ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_checkpoint_is_loaded_after_the_stem_is_replaced(tmp_path):
    trained = create_backbone("resnet18", 7, stem="cifar", mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)).eval()
    torch.save(trained.state_dict(), tmp_path / "trained.pth")
    loaded = create_backbone("resnet18", 7, stem="cifar", checkpoint=str(tmp_path / "trained.pth")).eval()
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded(x), trained(x))  # the normalisation came with it


def test_checkpoint_does_not_silently_replace_the_normalization_asked_for(tmp_path):
    path = tmp_path / "trained.pth"
    trained = create_backbone("small_cnn", 4, in_channels=1, mean=(0.1,))
    torch.save(trained.state_dict(), path)
    create_backbone("small_cnn", 4, in_channels=1, mean=(0.1,), checkpoint=str(path))
    with pytest.raises(ValueError, match=r"mean: is .*0.3.*, but the checkpoint was trained with .*0.1"):
        create_backbone("small_cnn", 4, in_channels=1, mean=(0.3,), checkpoint=str(path))
    torch.save(trained.network.state_dict(), path)  # without a normalisation, the one asked for is right
    kept = create_backbone("small_cnn", 4, in_channels=1, mean=(0.3,), checkpoint=str(path))
    assert kept.normalize.mean.item() == pytest.approx(0.3)


def test_errors_of_the_checkpoint_name_the_argument(tmp_path):
    with pytest.raises(ValueError, match=r"^checkpoint: there is no file .*absent.pth"):
        create_backbone("small_cnn", 4, checkpoint=str(tmp_path / "absent.pth"))


@pytest.mark.slow
def test_checkpoint_of_other_classes_keeps_a_new_classifier_and_says_so(tmp_path, caplog):
    trained = create_backbone("resnet18", 7, stem="cifar").network
    torch.save({"model": trained.state_dict()}, tmp_path / "trained.pth")
    with caplog.at_level(logging.INFO, "lightning_adv"):
        loaded = create_backbone("resnet18", 5, stem="cifar", checkpoint=str(tmp_path / "trained.pth"))
    state = loaded.network.state_dict()
    same = {key for key, value in trained.state_dict().items() if torch.equal(value, state.get(key))}
    assert trained.state_dict().keys() - same == set(loaded.new) == {"fc.weight", "fc.bias"}
    assert loaded.network.fc.out_features == 5
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith("checkpoint: ")
    assert "5 classes where the file has 7" in record.message


def test_carried_normalization_of_another_project_is_compared_too(tmp_path):
    path = tmp_path / "trained.pth"
    state = create_backbone("small_cnn", 4).network.state_dict()
    torch.save({**state, "mu": torch.full((1, 3, 1, 1), 0.2), "sigma": torch.full((1, 3, 1, 1), 0.4)}, path)
    loaded = create_backbone("small_cnn", 4, checkpoint=str(path), std=(0.4,) * 3)
    assert loaded.normalize.mean.flatten().tolist() == pytest.approx([0.2] * 3)
    with pytest.raises(ValueError, match=r"std: is .*0.5.*, but the checkpoint was trained with .*0.4"):
        create_backbone("small_cnn", 4, checkpoint=str(path), std=(0.5,) * 3)


def test_domain_of_a_checkpoint_is_a_field(tmp_path):
    network = convert_batchnorm(create_backbone("small_cnn", 4, in_channels=1)).state_dict()
    network = {key: value + 1 if ".adversarial.weight" in key else value for key, value in network.items()}
    torch.save(network, tmp_path / "trained.pth")
    recipe = Backbone("small_cnn", in_channels=1, checkpoint=str(tmp_path / "trained.pth"))
    assert (recipe.build(4).network.layer1[1].weight == 1).all()
    adversarial = Backbone(**{**recipe.to_config()["init_args"], "checkpoint_domain": "adversarial"})
    assert (adversarial.build(4).network.layer1[1].weight == 2).all()
    assert adversarial.without_weights() == Backbone("small_cnn", in_channels=1)


@pytest.mark.slow
def test_pretrained_weights_say_what_is_new(timm_weights, caplog):
    options = {"pretrained_cfg_overlay": {"file": str(timm_weights[0])}}
    with caplog.at_level(logging.INFO, "lightning_adv"):
        create_backbone("resnet18", 1000, pretrained=True, options=options)
        create_backbone("resnet18", 7, pretrained=True, stem="cifar", options=options)
    told = [(record.levelname, record.message) for record in caplog.records]
    assert [level for level, _ in told] == ["INFO", "WARNING", "WARNING"]
    assert "its classifier fc is new: 7 classes, where the weights have 1000" in told[1][1]
    assert "the first convolution is new" in told[2][1]


# Activations ----------------------------------------------------------------------------------------------------------


def _kinds(network):
    return {type(module) for module in network.modules()}


@pytest.mark.slow
def test_activation_is_replaced_after_timms_pretrained_weights(timm_weights):
    path, source = timm_weights
    options = {"pretrained_cfg_overlay": {"file": str(path)}}
    network = create_backbone("resnet18", 1000, pretrained=True, activation="smooth_relu", options=options).network
    assert nn.ReLU not in _kinds(network)
    state = network.state_dict()
    assert all(torch.equal(state[key], value) for key, value in source.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "torchvision/densenet121"])  # modules; function calls too
def test_learnable_activation_keeps_its_start_where_the_file_has_relu(tmp_path, caplog, name):
    trained = create_backbone(name, 5).network.state_dict()
    torch.save(trained, tmp_path / "trained.pth")
    with caplog.at_level(logging.INFO, "lightning_adv"):
        network = create_backbone(name, 7, activation="smooth_relu", checkpoint=str(tmp_path / "trained.pth")).network
    state = network.state_dict()
    new = {key for key, value in trained.items() if not torch.equal(value, state[key])}
    assert {len(trained[key]) for key in new} == {5}  # the classifier
    alphas = [module for module in network.modules() if isinstance(module, SmoothReLU)]
    assert len(state) == len(trained) + len(alphas)
    assert all(
        torch.equal(alpha.state_dict()[key], value)
        for alpha in alphas
        for key, value in SmoothReLU().state_dict().items()
    )
    assert f"not in the file, left as it was: {len(alphas)}" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.slow
def test_learnable_activation_comes_back_from_a_file(tmp_path):
    trained = create_backbone("resnet18", 4, stem="cifar", activation="smooth_relu")
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.01)
    torch.save(trained.state_dict(), tmp_path / "trained.pth")
    path = str(tmp_path / "trained.pth")
    loaded = create_backbone("resnet18", 4, stem="cifar", activation="smooth_relu", checkpoint=path)
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in trained.state_dict().items())
    with pytest.raises(ValueError, match=r"of another network: keys 0 missing, \d+ unexpected"):
        create_backbone("resnet18", 4, stem="cifar", checkpoint=path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        ("resnet18", {"stem": "cifar"}, (3, 32, 32)),
        ("resnet18", {"in_channels": 1}, (1, 224, 224)),
        ("small_cnn", {"in_channels": 1}, (1, 8, 8)),
        ("vit_tiny_patch16_224", {"options": {"img_size": 32}}, (3, 32, 32)),
        ("vit_b_16", {"options": {"image_size": 64}}, (3, 64, 64)),
        ("torchvision/resnet18", {}, (3, 224, 224)),
        ("torchvision/inception_v3", {}, (3, 299, 299)),
    ],
)
def test_default_image_shape_is_one_that_the_network_takes(name, arguments, shape):
    network = create_backbone(name, 4, **arguments)
    arguments = {"stem": "default", "in_channels": 3, "options": {}, **arguments}
    assert default_image_shape(network.network, **arguments) == shape
    assert network.eval()(torch.rand(1, *shape)).shape == (1, 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("resnet18", ("fc",)),
        ("efficientnet_b0", ("classifier",)),
        ("convnext_atto", ("head.fc",)),
        ("deit_tiny_distilled_patch16_224", ("head", "head_dist")),
        ("wide_resnet28_10", ("fc",)),
        ("preact_resnet18", ("linear",)),
        ("torchvision/vgg11_bn", ("classifier.6",)),
        ("torchvision/squeezenet1_1", ("classifier.1",)),
        ("torchvision/inception_v3", ("fc",)),
        ("vit_b_16", ("heads.head",)),
    ],
)
def test_classifier_is_what_has_an_output_for_each_class(name, head):
    one, other = (create_backbone(name, classes).network for classes in (5, 7))
    assert classifier_names(one) == head
    others = other.state_dict()
    changed = {key.rpartition(".")[0] for key, value in one.state_dict().items() if value.shape != others[key].shape}
    assert changed == set(head)


# The recipe -----------------------------------------------------------------------------------------------------------

RECIPE = Backbone(
    "small_cnn",
    in_channels=1,
    mean=[0.3],
    std=(0.4,),
    options={"width": 8},
    activation="elu",
    activation_options={"alpha": 0.5},
)


def test_recipe_builds_what_it_says():
    network = RECIPE.build(num_classes=5)
    assert isinstance(network, NormalizedNetwork)
    assert network.network.layer1[0].weight.shape == (8, 1, 3, 3)
    assert network.normalize.std.item() == pytest.approx(0.4)
    assert {module.alpha for module in network.modules() if isinstance(module, nn.ELU)} == {0.5}
    assert network(torch.rand(2, 1, 8, 8)).shape == (2, 5)


def test_recipe_survives_a_checkpoint(tmp_path):
    torch.save(RECIPE.to_config(), tmp_path / "recipe.pt")
    assert Backbone.from_config(torch.load(tmp_path / "recipe.pt", weights_only=True)) == RECIPE


def test_recipe_is_written_in_yaml_by_its_fields(tmp_path):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--backbone", type=Backbone)
    file = tmp_path / "run.yaml"
    activation = "activation: elu, activation_options: {alpha: 0.5}"
    fields = f"name: small_cnn, in_channels: 1, mean: [0.3], std: [0.4], options: {{width: 8}}, {activation}"
    file.write_text(f"backbone: {{{fields}}}\n")
    parsed = parser.parse_args(["--config", str(file)])
    assert parser.instantiate_classes(parsed).backbone == RECIPE
    # what --print_config writes gives the same again
    file.write_text(parser.dump(parsed))
    assert parser.instantiate_classes(parser.parse_args(["--config", str(file)])).backbone == RECIPE
    overridden = parser.parse_args(["--config", str(file), "--backbone.name=resnet18", "--backbone.stem=cifar"])
    assert parser.instantiate_classes(overridden).backbone.stem == "cifar"
    with pytest.raises(jsonargparse.ArgumentError, match="stem"):
        parser.parse_args(["--backbone.name=resnet18", "--backbone.stem=cifr"])


def test_null_of_the_command_line_is_none():
    """For a dataclass's optional strings the parser hands it over as text."""
    backbone = Backbone("resnet18", checkpoint="None", checkpoint_domain="None", activation="None")
    assert (backbone.checkpoint, backbone.checkpoint_domain, backbone.activation) == (None, None, None)


def test_the_checkpoints_of_timms_own_training_script_are_read(tmp_path):
    """They hold the script's arguments as argparse.Namespace, which is plain data."""
    source = timm.create_model("test_resnet", num_classes=3)
    optimizer = torch.optim.SGD(source.parameters(), 0.1)
    saver = CheckpointSaver(
        source, optimizer, args=argparse.Namespace(model="test_resnet"), checkpoint_dir=tmp_path, recovery_dir=tmp_path
    )
    saver.save_checkpoint(0, metric=0.5)
    built = Backbone("test_resnet", checkpoint=str(tmp_path / "last.pth.tar")).build(3)
    state = source.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in built.network.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_resnet", "small_cnn", "preact_resnet18"])
def test_a_built_network_is_compiled_by_torchscript(name):
    network = Backbone(name).build(3).eval()
    x = torch.rand(2, 3, 32, 32)
    assert torch.allclose(torch.jit.script(network)(x), network(x), atol=1e-6)
