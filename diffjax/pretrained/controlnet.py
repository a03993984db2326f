"""diffusers' ControlNetModel, for the U-Nets of Stable Diffusion 1, 2 and XL.

Its network takes what the U-Net takes, and the picture in [0, 1] as cond["image"]; what it
returns is the U-Net's cond["residuals"]. `models.controlnet.controlled` joins the two.
"""

from typing import Any

import numpy as np

from diffjax.models import network as as_network
from diffjax.models.controlnet import ControlNet, controlnet_for
from diffjax.pretrained.architecture import Architecture, Module, known_arguments, supported
from diffjax.pretrained.diffusers_unet import condition_module, names_of, smallest_inputs
from diffjax.pretrained.diffusers_unet_config import CONDITION, CONTROL
from diffjax.pretrained.diffusers_unet_names import modern_name
from diffjax.pretrained.naming import Layout, Names, conv, conv_1x1
from diffjax.pretrained.unet_names import conv_names, kernel_names

WHERE = "ControlNetModel"
HINT = "controlnet_cond_embedding"


def controlnet(config: dict[str, Any]) -> Architecture:
    """diffusers' ControlNetModel, by its config.json.

    Raises:
      InputError: an argument that it does not have, or a setting that is not built here.
    """
    c = known_arguments(config, CONTROL, WHERE)
    order = c["controlnet_conditioning_channel_order"]
    supported(c, WHERE, controlnet_conditioning_channel_order=("rgb", "bgr"))
    back = [block.replace("Down", "Up") for block in c["down_block_types"][::-1]]
    c = CONDITION | c | {"up_block_types": back, "out_channels": c["in_channels"]}
    unet, cond = condition_module(c, WHERE)
    widths = tuple(c["conditioning_embedding_out_channels"])
    module = controlnet_for(unet, hint=widths, pooled=bool(c["global_pool_conditions"]))
    side = 2 ** (len(module.down) + len(widths) - 2)
    cond["image"] = ((side, side, c["conditioning_channels"]), np.float32)

    def finish(params, config):
        return Module(as_network(module), params, module, config)

    names = names_of(module, c) | hint_names(widths, order == "bgr") | zero_names(module)
    inputs = smallest_inputs(module, c, cond)
    return Architecture(module, inputs, names, finish, modern=modern_name)


def hint_names(widths: tuple[int, ...], reversed_channels: bool) -> Names:
    """The layers that read the picture."""
    first = Layout(lambda w: conv.read(w[:, ::-1]), lambda w: conv.write(w)[:, ::-1])
    layout = first if reversed_channels else conv
    names = kernel_names(f"{HINT}.conv_in", ("hint", "conv_in"), layout)
    for i in range(len(widths) - 1):
        names |= conv_names(f"{HINT}.blocks.{2 * i}", ("hint", f"conv_{i}"))
        names |= conv_names(f"{HINT}.blocks.{2 * i + 1}", ("hint", f"down_{i}"))
    return names | conv_names(f"{HINT}.conv_out", ("hint", "conv_out"))


def zero_names(module: ControlNet) -> Names:
    """The layers through which the residuals leave."""
    skips = 1 + sum(level.blocks + (level.resample is not None) for level in module.down)
    theirs = [*(f"controlnet_down_blocks.{i}" for i in range(skips)), "controlnet_mid_block"]
    names = {}
    for i, name in enumerate(theirs):
        names |= kernel_names(name, (f"zero_{i}",), conv_1x1)
    return names
