"""LoRA files merged into the network of a workdir, and refused where they are of another."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax

from diffjax import lora
from diffjax.experiment import Model
from diffjax.models.stacking import unstack_blocks
from diffjax.pretrained import lora_files
from diffjax.run.weights import fingerprint
from diffjax.run.workdir import read_record
from diffjax.types import Params, PyTree

Files = Sequence[tuple[str | Path, float]]
"""LoRA files and their scales."""


def with_files(model: Model, files: Files) -> Model:
    """A model with LoRA files merged into its network where it is called.

    Args:
      model: of a workdir, perhaps with a LoRA of its own.
      files: by our names of its layers, see `pretrained.lora_files`.

    Returns:
      The model; what the files hold is in its `frozen`, checked when it is loaded.

    Raises:
      InputError: there is no such file.
    """
    if not files:
        return model
    from diffjax.pretrained.lora import lora_file

    loaders = {}
    for i, (path, _) in enumerate(files):
        lora_file(path)
        loaders[f"lora_{i}"] = partial(read, model, path)

    def whole(params, frozen):
        found = model.whole(params, frozen)
        for name, (_, scale) in zip(loaders, files, strict=True):
            found = lora.merge(found, frozen[name], scale)
        return found

    return model._replace(whole=whole, frozen={**model.frozen, **loaders})


def read(model: Model, path: str | Path) -> PyTree:
    """A LoRA file as one of a model's network. Errors as of `lora_files.read_lora`."""
    frozen = {name: load() for name, load in model.frozen.items()}
    network = lambda key, frozen: model.whole(model.init(key), frozen)  # noqa: E731
    like = jax.eval_shape(network, jax.random.key(0), frozen)
    apart = jax.eval_shape(unstack_blocks, like)
    found = lora_files.read_lora(path, lora_files.own_layers(apart), apart)
    return lora_files.stack_like(found, like)


def check_bases(workdir: Path, params: Params, files: Files) -> None:
    """Refuse LoRA files that were trained on another network than a workdir's.

    Args:
      workdir: of train.py.
      params: its parameters.
      files: that say what they were trained on, or do not.

    Raises:
      InputError: one was trained on another.
    """
    if files:
        known = {fingerprint(params), *read_record(workdir)["fingerprints"].values()}
        for path, _ in files:
            lora_files.check_base(path, known)
