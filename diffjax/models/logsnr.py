"""A trained noise schedule as a network of one number."""

import jax
import jax.numpy as jnp
from flax import linen as nn


class MonotoneLogSNR(nn.Module):
    """A decreasing function on [0, 1] with trained ends: Kingma et al. 2021, appendix H.

    gamma~(t) = l1(t) + l3(sigmoid(l2(l1(t)))) with positive weights, and
    logsnr(t) = start + (stop - start) (gamma~(t) - gamma~(0)) / (gamma~(1) - gamma~(0)).

    Attributes:
      width: size of the hidden layer.
      start: initial log-SNR at t = 0.
      stop: initial log-SNR at t = 1, below `start`.
    """

    width: int = 1024
    start: float = 13.3
    stop: float = -5.0

    @nn.compact
    def __call__(self, t):
        """Times of any shape to log-SNR of that shape."""

        def positive(name, shape, value):
            # softplus of the parameter; `value` is where the weight begins.
            raw = self.param(name, nn.initializers.normal(1.0), shape)
            return jax.nn.softplus(raw) * value

        first = positive("first", (1, 1), 1.0)
        second = positive("second", (1, self.width), 4.0)
        third = positive("third", (self.width, 1), 1 / self.width)
        bias1 = self.param("bias1", nn.initializers.zeros, (1, 1))
        bias2 = self.param("bias2", nn.initializers.normal(4.0), (1, self.width))
        start = self.param("start", nn.initializers.constant(self.start), ())
        stop = self.param("stop", nn.initializers.constant(self.stop), ())

        def gamma(t):
            linear = t @ first + bias1
            return linear + jax.nn.sigmoid(linear @ second + bias2) @ third

        column = jnp.concatenate([jnp.array([0.0, 1.0], t.dtype), jnp.ravel(t)])[:, None]
        values = gamma(column)[:, 0]
        share = (values[2:] - values[0]) / (values[1] - values[0])
        return start + (stop - start) * share.reshape(t.shape)
