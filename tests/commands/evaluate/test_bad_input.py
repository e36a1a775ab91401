"""One clear error, before anything is computed or written."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset

from lightning_adv.cli import main
from lightning_adv.nn.backbones import Backbone


class Given(LightningDataModule):
    """Six images whose labels and pixels are as asked for."""

    def __init__(self, label: int = 0, pixel: float = 0.5, size: int = 8, classes: int | None = 10, loaders: int = 1):
        super().__init__()
        self.label, self.pixel, self.size, self.loaders = label, pixel, size, loaders
        if classes is not None:
            self.num_classes = classes

    def test_dataloader(self):
        images = torch.full((6, 1, self.size, self.size), self.pixel)
        loader = DataLoader(TensorDataset(images, torch.full((6,), self.label)), batch_size=4)
        return loader if self.loaders == 1 else [loader] * self.loaders


DATA = "--data=tests.commands.evaluate.test_bad_input.Given"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--eps.linf=[0.2,0.1]"], "eps.linf must be increasing radii above 0, got [0.2, 0.1]"),
        (["--eps.linff=[0.1]"], "norm must be one of linf, l2, l1"),
        (["--eps={}"], "eps has no norm, but no attack fits"),
        (["--eps.l2=[1]", "--attacks=[{class_path: PGD}]", "--steps_curve.attack=CarliniWagnerLinf"],
         "steps_curve.attack fits none of the norms of eps: CarliniWagnerLinf-30 (linf)"),
        (["--suspicion_images=-1"], "suspicion_images must be at least 0, got -1"),
        (["--accelerator=cpus"], "accelerator, devices and precision must be those of this machine"),
        (["--devices=some"], "got accelerator 'cpu', devices 'some'"),
        (["--precision=double"], "precision 'double'"),
        (["--precision=bf16-true"], "error: precision is bf16-true, which rounds an image by more than a step"),
        (["--domain=main"], "domain"),
        (["--backbone.name=resnet18"], "backbone.name is 'resnet18', but"),
        ([DATA, "--data.label=10"], "y must lie in [0, 10), got labels from 10 to 10"),
        ([DATA, "--data.pixel=1.5"], "x must lie in [0, 1]"),
        ([DATA, "--data.classes=7"], "has 10 classes, but the data set has 7"),
        ([DATA, "--data.size=9"], "trained on images of shape (1, 8, 8), but those of Given have the shape (1, 9, 9)"),
        ([DATA, "--data.loaders=2"], "must give one DataLoader over a data set with a length, got list"),
        (["--config=evaluation/quik"], "Did you mean 'evaluation/quick'?"),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated(refused, arguments, message):
    assert message in refused(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--exaustive=true"], "There is no key 'exaustive'. Did you mean 'exhaustive'?"),
        (["--attacks=[{class_path: PDG}]"], "PDG"),
        (["--batch_size=x"], "batch_size: it must be of type int, got x."),
        (["--attacks=[{class_path: PGD, init_args: {steps: x}}]"], "steps: it must be of type int, got x."),
        (["--attacks=[{class_path: PGD, init_args: {step: 3}}]"], "step"),
    ],
)
def test_what_does_not_parse(refused, arguments, message):
    assert message in refused(*arguments, status=2)


@pytest.mark.slow
def test_checkpoints_that_are_none(refused, tmp_path):
    assert "there is no file" in refused(checkpoint=str(tmp_path / "missing.ckpt"))
    (tmp_path / "broken.ckpt").write_bytes(b"nothing")
    assert "cannot be read as weights" in refused("--data=DigitsDataModule", checkpoint=str(tmp_path / "broken.ckpt"))
    torch.save(Backbone("resnet18").build(10).network.state_dict(), tmp_path / "foreign.pth")
    error = refused("--data=DigitsDataModule", checkpoint=str(tmp_path / "foreign.pth"))
    assert "is not the checkpoint of a run" in error
    assert "backbone.name" in error
    assert "data must be given" in refused(checkpoint=str(tmp_path / "foreign.pth"))
    assert "checkpoint must be given" in refused("--data=DigitsDataModule", checkpoint=None)


@pytest.mark.slow
def test_a_foreign_checkpoint_of_another_network(refused, tmp_path):
    path = tmp_path / "foreign.pth"
    torch.save(Backbone("resnet18", in_channels=1).build(7).network.state_dict(), path)
    given = ["--data=DigitsDataModule", "--backbone.in_channels=1", "--eps.linf=[0.1]"]
    assert "an evaluation needs all weights" in refused(*given, "--backbone.name=resnet18", checkpoint=str(path))
    error = refused(*given, "--backbone.name=resnet34", checkpoint=str(path))
    assert "holds the weights of another network" in error


def test_a_folder_that_cannot_be_written(refused, tmp_path):
    (tmp_path / "file").write_text("")
    assert "output: file" in refused("--images=2", output="file")
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.slow
def test_without_a_run_the_radius_and_the_folder_must_be_given(refused, tmp_path, monkeypatch, capsys):
    path = tmp_path / "foreign.pth"
    torch.save(Backbone("small_cnn", in_channels=1).build(10).network.state_dict(), path)
    given = ["--data=DigitsDataModule", "--backbone={name: small_cnn, in_channels: 1}"]
    assert "eps must be given, as in --eps.linf [4/255,8/255]" in refused(*given, checkpoint=str(path))
    with pytest.raises(SystemExit):
        main(["evaluate", f"--checkpoint={path}", *given, "--eps.linf=[0.1]", "--accelerator=cpu"])
    assert "output must be given" in capsys.readouterr().err
