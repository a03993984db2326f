"""Write the LoRA of a run as a safetensors file: `python -m diffjax.export.lora WORKDIR`.

The file is merged into its base by `python sample.py BASE --lora FILE:0.7`, and has the form that
diffusers and PEFT read, or with --form kohya that of kohya's scripts.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from diffjax import lora, parallel
from diffjax.errors import InputError
from diffjax.models.stacking import unstack_blocks
from diffjax.pretrained import lora_files
from diffjax.recipe.lora import low_rank
from diffjax.run.weights import fingerprint, restore_average
from diffjax.run.workdir import load_experiment, read_record
from diffjax.types import PyTree


def flags(
    out: Path | None = None,
    form: Literal["peft", "kohya"] = "peft",
    step: int | None = None,
    any_base: bool = False,
):
    """Flags.

    Args:
      out: the file; default WORKDIR/lora.safetensors.
      form: of its names: diffusers' with PEFT, or kohya's.
      step: of the checkpoint; default the newest that is intact.
      any_base: leave out what the base was, so that sample.py merges the file into any network
        of these shapes.
    """


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


def main(argv):
    """Read the flags, write the file, and say what to type next."""
    from diffjax.run import flags as f
    from diffjax.run import start

    argv = [*argv]
    workdir = Path(argv.pop(0)) if argv and not argv[0].startswith("-") else None
    (asked,) = f.parse("diffjax.export.lora WORKDIR", __doc__, [flags], argv)
    if workdir is None:
        raise InputError("give the workdir of a LoRA, such as one of configs/lora.py.")
    start.check_platform()
    out, form = asked["out"] or workdir / "lora.safetensors", getattr(lora_files, asked["form"])
    print(write(workdir, out, form, asked["step"], asked["any_base"]))


if __name__ == "__main__":
    from diffjax.run import start

    sys.argv[0] = "diffjax.export.lora"
    start.run(main)
