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
from diffjax.experiment import Frozen, Model, Sampling, guided, unguided
from diffjax.run import executables
from diffjax.samplers import sample, sample_path
from diffjax.samplers.checks import check_start
from diffjax.types import AdaptiveSampler, Array, Denoiser, Grid, Params, PyTree, Sampler


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
    kept: executables.Kept | None = None,
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
      kept: where compiled functions of this model are; None traces anew in every process.

    Returns:
      A `Draw`.

    Raises:
      InputError: options that the sampler refuses, or a guide that the model lacks.
    """
    constructor(model.schedule, **options)  # refuses bad options while they are concrete
    check_guide(model, guide)
    numbers = {k: np.float32(v) for k, v in options.items() if isinstance(v, float)}
    choices = {k: v for k, v in options.items() if not isinstance(v, float)}
    mesh = mesh or parallel.make_mesh(devices=jax.devices()[:1])
    shards, ready = parallel.row_shards(mesh), {}
    denoiser = partial(_guided if guide else _unguided, model)
    run = _one_call(model, partial(constructor, model.schedule, **choices), denoiser, loop, mesh)
    jitted = jax.jit(run, static_argnames="size", out_shardings=parallel.replicated(mesh))
    made_of = [constructor, denoiser.func, *loop, sorted(choices.items())]

    def prepared(params, frozen, key, ts, raw, batch, scale=1.0, first=0):
        """The compiled function of these shapes and first time, and its arguments."""
        size = -(-batch // shards) * shards
        raw = {name: _resized(a, size) for name, a in raw.items()}
        ts, scale = np.asarray(ts), np.float32(scale)  # of no device, as many processes need them
        given = (params, dict(frozen), key, ts, raw, scale, np.int32(first), numbers)
        shape = (size, ts.shape, float(ts[0]))
        if shape not in ready:

            def lower():
                _refuse_start(model, denoiser, params, dict(frozen), ts, raw, size)
                return jitted.lower(*given, size=size)

            ready[shape] = executables.compiled(kept, [*made_of, shape], given, mesh, lower)
        return ready[shape], given

    def samples(params, frozen, key, ts, raw, batch, scale=1.0, first=0):
        compiled, given = prepared(params, frozen, key, ts, raw, batch, scale, first)
        x, spent = compiled(*given)
        return _cut(np.asarray(x), batch, loop.batch_axis), spent

    def compile(*arguments, **named):
        prepared(*arguments, **named)

    return Draw(samples, compile)


def check_guide(model: Model, guide: bool) -> None:
    """Refuse guidance of a model that has none.

    Raises:
      InputError: says so.
    """
    if guide and model.guide is None:
        raise InputError("this model has no guidance; leave --guidance-scale at 1.")


class UsualDraw(NamedTuple):
    """A draw at a model's own defaults.

    Attributes:
      draw: compiled.
      ts: its grid.
      scale: of its guidance.
    """

    draw: Draw
    ts: Grid
    scale: float


def usual_draw(
    model: Model, mesh: Mesh | None = None, sampling: Sampling | None = None, loop: Loop = on_grid
) -> UsualDraw:
    """A draw at a model's own defaults.

    Args:
      model: what is drawn from.
      mesh: as for `make_draw`, like the loop.
      sampling: how; default the model's own.
      loop: `on_grid` or `path_on_grid`.

    Returns:
      The draw, its grid and its scale.
    """
    usual = sampling or model.sampling
    guide = usual.guidance_scale != 1
    draw = make_draw(model, usual.sampler, usual.options, guide, loop, mesh)
    ts = usual.grid(model.schedule, usual.steps, **usual.grid_options)
    return UsualDraw(draw, ts, usual.guidance_scale)


def _guided(
    model: Model, params: Params, scale: Array | float, frozen: Frozen, raw: Raw
) -> Denoiser:
    null = conditioning.nulls(model.conditions, frozen, raw)
    return guided(model, params, scale, null, frozen)


def _unguided(
    model: Model, params: Params, scale: Array | float, frozen: Frozen, raw: Raw
) -> Denoiser:
    return unguided(model, params, frozen)


def _one_call(model, construct, denoiser, loop, mesh) -> Callable:
    """Prior, conditions, guidance, sampler and decoding of `size` samples, to be jitted."""

    def run(params, frozen, key, ts, raw, scale, first, numbers, size):
        prior_key, noise_key = jax.random.split(key)
        cond = conditioning.encode(model.conditions, frozen, raw)
        x = model.prior(prior_key, model.schedule, (size, *model.example.shape), first, ts[0])
        x, cond = lax.with_sharding_constraint((x, cond), parallel.rows(mesh))
        denoise = denoiser(params, scale, frozen, raw)
        x, spent = loop.run(noise_key, denoise, construct(**numbers), x, ts, cond, first)
        return loop.decode(partial(model.codec.decode, frozen), x), spent

    return run


def _refuse_start(model, denoiser, params, frozen, ts, raw, size) -> None:
    """Let the denoiser refuse a first time without signal; in the compiled call it is traced."""
    if float(model.schedule.alpha(ts[0])) > 0:
        return
    x = jnp.zeros((size, *model.example.shape), model.example.dtype)

    def start(params, frozen, raw):
        cond = conditioning.encode(model.conditions, frozen, raw)
        check_start(denoiser(params, 1.0, frozen, raw), x, ts, cond)

    jax.eval_shape(start, params, frozen, raw)


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
