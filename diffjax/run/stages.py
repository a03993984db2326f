"""A cascade's stages one after the other: the small picture as a condition that a run draws."""

import functools
import inspect
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import cascade, parallel
from diffjax.conditioning import Condition
from diffjax.data.pipeline import to_floats
from diffjax.errors import InputError
from diffjax.experiment import Model
from diffjax.media.image import load_image
from diffjax.run.flags import at_least_one, flags_of
from diffjax.run.images import BATCH, drawer
from diffjax.run.weights import Trained, from_run, load_frozen
from diffjax.types import Schedule


def drawn_by(
    workdir: str | Path,
    shape: tuple[int, int, int],
    schedule: Schedule,
    name: str = "small",
    level: float = 0.1,
) -> Condition:
    """The small picture of a cascade, kept under guidance: drawn by the stage before, or given.

    It is drawn with what is asked of this stage (the same prompt, seed and number), and noised to
    the level that the network is told: Ho et al. 2022, Algorithm 2, non-truncated.

    Args:
      workdir: of the stage before.
      shape: (h, w, C) of its pictures.
      schedule: of the noise, that of `cascade.noised_condition`.
      name: of the array, of its level f"{name}_level" and of the flag.
      level: default of --augmentation.

    Returns:
      The condition; its raw arrays have f"{name}_drawn" too, the picture before the noise.

    Raises:
      InputError: it is no workdir, or its pictures have another shape.
    """
    base = from_run(workdir)
    if base.model.example.shape != shape:
        raise InputError(
            f"{workdir} draws pictures {base.model.example.shape}, and this stage enlarges "
            f"{shape}; give the size that it draws, or another workdir."
        )
    example = {
        name: jax.ShapeDtypeStruct(shape, jnp.float32),
        cascade.level_name(name): jax.ShapeDtypeStruct((), jnp.float32),
    }
    flags = picture_flags(base, shape, schedule, name, level)
    help = "small picture that every sample enlarges; default one drawn for each."
    return Condition(example, None, with_flags_of(flags, base.model, name, help))


def picture_flags(
    base: Trained, shape: tuple[int, int, int], schedule: Schedule, name: str, level: float
) -> Callable:
    """The raw arrays of `drawn_by`, whose arguments these are, from the values of flags."""
    draw = small_pictures(base)

    def flags(
        num: int,
        augmentation: float = level,
        base_steps: int | None = None,
        base_guidance_scale: float | None = None,
        seed: int = 0,
        batch_size: int = BATCH,
        mesh: str = "",
        **given: Any,
    ):
        """Flags.

        Args:
          num: number of samples.
          augmentation: level of the noise on the small picture, in [0, 1); 0 is none.
          base_steps: steps of the small picture's draw; default those of its run.
          base_guidance_scale: its guidance; default that of its run.
          seed: of all draws.
          batch_size: samples per compiled call.
          mesh: sizes of the axes of the mesh.
        """
        cascade.check_level(augmentation, "--augmentation")
        if base_steps is not None:
            at_least_one({"base_steps": base_steps}, ("base_steps",))
        own, noise_key = stage_keys(seed)
        path = given.pop(name, None)
        if path is None:
            how = (batch_size, mesh, base_steps, base_guidance_scale)
            small = draw(num, *how, own, given)
        else:
            small = np.broadcast_to(load_image(path, shape[:2], shape[2]), (num, *shape))
        noisy = cascade.noised(noise_key, schedule, jnp.asarray(small), augmentation)
        levels = np.full(num, augmentation, np.float32)
        return {
            name: np.asarray(noisy),
            cascade.level_name(name): levels,
            f"{name}_drawn": small,
        }

    return flags


def stage_keys(seed: int) -> tuple[int, Any]:
    """The seed of the stage before, and the key of the noise between.

    Neither is the key of a draw of this stage with the same seed.
    """
    _, _, own, noise = jax.random.split(jax.random.key(seed), 4)
    return int(jax.random.bits(own, dtype=jnp.uint32)), noise


def small_pictures(base: Trained) -> Callable[..., np.ndarray]:
    """A function that draws a base's pictures; asked for more of the same, it draws those alone.

    Returns:
      (num, batch size, mesh, steps, guidance scale, seed, values of the conditions' flags) ->
      (num, h, w, C) float32 in [-1, 1].
    """
    open_once = functools.cache(functools.partial(opened, base))
    last: dict[tuple, np.ndarray] = {}

    def draw(num, batch, mesh, steps, scale, seed, given):
        settings = (batch, mesh, steps, scale, seed, repr(sorted(given.items())))
        have = last.get(settings, np.zeros((0, *base.model.example.shape), np.float32))
        if num > len(have):
            wanted = (seed, num - len(have), len(have), min(num, batch), given)
            more = to_floats(open_once(mesh, steps, scale)(*wanted).images)
            have = np.concatenate([have, more])
            last.clear()
            last[settings] = have
        return have[:num]

    return draw


def opened(base: Trained, mesh: str, steps: int | None, scale: float | None) -> Callable:
    """`run.images.drawer` of a base with its weights on a mesh: (seed, num, ...) -> `Images`."""
    devices, usual = parallel.make_mesh(mesh), base.model.sampling
    asked = {"steps": steps, "guidance_scale": scale}
    sampling = usual._replace(**{k: v for k, v in asked.items() if v is not None})
    params = load_frozen({"base": base.load}, devices)["base"]
    frozen = load_frozen(base.model.frozen, devices)
    return functools.partial(drawer(base.model, devices, sampling), params, frozen)


def with_flags_of(function: Callable, model: Model, name: str, help: str) -> Callable:
    """A condition's flags that show those of a model's conditions too, and a picture's."""
    num, *own = inspect.signature(function, eval_str=True).parameters.values()
    below = [inspect.signature(flags_of(c.flags)).parameters.values() for c in model.conditions]
    picture = inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Path | None
    )
    shown = [*itertools.chain(*below), picture, *(p for p in own if p.kind is not p.VAR_KEYWORD)]
    named = {p.name: p.replace(kind=p.KEYWORD_ONLY) for p in shown}
    function.__signature__ = inspect.Signature([num, *named.values()])
    function.__doc__ = f"{inspect.getdoc(function)}\n  {name}: {help}\n"
    return function
