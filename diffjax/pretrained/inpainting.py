"""Networks that are given the latents of a masked picture and its mask: SD's inpainting."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.conditioning import Condition
from diffjax.errors import InputError
from diffjax.latents import LatentScale, reparameterize
from diffjax.media.image import load_image
from diffjax.pretrained.architecture import Autoencoder
from diffjax.pretrained.beside import joined
from diffjax.pretrained.latents import latent_scale, shrinking
from diffjax.pretrained.pipeline import Part, Pipeline, open_part
from diffjax.types import Array, Network


def painter(
    pipeline: Pipeline, part: Part, network: Network, latents: tuple[int, int, int]
) -> tuple[Network, tuple[Condition, ...]]:
    """The network of latents under a picture and a mask, and the condition that gives them.

    A network of the latents alone is left as it is.

    Args:
      pipeline: with the autoencoder.
      part: the denoiser.
      network: its function.
      latents: (h, w, C).

    Returns:
      Both.
    """
    height, width, channels = latents
    if part.config.get("in_channels") != 2 * channels + 1:
        return network, ()
    vae = open_part(pipeline, "vae")
    assert isinstance(vae.network, Autoencoder)
    by, scale = shrinking(vae.config), latent_scale(vae.config)
    image = height * by, width * by
    return joined(network, "mask", "masked_latents"), (
        inpainting(vae.network, scale, image, latents),
    )


def inpainting(
    vae: Autoencoder, scale: LatentScale, image: tuple[int, int], latents: tuple[int, int, int]
) -> Condition:
    """A picture and a mask of what is drawn anew, kept under guidance.

    Args:
      vae: whose parameters are `frozen["vae"]`.
      scale: of its latents.
      image: (H, W) of the picture.
      latents: (h, w, C).

    Returns:
      The condition; its raw arrays are the picture in [-1, 1], the mask, -1 where it is kept, and
      the noise of the posterior's draw, 0 for its mean.
    """

    def flags(num: int, image: Path | None = None, mask: Path | None = None):
        """Flags.

        Args:
          num: number of samples.
          image: picture of which a part is drawn anew.
          mask: white where the picture is drawn anew.
        """
        if image is None or mask is None:
            raise InputError("give --image FILE and --mask FILE: this model paints into a picture.")
        noise = np.zeros(latents, np.float32)
        found = {"picture": load_image(image, size, 3), "mask": load_image(mask, size, 1)}
        found["picture_noise"] = noise
        return {name: np.broadcast_to(a, (num, *a.shape)) for name, a in found.items()}

    size = image
    of = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)  # noqa: E731
    example = {"picture": of(*image, 3), "mask": of(*image, 1), "picture_noise": of(*latents)}
    encode = masked(vae, scale, image[0] // latents[0])
    return Condition(example, None, flags, encode)


def masked(vae: Autoencoder, scale: LatentScale, by: int) -> Callable:
    """The `encode` of `inpainting`: the mask at the latents' size, and what it leaves of a picture.

    Args:
      vae: whose parameters are `frozen["vae"]`.
      scale: of its latents.
      by: pixels for each latent.
    """

    def encode(frozen, raw) -> dict[str, Array]:
        anew = jnp.where(jnp.asarray(raw["mask"]) >= 0, 1.0, 0.0)
        kept = jnp.asarray(raw["picture"]) * (1 - anew)
        mean, logvar = vae.encode(frozen["vae"], kept)
        z = reparameterize(mean, logvar, jnp.asarray(raw["picture_noise"]))
        return {"mask": anew[:, ::by, ::by], "masked_latents": scale.to_diffusion(z)}

    return encode
