"""SDXL's U-Net and FLUX.1's transformer as training steps, for --plan alone; nothing is trained.

    JAX_PLATFORMS=cpu python train.py benchmarks/published_sizes.py --system sdxl \\
        --plan v5e:16x16,v6e:16x16 --mesh fsdp=-1

Pictures of 1024x1024 as latents, with the text's embeddings as arrays: one picture for each of 256
chips. Computed in bfloat16 with blocks computed again in the backward pass, as Adam's state and
one average of float32 parameters. The configurations are those of the published folders.
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp

from diffjax import conditioning, losses, recipe, schedules, weighting
from diffjax.errors import InputError
from diffjax.experiment import Experiment, Model
from diffjax.models import network
from diffjax.models.unet import with_attention
from diffjax.models.unet_attention import scanned
from diffjax.parameterization import at_steps, make_denoiser, predict_eps, predict_velocity
from diffjax.pretrained.flux_latents import packed
from diffjax.pretrained.load import architecture_of

SDXL = {
    "_class_name": "UNet2DConditionModel",
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "in_channels": 4,
    "out_channels": 4,
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "use_linear_projection": True,
}
FLUX = {
    "_class_name": "FluxTransformer2DModel",
    "attention_head_dim": 128,
    "guidance_embeds": True,
    "in_channels": 64,
    "joint_attention_dim": 4096,
    "num_attention_heads": 24,
    "num_layers": 19,
    "num_single_layers": 38,
    "patch_size": 1,
    "pooled_projection_dim": 768,
}


def given(**shapes):
    """A condition of arrays that the data have."""
    example = {k: jax.ShapeDtypeStruct(shape, jnp.float32) for k, shape in shapes.items()}
    return conditioning.Condition(example, None, lambda num: {})


def in_bfloat16(net):
    """The network with its image and tokens in bfloat16."""

    def computed(params, x, t, cond, key):
        cond = {**cond, "tokens": cond["tokens"].astype(jnp.bfloat16)}
        return net(params, x.astype(jnp.bfloat16), t, cond, key).astype(jnp.float32)

    return computed


def sdxl():
    """(module, network, parameterization, schedule, shape of x, condition)."""
    module = architecture_of(SDXL).module
    module = module.clone(style=module.style._replace(dtype=jnp.bfloat16), remat=True)
    module = with_attention(module, scanned)
    schedule = schedules.from_betas(schedules.scaled_linear_betas(1000))
    condition = given(tokens=(77, 2048), vector=(2816,))
    return module, network(module), at_steps(predict_eps, 1000), schedule, (128, 128, 4), condition


def flux(scan_blocks=True):
    """Likewise."""
    module = architecture_of(FLUX).module.clone(remat=True, scan_blocks=scan_blocks)
    condition = given(tokens=(512, 4096), vector=(768,), guidance=())
    net = packed(network(module))
    return module, net, predict_velocity, schedules.rectified_flow(), (128, 128, 16), condition


def init(config, module, key):
    """The parameters of a module of a published configuration, SDXL's transformers stacked."""
    like = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), architecture_of(config).inputs)
    return module.init(key, *like)["params"]


@recipe.flags(train=recipe.defaults(recipe.warmup_adam, batch_size=256))
def get_config(train, system: Literal["sdxl", "flux"] = "sdxl") -> Experiment:
    """The experiment.

    Args:
      system: whose size it is.
    """
    config = {"sdxl": SDXL, "flux": FLUX}[system]
    module, net, predicts, schedule, shape, condition = {"sdxl": sdxl, "flux": flux}[system]()
    net = in_bfloat16(net)

    model = Model(
        partial(init, config, module),
        lambda params: make_denoiser(net, params, schedule, predicts),
        jax.ShapeDtypeStruct(shape, jnp.float32),
        schedule,
        (condition,),
    )
    density, weight = weighting.stratified(schedule), weighting.snr
    loss = losses.denoising_loss(net, schedule, predicts, weight, density)

    def nothing():
        raise InputError("this config is for --plan; it has no data.")

    return Experiment(model, nothing, lambda frozen: loss, **train._asdict())
