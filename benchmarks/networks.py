"""Networks against PyTorch, side by side: `python benchmarks/networks.py`.

Forward pass, training step and sampling of the same network with the same weights, here and
in PyTorch, eager and compiled. The contenders take turns in one process; a ratio is of
neighbours, and the table shows its median. On a CPU everything runs on one thread in float32
and CPU time is counted; elsewhere wall time, in bfloat16 unless told otherwise.

    pip install -e ".[bench-torch]" && python benchmarks/networks.py

On a CPU each row also says what share it reaches of the rate that its own products and
convolutions have alone, each in the faster library (`benchmarks/peak.py`), in the same run.
In bfloat16 both libraries train float32 parameters, PyTorch by autocast with its fused Adam.

MFU counts 2 FLOPs per multiply-add of the matrix products, three times over for training:
per token and block of a DiT of width d, with N tokens, 24 d^2 + 4 N d.
"""

import copy
import os
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

from turns import Compiled, beginning, in_turn

TORCH = {"torch": False, "torch.compile": True}
"""PyTorch's contenders, and whether they are compiled."""

UNET = {
    "_class_name": "UNet2DModel",
    "sample_size": 32,
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [128, 256, 256, 256],
    "layers_per_block": 2,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "attention_head_dim": None,
    "norm_eps": 1e-6,
}
SMALL_UNET = UNET | {
    "sample_size": 8,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [32, 64],
}


LARGER = SMALL_UNET | {"sample_size": 32}


def dit(width, depth, heads):
    """A DiT with patch 2 on 32x32 latents."""
    shape = {"input_size": 32, "patch_size": 2, "in_channels": 4, "num_classes": 1000}
    size = {"hidden_size": width, "depth": depth, "num_heads": heads}
    return {"architecture": "dit", **shape, **size, "learn_sigma": True}


DIT_S, DIT_B, DIT_XL = dit(384, 12, 6), dit(768, 12, 12), dit(1152, 28, 16)


