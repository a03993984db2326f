"""Parts that experiments share: a Gaussian diffusion model, optimizers, and flags by parts.

A config's `get_config` is put together from functions whose keywords are flags:

    @flags(train=defaults(cosine_adam, steps=1600, lr=2e-3), unet=defaults(unet, channels=32))
    def get_config(train, unet, label_dropout: float = 0.1) -> Experiment: ...

Every keyword of the parts is a keyword of `get_config` and so a flag of train.py, documented
where it is defined.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from diffjax import conditioning
from diffjax.codec import Codec
from diffjax.conditioning import Condition
from diffjax.experiment import NOTHING, Model, Sampling
from diffjax.media import pixels
from diffjax.models import DiT, adm_unet, dit_xl_2, network
from diffjax.parameterization import make_denoiser
from diffjax.training import ema
from diffjax.types import Array, Denoiser, Parameterization, Schedule

USUAL = Sampling()


def defaults(function: Callable, **values: Any) -> Callable:
    """The function with other defaults, and a signature that shows them.

    Args:
      function: of keywords.
      **values: defaults; one that is itself a function is fixed, and no flag.

    Returns:
      The function.
    """
    signature = inspect.signature(function, eval_str=True)
    unknown = values.keys() - signature.parameters.keys()
    if unknown:
        raise TypeError(f"{function.__name__} has no keyword {', '.join(sorted(unknown))}")
    wrapped = functools.wraps(function)(functools.partial(function, **values))
    wrapped.__signature__ = signature.replace(
        parameters=[
            p.replace(default=values.get(name, p.default), kind=p.KEYWORD_ONLY)
            for name, p in signature.parameters.items()
            if not callable(values.get(name))
        ]
    )
    return wrapped


def flags(**parts: Callable) -> Callable:
    """A decorator: `get_config` is called with what each part makes of its own keywords.

    Args:
      **parts: name of a parameter of `get_config` -> function of keywords, from `defaults`.

    Returns:
      The decorator; the result has the keywords of all parts, and those of `get_config` itself.
    """
    signatures = {name: inspect.signature(part, eval_str=True) for name, part in parts.items()}

    def decorate(get_config: Callable) -> Callable:
        own = [
            p.replace(kind=p.KEYWORD_ONLY)
            for name, p in inspect.signature(get_config, eval_str=True).parameters.items()
            if name not in parts
        ]

        @functools.wraps(get_config)
        def configured(**options):
            made = {}
            for name, part in parts.items():
                names = signatures[name].parameters.keys() & options.keys()
                made[name] = part(**{k: options.pop(k) for k in names})
            return get_config(**made, **options)

        found = [
            p.replace(kind=p.KEYWORD_ONLY)
            for s in signatures.values()
            for p in s.parameters.values()
        ]
        configured.__signature__ = inspect.Signature([*found, *own])
        configured.__doc__ = _one_docstring(get_config, *parts.values())
        return configured

    return decorate


def _one_docstring(*functions: Callable) -> str:
    """The first function's summary, and the arguments of all."""
    import docstring_parser

    docs = [docstring_parser.parse(f.__doc__ or "") for f in functions]
    found = {p.arg_name: " ".join(p.description.split()) for doc in docs for p in doc.params}
    lines = [f"  {name}: {text}" for name, text in found.items()]
    return "\n".join([docs[0].short_description or "", "", "Args:", *lines])


class Training(NamedTuple):
    """How parameters are trained: fields of `Experiment` of the same names."""

    optimizer: optax.GradientTransformation
    averages: Mapping[str, Callable[[Array], Array]]
    learning_rate: Callable[[Array], Array]
    steps: int
    batch_size: int
    accumulate: int
    seed: int


