"""BatchNorm statistics of the whole batch, when several GPUs share it."""

from __future__ import annotations

from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class TimmSyncBatchNorm(TorchSyncBatchNorm):
    """Turns BatchNorms into SyncBatchNorms while training, by timm's converter.

    torch's converter, which ``Trainer(sync_batchnorm=True)`` alone takes, forgets that timm's ``BatchNormAct2d`` ends
    in an activation: EfficientNets then compute something else. Afterwards each place has the BatchNorm that was
    there, of its own class. Domain BatchNorms get a SyncBatchNorm for each domain.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(plugins=[TimmSyncBatchNorm()], accelerator="cpu", logger=False)
    """

    def __init__(self) -> None:
        self._originals: dict[nn.Module, _BatchNorm] = {}

    def apply(self, model: nn.Module) -> nn.Module:
        """Replace the BatchNorms of ``model`` in place; parameters and buffers stay the same tensors."""
        converted: dict[_BatchNorm, nn.Module] = {}  # a BatchNorm that is used in two places stays one
        for parent in list(model.modules()):
            for name, child in list(parent._modules.items()):
                # timm's converter goes over SyncBatchNorms again, and then it drops their activation too.
                if isinstance(child, _BatchNorm) and not isinstance(child, nn.SyncBatchNorm):
                    if child not in converted:
                        converted[child] = convert_sync_batchnorm(child)
                    setattr(parent, name, converted[child])
        self._originals.update({synchronised: norm for norm, synchronised in converted.items()})
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Put the BatchNorms back in place, with what they have learnt."""
        for parent in list(model.modules()):
            for name, child in list(parent._modules.items()):
                if child in self._originals:
                    setattr(parent, name, _returned(self._originals[child], child))
        self._originals.clear()
        return model


def _returned(norm: _BatchNorm, synchronised: nn.Module) -> _BatchNorm:
    """Hand parameters, buffers and the train flag back: some are other tensors since the model changed its device."""
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked", "training"):
        setattr(norm, name, getattr(synchronised, name))
    return norm
