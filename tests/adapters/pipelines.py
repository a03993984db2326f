"""Whole published systems as check_pipelines.py calls them."""

import jax
import jax.numpy as jnp
import numpy as np

LEVELS = (
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "KDPM2DiscreteScheduler",
)
"""Schedulers whose latents are x_t / alpha."""


def _nhwc(x):
    return jnp.moveaxis(jnp.asarray(x), 1, -1)


def _nchw(x):
    return np.moveaxis(np.asarray(x), -1, -3)


def _raw(system, call, inputs, num):
    """The raw conditions of a call's prompts, pictures and sizes."""
    if "prompt" not in call:
        return {}
    from diffjax.conditioning import examples

    raw = system.raw(call["prompt"], call.get("negative_prompt"))
    names = ("original_size", "crops_coords_top_left", "target_size")
    if "time_ids" in raw and "original_size" in call:
        ids = np.asarray([number for name in names for number in call[name]], np.float32)
        raw |= {name: np.stack([ids] * num) for name in ("time_ids", "null_time_ids")}
    if "mask_image" in inputs:
        raw |= {
            "picture": 2 * _nhwc(inputs["image"]) - 1,
            "mask": 2 * _nhwc(inputs["mask_image"]) - 1,
        }
    elif "small" in examples(system.model.conditions):
        raw |= {"small": 2 * _nhwc(inputs["image"]) - 1}
        raw["noise_level"] = np.full(num, call["noise_level"], np.int32)
    elif "image" in inputs and "control_image" in examples(system.model.conditions):
        raw["control_image"] = 2 * _nhwc(inputs["image"]) - 1
    for name in inputs:
        if name.startswith("image_"):
            raw[f"control_{name}"] = 2 * _nhwc(inputs[name]) - 1
    if "pixel_values" in inputs:
        raw |= {"ip_image": _nhwc(inputs["pixel_values"]), "ip_given": jnp.ones(num)}
    return raw


def _adapters(root, call):
    """The adapters of a call, their scales and the type, as keywords of `open_system`."""
    control = call.get("controlnet_conditioning_scale")
    scales = control if isinstance(control, list) else [] if control is None else [control]
    folders = [f"{root}/controlnet", *(f"{root}/controlnet_{i}" for i in range(1, len(scales)))]
    found: dict = {"controlnet": [*zip(folders, scales, strict=False)]}
    if "dtype" in call:
        found["dtype"] = call["dtype"]
    if "ip_adapter_scale" in call:
        found["ip_adapter"] = f"{root}/ip_adapter.safetensors", call["ip_adapter_scale"]
    return found


def _embeds(inputs):
    """Encoded conditions and nulls where a call has no prompts."""
    names = {"tokens": "prompt_embeds", "vector": "pooled_prompt_embeds"}
    cond = {ours: jnp.asarray(inputs[theirs]) for ours, theirs in names.items()}
    null = {
        ours: jnp.asarray(inputs[f"negative_{theirs}"])
        for ours, theirs in names.items()
        if f"negative_{theirs}" in inputs
    }
    return cond, null


def _consistency(root, call, inputs, noises):
    """The image of a consistency model, which draws pixels and reads no prompt."""
    from diffjax.experiment import unguided
    from diffjax.pretrained.load import load
    from diffjax.pretrained.model import published
    from diffjax.pretrained.scheduler import KEY
    from diffjax.pretrained.scheduler_grids import consistency_levels

    (model, params), settings = published(root), load(root).config[KEY]
    usual = model.sampling
    if "timesteps" in call:
        ts = consistency_levels(settings, np.asarray(call["timesteps"])[::-1])
    else:
        ts = usual.grid(model.schedule, call["num_inference_steps"])
    sampler = usual.sampler(model.schedule, **usual.options)
    x = model.schedule.sigma(ts[0]) * _nhwc(inputs["latents"])
    noises = [_nhwc(z) for z in noises]
    path = jax.jit(lambda x: _path(unguided(model, params), sampler, x, ts, None, noises))(x)
    return {"image": np.clip(np.asarray(path[-1]) / 2 + 0.5, 0, 1)}


def run_pipeline(root, call, inputs, noises):
    """The latents after each step and the image of one call."""
    from diffjax.pretrained.pipeline import read_pipeline

    own = {"ConsistencyModelPipeline": _consistency, "UnCLIPPipeline": _unclip}
    return own.get(read_pipeline(root).kind, _system)(root, call, inputs, noises)


