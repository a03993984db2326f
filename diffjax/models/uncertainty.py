"""The learned uncertainty of a loss, as a small network of the noise level."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn


class Uncertainty(nn.Module):
    """u(logsnr), the log of the loss at a noise level: Karras et al. 2024 (EDM2), Eq. 21.

    One linear layer on Fourier features sqrt(2) cos(2 pi f c + phase) of c = -logsnr/8, which
    is log(sigma)/4 on the EDM schedule. Frequencies and phases are fixed; the layer begins at
    zero, where `losses.learned_uncertainty` is the plain loss.

    Attributes:
      features: number of Fourier features.
    """

    features: int = 128

    @nn.compact
    def __call__(self, logsnr):
        """Log-SNRs (B,) to u (B,)."""
        rng = np.random.default_rng(0)
        frequencies = 2 * np.pi * rng.standard_normal(self.features)
        phases = 2 * np.pi * rng.uniform(size=self.features)
        angles = -logsnr[:, None] / 8 * jnp.asarray(frequencies, logsnr.dtype)[None]
        waves = np.sqrt(2) * jnp.cos(angles + jnp.asarray(phases, logsnr.dtype)[None])
        weight = self.param("weight", nn.initializers.zeros, (self.features,))
        return waves @ weight / np.sqrt(self.features)
