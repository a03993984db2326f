"""What a U-Net is conditioned on: time, label, vector, tokens, and what adapters add within it."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.models.layers import Dtype, sinusoidal_embedding
from diffjax.models.unet_attention import Context
from diffjax.types import Array, Cond


class Embedding(nn.Module):
    """Time, label and vector as one vector for every block, after its SiLU.

    Attributes:
      channels: of the sinusoid.
      width: of the result.
      labels: rows of the label table; 0 for none.
      vector: whether to embed `cond["vector"]` (B, V).
      guidance: width of the sinusoid of `cond["guidance"]` (B,); 0 for none.
      added: whether `cond["embedding"]` (B, width) is added as it is.
      shift: of the sinusoid's frequencies.
      dtype: of the computation.
    """

    channels: int
    width: int
    labels: int = 0
    vector: bool = False
    guidance: int = 0
    added: bool = False
    shift: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, t, cond):
        def dense(h, name):
            return nn.Dense(self.width, dtype=self.dtype, name=name)(h)

        h = sinusoidal_embedding(t, self.channels, shift=self.shift)
        if self.guidance:
            w = sinusoidal_embedding(1000 * condition(cond, "guidance"), self.guidance, shift=1.0)
            options = {"use_bias": False, "kernel_init": nn.initializers.zeros}
            h = h + nn.Dense(self.channels, dtype=self.dtype, name="guidance", **options)(w)
        h = dense(nn.silu(dense(h, "time_in")), "time_out")
        if self.labels:
            table = nn.Embed(self.labels, self.width, dtype=self.dtype, name="label")
            h = h + table(condition(cond, "label"))
        if self.vector:
            v = dense(condition(cond, "vector"), "vector_in")
            h = h + dense(nn.silu(v), "vector_out")
        if self.added:
            h = h + condition(cond, "embedding").astype(h.dtype)
        return nn.silu(h)


def feature_table(cond: Cond, levels: int) -> dict[int, Array]:
    """The feature of each level, by its number; empty where there are none.

    Raises:
      InputError: another number of them than of levels.
    """
    features = list((cond or {}).get("features", ()))
    if features and len(features) != levels:
        raise InputError(
            f"a U-Net of {levels} levels takes as many cond['features']; got {len(features)}."
        )
    return dict(enumerate(features))


def with_residuals(
    h: Array, skips: Sequence[Array], residuals: Sequence[Array] | None
) -> tuple[Array, list[Array]]:
    """What a ControlNet adds to a U-Net (Zhang et al. 2023, Eq. 4).

    Args:
      h: the output of the middle.
      skips: in the order of the way down.
      residuals: one for each skip and the last for h, each of its shape or of one that is
        broadcast to it; None adds nothing.

    Returns:
      (h, skips).

    Raises:
      InputError: another number of residuals, or one of a shape that does not fit.
    """
    if residuals is None:
        return h, list(skips)
    both = [*skips, h]
    if len(residuals) != len(both):
        raise InputError(
            f"this U-Net takes {len(both)} cond['residuals'], one for each skip and one for the "
            f"middle; got {len(residuals)}. Is the ControlNet one for this network?"
        )
    for i, (a, r) in enumerate(zip(both, residuals, strict=True)):
        if r.ndim != a.ndim or any(m not in (1, n) for m, n in zip(r.shape, a.shape, strict=True)):
            raise InputError(
                f"cond['residuals'][{i}]: expected the shape {a.shape}, got {r.shape}. Is the "
                "ControlNet one for this network, and its picture of the right size?"
            )
    *skips, h = [
        a + jnp.broadcast_to(r, a.shape).astype(a.dtype)
        for a, r in zip(both, residuals, strict=True)
    ]
    return h, skips


def condition(cond: Cond, name: str) -> Array:
    """One entry of the conditions.

    Raises:
      InputError: it is not there.
    """
    if cond is None or name not in cond:
        raise InputError(f"this U-Net needs cond[{name!r}]; got {sorted(cond or {})}.")
    return cond[name]


def token_context(cond: Cond) -> Context | None:
    """The tokens and their mask, where there are any."""
    if cond is None or "tokens" not in cond:
        return None
    mask = cond.get("token_mask")
    mask = None if mask is None else mask.astype(bool)
    return Context(cond["tokens"], mask, cond.get("image_tokens"))
