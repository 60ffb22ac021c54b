"""Load an artefact by the name of a repository of the Hugging Face Hub, or from a folder."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from lit_compress.artifact.folder.card import read_card
from lit_compress.artifact.read import load
from lit_compress.artifact.runtime import OnnxModel
from lit_compress.artifact.write import CARD
from lit_compress.errors import ArtifactError
from lit_compress.files.reading import as_path, short, shown

#: The name of a repository: an owner and a name.
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def from_pretrained(
    name: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    threads: int = 1,
    runtime: Literal["onnxruntime", "openvino", "fastest"] = "onnxruntime",
    weights: Literal["int8", "fp32"] = "int8",
) -> OnnxModel:
    """Load the model of an artefact that :func:`save_pretrained` wrote, here or on the Hub.

    The card comes first, and then only the files that it names. All checks of
    :func:`lit_compress.load` follow: nothing of the repository is executed. The hashes on the card
    find damage, they do not prove who wrote it: give the ``revision`` that you trust.

    Args:
        name: An artefact folder, or, where there is no such folder, a repository such as
            ``owner/name``. It needs the extra ``hub``.
        revision: Branch, tag or commit of the repository (default: its main branch).
        cache_dir: Folder for downloads (default: that of ``huggingface_hub``).
        local_files_only: Whether to ask for nothing from the network, and take what was
            downloaded before.
        token: Token for a private repository; True takes the one that is stored on this machine.
        threads: As in :func:`lit_compress.load`.
        runtime: As in :func:`lit_compress.load`.
        weights: As in :func:`lit_compress.load`.

    Returns:
        The model, a callable that takes a batch as numpy array and returns the outputs.

    Raises:
        ArtifactError: If there is neither such a folder nor such a repository, ``huggingface_hub``
            is not installed, it cannot be downloaded, or :func:`lit_compress.load` refuses it.
        InvalidArgumentError: If an argument has an impossible value.

    Example:
        >>> import lit_compress
        >>> model = lit_compress.from_pretrained("examples/digits_int8")
        >>> model.input_shape
        (1, 32, 32)
    """
    folder = as_path(name, ArtifactError)
    if not folder.is_dir():
        options = {"revision": revision, "cache_dir": cache_dir, "token": token}
        folder = _downloaded(str(name), options | {"local_files_only": local_files_only})
    return load(folder, threads=threads, runtime=runtime, weights=weights)


def _downloaded(name: str, options: dict[str, Any]) -> Path:
    """Return the folder with the files of a repository that its card names."""
    if not REPOSITORY.fullmatch(name):
        raise ArtifactError(
            f"there is no folder {shown(name)}, and it is no name of a repository (owner/name): "
            "give the path of an artefact folder, or the name of a repository"
        )
    if find_spec("huggingface_hub") is None:
        raise ArtifactError(
            f"there is no folder {name}, and to download a repository of that name needs "
            "huggingface_hub: pip install 'lit-compress[hub]'"
        )
    folder = _snapshot(name, [CARD], options)
    files = read_card(folder).files
    return _snapshot(name, [CARD, *files], options)


def _snapshot(name: str, files: list[str], options: dict[str, Any]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(name, allow_patterns=files, **options)
    except Exception as error:  # of the network, the Hub, or the file system
        raise ArtifactError(
            f"the repository {name} cannot be downloaded ({short(error)}): check its name, the "
            "revision, the token and the network; with local_files_only it must have been "
            "downloaded before"
        ) from error
    return Path(folder)
