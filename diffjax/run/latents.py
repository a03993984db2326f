"""What a model of latents takes of its autoencoder and of the latents on disk."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from diffjax.codec import Codec
from diffjax.data import Source
from diffjax.latents import Autoencoder, LatentScale
from diffjax.latents.cached import cached, read_scale
from diffjax.media import decoded
from diffjax.run.autoencoder import PART, open_autoencoder
from diffjax.run.weights import fingerprint
from diffjax.types import Params


class Latents(NamedTuple):
    """Latents that are diffused.

    Attributes:
      shape: of one x.
      codec: which decodes samples into pictures; the data are latents already.
      frozen: the autoencoder, for the model's `frozen`.
      source: the data that were encoded -> their latents, with what belongs to them.
      resolved: the scale, for the experiment's `resolved`: sampling needs no latents.
    """

    shape: tuple[int, ...]
    codec: Codec
    frozen: Mapping[str, Callable[[], Params]]
    source: Callable[[Source], Source]
    resolved: Mapping[str, Any]


def latents(
    autoencoder: str = "runs/emoji_kl",
    latents: str | None = None,
    factor: tuple[float, ...] = (),
    shift: tuple[float, ...] = (),
) -> Latents:
    """Latents of `python -m diffjax.latents.cache`.

    Args:
      autoencoder: workdir of the autoencoder.
      latents: folder of its latents; default `latents` in that workdir.
      factor: one over the latents' standard deviation, per channel; default read off them.
      shift: their mean, likewise.
    """
    coder, folder = open_autoencoder(autoencoder), latents or f"{autoencoder}/latents"
    scale = LatentScale(factor, shift) if factor else read_scale(folder)
    return Latents(
        coder.autoencoder.shape,
        latent_codec(coder.autoencoder, scale),
        {PART: coder.load},
        lambda beside: cached(folder, beside, fingerprint(coder.load())),
        scale._asdict(),
    )


def latent_codec(autoencoder: Autoencoder, scale: LatentScale) -> Codec:
    """The codec of a model whose data are latents already: samples are decoded into pictures.

    Args:
      autoencoder: whose parameters are `frozen["autoencoder"]`.
      scale: of the latents that are diffused.
    """

    def decode(frozen, x):
        return autoencoder.decode(frozen[PART], scale.to_autoencoder(x))

    return decoded(lambda frozen, x: x, decode)