def dit_flops(config):
    """FLOPs of the matrix products of one forward pass of one image."""
    width, tokens = config["hidden_size"], (config["input_size"] // config["patch_size"]) ** 2
    return config["depth"] * tokens * (24 * width**2 + 4 * tokens * width)


class Row(NamedTuple):
    """What is timed, and the contenders: name -> function without arguments.

    `limit` is the seconds that its products take alone, and their GFLOP/s; see `peak.limit`.
    """

    title: str
    contenders: dict
    flops: float | None = None
    limit: tuple[float, float] | None = None


def flags(
    only: tuple[str, ...] = (),
    rounds: int = 7,
    threads: int = 1,
    dtype: str | None = None,
    peak_tflops: float | None = None,
    out: Path | None = None,
):
    """Flags.

    Args:
      only: beginnings of the rows' titles; default all that suit the device.
      rounds: times that each contender runs, in turn.
      threads: cores of a CPU run.
      dtype: of the computation; default float32 on a CPU and bfloat16 elsewhere.
      peak_tflops: of the accelerator in that dtype, for MFU.
      out: file for the table, beside the terminal.
    """


class Pair(NamedTuple):
    """One network twice: ours with its parameters, and PyTorch's, and the computation's type."""

    module: object
    params: object
    torch_net: object
    shape: tuple
    labels: bool
    dtype: str


def build(config, dtype):
    """Both networks of a configuration, with PyTorch's weights in both, checked to agree."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import torch
    import torch_nets

    from diffjax.pretrained.architecture import shapes
    from diffjax.pretrained.load import architecture_of
    from diffjax.pretrained.naming import to_params

    architecture = architecture_of(config)
    if "architecture" in config:
        torch_net = torch_nets.DiT(config, architecture.fixed["pos_embed"])
    else:
        torch_net = torch_nets.UNet.from_config(config)
    tensors = {k: v.detach().numpy() for k, v in torch_net.state_dict().items()}
    tensors = {k: v for k, v in tensors.items() if k not in architecture.fixed}
    params = to_params(tensors, architecture.names, shapes(architecture))
    size = config.get("sample_size") or config["input_size"]
    channels, labels = config["in_channels"], "num_classes" in config
    x = np.random.default_rng(0).standard_normal((2, size, size, channels)).astype(np.float32)
    t, y = np.array([3.0, 700.0], np.float32), np.array([1, 2])
    cond = {"label": jnp.asarray(y)} if labels else None
    ours = jax.jit(architecture.module.apply)({"params": params}, x, t, cond)
    with torch.no_grad():
        theirs = torch_net.eval()(
            torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(t), torch.tensor(y)
        )
    theirs = theirs.permute(0, 2, 3, 1).numpy()
    gap = np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()
    assert gap < 1e-3, f"the two networks differ by {gap}"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch_net = torch_net.to(device)
    if device == "cpu":  # the layout that PyTorch advises for convolutions
        torch_net = torch_net.to(memory_format=torch.channels_last)
    module = computing_in(architecture.module, dtype)
    return Pair(module, jax.device_put(params), torch_net, (size, size, channels), labels, dtype)


def computing_in(module, dtype):
    """The module with another type of computation."""
    import jax.numpy as jnp

    if hasattr(module, "style"):
        return module.clone(style=module.style._replace(dtype=jnp.dtype(dtype)))
    return module.clone(dtype=jnp.dtype(dtype))


def inputs(pair, batch):
    """The same batch for both: (x, t, label) as arrays and as tensors."""
    import jax.numpy as jnp
    import numpy as np
    import torch

    rng, device = np.random.default_rng(1), next(pair.torch_net.parameters()).device
    x = rng.standard_normal((batch, *pair.shape)).astype(np.float32)
    t, y = rng.uniform(0, 1000, batch).astype(np.float32), rng.integers(0, 1000, batch)
    theirs = torch.tensor(x, device=device).permute(0, 3, 1, 2)
    ours = jnp.asarray(x), jnp.asarray(t), {"label": jnp.asarray(y)} if pair.labels else None
    return ours, (theirs, torch.tensor(t, device=device), torch.tensor(y, device=device))


def cast(pair, x):
    """PyTorch's network and its input in the computation's type, where no gradient is asked."""
    import torch

    dtype = getattr(torch, pair.dtype)
    return copy.deepcopy(pair.torch_net).to(dtype), x.to(dtype)


def shapes(module, pair):
    """Of the parameters of a form of our network."""
    import jax
    import jax.numpy as jnp

    cond = {"label": jnp.zeros(1, int)} if pair.labels else None
    given = jnp.zeros((1, *pair.shape)), jnp.zeros(1), cond
    return jax.eval_shape(module.init, jax.random.key(0), *given)["params"]


def convolves_on_a_cpu(module):
    """Whether it is a U-Net on a CPU, where Winograd's form pays and a scan of its gradient does
    not: XLA brings a convolution's axes into the order of its fast kernels outside of loops only.
    """
    import jax

    return hasattr(module, "down") and jax.default_backend() == "cpu"


def variants(pair):
    """Ours as it is and with its options: title -> (module, params)."""
    import jax

    ours = {"diffjax": (pair.module, pair.params)}
    if jax.default_backend() == "cpu":  # elsewhere fewer states are held at once
        ours["diffjax, remat"] = (pair.module.clone(remat=True), pair.params)
        ours["diffjax, bfloat16"] = (computing_in(pair.module, "bfloat16"), pair.params)
    if hasattr(pair.module, "scan_blocks"):
        from diffjax.models.stacking import stack_blocks

        scanned = pair.module.clone(scan_blocks=True)
        stacked = stack_blocks(pair.params, shapes(scanned, pair))
        ours["diffjax, scan"] = (scanned, stacked)
        both = pair.module.clone(scan_blocks=True, remat=True)
        ours["diffjax, scan, remat"] = (both, stacked)
    if convolves_on_a_cpu(pair.module):
        usual = pair.module.style._replace(convolve=jax.lax.conv_general_dilated)
        ours["diffjax, direct"] = (pair.module.clone(style=usual), pair.params)
    return ours


def forward_row(title, pair, batch, flops=None):
    """A forward pass."""
    import jax
    import torch_nets

    (x, t, cond), theirs = inputs(pair, batch)
    contenders = {}
    for name, (module, params) in variants(pair).items():
        if "remat" not in name:
            run = jax.jit(lambda p, *a, m=module: m.apply({"params": p}, *a))
            contenders[name] = Compiled(run, params, x, t, cond)
    for name, compiled in TORCH.items():
        net, given = cast(pair, theirs[0])
        contenders[name] = partial(torch_nets.forward(net, compiled), given, *theirs[1:])
    return Row(
        f"{title}, batch {batch}", contenders, flops and batch * flops, limit_of(pair, batch)
    )


def limit_of(pair, batch, times=1):
    """`peak.limit` of a forward pass, on a CPU; a training step has three times its products."""
    import jax
    import peak

    if jax.default_backend() != "cpu":
        return None
    (x, t, cond), _ = inputs(pair, batch)
    module = pair.module
    if hasattr(module, "style"):
        usual = module.style._replace(convolve=jax.lax.conv_general_dilated)
        module = module.clone(style=usual)
    call = lambda p, *a: module.apply({"params": p}, *a)  # noqa: E731
    seconds, rate = peak.limit(peak.products(call, pair.params, x, t, cond), time.process_time)
    return times * seconds, rate


def train_row(title, pair, batch, flops=None):
    """A training step: ours with all that `make_train_step` does, PyTorch's as users write it."""
    import torch
    import torch_nets

    from diffjax import schedules

    (x, _, cond), theirs = inputs(pair, batch)
    data = {"x": x, **(cond or {})}
    contenders = {
        name: OurStep(m, p, data)
        for name, (m, p) in variants(pair).items()
        if not ("scan" in name and convolves_on_a_cpu(pair.module))
    }
    alpha_bar = torch.tensor((1 - schedules.linear_betas(1000)).cumprod())
    alpha_bar = alpha_bar.to(theirs[0].device, torch.float32)
    for name, compiled in TORCH.items():
        net = copy.deepcopy(pair.torch_net)
        call = torch_nets.train_step(net, alpha_bar, getattr(torch, pair.dtype), compiled)
        contenders[name] = partial(call, theirs[0], theirs[2])
    limit = limit_of(pair, batch, times=3)
    return Row(f"{title}, batch {batch}", contenders, flops and 3 * batch * flops, limit)


def training(module):
    """(the library's own training step of a module, parameters -> its state)."""
    import optax

    from diffjax import at_steps, losses, predict_eps, schedules, weighting
    from diffjax.models import network
    from diffjax.training import init_state, make_train_step

    schedule = schedules.from_betas(schedules.linear_betas(1000))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-4))
    density = weighting.on_steps(weighting.uniform(schedule), schedule, 1000)
    loss = losses.denoising_loss(
        network(module), schedule, at_steps(predict_eps), weighting.snr, density
    )
    return make_train_step(loss, optimizer), lambda params: init_state(params, optimizer)


