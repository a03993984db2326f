"""What keeping latents saves of an epoch, at published sizes: `python benchmarks/latent_epochs.py`.

    python benchmarks/latent_epochs.py [--timed] [--epochs]

Stable Diffusion's autoencoder and DiT (Peebles & Xie 2023), pictures of 256x256 as latents of
32x32x4: the operations of a picture's encoding beside those of its training step, counted from the
traced programs. --timed also runs both for DiT-S/2, with random weights, and prints CPU seconds.
--epochs times whole epochs of 8 squares of the two photos that scikit-learn installs: the cache is
written, then an epoch from it and one with the encoder within take turns in one process.
"""

import argparse
import tempfile
import time
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffjax import data, losses, schedules, weighting
from diffjax.latents import LatentScale, cache, sample_posterior
from diffjax.latents.cached import cached, drawn, read_scale
from diffjax.models import dit_b_2, dit_l_2, dit_s_2, dit_xl_2, kl_f8, network
from diffjax.parameterization import predict_v
from diffjax.plan import matmul_flops
from diffjax.training import init_state, make_train_step

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


def network_and_loss(make):
    """(parameters' init, loss) of a DiT without labels."""
    module = make(num_classes=0, learn_sigma=False)
    schedule = schedules.vp_cosine()
    density, weight = weighting.stratified(schedule), weighting.snr_plus_one
    loss = losses.denoising_loss(network(module), schedule, predict_v, weight, density)
    return lambda key: module.init(key, jnp.zeros((1, *LATENTS)), jnp.zeros(1))["params"], loss


def training(make):
    """(parameters' init, (parameters, key, latents) -> gradient) of the same."""
    init, loss = network_and_loss(make)
    return init, jax.grad(lambda params, key, x: loss(params, key, {"x": x})[0])


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


def photos():
    """8 squares of two photos, (8, 256, 256, 3) uint8."""
    from sklearn.datasets import load_sample_images

    corners = [(down, right) for down in (0, 171) for right in (0, 384)]
    found = [x[d : d + 256, r : r + 256] for x in load_sample_images().images for d, r in corners]
    return data.Source(data.Arrays(x=np.stack(found)), PICTURE, 0, True)


def kept(encode, source, folder, batch):
    """The latents of a source, written to a folder and read from it."""
    count = len(source.examples)
    record = {"autoencoder": "random weights", "data": "photos", "shape": list(LATENTS)}
    record |= {"count": count, "shard_size": count, "shards": 1}
    cache.claim(folder, record)
    cache.write(folder, encode, source.examples, record, batch)
    cache.finish(folder)
    return cached(folder)


def spent(function):
    """CPU seconds and seconds of one call."""
    began = [clock() for clock in CLOCKS]
    jax.block_until_ready(function())
    return [t() - b for t, b in zip(CLOCKS, began, strict=True)]


def ways(batch):
    """name -> function that runs an epoch; the cache is written by `the cache written, once`."""
    init, encode = encoder()
    weights, encode = jax.jit(init)(jax.random.key(0)), jax.jit(encode)
    encode(weights, jnp.zeros((batch, *PICTURE)))
    init, loss = network_and_loss(dit_s_2)
    adam, source = optax.adam(1e-4), photos()
    step = jax.jit(make_train_step(loss, adam), donate_argnums=0)
    state = init_state(jax.jit(init)(jax.random.key(1)), adam)
    state, _ = step(state, jax.random.key(2), {"x": jnp.zeros((batch, *LATENTS))})
    latents, scale = None, None

    def write():
        nonlocal latents, scale
        with tempfile.TemporaryDirectory() as folder:
            latents = kept(lambda x: encode(weights, x), source, Path(folder), batch)
            scale = LatentScale(*map(jnp.array, read_scale(folder)))

    @jax.jit
    def scaled(key, moments, scale):
        return (sample_posterior(key, *moments) - scale.shift) * scale.factor

    def epoch(source, augment, latents_of):
        nonlocal state
        read = data.batches(source, batch, augment=augment, workers=0)
        for b in islice(read, len(source.examples) // batch):
            state, metrics = step(state, jax.random.key(2), {"x": latents_of(b["x"])})
        return metrics

    def within(x):
        return scaled(jax.random.key(3), encode(weights, x), scale)

    return {
        "the cache written, once": write,
        "from the cache": lambda: epoch(latents, (drawn,), jnp.asarray),
        "encoded within": lambda: epoch(source, (), within),
    }


def epochs(batch=4, turns=2):
    """Print what an epoch takes from the cache and with the encoder within, in turns."""
    (first, write), *others = ways(batch).items()
    rows = {first: [spent(write)]}
    for _ in range(turns):
        for name, epoch in others:
            rows.setdefault(name, []).append(spent(epoch))
    print("\n| an epoch of 8 photos, DiT-S/2 | CPU s | s |\n|---|---:|---:|")
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join(f"{v:.1f}" for v in np.median(values, 0)) + " |")
    ratios = np.divide(rows["encoded within"], rows["from the cache"])
    low, high = ratios.min(0), ratios.max(0)
    print(f"\nratios: CPU s {low[0]:.1f} to {high[0]:.1f}, s {low[1]:.1f} to {high[1]:.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--timed", action="store_true")
    parser.add_argument("--epochs", action="store_true")
    given = parser.parse_args()
    counted()
    if given.timed:
        timed()
    if given.epochs:
        epochs()
