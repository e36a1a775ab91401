"""What loggers have written, read back from their files."""

import json
import struct
from pathlib import Path

import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record

BLOCK = 32768
HEADER = 7


def close_wandb():
    """Finish the run of this process, if there is one, and wait until W&B's own process has written it and ended."""
    wandb.finish()
    wandb.teardown()


class OfflineRun:
    """A run that W&B kept on the disk, ``wandb/offline-run-*``.

    Attributes:
        folder: Its folder; pictures and tables lie in ``files/media``.
        run: What W&B calls the run: ``project``, ``display_name``, ``tags``.
        config: The hyper-parameters.
        history: What was logged, one dictionary a call.
        artifacts: The names of what would be uploaded as an artifact.
    """

    def __init__(self, where):
        (self.folder,) = Path(where).glob("wandb/offline-run-*")
        (log,) = self.folder.glob("run-*.wandb")
        self.config, self.history, self.artifacts = {}, [], []
        for record in records(log.read_bytes()):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
            elif kind == "artifact":
                self.artifacts.append(record.artifact.name)
            elif kind == "history":
                self.history.append(nested(record.history.item))
            elif kind == "config":
                self.config |= nested(record.config.update)

    def values(self, name):
        """Return what was logged under a name, by its ``trainer/global_step``."""
        return {row["trainer/global_step"]: row[name] for row in self.history if name in row}

    def file(self, name):
        """Return the path of the one picture or table of a name."""
        (value,) = self.values(name).values()
        return self.folder / "files" / value["path"]


def nested(items):
    """Return W&B's items, each with a key or a path of keys, as a dictionary."""
    found = {}
    for item in items:
        *path, last = item.nested_key if item.nested_key else [item.key]
        inner = found
        for key in path:
            inner = inner.setdefault(key, {})
        inner[last] = json.loads(item.value_json)
    return found


def records(data):
    """Yield the records of a W&B log: LevelDB's log format after seven bytes that name W&B."""
    assert data[:4] == b":W&B"
    position, record = HEADER, b""
    while position + HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER:  # the end of a block is padded
            position += left
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        position += HEADER + length
        record += data[position - length : position]
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(record)
            record = b""


def tensorboard(where):
    """Return all events of the one TensorBoard folder below a folder, which has a file for each stage."""
    (folder,) = {file.parent for file in Path(where).rglob("events.out.tfevents.*")}
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0}).Reload()


def tensorboard_hyper_parameters(events):
    """Return TensorBoard's hyper-parameters by name."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    found = HParamsPluginData.FromString(content).session_start_info.hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in found.items()}