class OurStep(Compiled):
    """The library's own step, its state donated from call to call."""

    def __init__(self, module, params, data):
        import jax

        step, init = training(module)
        self.begin = partial(jax.jit(init), params)
        super().__init__(jax.jit(step, donate_argnums=0), None, jax.random.key(0), data)

    def __call__(self):
        if self.program is None:
            self.given = (self.begin(), *self.given[1:])
        state, metrics = super().__call__()
        self.given = (state, *self.given[1:])
        return metrics["loss"]


def drawing(module, steps):
    """((params, x, ts, cond) -> a whole draw by DDIM, its times)."""
    import jax
    import jax.numpy as jnp

    from diffjax import at_steps, grids, make_denoiser, predict_eps, sample, samplers, schedules
    from diffjax.models import network

    schedule, net = schedules.from_betas(schedules.linear_betas(1000)), network(module)

    def draw(params, x, ts, cond):
        denoiser = make_denoiser(net, params, schedule, at_steps(predict_eps))
        return sample(jax.random.key(0), denoiser, samplers.ddim(schedule), x, ts, cond)

    return draw, jnp.asarray(grids.leading(schedule, steps))


def sampling_row(title, pair, batch, steps):
    """DDIM: one compiled scan against a loop over a scheduler object."""
    import jax
    import torch_nets

    (x, _, cond), theirs = inputs(pair, batch)
    contenders = {}
    for name, (module, params) in variants(pair).items():
        if name in ("diffjax", "diffjax, scan"):
            draw, ts = drawing(module, steps)
            contenders[name] = Compiled(jax.jit(draw), params, x, ts, cond)
    for name, compiled in TORCH.items():
        net, given = cast(pair, theirs[0])
        contenders[name] = partial(torch_nets.ddim(net, steps, compiled), given, theirs[2])
    return Row(f"{title}, {steps} steps, batch {batch}", contenders)


