"""EDM2's learned uncertainty of a loss, as a small network of the noise level."""

from flax import linen as nn

from diffjax.models.fourier import MPFourier
from diffjax.models.magnitude import MPConv
from diffjax.types import Array


class Uncertainty(nn.Module):
    """u(c_noise), the logarithm of the expected loss at a noise level: EDM2, Eq. 21.

    u = w . sqrt(2) cos(2 pi f c_noise + phase) / |w|, one linear layer of unit norm on Fourier
    features of fixed random frequencies f and phases (Karras et al. 2024, Eqs. 47 and 75).
    c_noise = log(sigma)/4 is -logsnr/8 on the EDM schedule.

    |u| is at most sqrt(2 channels), and a smooth u stays further below it: 128 channels are EDM2's,
    whose weighted loss is near 1 everywhere; a loss that ranges over e^8 needs 512.

    Attributes:
      channels: number of Fourier features.
      stored_frequencies: whether the frequencies are among the parameters, without gradient.
    """

    channels: int = 128
    stored_frequencies: bool = False

    @nn.compact
    def __call__(self, t: Array) -> Array:
        """t = c_noise (B,) -> u (B,)."""
        features = MPFourier(self.channels, self.stored_frequencies, name="fourier")(t)
        return MPConv(1, name="linear")(features)[:, 0]
