"""Networks as programs that need neither this package nor the network's own code: ONNX, and ``torch.export``.

A program takes images in [0, 1], its normalisation inside, in batches of any size. What it is, which classes it knows
and how robust it was lies in its file.
"""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from lightning_adv.core.errors import UsageError
from lightning_adv.core.files import to_json, write_whole
from lightning_adv.core.reading import shorten
from lightning_adv.nn.normalize import NormalizedNetwork
from lightning_adv.nn.weights.repositories import PROGRAMS

ProgramFormat: TypeAlias = Literal["onnx", "torch_export"]

TOLERANCE = 1e-4
"""How far the logits of a program may be from the network's, as a part of the largest logit: rounding stays below."""

_INPUT = "images (N, C, H, W), float32 in [0, 1]: the normalisation is inside"
_MOST_BYTES = 2**31 - 2**20  # of a file of protocol buffers, with room for the graph
_EXTRA = ("onnx", "onnxscript", "onnxruntime")


def write_program(
    network: NormalizedNetwork,
    description: Mapping[str, Any],
    folder: Path,
    *,
    format: ProgramFormat,
    image_shape: Sequence[int],
    overwrite: bool = False,
) -> Path:
    """Write a network as a program: ``model.onnx``, or ``model.pt2`` for ``torch.export.load``.

    The file holds the description as text: ONNX under the keys ``description``, ``class_names``, ``image_shape`` and
    ``domain`` of its metadata, ``model.pt2`` as its extra file ``model.json``. Before it is written, the program is run
    on batches of 1 and 3 random images and compared with the network.

    Args:
        network: The network, without BatchNorm domains and on the CPU. It is in eval mode afterwards.
        description: What the network is, as :func:`~lightning_adv.nn.weights.export.export_network` describes it.
        folder: Where to write.
        format: The format. ``onnx`` needs the packages of the extra ``onnx``.
        image_shape: Shape (C, H, W) of the images. The size of batches is left open.
        overwrite: Whether a file that is there may be replaced.

    Returns:
        The file.

    Raises:
        UsageError: The network cannot be turned into such a program or the program computes something else, the file is
            there already or cannot be written, or a package is missing.

    Example:
        >>> import tempfile
        >>> from lightning_adv.nn import Backbone
        >>> network = Backbone("small_cnn", in_channels=1, options={"width": 4}).build(num_classes=10)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_program(network, {}, Path(folder), format="torch_export", image_shape=(1, 8, 8))
        ...     torch.export.load(path).module()(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """
    path = folder / _PROGRAMS[format].file
    if path.exists() and not overwrite:
        raise UsageError(f"{path} is there already: choose another folder, or overwrite it.")
    told = {**description, "input": _INPUT, "image_shape": list(image_shape)}
    content = _PROGRAMS[format].make(network.eval(), tuple(image_shape), told)
    try:
        write_whole(path, content)
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be written ({error.strerror}).") from error
    return path


def _torch_program(network: nn.Module, shape: tuple[int, ...], told: Mapping[str, Any]) -> bytes:
    with _quietly("torch_export"):
        program = torch.export.export(network, (torch.rand(2, *shape),), dynamic_shapes=_DYNAMIC, strict=False)
        file = io.BytesIO()
        torch.export.save(program, file, extra_files={"model.json": to_json(told)})
    _check_same(program.module(), network, shape, "torch_export")
    return file.getvalue()


def _onnx_program(network: nn.Module, shape: tuple[int, ...], told: Mapping[str, Any]) -> bytes:
    missing = [package for package in _EXTRA if importlib.util.find_spec(package) is None]
    if missing:
        raise UsageError(f"onnx needs {', '.join(missing)}: pip install 'lightning-adv[onnx]'.")
    size = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    if size > _MOST_BYTES:
        raise UsageError(
            f"The network cannot be written as onnx: its weights are {size / 1e9:.1f} GB, and such a file holds 2 GB; "
            "torch_export holds any."
        )
    with _quietly("onnx"):
        program = torch.onnx.export(
            network, (torch.rand(2, *shape),), dynamo=True, dynamic_shapes=_DYNAMIC, verbose=False,
            input_names=["images"], output_names=["logits"],
        )  # fmt: skip
        assert program is not None  # it is None where a file is given
        model = program.model_proto
        model.producer_name, model.doc_string = "lightning-adv", f"Takes {_INPUT}. Gives logits (N, K)."
        texts = {name: json.dumps(told.get(name), ensure_ascii=False) for name in _TOLD}
        for key, value in {"description": to_json(told), **texts}.items():
            model.metadata_props.add(key=key, value=value)
        content: bytes = model.SerializeToString()
    _check_same(_onnx_runtime(content), network, shape, "onnx")
    return content


def _onnx_runtime(content: bytes) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    with _quietly("onnx"):
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(["logits"], {"images": x.numpy()})[0])


class _Program(NamedTuple):
    file: str
    make: Callable[[nn.Module, tuple[int, ...], Mapping[str, Any]], bytes]


_DYNAMIC = ({0: torch.export.Dim("batch")},)
_LOGGERS = ("torch.export", "torch.onnx", "torch._dynamo", "torch.fx", "onnxscript")
_TOLD = ("class_names", "image_shape", "domain")
_PROGRAMS = {
    "onnx": _Program(PROGRAMS["onnx"], _onnx_program),
    "torch_export": _Program(PROGRAMS["torch_export"], _torch_program),
}


@contextmanager
def _quietly(name: str) -> Iterator[None]:
    """Turn what a library makes of a network that it cannot take into one sentence, without what it logs on the way."""
    loggers = [logging.getLogger(logger) for logger in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with ExitStack() as stack:
            for context in (torch.no_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings()):
                stack.enter_context(context)
            for redirect in (redirect_stdout, redirect_stderr):  # whole graphs are printed
                stack.enter_context(redirect(io.StringIO()))
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # tracing meets the network's own code, and fails in every way there is
        raise UsageError(f"The network cannot be written as {name}: {_reason(error)}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _check_same(program: Callable[[Tensor], Tensor], network: nn.Module, shape: tuple[int, ...], name: str) -> None:
    """Check that a program gives the logits of its network, in batches of other sizes than it was made with.

    Raises:
        UsageError: It does not.
    """
    for count in (1, 3):
        x = torch.rand(count, *shape, generator=torch.Generator().manual_seed(count))
        with _quietly(name):
            logits, wanted = program(x), network(x)
            apart = (logits - wanted).abs().max() / wanted.abs().max().clamp(min=1)
        if not apart <= TOLERANCE:  # NaN too
            raise UsageError(
                f"The network cannot be written as {name}: the logits of {count} images would be {apart:.1g} of the "
                "largest logit away from the network's."
            )


def _reason(error: BaseException) -> str:
    """Return in one line what the error says that began it: exporters wrap it in their own."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split()).rstrip(".")
    return f"{shorten(text, 240) if text else type(error).__name__}."
