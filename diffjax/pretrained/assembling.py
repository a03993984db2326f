"""The model of a pipeline's parts: its latents, its network under prompts, its defaults."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.conditioning import Condition
from diffjax.errors import InputError
from diffjax.experiment import Model, Sampling, classifier_free
from diffjax.media import decoded
from diffjax.models.flux import Flux
from diffjax.models.layers import Dtype
from diffjax.models.pixart import PixArt
from diffjax.parameterization import make_denoiser
from diffjax.pretrained.adapters import Adapter
from diffjax.pretrained.architecture import Autoencoder, Pretrained
from diffjax.pretrained.flux_latents import packed
from diffjax.pretrained.latents import latent_scale, prior_of, shrinking
from diffjax.pretrained.pipeline import Part, Pipeline, open_part
from diffjax.pretrained.precision import stored
from diffjax.pretrained.prompt_condition import prompt, raw_prompts
from diffjax.pretrained.reading import Reader
from diffjax.pretrained.sampling import SchedulerDefaults
from diffjax.pretrained.scheduler import KEY as SCHEDULER
from diffjax.types import Array, Network, Params, Schedule


def without_picture(pipeline: Pipeline, part: Part, network: Network, latents: tuple) -> tuple:
    """The `picture` of a system that draws from text alone."""
    return network, ()


class System(NamedTuple):
    """A kind of pipeline.

    Attributes:
      parts: part -> the classes that it may be of; the scheduler's is checked elsewhere.
      reader: (pipeline, the denoiser's config, T5's length or None) -> how a prompt is read.
      guidance_scale: where none is asked for.
      cell: latents that one token of the network is wide.
      latent_size: height and width of the latents where the network does not say.
      picture: (pipeline, denoiser, network, (h, w, C)) -> the network of latents under a picture,
        and the conditions that give it.
      optional: parts that a folder may leave out.
      schedulers: parts that are schedulers, of any class that is known.
      build: (pipeline, system, (H, W), dtype) -> the system, where it is none of latents; None is
        `assemble`.
    """

    parts: Mapping[str, tuple[str, ...]]
    reader: Callable[[Pipeline, dict[str, Any], int | None], Reader]
    guidance_scale: float
    cell: int = 1
    latent_size: int | None = None
    picture: Callable[..., tuple[Network, tuple[Condition, ...]]] = without_picture
    optional: tuple[str, ...] = ()
    schedulers: tuple[str, ...] = ("scheduler",)
    build: Callable[..., Any] | None = None


class Opened(NamedTuple):
    """A published system whose weights are not read yet.

    Attributes:
      model: all that sampling needs.
      leaves: () -> the denoiser's parameters as a tree of `naming.Leaf`s.
      raw: (prompts, negatives or None, ...) -> raw arrays of the prompts, see `raw_prompts`.
      vae: its autoencoder, whose parameters are `frozen["vae"]`; None where it has none.
      scheduler: its scheduler_config.json.
      start_std: (schedule, first time) -> standard deviation of the noise that a draw begins as.
    """

    model: Model
    leaves: Callable[[], Params]
    raw: Callable[..., dict[str, np.ndarray]]
    vae: Part | None
    scheduler: dict[str, Any]
    start_std: Callable[[Schedule, Array], Array]


def assemble(
    pipeline: Pipeline,
    system: System,
    part: Part,
    asked: tuple[int | None, int | None],
    text_length: int | None,
    adapters: Sequence[Adapter] = (),
    dtype: Dtype = jnp.float32,
) -> Opened:
    """The model of a pipeline's parts. Arguments and errors as for `open_system`."""
    vae = open_part(pipeline, "vae")
    assert isinstance(vae.network, Autoencoder)
    by, scale = shrinking(vae.config), latent_scale(vae.config)
    channels = vae.config.get("latent_channels", 4)
    size = latents_of(pipeline, system, part.config, asked, by)
    image = size[0] * by, size[1] * by
    reader = system.reader(pipeline, part.config, text_length)
    extra = sizes_of(part.config, image)
    conditions: tuple[Condition, ...] = (prompt(reader, extra),)
    frozen = {name: text.leaves for name, text in reader.parts.items()} | {"vae": vae.leaves}
    for adapter in adapters:
        part, condition, own = adapter(part, image, by)
        conditions, frozen = (*conditions, condition), {**frozen, **own}
    found = part.network
    assert isinstance(found, Pretrained)
    usual, leaves = found.sampling, stored(part.leaves, dtype)
    frozen = {name: stored(load, dtype) for name, load in frozen.items()}
    network, guide = network_of(part, image)
    network, pictures = system.picture(pipeline, part, network, (*size, channels))
    conditions += pictures

    def denoiser(params):
        return make_denoiser(network, params, found.schedule, found.parameterization)

    def encode(frozen, x):
        return scale.to_diffusion(vae.network.encode(frozen["vae"], x)[0])

    def decode(frozen, x):
        return vae.network.decode(frozen["vae"], scale.to_autoencoder(x))

    model = Model(
        init=lambda key: jax.tree.map(np.asarray, leaves()),
        denoiser=denoiser,
        example=jax.ShapeDtypeStruct((*size, channels), jnp.float32),
        schedule=found.schedule,
        conditions=conditions,
        codec=decoded(encode, decode),
        guide=guide,
        finish=usual.finish,
        frozen=frozen,
        prior=prior_of(usual),
        sampling=Sampling(
            usual.sampler,
            grid_of(usual, part.config, size),
            usual.steps,
            system.guidance_scale if guide else 1.0,
            options=usual.options,
            num=1,
            batch_size=4,
        ),
    )
    raw = partial(raw_prompts, reader, extra)
    return Opened(model, leaves, raw, vae, part.config.get(SCHEDULER) or {}, usual.start_std)


