"""Limits of x0_hat: applied after guidance, whose results leave the range of the data."""

import jax.numpy as jnp

from diffjax.errors import InputError
from diffjax.types import Denoiser, per_sample


def static_clip(denoiser: Denoiser, bound: float = 1.0) -> Denoiser:
    """Clip x0_hat to [-bound, bound] at every step, as in the released code of DDPM.

    Args:
      denoiser: any denoiser of data within the bound.
      bound: largest magnitude of the data, positive.

    Returns:
      The clipped denoiser.

    Raises:
      InputError: the bound is not positive.
    """
    if not bound > 0:
        raise InputError(f"static_clip needs a positive bound, such as 1; got {bound}.")

    def clipped(x, t, cond):
        out = denoiser(x, t, cond)
        return out._replace(x0=jnp.clip(out.x0, -bound, bound))

    return clipped


def dynamic_threshold(
    denoiser: Denoiser, quantile: float = 0.995, maximum: float = jnp.inf
) -> Denoiser:
    """Clip x0_hat to its own quantile of |x0_hat| and rescale to [-1, 1]: Saharia et al. 2022.

    Imagen, section 2.3: clip to s and divide by s, where s is the quantile limited to
    [1, maximum]. Where most of the data is at its bounds, such as white paper, the network's own
    errors lift the quantile above 1, and pictures become greyer; `static_clip` is better there.

    Args:
      denoiser: any denoiser of data in [-1, 1].
      quantile: in (0, 1], taken per sample with linear interpolation.
      maximum: largest s, at least 1; at 1 this is `static_clip`.

    Returns:
      The thresholded denoiser.

    Raises:
      InputError: the quantile is outside (0, 1], or the maximum is below 1.
    """
    if not 0 < quantile <= 1:
        raise InputError(
            f"dynamic_threshold needs a quantile in (0, 1]; got {quantile}. 99.5% is 0.995."
        )
    if not maximum >= 1:
        raise InputError(f"dynamic_threshold needs a maximum of at least 1; got {maximum}.")

    def thresholded(x, t, cond):
        out = denoiser(x, t, cond)
        flat = jnp.abs(out.x0).reshape(x.shape[0], -1)
        bound = per_sample(jnp.clip(jnp.quantile(flat, quantile, axis=1), 1, maximum), x)
        return out._replace(x0=jnp.clip(out.x0, -bound, bound) / bound)

    return thresholded
