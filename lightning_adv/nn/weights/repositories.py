"""Exported networks as repositories of the Hugging Face hub keep them, or folders that are laid out in the same way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning_adv.core.errors import UsageError
from lightning_adv.nn.weights.export import DESCRIPTION, WEIGHTS

PROGRAMS = {"onnx": "model.onnx", "torch_export": "model.pt2"}
"""The files of programs, by format."""

HUB = "hf-hub:"
"""What timm writes before the name of a repository; ``@`` and a revision may stand behind it."""


def find_weights(where: str, *, argument: str) -> str:
    """Return the weights file that an argument means: that of a repository, of a folder, or the file itself.

    Args:
        where: ``hf-hub:user/name`` with or without ``@revision``, a folder with an exported network, or a file.
        argument: The argument, for the errors.

    Raises:
        UsageError: There is no such repository, or it or the folder holds no exported network.
    """
    if where.startswith(HUB):
        repository, _, revision = where.removeprefix(HUB).partition("@")
        return str(weights_in(download(repository, revision=revision or None, argument=argument), argument, where))
    folder = Path(where).expanduser()
    return str(weights_in(folder, argument, where)) if os.path.isdir(folder) else where


def weights_in(folder: Path, argument: str, of: str) -> Path:
    """Return the weights file in the folder of an exported network.

    Raises:
        UsageError: It is not there, or nothing beside it says what network it is.
    """
    for file in (WEIGHTS, DESCRIPTION):
        if not (folder / file).is_file():
            if programs := [name for name in PROGRAMS.values() if (folder / name).is_file()]:
                raise UsageError(
                    f"{of} has {' and '.join(programs)}, and no {file}: a program is run as it is. What loads a "
                    "network is exported by --format safetensors, which may be beside it.",
                    key=argument,
                )
            raise not_ours(argument, of, f"has no {file}")
    return folder / WEIGHTS


def download(
    repository: str,
    *,
    revision: str | None = None,
    argument: str,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """Return a folder with the weights and the description that one revision of a repository holds, and nothing else.

    Raises:
        UsageError: The hub has no such repository, or cannot be reached.
    """
    from huggingface_hub import snapshot_download

    with told_of_hub(argument, repository):
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=[WEIGHTS, DESCRIPTION],
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
            )
        )


@contextmanager
def told_of_hub(argument: str, repository: str) -> Iterator[None]:
    """Say in one sentence what the hub refuses, or that it cannot be reached.

    Args:
        argument: The argument that named the repository.
        repository: ``user/name``.

    Raises:
        UsageError: Something is wrong with the name, the token, the network or the hub.
    """
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError as error:
        raise UsageError(f"{repository!r} is not a repository such as user/name.", key=argument) from error
    except errors.GatedRepoError as error:
        reason = "is gated: ask for access on its page, and log in (hf auth login, or HF_TOKEN)"
        raise UsageError(f"{repository} {reason}.", key=argument) from error
    except errors.RevisionNotFoundError as error:
        raise UsageError(f"{repository} has no such revision.", key=argument) from error
    except errors.RepositoryNotFoundError as error:
        reason = "is not on the hub, or private: then log in (hf auth login, or HF_TOKEN)"
        raise UsageError(f"{repository} {reason}.", key=argument) from error
    except errors.LocalTokenNotFoundError as error:
        raise UsageError(
            f"{repository} needs a token: log in (hf auth login), or set HF_TOKEN.", key=argument
        ) from error
    except errors.HfHubHTTPError as error:
        code = error.response.status_code
        advice = (
            "log in with a token that may write there (hf auth login, or HF_TOKEN)"
            if code in (401, 403)
            else _first(error)
        )
        raise UsageError(f"the hub refuses {repository} with status {code}: {advice}.", key=argument) from error
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]  # of the library that it connects by
        raise UsageError(f"the hub cannot be reached for {repository}: {_first(error)}.", key=argument) from error


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def not_ours(argument: str, where: str, reason: str) -> UsageError:
    """Return the error of a folder or a repository that holds something else than an exported network."""
    return UsageError(
        f"{where} {reason}: it is not a network that 'lightning-adv export' or 'push' wrote. A network of timm's comes "
        "by its name, with pretrained: true.",
        key=argument,
    )
