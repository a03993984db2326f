"""Published systems in bfloat16: what is computed in it, what is not, and how far it leads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_adapter import run_pipeline
from scripts import run
from systems import described, write_system

from diffjax import parallel
from diffjax.conditioning import encode, examples
from diffjax.errors import InputError
from diffjax.experiment import unguided
from diffjax.pretrained.systems import open_system
from diffjax.run.weights import placed

LONG = pytest.mark.exhaustive
PRODUCTS = ("dot_general", "conv_general_dilated")


def steps_of(jaxpr):
    """Every operation of a traced function, also within its loops and calls."""
    for step in jaxpr.eqns:
        yield step
        for value in jax.tree.leaves([*step.params.values()], is_leaf=is_jaxpr):
            if is_jaxpr(value):
                yield from steps_of(getattr(value, "jaxpr", value))


def is_jaxpr(value):
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


def like(tree, rows=()):
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct((*rows, *a.shape), a.dtype), tree)


def traced(system):
    """The operations of the text encoders, and of the denoiser."""
    model = system.model
    frozen = {name: like(load()) for name, load in model.frozen.items()}
    raw = like(examples(model.conditions), (1,))

    def encoded(frozen, raw):
        return encode(model.conditions, frozen, raw)

    def denoised(params, x, cond):
        return unguided(model, params)(x, jnp.float32(0.5), cond).x0

    cond = jax.eval_shape(encoded, frozen, raw)
    network = jax.make_jaxpr(denoised)(like(system.leaves()), like(model.example, (1,)), cond)
    assert network.out_avals[0].dtype == jnp.float32
    return [[*steps_of(j.jaxpr)] for j in (jax.make_jaxpr(encoded)(frozen, raw), network)]


def wide(steps):
    """The second operand of each product in float32."""
    products = [step for step in steps if step.primitive.name in PRODUCTS]
    assert len(products) > 4
    found = [[v.aval for v in step.invars] for step in products]
    found = [pair for pair in found if any(a.dtype == jnp.float32 for a in pair)]
    return sorted(pair[1].shape for pair in found)


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("sd_ddim", [(3, 3, 32, 4)]),
        *(
            pytest.param(name, left, marks=LONG)
            for name, left in (
                ("sdxl_euler", [(3, 3, 32, 4)]),
                ("lcm", [(3, 3, 32, 4)]),
                ("sd3_text", [(32, 16)]),
                ("flux_text", [(32, 32), (32, 32), (256, 32), (256, 32)]),
                ("pixart", [(48, 48), (256, 48)]),
            )
        ),
    ],
)
def test_only_the_last_layer_and_embeddings_of_numbers_are_float32(name, left, tmp_path):
    system = open_system(write_system(tmp_path / name, name), dtype=jnp.bfloat16)
    text, network = traced(system)
    assert wide(text) == []
    assert wide(network) == left
    softmaxes = [s for s in [*text, *network] if s.primitive.name == "exp"]
    assert len(softmaxes) > 2
    assert {s.outvars[0].aval.dtype for s in softmaxes} == {jnp.dtype(jnp.float32)}
    for steps in (text, network):  # of norms
        roots = [s for s in steps if s.primitive.name in ("rsqrt", "sqrt")]
        assert roots
        assert {s.outvars[0].aval.dtype for s in roots} == {jnp.dtype(jnp.float32)}


def test_the_weights_take_half_the_bytes(tmp_path):
    folder, mesh = write_system(tmp_path / "sd", "sd_ddim"), parallel.make_mesh()

    def size(dtype):
        system = open_system(folder, dtype=dtype)
        trees = [system.leaves(), *(load() for load in system.model.frozen.values())]
        return sum(a.nbytes for tree in trees for a in jax.tree.leaves(placed(tree, mesh)))

    assert size(jnp.float32) == 2 * size(jnp.bfloat16) > 1e5


@LONG
@pytest.mark.parametrize(
    "name", ["sd_ddim", "sd_controlnet", "sd_ip_adapter", "sd3_text", "flux_text"]
)
def test_bfloat16_draws_nearly_what_float32_draws(name, tmp_path):
    """Within 6% of the golden numbers' standard deviation, in the mean square."""
    folder, (spec, io) = write_system(tmp_path / name, name), described(name)
    inputs = {key[3:]: io[key] for key in io if key.startswith("in_")}
    call = spec["call"] | {"dtype": "bfloat16"}
    if "out_pixel_values" in io:
        call, inputs["pixel_values"] = call | {"ip_adapter_scale": 0.6}, io["out_pixel_values"]
    out = run_pipeline(folder, call, inputs, [])
    for got, want in (("image", "out_image"), ("trace", "out_trace")):
        assert out[got].dtype == np.float32
        error = np.sqrt(np.mean((out[got] - io[want]) ** 2) / np.var(io[want]))
        assert 1e-3 < error < 0.06


@LONG
def test_sample_draws_in_bfloat16(tmp_path, monkeypatch, capsys):
    folder = write_system(tmp_path / "sd", "sd_ddim")
    flags = ("--pretrained", folder, "--prompt", "a cat", "--steps", 2, "--num", 1)
    found = []
    for dtype in ("float32", "bfloat16"):
        out = "--out", tmp_path / f"{dtype}.npz"
        code, _, told = run(monkeypatch, capsys, "sample", *flags, "--dtype", dtype, *out)
        assert code == 0, told
        with np.load(out[1]) as file:
            found.append(file["samples"].astype(float))
    assert 0 < np.abs(found[0] - found[1]).mean() < 0.06 * found[0].std()
    code, _, told = run(monkeypatch, capsys, "sample", *flags, "--dtype", "float16")
    assert code == 2


def test_other_types_are_refused(tmp_path):
    with pytest.raises(InputError, match="float32 or bfloat16; got float16"):
        open_system(tmp_path, dtype="float16")
