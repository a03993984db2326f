"""A LoRA on the frozen parameters of another run."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax

from diffjax import lora
from diffjax.experiment import Frozen, Model
from diffjax.lora.low_rank import Which
from diffjax.types import Params, PyTree

METHODS = {"lora": lora.lora, "rslora": lora.rslora, "dora": lora.dora, "lora_ga": lora.lora_ga}
LAYERS = {"attention": lora.attention, "dense": lora.dense, "all": lora.dense_and_conv}


class LowRank(NamedTuple):
    """What is trained of a LoRA, and how.

    Attributes:
      method: of `lora.methods`.
      which: leaves of the base that are changed.
      rank: r.
      scale: s.
      b_rate: learning rate of B over that of A, see `lora.lora_plus`.
    """

    method: lora.Method
    which: Which
    rank: int
    scale: float
    b_rate: float


def low_rank(
    method: Literal["lora", "rslora", "dora", "lora_ga"] = "lora",
    rank: int = 4,
    alpha: float | None = None,
    layers: Literal["attention", "dense", "all"] = "dense",
    b_rate: float = 1.0,
) -> LowRank:
    """A LoRA by its flags.

    Args:
      method: LoRA, rsLoRA, DoRA, or LoRA-GA, which begins along the gradient of a few batches.
      rank: of the change of each kernel.
      alpha: the change is scaled by alpha / rank, of rslora and lora_ga by alpha / sqrt(rank);
        default the rank, or its root, so that the scale is 1.
      layers: kernels that are changed: of attention, of all dense layers, or of convolutions too.
      b_rate: learning rate of B over that of A; above 1 it is LoRA+.
    """
    found = METHODS[method]
    scale = 1.0 if alpha is None else found.scale(alpha, rank)
    return LowRank(found, LAYERS[layers], rank, scale, b_rate)


def lora_model(
    base: Model, load: Callable[[], Params], given: LowRank
) -> tuple[Model, Callable[[PyTree, Frozen], Params]]:
    """The base's model with a LoRA (Hu et al. 2022), which alone is trained.

    The base's parameters stand in the model's `frozen` as "base".

    Args:
      base: a model trained before, or published.
      load: () -> its parameters.
      given: from `low_rank`.

    Returns:
      (the model, (LoRA, frozen) -> the base's parameters with it).
    """

    def init(key):
        shapes = jax.eval_shape(base.init, jax.random.key(0))
        return given.method.init(key, shapes, given.which, given.rank)

    def merged(params, frozen):
        found = given.method.lora(frozen["base"], params)
        return lora.merge(frozen["base"], found, given.scale)

    def whole(params, frozen):
        return base.whole(merged(params, frozen), frozen)

    frozen = {**base.frozen, "base": load}
    return base._replace(init=init, whole=whole, frozen=frozen), merged