def measure(row, rounds, clock, peak_tflops):
    """Lines of the table: medians of times and of ratios to neighbours in the same round."""
    first, memory = {}, {}
    for name, call in row.contenders.items():
        first[name], memory[name] = beginning(call)
    times = in_turn(row.contenders, rounds, clock)
    lines = []
    for name, taken in times.items():
        ratios = [
            statistics.median(
                ours / theirs for ours, theirs in zip(taken, times[other], strict=True)
            )
            for other in TORCH
        ]
        seconds = statistics.median(taken)
        mfu = ""
        if row.flops and peak_tflops:
            mfu = f"{row.flops / seconds / peak_tflops / 1e12:.1%}"
        of_limit = f"{row.limit[0] / seconds:.0%} of {row.limit[1]:.0f}" if row.limit else ""
        lines.append(
            f"| {row.title} | {name} | {seconds * 1e3:,.1f} | {ratios[0]:.2f} | {ratios[1]:.2f} "
            f"| {first[name] - seconds:.1f} | {memory[name] / 2**20:,.0f} | {mfu} "
            f"| {of_limit} |"
        )
    return lines


def rows(accelerator, dtype):
    """Title -> maker of a `Row`, smallest first."""
    if accelerator:
        return {
            "DDPM CIFAR-10 train step": lambda t: train_row(t, build(UNET, dtype), 128),
            "DiT-B/2 train step": lambda t: train_row(
                t, build(DIT_B, dtype), 128, dit_flops(DIT_B)
            ),
            "DiT-XL/2 train step": lambda t: train_row(
                t, build(DIT_XL, dtype), 32, dit_flops(DIT_XL)
            ),
            "DiT-XL/2 latency": lambda t: sampling_row(t, build(DIT_XL, dtype), 1, 50),
            "DiT-XL/2 sampling": lambda t: sampling_row(t, build(DIT_XL, dtype), 64, 50),
        }
    return {
        "U-Net of 1M, 8x8, sampling": lambda t: sampling_row(t, build(SMALL_UNET, dtype), 1, 50),
        "U-Net of 1M, 32x32, sampling": lambda t: sampling_row(t, build(LARGER, dtype), 1, 50),
        "DiT-S/2 forward": lambda t: forward_row(t, build(DIT_S, dtype), 4),
        "DiT-S/2 train step": lambda t: train_row(t, build(DIT_S, dtype), 4),
        "DDPM CIFAR-10 forward": lambda t: forward_row(t, build(UNET, dtype), 8),
        "DDPM CIFAR-10 train step": lambda t: train_row(t, build(UNET, dtype), 8),
    }


def main(argv):
    """Print the table row by row."""
    from diffjax.run import flags as f

    (asked,) = f.parse("networks.py", __doc__, [flags], argv)
    import jaxlib
    import torch

    from diffjax import cpu

    if not torch.cuda.is_available():
        cpu.keep_freed_memory()  # for both libraries
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: asked["threads"]])
        torch.set_num_threads(asked["threads"])
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"  # a compilation is counted whole
    os.environ["XLA_FLAGS"] = cpu.xla_flags(os.environ, jaxlib.__version__)  # as train.py does
    import jax
    from tqdm import tqdm

    accelerator = jax.default_backend() != "cpu"
    clock = time.perf_counter if accelerator or asked["threads"] > 1 else time.process_time
    dtype = asked["dtype"] or ("bfloat16" if accelerator else "float32")
    lines = [
        f"{jax.devices()[0].device_kind}, {dtype}, JAX {jax.__version__}, PyTorch "
        f"{torch.__version__}, XLA_FLAGS={os.environ['XLA_FLAGS']}",
        "",
        "| row | contender | ms | over eager | over compiled | first call, s | peak MiB | MFU "
        "| of the core's GFLOP/s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for title, make in (bar := tqdm(rows(accelerator, dtype).items(), leave=False)):
        if not asked["only"] or title.startswith(asked["only"]):
            bar.set_description(title)
            found = measure(make(title), asked["rounds"], clock, asked["peak_tflops"])
            tqdm.write("\n".join(found))
            lines += found
    if asked["out"]:
        asked["out"].write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