def _unclip(root, call, inputs, noises):
    """The small picture after each step of the decoder, the embedding and the large picture."""
    from diffjax.conditioning import encode as cond_of
    from diffjax.conditioning import nulls as null_of
    from diffjax.experiment import guided
    from diffjax.pretrained import unclip_enlarging as enlarging
    from diffjax.pretrained import unclip_prior as prior
    from diffjax.pretrained.pipeline import open_part, read_pipeline
    from diffjax.pretrained.reading import tower
    from diffjax.pretrained.systems import open_system

    system, pipeline = open_system(root), read_pipeline(root)
    model, usual, clip = system.model, system.model.sampling, tower(pipeline)
    params = jax.tree.map(np.asarray, system.leaves())
    frozen = {name: jax.tree.map(np.asarray, load()) for name, load in model.frozen.items()}
    counts = [call[f"{name}_num_inference_steps"] for name in ("prior", "decoder", "super_res")]
    prior_noise, noise, last = _of_stages([jnp.asarray(z) for z in noises], counts)
    raw = prior.rows(clip, call["prompt"], [""] * len(call["prompt"]))

    def embed(frozen):
        names = ("prior", "prior_null")
        texts = [prior.text_of(clip, frozen, raw[f"{n}_ids"], raw[f"{n}_mask"]) for n in names]
        own = open_part(pipeline, "prior", "prior_scheduler"), frozen["prior"], *texts
        start = jnp.asarray(inputs["prior_latents"])
        return prior.draw_embedding(*own, call["prior_guidance_scale"], start, prior_noise)

    embedding, text = jax.jit(embed)(frozen), system.raw(call["prompt"])
    cond, null = (f(model.conditions[:1], frozen, text) for f in (cond_of, null_of))
    denoiser = guided(model, params, call["decoder_guidance_scale"], null, frozen)
    ts = usual.grid(model.schedule, counts[1])
    sampler = usual.sampler(model.schedule, **usual.options)
    draws, cond = [_nhwc(z[0]) for z in noise], {**cond, "image_embedding": embedding}
    path = jax.jit(lambda x: _path(denoiser, sampler, x, ts, cond, draws))(
        _nhwc(inputs["decoder_latents"])
    )
    parts = [open_part(pipeline, name, "super_res_scheduler") for name in enlarging.PARTS]
    own, last = [frozen[name] for name in enlarging.PARTS], jnp.moveaxis(last, 3, -1)
    large = jax.jit(lambda *a: enlarging.enlarge(parts, *a))(
        own, path[-1], _nhwc(inputs["super_res_latents"]), last
    )
    image = np.clip(np.asarray(large) / 2 + 0.5, 0, 1)
    return {"image": image, "trace": _nchw(path), "image_embeds": np.asarray(embedding)}


def _of_stages(noises, counts):
    """The draws (steps, 1, B, ...) of each stage, whose last step has none."""
    found = []
    for n in counts:
        own, noises = noises[: n - 1], noises[n - 1 :]
        found.append(jnp.stack([*own, jnp.zeros_like(own[0])])[:, None])
    return found


def _system(root, call, inputs, noises):
    """`run_pipeline` of a system that reads prompts."""
    from diffjax import samplers
    from diffjax.conditioning import encode as cond_of
    from diffjax.conditioning import nulls as null_of
    from diffjax.diffusion import q_sample
    from diffjax.editing.sdedit import strength_steps
    from diffjax.experiment import guided, unguided
    from diffjax.pretrained.flux_latents import pack, unpack
    from diffjax.pretrained.systems import open_system

    size = call.get("height"), call.get("width")
    length = call.get("max_sequence_length")
    system = open_system(root, *size, length, **_adapters(root, call))
    model, usual = system.model, system.model.sampling
    params = jax.tree.map(np.asarray, system.leaves())
    frozen = {name: jax.tree.map(np.asarray, load()) for name, load in model.frozen.items()}
    latents, noises = inputs.get("latents"), [_nhwc(z) for z in noises]
    num = len(inputs["image"] if latents is None else latents)
    is_packed = latents is not None and latents.ndim == 3
    raw = _raw(system, call, inputs, num)
    for name in ("picture", "small"):
        if name in raw:
            raw[f"{name}_noise"] = noises.pop(0)
    if raw:
        encode = jax.jit(lambda f, r: [g(model.conditions, f, r) for g in (cond_of, null_of)])
        cond, null = encode(frozen, raw)
    else:
        cond, null = _embeds(inputs)
    scale = call.get("guidance_scale", usual.guidance_scale)
    denoiser = unguided(model, params)
    if scale != 1 and model.guide:
        denoiser = guided(model, params, scale, null, frozen)
    ts = usual.grid(model.schedule, call["num_inference_steps"])
    sampler = usual.sampler(model.schedule, **usual.options)
    if latents is None:
        x0 = _drawn(system, frozen, 2 * _nhwc(inputs["image"]) - 1, noises.pop(0))
        ts = ts[strength_steps(len(ts) - 1, call["strength"]) :]
        x = q_sample(model.schedule, x0, ts[0], noises.pop(0))
    else:
        z = unpack(jnp.asarray(latents), *model.example.shape[:2]) if is_packed else _nhwc(latents)
        x = system.start_std(model.schedule, ts[0]) * z
    path = jax.jit(lambda x: _path(denoiser, sampler, x, ts, cond, noises))(x)
    image = jax.jit(model.codec.decode)(frozen, path[-1])
    out = {"image": np.clip(np.asarray(image) / 2 + 0.5, 0, 1)}
    if system.scheduler["_class_name"] in LEVELS:
        path = path / jnp.asarray(model.schedule.alpha(ts[1:])).reshape(-1, 1, 1, 1, 1)
    if is_packed:
        return out | {"trace": np.asarray(jax.vmap(pack)(path))}
    return out | ({} if usual.sampler is samplers.plms else {"trace": _nchw(path)})


def _drawn(system, frozen, pictures, noise):
    """Latents of pictures, drawn from the autoencoder's posterior."""
    from diffjax.latents import reparameterize
    from diffjax.pretrained.latents import latent_scale

    mean, logvar = jax.jit(system.vae.network.encode)(frozen["vae"], pictures)
    return latent_scale(system.vae.config).to_diffusion(reparameterize(mean, logvar, noise))


def _path(denoiser, sampler, x, ts, cond, noises):
    """x after each step, where the draws are given in order; those that are not are not used."""
    n, shape = len(ts) - 1, (sampler.draws, *x.shape)
    left = [*noises, *[jnp.zeros(x.shape, x.dtype)] * (n * sampler.draws)][: n * sampler.draws]
    noise = jnp.stack(left).reshape(n, *shape) if left else jnp.zeros((n, *shape), x.dtype)

    def body(carry, move):
        x, state = carry
        t, s, z = move
        x, state = sampler.step(z, lambda x, t: denoiser(x, t, cond), x, t, s, state)
        return (x, state), x

    return jax.lax.scan(body, (x, sampler.init(x, ts)), (ts[:-1], ts[1:], noise))[1]