def latents_of(
    pipeline: Pipeline,
    system: System,
    config: dict[str, Any],
    asked: tuple[int | None, int | None],
    by: int,
) -> tuple[int, int]:
    """(h, w) of the latents of an image of the size that is asked for.

    Args:
      pipeline: for the message.
      system: its kind.
      config: of its denoiser.
      asked: (H, W) in pixels; None is the size that it was trained on.
      by: pixels for each latent, along one side.

    Raises:
      InputError: a size that is no multiple of what the system draws, or too large.
    """
    usual = system.latent_size or config.get("sample_size") or 64
    usual = (usual, usual) if isinstance(usual, int) else tuple(usual)
    multiple, most = by * system.cell, config.get("pos_embed_max_size")
    for flag, size in zip(("--height", "--width"), asked, strict=True):
        if size is None:
            continue
        if size < multiple or size % multiple:
            raise InputError(
                f"{pipeline.folder} draws heights and widths that are multiples of {multiple}; "
                f"got {flag} {size}."
            )
        if most and size > most * multiple:
            raise InputError(
                f"{pipeline.folder} draws up to {most * multiple} pixels; got {flag} {size}."
            )
    height, width = (u if a is None else a // by for u, a in zip(usual, asked, strict=True))
    return height, width


def sizes_of(config: dict[str, Any], image: tuple[int, int]) -> dict[str, np.ndarray]:
    """SDXL's sizes of one image: original, crop and target, height and width of each.

    They are those of `image`, without a crop.
    """
    if config.get("addition_embed_type") != "text_time":
        return {}
    return {"time_ids": np.asarray([*image, 0, 0, *image], np.float32)}


def network_of(part: Part, image: tuple[int, int]) -> tuple[Network, Callable | None]:
    """The network of latents under prompts alone, and the guide that goes with it.

    Args:
      part: the denoiser.
      image: (H, W) in pixels.
    """
    found, config = part.network, part.config
    if isinstance(found.module, Flux):
        network = packed(found.network, len(found.module.axes))
        return (given_scale(network, 0.0)) if found.module.guided else (network, None)
    if isinstance(found.module, PixArt) and found.module.sized:
        return sized(found.network, image), classifier_free
    if config.get("time_cond_proj_dim"):
        return given_scale(found.network, 1.0)
    return found.network, classifier_free


def given_scale(network: Network, off: float) -> tuple[Network, Callable]:
    """A network that is given the guidance scale less `off`, and the guide that gives it.

    FLUX.1 dev is given the scale itself, latent consistency models w = scale - 1.
    """

    def unguided(params, x, t, cond, key):
        cond = {"guidance": jnp.full(x.shape[:1], 1 - off, x.dtype), **(cond or {})}
        return network(params, x, t, cond, key)

    def guide(denoiser, scale, null, frozen):
        def guided(x, t, cond):
            number = jnp.broadcast_to(scale - off, x.shape[:1])
            return denoiser(x, t, {**(cond or {}), "guidance": number})

        return guided

    return unguided, guide


def sized(network: Network, image: tuple[int, int]) -> Network:
    """PixArt's network, given the size and the aspect ratio of the image."""
    height, width = image

    def with_size(params, x, t, cond, key):
        resolution = jnp.broadcast_to(jnp.asarray([[height, width]], x.dtype), (len(x), 2))
        ratio = jnp.full((len(x), 1), height / width, x.dtype)
        cond = {**(cond or {}), "resolution": resolution, "aspect_ratio": ratio}
        return network(params, x, t, cond, key)

    return with_size


def grid_of(usual: SchedulerDefaults, config: dict[str, Any], size: tuple[int, int]) -> Callable:
    """The scheduler's grid; FLUX's shift grows with the number of an image's tokens."""
    if not (config.get(SCHEDULER) or {}).get("use_dynamic_shifting"):
        return usual.grid

    def grid(schedule: Schedule, n: int) -> Array:
        return usual.grid(schedule, n, tokens=size[0] * size[1] // 4)

    return grid