def cosine_adam(
    steps: int = 1000,
    batch_size: int = 64,
    lr: float = 2e-3,
    warmup: int = 100,
    clip_norm: float = 1.0,
    ema_decay: float = 0.998,
    accumulate: int = 1,
    seed: int = 0,
) -> Training:
    """Adam, with a learning rate that rises, and falls to 0 along a cosine.

    Args:
      steps: training steps.
      batch_size: examples per step.
      lr: peak learning rate, after warm-up and before its cosine decay to 0.
      warmup: steps of linear warm-up.
      clip_norm: largest global norm of the gradient.
      ema_decay: limit of the moving average of the parameters.
      accumulate: microbatches of a batch, one gradient at a time.
      seed: of everything random in training.
    """
    warmup = min(warmup, steps // 2)
    rate = optax.warmup_cosine_decay_schedule(0.0, lr, max(warmup, 1), max(steps, 2))
    optimizer = optax.chain(optax.clip_by_global_norm(clip_norm), optax.adam(rate))
    return Training(optimizer, {"ema": ema(ema_decay)}, rate, steps, batch_size, accumulate, seed)


def warmup_adam(
    steps: int = 1000,
    batch_size: int = 128,
    lr: float = 2e-4,
    warmup: int = 5_000,
    clip_norm: float | None = 1.0,
    weight_decay: float = 0.0,
    ema_decay: float = 0.9999,
    accumulate: int = 1,
    seed: int = 0,
) -> Training:
    """Adam, with a learning rate that rises and stays.

    Args:
      steps: training steps.
      batch_size: examples per step.
      lr: learning rate after the warm-up, where it stays.
      warmup: steps of linear warm-up.
      clip_norm: largest global norm of the gradient; None does not clip.
      weight_decay: of AdamW.
      ema_decay: limit of the moving average of the parameters.
      accumulate: microbatches of a batch, one gradient at a time.
      seed: of everything random in training.
    """
    rate = optax.linear_schedule(0.0, lr, warmup) if warmup else optax.constant_schedule(lr)
    adam = optax.adamw(rate, weight_decay=weight_decay) if weight_decay else optax.adam(rate)
    clip = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)
    optimizer = optax.chain(clip, adam)
    return Training(optimizer, {"ema": ema(ema_decay)}, rate, steps, batch_size, accumulate, seed)


