"""What keeping latents saves of an epoch, at published sizes: `python benchmarks/latent_epochs.py`.

    python benchmarks/latent_epochs.py [--timed]

Stable Diffusion's autoencoder and DiT (Peebles & Xie 2023), pictures of 256x256 as latents of
32x32x4: the operations of a picture's encoding beside those of its training step, counted from the
traced programs. --timed also runs both for DiT-S/2, with random weights, and prints CPU seconds.
"""

import argparse
import time

import jax
import jax.numpy as jnp

from diffjax import losses, schedules, weighting
from diffjax.models import dit_b_2, dit_l_2, dit_s_2, dit_xl_2, kl_f8, network
from diffjax.parameterization import predict_v
from diffjax.plan import matmul_flops

SIZES = {"DiT-S/2": dit_s_2, "DiT-B/2": dit_b_2, "DiT-L/2": dit_l_2, "DiT-XL/2": dit_xl_2}
PICTURE, LATENTS, GIGA = (256, 256, 3), (32, 32, 4), 1e9
CLOCKS = (time.process_time, time.perf_counter)


def encoder():
    """(parameters' init, (parameters, pictures) -> mean and log-variance)."""
    module = kl_f8()
    return (
        lambda key: module.init(key, jnp.zeros((1, *PICTURE)))["params"],
        lambda params, x: module.apply({"params": params}, x, method="encode"),
    )


def training(make):
    """(parameters' init, (parameters, key, latents) -> gradient) of a DiT without labels."""
    module = make(num_classes=0, learn_sigma=False)
    schedule = schedules.vp_cosine()
    density, weight = weighting.stratified(schedule), weighting.snr_plus_one
    loss = losses.denoising_loss(network(module), schedule, predict_v, weight, density)
    return (
        lambda key: module.init(key, jnp.zeros((1, *LATENTS)), jnp.zeros(1))["params"],
        jax.grad(lambda params, key, x: loss(params, key, {"x": x})[0]),
    )


def shapes(init):
    """The shapes of parameters."""
    return jax.eval_shape(init, jax.random.key(0))


def gigaflops(function, *arguments):
    """Of the products and convolutions of a function."""
    return matmul_flops(jax.make_jaxpr(function)(*arguments).jaxpr) / GIGA


def counted():
    """Print the table of operations."""
    init, encode = encoder()
    encoding = gigaflops(encode, shapes(init), jax.ShapeDtypeStruct((1, *PICTURE), jnp.float32))
    print(f"encoding a picture: {encoding:.0f} GFLOP\n")
    print("| network | training on its latents, GFLOP | encoded each time / from the cache |")
    print("|---|---:|---:|")
    for name, make in SIZES.items():
        init, step = training(make)
        x = jax.ShapeDtypeStruct((1, *LATENTS), jnp.float32)
        own = gigaflops(step, shapes(init), jax.random.key(0), x)
        print(f"| {name} | {own:.0f} | {(encoding + own) / own:.1f} |")


def seconds(function, *arguments, turns):
    """CPU seconds and seconds of a call."""
    jax.block_until_ready(function(*arguments))
    began = [clock() for clock in CLOCKS]
    for _ in range(turns):
        jax.block_until_ready(function(*arguments))
    return [(t() - b) / turns for t, b in zip(CLOCKS, began, strict=True)]


def timed(batch=2):
    """Print what both cost on this machine, for each picture."""
    print("\n| a picture | CPU s | s |\n|---|---:|---:|")
    init, encode = encoder()
    weights = jax.jit(init)(jax.random.key(0))
    spent = seconds(jax.jit(encode), weights, jnp.zeros((batch, *PICTURE)), turns=2)
    del weights
    init, step = training(dit_s_2)
    arguments = jax.jit(init)(jax.random.key(0)), jax.random.key(1), jnp.zeros((batch, *LATENTS))
    rows = {"encoded": spent, "trained, DiT-S/2": seconds(jax.jit(step), *arguments, turns=6)}
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join(f"{value / batch:.2f}" for value in values) + " |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--timed", action="store_true")
    given = parser.parse_args()
    counted()
    if given.timed:
        timed()
