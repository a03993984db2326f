"""Winograd's convolutions are the direct ones, with their derivatives, in fewer products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffjax import models
from diffjax.models import winograd
from diffjax.models.winograd import convolve

jax_convolve = jax.lax.conv_general_dilated
LAYOUT = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}


def direct(x, kernel, strides=(1, 1), padding="SAME", **options):
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **LAYOUT, **options)


def ours(x, kernel, strides=(1, 1), padding="SAME", **options):
    return winograd(x, kernel, strides, padding, **LAYOUT, **options)


def problem(shape=(2, 32, 16, 32), kernel=(3, 3, 32, 33), dtype=np.float64, seed=0):
    g = np.random.default_rng(seed)
    draw = lambda s, scale: jnp.asarray(scale * g.standard_normal(s), dtype)  # noqa: E731
    return draw(shape, 1), draw(kernel, np.prod(kernel[:3]) ** -0.5)


def largest_gap(a, b):
    return float(jnp.abs(a - b).max() / jnp.abs(b).max())


@settings(max_examples=4, deadline=None)
@given(
    batch=st.integers(8, 9),
    height=st.sampled_from([4, 12]),
    width=st.integers(32, 37),
    taps=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_is_the_direct_convolution_to_rounding(batch, height, width, taps, seed):
    """Any width and any kernel as wide; the form acts along the height alone."""
    with jax.enable_x64(True):
        x, kernel = problem((batch, height, width, 32), (3, taps, 32, 33), seed=seed)
        window = (1, 2), ((1, 1), (0, 2))
        assert largest_gap(ours(x, kernel, *window), direct(x, kernel, *window)) < 1e-13


@pytest.mark.exhaustive
def test_derivatives_of_both_kinds_are_the_direct_ones(x64):
    x, kernel = problem()
    dx, dkernel = problem(seed=1)

    def loss(convolve):
        return lambda x, kernel: jnp.sum(jnp.sin(convolve(x, kernel)))

    for argument in (0, 1):
        a, b = (jax.grad(loss(f), argument)(x, kernel) for f in (ours, direct))
        assert largest_gap(a, b) < 1e-13
    a, b = (jax.jvp(f, (x, kernel), (dx, dkernel))[1] for f in (ours, direct))
    assert largest_gap(a, b) < 1e-13


@pytest.mark.exhaustive
def test_float32_loses_a_digit_at_most(x64):
    x, kernel = problem((1, 32, 32, 256), (3, 3, 256, 64), np.float32)
    exact = direct(x.astype(jnp.float64), kernel.astype(jnp.float64))
    assert largest_gap(ours(x, kernel), exact) < 1e-5


def test_takes_half_the_multiplications():
    x, kernel = problem((1, 32, 32, 64), (3, 3, 64, 64), np.float32)

    def products(convolve):
        """Multiplications of all convolutions of the program, from the shapes alone."""
        equations = jax.make_jaxpr(convolve)(x, kernel).jaxpr.eqns
        found = [e for e in equations if e.primitive.name == "conv_general_dilated"]
        return sum(e.outvars[0].aval.size * np.prod(e.invars[1].aval.shape[:3]) for e in found)

    assert products(ours) == products(direct) / 2


@pytest.mark.parametrize(
    "row",
    [
        {"strides": (2, 2)},
        {"padding": "VALID"},
        {"rhs_dilation": (2, 1)},
        {"dtype": jnp.bfloat16},
        {"shape": (2, 34, 32, 32)},
        {"shape": (1, 16, 16, 32)},
        {"shape": (1, 32, 32, 3), "kernel": (3, 3, 3, 64)},
        {"kernel": (5, 5, 32, 32)},
    ],
    ids=str,
)
def test_any_other_convolution_is_the_usual_one(row):
    make = {k: row[k] for k in ("shape", "kernel", "dtype") if k in row}
    options = {k: v for k, v in row.items() if k not in make}
    x, kernel = problem(**{"dtype": np.float32, **make})
    a, b = (
        str(jax.make_jaxpr(lambda *z, f=f: f(*z, **options))(x, kernel)) for f in (ours, direct)
    )
    assert a == b


UNET = models.ddpm_unet(32, (1, 2), 1, ())
UNET = UNET.clone(style=UNET.style._replace(convolve=jax_convolve))
EDM = {"channels": 32, "multipliers": (1,), "blocks": 1, "attention_levels": ()}
NETWORKS = {
    "U-Net": (UNET, UNET.clone(style=UNET.style._replace(convolve=winograd))),
    **{
        make.__name__: (make(**EDM, convolve=jax_convolve), make(**EDM, convolve=winograd))
        for make in (models.SongUNet, models.DhariwalUNet, models.EDM2UNet)
    },
    "autoencoder": tuple(
        models.Decoder(3, (32, 64), 1, middle_attention=False, **options)
        for options in ({"convolve": jax_convolve}, {"convolve": winograd})
    ),
}


LONGER = [pytest.param(name, marks=pytest.mark.exhaustive) for name in ("SongUNet", "DhariwalUNet")]


@pytest.mark.parametrize("name", ["U-Net", "EDM2UNet", "autoencoder", *LONGER])
def test_a_network_takes_it_without_a_change_of_parameters(name):
    usual, fast = NETWORKS[name]
    x = jax.random.normal(jax.random.key(0), (1, 32, 32, 32))
    inputs = (x,) if name == "autoencoder" else (x, jnp.array([0.5]))
    shapes, same = (jax.eval_shape(m.init, jax.random.key(0), *inputs) for m in (usual, fast))
    assert shapes == same
    g = np.random.default_rng(0)
    params = jax.tree.map(lambda s: np.float32(0.1 * g.standard_normal(s.shape)), shapes)
    a, b = (jax.jit(m.apply)(params, *inputs) for m in (fast, usual))
    assert 0 < largest_gap(a, b) < 2e-5


def convolutions(convolve, *platforms):
    """Convolutions in the program of a value and its gradient, lowered for some platforms."""
    x, kernel = problem((1, 32, 32, 32), (3, 3, 32, 32), np.float32)
    loss = lambda *z: jnp.sum(jnp.sin(convolve(*z, (1, 1), "SAME", **LAYOUT)))  # noqa: E731
    traced = jax.jit(jax.value_and_grad(loss, (0, 1))).trace(x, kernel)
    return traced.lower(lowering_platforms=platforms).as_text().count("stablehlo.convolution")


@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_the_default_is_the_direct_form_off_cpus(platform):
    """Whatever the process that traces runs on; here it runs on a CPU."""
    direct = jax.lax.conv_general_dilated
    assert convolutions(convolve, platform) == convolutions(direct, platform) == 3


def test_the_default_is_winograd_s_form_on_cpus():
    assert convolutions(convolve, "cpu") == convolutions(winograd, "cpu") == 18


def test_a_program_for_several_platforms_holds_both_forms():
    x, kernel = problem((1, 32, 32, 32), (3, 3, 32, 32), np.float32)
    call = jax.jit(lambda x, kernel: convolve(x, kernel, (1, 1), "SAME", **LAYOUT))
    both = jax.export.export(call, platforms=["cpu", "cuda", "tpu"])(x, kernel)
    assert both.mlir_module().count("stablehlo.convolution") >= 1 + 6
    assert largest_gap(both.call(x, kernel), ours(x, kernel)) < 1e-6


def test_the_default_has_the_values_and_derivatives_of_the_direct_form(x64):
    x, kernel = problem()
    dx, dkernel = problem(seed=1)

    def results(convolve):
        call = lambda x, kernel: convolve(x, kernel, (1, 1), "SAME", **LAYOUT)  # noqa: E731
        loss = lambda *z: jnp.sum(jnp.sin(call(*z)))  # noqa: E731
        mapped = jax.vmap(call, (0, None))(jnp.stack([x, dx]), kernel)
        return jax.jvp(call, (x, kernel), (dx, dkernel)), jax.grad(loss, (0, 1))(x, kernel), mapped

    pair = (jax.tree.leaves(jax.jit(lambda f=f: results(f))()) for f in (convolve, jax_convolve))
    for a, b in zip(*pair, strict=True):
        assert largest_gap(a, b) < 1e-13


def test_networks_take_the_default():
    assert models.ddpm_unet().style.convolve is convolve
    for make in (models.SongUNet, models.DhariwalUNet, models.EDM2UNet):
        assert make().convolve is convolve
    assert models.Decoder(3).convolve is models.Encoder(8).convolve is convolve
