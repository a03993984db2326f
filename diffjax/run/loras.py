"""LoRAs and workdirs: files merged into a run's network, and a run's LoRA as a file."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from diffjax import lora, parallel
from diffjax.errors import InputError
from diffjax.experiment import Model
from diffjax.models.stacking import unstack_blocks
from diffjax.pretrained import lora_files
from diffjax.recipe.lora import low_rank
from diffjax.run.weights import fingerprint, restore_average
from diffjax.run.workdir import load_experiment, read_record
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


def with_alphas(tree: PyTree, scale: float) -> PyTree:
    """A LoRA whose layers have the alpha that is this scale."""

    def layer(found):
        alpha = scale * found["a"].shape[-1]
        return {**found, "alpha": np.full(found["b"].shape[:-2], alpha, np.float32)}

    return unflatten_dict({path: layer(found) for path, found in lora.layers(tree).items()})


def write(
    workdir: Path,
    out: Path,
    form: Callable = lora_files.peft,
    step: int | None = None,
    any_base: bool = False,
) -> str:
    """Write the LoRA of a workdir, averaged, as a file.

    Args:
      workdir: of `configs/lora.py` or another config with its flags.
      out: the file.
      form: of `lora_files`.
      step: of the checkpoint; None is the newest that is intact.
      any_base: leave out the base's fingerprint, so that the file is taken by any other.

    Returns:
      What was written, as words.

    Raises:
      InputError: the workdir is no LoRA's, or has no checkpoint.
    """
    experiment, options = load_experiment(workdir), read_record(workdir)["options"]
    names = ("method", "rank", "alpha", "layers", "b_rate")
    if "base" not in experiment.model.frozen or not options.keys() >= {*names}:
        raise InputError(f"{workdir} is no LoRA's run; give one of configs/lora.py.")
    given = low_rank(**{name: options[name] for name in names})
    mesh = parallel.make_mesh(devices=jax.local_devices()[:1])
    found, base = (
        restore_average(workdir, experiment, mesh, step),
        experiment.model.frozen["base"](),
    )
    tree = jax.tree.map(np.asarray, given.method.lora(base, found.params))
    apart = unstack_blocks(with_alphas(tree, given.scale))
    like = jax.eval_shape(unstack_blocks, base)
    mark = None if any_base else fingerprint(base)
    lora_files.write_lora(out, apart, lora_files.own_layers(like), like, form, mark)
    return f"the LoRA of checkpoint {found.step}, {len(lora.layers(apart))} layers, in {out}"
