"""A whole draw of samples as one compiled call: prior, guidance, sampler, decoding."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from diffjax import conditioning, parallel
from diffjax.conditioning import Raw
from diffjax.errors import InputError
from diffjax.experiment import Frozen, Model, guided, unguided
from diffjax.samplers import sample, sample_path
from diffjax.samplers.checks import check_start
from diffjax.types import (
    AdaptiveSampler,
    Array,
    Grid,
    Params,
    PRNGKeyArray,
    PyTree,
    Sampler,
)


class Loop(NamedTuple):
    """What runs a sampler, and says what it spent.

    Attributes:
      run: (key, denoiser, sampler, x, ts, cond, first) -> (samples, what was spent).
      unit: of what was spent.
      decode: (decode, samples) -> decoded samples.
      batch_axis: of the samples.
    """

    run: Callable[..., tuple[PyTree, Array | int]]
    unit: str
    decode: Callable[[Callable, Array], Array] = lambda decode, x: decode(x)
    batch_axis: int = 0


def _on_grid(key, denoiser, sampler, x, ts, cond, first):
    return sample(key, denoiser, sampler, x, ts, cond, first), ts.shape[0] - 1


def _path_on_grid(key, denoiser, sampler, x, ts, cond, first):
    return sample_path(key, denoiser, sampler, x, ts, cond, first), ts.shape[0] - 1


def _without_grid(key, denoiser, sampler, x, ts, cond, first):
    return sampler(key, denoiser, x, cond, first)


on_grid = Loop(_on_grid, "steps")
path_on_grid = Loop(_path_on_grid, "steps", lax.map, 1)
without_grid = Loop(_without_grid, "denoiser calls")


class Draw(NamedTuple):
    """A compiled draw.

    Attributes:
      samples: (params, frozen, key, ts, raw, batch, scale=1., first=0) -> (decoded samples as a
        NumPy array, what was spent); `raw` holds the raw conditions of `batch` samples.
      compile: compiles for the same arguments, and draws nothing.
    """

    samples: Callable[..., tuple[np.ndarray, Any]]
    compile: Callable[..., None]


def make_draw(
    model: Model,
    constructor: Callable[..., Sampler | AdaptiveSampler],
    options: Mapping[str, Any],
    guide: bool = True,
    loop: Loop = on_grid,
    mesh: Mesh | None = None,
) -> Draw:
    """A compiled function that draws a batch of samples.

    Everything that a user turns is an argument of it: parameters, key, conditions, scale, grid
    values and the sampler's numbers. Only the batch size or the number of steps recompiles.

    Args:
      model: what is drawn from.
      constructor: of `diffjax.samplers`, of a kind that the loop takes.
      options: its keywords; floats among them become traced values.
      guide: whether to apply the model's guide, which may double the work.
      loop: `on_grid`, `path_on_grid` or `without_grid`.
      mesh: whose devices share the batch, None for one device. A batch that does not divide
        is drawn larger and cut; the result is whole on every device.

    Returns:
      A `Draw`.

    Raises:
      InputError: options that the sampler refuses, or a guide that the model lacks.
    """
    constructor(model.schedule, **options)  # refuses bad options while they are concrete
    if guide and model.guide is None:
        raise InputError("this model has no guidance; leave --guidance-scale at 1.")
    numbers = {k: np.float32(v) for k, v in options.items() if isinstance(v, float)}
    choices = {k: v for k, v in options.items() if not isinstance(v, float)}
    mesh = mesh or parallel.make_mesh(devices=jax.devices()[:1])
    shards, ready = parallel.row_shards(mesh), {}

    def denoiser_of(params, scale, frozen):
        if not guide:
            return unguided(model, params, frozen)
        return guided(model, params, scale, conditioning.nulls(model.conditions, frozen), frozen)

    def run(params, frozen, key, ts, raw, scale, first, numbers, size):
        prior_key, noise_key = jax.random.split(key)
        cond = conditioning.encode(model.conditions, frozen, raw)
        x = model.prior(prior_key, model.schedule, (size, *model.example.shape), first, ts[0])
        x, cond = lax.with_sharding_constraint((x, cond), parallel.rows(mesh))
        sampler = constructor(model.schedule, **choices, **numbers)
        denoiser = denoiser_of(params, scale, frozen)
        x, spent = loop.run(noise_key, denoiser, sampler, x, ts, cond, first)
        return loop.decode(partial(model.codec.decode, frozen), x), spent

    jitted = jax.jit(run, static_argnames="size", out_shardings=parallel.replicated(mesh))

    def refuse_start(params, frozen, ts, raw, size):
        """Let the denoiser refuse a first time; inside `run` it is traced."""

        def start(params, frozen, raw):
            cond = conditioning.encode(model.conditions, frozen, raw)
            check_start(denoiser_of(params, 1.0, frozen), x, ts, cond)

        x = jnp.zeros((size, *model.example.shape), model.example.dtype)
        jax.eval_shape(start, params, frozen, raw)

    def arguments(params, frozen, key, ts, raw, batch, scale, first):
        size = -(-batch // shards) * shards
        raw = {name: _resized(a, size) for name, a in raw.items()}
        ts, scale = np.asarray(ts), np.float32(scale)  # of no device, as many processes need them
        return size, (params, dict(frozen), key, ts, raw, scale, np.int32(first), numbers)

    def compiled(size, given):
        ts = given[3]
        shape = (size, ts.shape, float(ts[0]))
        if shape not in ready:
            refuse_start(given[0], given[1], ts, given[4], size)
            ready[shape] = jitted.lower(*given, size=size).compile()
        return ready[shape]

    def draw(
        params: Params,
        frozen: Frozen,
        key: PRNGKeyArray,
        ts: Grid,
        raw: Raw,
        batch: int,
        scale: float = 1.0,
        first: int = 0,
    ) -> tuple[np.ndarray, Any]:
        size, given = arguments(params, frozen, key, ts, raw, batch, scale, first)
        x, spent = compiled(size, given)(*given)
        return _cut(np.asarray(x), batch, loop.batch_axis), spent

    def compile(params, frozen, key, ts, raw, batch, scale=1.0, first=0):
        compiled(*arguments(params, frozen, key, ts, raw, batch, scale, first))

    return Draw(draw, compile)


def _resized(a: np.ndarray, size: int) -> np.ndarray:
    """The rows of an array, begun again where there are fewer than `size`."""
    return np.asarray(a)[np.arange(size) % len(a)]


def _cut(a: np.ndarray, batch: int, axis: int) -> np.ndarray:
    """Without the rows that were drawn for the mesh alone."""
    return a[(slice(None),) * axis + (slice(batch),)]


def conditions_of(model: Model, num: int, given: Mapping[str, Any] | None = None) -> Raw:
    """The raw conditions of `num` samples.

    Args:
      model: whose conditions they are.
      num: number of samples.
      given: values of the conditions' flags; those that are missing have their defaults.

    Returns:
      Arrays (num, ...) by name.

    Raises:
      InputError: a flag's value that a condition refuses, or one that must be given.
    """
    from diffjax.run.flags import keywords_of

    raw = {}
    for condition in model.conditions:
        names = keywords_of(condition.flags)
        raw |= condition.flags(num, **{k: v for k, v in (given or {}).items() if k in names})
    return raw
