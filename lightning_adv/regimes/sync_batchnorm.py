"""BatchNorm statistics of the whole batch, when several GPUs share it."""

from __future__ import annotations

from lightning.pytorch import LightningModule
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_adv.nn.surgery import check_registered, put_modules


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
        """Replace the BatchNorms of ``model`` in place; parameters and buffers stay the same tensors.

        Raises:
            UsageError: A network keeps a BatchNorm beside its registered modules, and would go on calling it.
        """
        # timm's converter goes over SyncBatchNorms again, and then it drops their activation too.
        found = (module for module in model.modules() if isinstance(module, _BatchNorm))
        norms = [norm for norm in found if not isinstance(norm, nn.SyncBatchNorm)]
        # Of a LightningModule its networks alone are checked: it may hold anything, such as its Trainer.
        for network in model.children() if isinstance(model, LightningModule) else (model,):
            check_registered(network, set(norms), purpose="synchronised BatchNorms", kind=_BatchNorm)
        converted: dict[nn.Module, nn.Module] = {norm: convert_sync_batchnorm(norm) for norm in norms}
        self._originals.update({converted[norm]: norm for norm in norms})
        return put_modules(model, converted)

    def revert(self, model: nn.Module) -> nn.Module:
        """Put the BatchNorms back in place, with what they have learnt."""
        there = [module for module in model.modules() if module in self._originals]
        put_modules(model, {module: _returned(self._originals[module], module) for module in there})
        self._originals.clear()
        return model


def _returned(norm: _BatchNorm, synchronised: nn.Module) -> _BatchNorm:
    """Hand parameters, buffers and the train flag back: some are other tensors since the model changed its device."""
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked", "training"):
        setattr(norm, name, getattr(synchronised, name))
    return norm
