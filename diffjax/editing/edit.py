"""An edit of given pictures as one function, and a model whose conditions hold what is given."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffjax.conditioning import Condition, Raw
from diffjax.experiment import Model
from diffjax.types import Array, Cond, PyTree

BEFORE = "from_"
"""Conditions under names that begin so say what the given picture is."""

GIVEN = ("init_image", "to_image", "weight", "mask", "measurement")
"""What can be given: a picture (B, ...) as the model diffuses it, a second one, its weight (B,),
a mask (B, H, W, 1) of 1 where the picture is known, and what was measured (B, ...)."""


class Edit(NamedTuple):
    """A way to edit, which a constructor makes of the schedule and its options.

    Attributes:
      run: (key, denoiser, x, ts, cond, first) -> (edited (B, ...), what was spent). x is the
        prior's noise at ts[0]; cond holds what is given beside the model's conditions.
      needs: names of `GIVEN`, or "before", without which it cannot run.
      strength: share of the grid that is run unless another is asked for; None is the whole
        grid, always.
      linear: whether its operator must be linear.
      unit: of what was spent.
    """

    run: Callable[..., tuple[Array, Array | int]]
    needs: tuple[str, ...] = ()
    strength: float | None = None
    linear: bool = False
    unit: str = "steps"


def run_edit(key, denoiser, edit: Edit, x, ts, cond, first):
    """Run an edit as `run.draw.Loop` runs a sampler."""
    return edit.run(key, denoiser, x, ts, cond, first)


def before(cond: Cond) -> Cond:
    """The conditions that say what the given picture is, under their own names; others kept."""
    said = {k.removeprefix(BEFORE): v for k, v in cond.items() if k.startswith(BEFORE)}
    return cond | said


def describing(condition: Condition) -> Condition:
    """A condition of what the given picture is: its names begin with `BEFORE`, without a null."""
    own = {BEFORE + name: like for name, like in condition.example.items()}

    def encode(frozen: Mapping[str, PyTree], raw: Raw) -> Raw:
        plain = {name.removeprefix(BEFORE): raw[name] for name in own}
        return {BEFORE + name: value for name, value in condition.encode(frozen, plain).items()}

    return Condition(own, None, condition.flags, encode)


def given(name: str, shape: tuple[int, ...], encode: Callable | None = None) -> Condition:
    """What is given under one of the names of `GIVEN`, as a condition.

    Args:
      name: of the raw array and of the encoded one.
      shape: of one, without the batch.
      encode: (frozen, array (B, ...)) -> what the method is given; default the array itself.
    """
    apply = encode or (lambda frozen, array: array)
    example = {name: jax.ShapeDtypeStruct(shape, jnp.float32)}
    return Condition(example, None, dict, lambda frozen, raw: {name: apply(frozen, raw[name])})


def editable(model: Model, conditions: tuple[Condition, ...]) -> Model:
    """A model that is given more conditions, of which its network sees nothing.

    Args:
      model: any.
      conditions: from `given` and `describing`.

    Returns:
      The model; encoded conditions reach an `Edit`, and only the model's own its denoiser.
    """
    names = {name for c in conditions for name in c.example}

    def own(cond: Cond) -> Cond:
        kept = {k: v for k, v in (cond or {}).items() if k not in names}
        return {k: v for k, v in kept.items() if not k.startswith(BEFORE)} or None

    def denoiser(params):
        inner = model.denoiser(params)
        return lambda x, t, cond: inner(x, t, own(cond))

    return model._replace(denoiser=denoiser, conditions=(*model.conditions, *conditions))
