"""The sheet of samples that a run draws now and then."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from diffjax import conditioning, parallel
from diffjax.conditioning import Raw
from diffjax.errors import InputError
from diffjax.experiment import Frozen, Model
from diffjax.media import save_png
from diffjax.run.draw import conditions_of, usual_draw
from diffjax.types import Params, PRNGKeyArray

MOST = 100  # samples of a preview


def preview(
    model: Model, examples: object = (), mesh: Mesh | None = None
) -> Callable[[Params, Frozen, PRNGKeyArray, Path], np.ndarray | None]:
    """A function that draws a sheet of samples with the model's defaults.

    Args:
      model: at most 100 samples of it, ten a row.
      examples: of the data, which give the conditions that have no default, such as a picture.
      mesh: as for `make_draw`; every process of it must call, and the main one writes.

    Returns:
      (params, frozen, key, path) -> (H, W, C) uint8, also written to the path as a PNG, or None
      for a medium that has no sheet. The same key gives the same noise, so that sheets of one
      run can be compared.
    """
    draw, ts, scale = usual_draw(model, mesh)
    raw = _conditions(model, examples)

    def write(params, frozen, key, path):
        if model.codec.sheet is None:
            return None
        key = jax.random.clone(key)
        x, _ = draw.samples(params, frozen, key, ts, raw, MOST, scale)
        sheet = model.codec.sheet(x, raw)
        if parallel.is_main():
            path.parent.mkdir(parents=True, exist_ok=True)
            save_png(path, sheet)
        return sheet

    return write


def _conditions(model: Model, examples: object) -> Raw:
    """Raw conditions of a preview, sorted by class: defaults, or those of the first examples."""
    try:
        raw = conditions_of(model, MOST)
    except InputError:
        rows = [examples[i % len(examples)] for i in range(MOST)]
        names = conditioning.examples(model.conditions)
        raw = {name: np.stack([np.asarray(row[name]) for row in rows]) for name in names}
    order = np.argsort(raw.get("label", np.zeros(MOST)), kind="stable")
    return {name: array[order] for name, array in raw.items()}
