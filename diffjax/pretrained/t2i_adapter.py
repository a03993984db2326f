"""T2I-Adapter, as diffusers has it."""

import jax
import numpy as np

from diffjax.models.t2i_adapter import T2IAdapter
from diffjax.pretrained.architecture import Architecture, known_arguments, supported
from diffjax.pretrained.own_names import part

DEFAULTS = {
    "in_channels": 3,
    "channels": (320, 640, 1280, 1280),
    "num_res_blocks": 2,
    "downscale_factor": 8,
    "adapter_type": "full_adapter",
}


def t2i_adapter(config: dict) -> Architecture:
    """diffusers' T2IAdapter, full_adapter or full_adapter_xl, by its config.json.

    Raises:
      InputError: an argument that it does not have, or a setting that is not built here.
    """
    c = known_arguments(config, DEFAULTS, "T2IAdapter")
    supported(c, "T2IAdapter", adapter_type=("full_adapter", "full_adapter_xl"))
    levels = len(c["channels"])
    halved = (2,) if c["adapter_type"] == "full_adapter_xl" else tuple(range(1, levels))
    widths, factor = tuple(c["channels"]), c["downscale_factor"]
    module = T2IAdapter(widths, c["num_res_blocks"], factor, halved)
    size = factor * 2**levels
    return part(module, (jax.ShapeDtypeStruct((1, size, size, c["in_channels"]), np.float32),))