def unet(
    channels: int = 32,
    multipliers: tuple[int, ...] = (1, 2),
    blocks: int = 1,
    attention_levels: tuple[int, ...] = (),
    dropout: float = 0.0,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> Callable:
    """A U-Net of residual blocks, `models.adm_unet`.

    Args:
      channels: width of the U-Net's first level.
      multipliers: width of each level over the first; each level halves the resolution.
      blocks: residual blocks per level.
      attention_levels: levels (0 is the full resolution) with self-attention.
      dropout: rate inside residual blocks.
      dtype: type of the network's computation; parameters and loss stay float32.
    """
    return functools.partial(
        adm_unet,
        channels=channels,
        multipliers=multipliers,
        blocks=blocks,
        attention_levels=attention_levels,
        dropout=dropout,
        dtype=jnp.dtype(dtype),
    )


def plain_unet(
    network: Callable = adm_unet,
    channels: int = 128,
    multipliers: tuple[int, ...] = (1, 2, 2, 2),
    blocks: int = 2,
    dropout: float = 0.1,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> nn.Module:
    """An unconditional U-Net.

    Args:
      network: its constructor, such as `models.ddpm_unet`; not a flag.
      channels: width of the U-Net's first level.
      multipliers: width of each level over the first; each level halves the resolution.
      blocks: residual blocks per level.
      dropout: rate inside residual blocks.
      dtype: type of the network's computation; parameters and loss stay float32.
    """
    return network(channels, multipliers, blocks, dropout=dropout, dtype=jnp.dtype(dtype))


def song_unet(
    channels: int = 128,
    blocks: int = 4,
    dropout: float = 0.13,
    remat: bool = False,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> Callable[..., nn.Module]:
    """DDPM++ or NCSN++ of EDM, without its non-leaky augmentation.

    Args:
      channels: a half of the width of every level.
      blocks: residual blocks per level.
      dropout: rate inside residual blocks.
      remat: compute blocks again in the backward pass, for memory.
      dtype: type of the network's computation; parameters and loss stay float32.
    """

    def make(network, num_classes):
        return network(
            channels=channels,
            blocks=blocks,
            dropout=dropout,
            num_classes=num_classes,
            augment_dim=0,
            remat=remat,
            dtype=jnp.dtype(dtype),
        )

    return make


def dit(
    width: int = 1152,
    depth: int = 28,
    heads: int = 16,
    patch_size: int = 2,
    remat: bool = False,
    scan_blocks: bool = True,
    dtype: Literal["float32", "bfloat16"] = "bfloat16",
) -> Callable[..., nn.Module]:
    """A diffusion transformer, `models.DiT` with a learned variance or without.

    Args:
      width: channels of a token.
      depth: number of blocks.
      heads: attention heads.
      patch_size: side of a patch.
      remat: recompute blocks in the backward pass to save memory.
      scan_blocks: compile one block for all.
      dtype: type of the network's computation; parameters and loss stay float32.
    """
    return functools.partial(
        dit_xl_2,
        width=width,
        depth=depth,
        heads=heads,
        patch_size=patch_size,
        remat=remat,
        scan_blocks=scan_blocks,
        dtype=jnp.dtype(dtype),
    )


def sized_network(
    width: int = 64,
    blocks: int = 2,
    dropout: float = 0.0,
    remat: bool = False,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> Callable[..., nn.Module]:
    """A U-Net or a transformer for images of any size.

    Args:
      width: channels of a U-Net's first level; a transformer's tokens have 6 times as many.
      blocks: residual blocks per level of a U-Net; a transformer has 6 times as many blocks.
      dropout: rate inside the residual blocks of a U-Net.
      remat: compute blocks again in the backward pass, for memory.
      dtype: type of the network's computation; parameters and loss stay float32.
    """
    kind = {"remat": remat, "dtype": jnp.dtype(dtype)}

    def make_unet(size, channels, classes):
        levels = 1
        while size % 2**levels == 0 and size // 2**levels >= 8 and levels < 5:
            levels += 1
        attends = tuple(i for i in range(levels) if size // 2**i <= 16)
        sizes = {"channels": width, "multipliers": (1, *(2,) * (levels - 1)), "blocks": blocks}
        return adm_unet(
            **sizes, attention_levels=attends, num_classes=classes, dropout=dropout, **kind
        )

    def make_dit(size, channels, classes):
        patch = next((p for p in (size // 16, 4, 2) if p and size % p == 0), 1)
        sizes = {"width": 6 * width, "depth": 6 * blocks, "heads": max(1, 6 * width // 64)}
        return DiT(
            patch_size=patch,
            num_classes=classes,
            learn_sigma=False,
            scan_blocks=True,
            **sizes,
            **kind,
        )

    return lambda network, *given: {"unet": make_unet, "dit": make_dit}[network](*given)


def gaussian_model(
    module: Any,
    schedule: Schedule,
    parameterization: Parameterization,
    shape: tuple[int, ...],
    conditions: tuple[Condition, ...] = (),
    codec: Codec = pixels,
    guide: Callable[..., Denoiser] | None = None,
    finish: Callable[[Denoiser], Denoiser] = lambda denoiser: denoiser,
    frozen: Mapping[str, Callable] = NOTHING,
    sampling: Sampling = USUAL,
) -> Model:
    """The model of a Linen module that is trained by denoising.

    Args:
      module: of `__call__(x, t, cond, train)`.
      schedule: the noise schedule.
      parameterization: what the module predicts.
      shape: of one x.
      conditions: see `Model`, as for the arguments that follow.
      codec: between data and x.
      guide: guidance.
      finish: clipping or thresholding, after the guide.
      frozen: how the parameters of frozen networks are had.
      sampling: defaults of sampling.

    Returns:
      The model.
    """
    net = network(module)

    def init(key):
        raw = conditioning.zeros(conditions, 1)
        read = {name: jax.eval_shape(load) for name, load in frozen.items()} if frozen else {}
        shapes = jax.eval_shape(functools.partial(conditioning.encode, conditions), read, raw)
        cond = jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), shapes)
        return module.init(key, jnp.zeros((1, *shape)), jnp.zeros(1), cond)["params"]

    return Model(
        init=init,
        denoiser=lambda params: make_denoiser(net, params, schedule, parameterization),
        example=jax.ShapeDtypeStruct(shape, jnp.float32),
        schedule=schedule,
        conditions=conditions,
        codec=codec,
        guide=guide,
        finish=finish,
        frozen=frozen,
        sampling=sampling,
    )
