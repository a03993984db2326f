"""Networks of one time that are given further numbers: a second time, a guidance scale."""

from typing import Any

from flax import linen as nn

from diffjax.errors import InputError
from diffjax.models.layers import Dtype, sinusoidal_embedding
from diffjax.types import Array, Cond


class NumberEmbedding(nn.Module):
    """A number through its sinusoids and two dense layers, of which the last is zero at first.

    Attributes:
      width: of the embedding.
      frequencies: even number of sinusoids.
      dtype: type of the computation.
    """

    width: int
    frequencies: int = 256
    dtype: Dtype = None

    @nn.compact
    def __call__(self, number: Array) -> Array:
        """The embedding (B, width) of numbers (B,)."""
        h = sinusoidal_embedding(number, self.frequencies)
        h = nn.silu(nn.Dense(self.width, dtype=self.dtype, name="layer_in")(h))
        zeros = nn.initializers.zeros
        return nn.Dense(self.width, dtype=self.dtype, kernel_init=zeros, name="layer_out")(h)


class TwoTimes(nn.Module):
    """A network of one time, with the embedding of further numbers added to that of its time.

    The new embedding is zero at first, so that {"module": trained parameters, ...} is the
    trained network whatever the numbers are. It is added to the result of the module's `Embedding`
    (DiT, MMDiT, ResidualMLP, UNet) or of its method `embed` (the EDM networks), once.

    Attributes:
      module: a module of `__call__(x, t, cond, train)`.
      names: conditions (B,) that are numbers, best of size 1 to 10, in the order of their
        embeddings.
    """

    module: nn.Module
    names: tuple[str, ...] = ("until",)

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = None, train: bool = False) -> Array:
        """As the module, with cond[name] (B,) for each of the names."""
        missing = [name for name in self.names if name not in (cond or {})]
        if missing:
            raise InputError(
                f"this network of two times needs the numbers {', '.join(missing)}; got the "
                f"conditions {sorted(cond or {})}. distill.two_time_denoiser gives the second time."
            )
        numbers = {name: cond[name] for name in self.names}
        others = {name: value for name, value in cond.items() if name not in self.names}
        met = []

        def add(call, args, kwargs, context):
            h = call(*args, **kwargs)
            if met or not _embeds(context):
                return h
            met.append(context.module)
            for name, number in numbers.items():
                embed = NumberEmbedding(h.shape[-1], parent=self, name=f"embed_{name}")
                h = h + embed(number).astype(h.dtype)
            return h

        with nn.intercept_methods(add):
            y = self.module(x, t, others or None, train)
        if not met:
            raise InputError(
                f"{type(self.module).__name__} has no embedding of time that a second time can be "
                "added to; use DiT, MMDiT, ResidualMLP, UNet, DhariwalUNet, SongUNet or EDM2UNet."
            )
        return y


def _embeds(context: Any) -> bool:
    """Whether a call makes the embedding of time that a whole network shares."""
    name, method = type(context.module).__name__, context.method_name
    return (name == "Embedding" and method == "__call__") or method == "embed"
