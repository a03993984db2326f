"""A repository's name in place of a folder: its configurations and safetensors, downloaded once.

Needs the extra `hub` (the library `huggingface_hub`).
"""

import re
from pathlib import Path
from typing import Any

from diffjax.errors import InputError, sentence

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
SMALL = ("*.json", "*.txt", "*.model")
VARIANTS = ("*.fp16.safetensors", "*.fp16-*", "*.bf16.*", "*.non_ema*", "*_flax*", "*openvino*")
"""Further copies of the same weights, which are left where they are."""


def local_folder(path: str | Path, **options: Any) -> Path:
    """A path that is there as it is, or the folder that a repository is downloaded to.

    Of the repository only configurations, tokenizers and safetensors are taken; of a pipeline only
    those in the folders of its parts.

    Args:
      path: a path, or owner/name of a repository.
      **options: of `huggingface_hub.snapshot_download`, such as cache_dir or endpoint.

    Raises:
      InputError: neither is there, the extra `hub` is not installed, or the repository has no
        safetensors.
    """
    name = str(path)
    if Path(path).exists() or not NAME.fullmatch(name):
        return Path(path)
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise InputError(
            f'{name} is no folder; as the name of a repository it needs the extra "hub": '
            'pip install "diffjax[hub]".'
        ) from error
    try:
        folder = Path(snapshot_download(name, allow_patterns=[*SMALL], **options))
        whole = (folder / "model_index.json").is_file()
        wanted = ["*/*.safetensors" if whole else "*.safetensors"]
        snapshot_download(name, allow_patterns=wanted, ignore_patterns=[*VARIANTS], **options)
    except Exception as error:
        raise InputError(
            f"{name} is no folder, and as a repository it cannot be read: {sentence(error)}"
        ) from error
    if not any(folder.rglob("*.safetensors")):
        raise InputError(f"the repository {name} has no safetensors, the one form that is taken.")
    return folder
