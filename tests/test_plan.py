"""The pod plan's counts, against programs whose work and communication are known."""

import importlib.util
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from configs.digits import get_config
from diffjax import parallel, plan
from diffjax.errors import InputError
from diffjax.plan.hlo import _group, _turns, parse
from diffjax.plan.report import row
from diffjax.plan.step import needed

F32 = 4


def flops(function, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return plan.matmul_flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def test_flops_of_products_and_convolutions():
    product = 2 * 5 * 7 * 11
    assert flops(jnp.matmul, (5, 7), (7, 11)) == product
    assert flops(jnp.matmul, (3, 5, 7), (3, 7, 11)) == 3 * product
    loss = lambda a, b: jnp.sum((a @ b) ** 2)  # noqa: E731
    assert flops(jax.grad(loss, (0, 1)), (5, 7), (7, 11)) == 3 * product
    twice = jax.checkpoint(lambda a, b: loss(jnp.sin(a @ b), b.T))
    assert flops(jax.grad(twice, (0, 1)), (5, 7), (7, 11)) == (2 + 2 + 4) * product
    convolve = partial(
        jax.lax.conv_general_dilated,
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    assert flops(convolve, (2, 8, 8, 3), (3, 3, 3, 6)) == 2 * (2 * 8 * 8 * 6) * (3 * 3 * 3)
    grouped = partial(convolve, feature_group_count=3)
    assert flops(grouped, (2, 8, 8, 3), (3, 3, 1, 6)) == 2 * (2 * 8 * 8 * 6) * (3 * 3)


def test_flops_of_a_scan_count_every_turn():
    def repeated(x, w):
        return jax.lax.scan(lambda x, _: (x @ w, None), x, None, length=9)[0]

    assert flops(repeated, (5, 7), (7, 7)) == 9 * 2 * 5 * 7 * 7
    either = lambda x, w: jax.lax.cond(x[0, 0] > 0, lambda: x @ w, lambda: x)  # noqa: E731
    assert flops(either, (5, 7), (7, 7)) == 2 * 5 * 7 * 7


def compiled(function, mesh, *arguments):
    """Text of a function compiled for the mesh; an argument is (shape, partition)."""
    shapes = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*axes)))
        for shape, axes in arguments
    ]
    whole = parallel.replicated(mesh)
    return jax.jit(function, out_shardings=whole).lower(*shapes).compile().as_text()


def test_collectives_of_known_programs():
    mesh = parallel.make_mesh("data=2,fsdp=4")
    axes = ("data", "fsdp")
    text = compiled(jnp.matmul, mesh, ((16, 64), (None, axes)), ((64, 32), (axes, None)))
    (reduce,) = plan.collectives(text, 8)
    assert (reduce.kind, reduce.bytes, reduce.group, reduce.times) == (
        "all-reduce", 16 * 32 * F32, 8, 1,
    )  # fmt: skip
    assert reduce.sent == 2 * 7 / 8 * 16 * 32 * F32
    text = compiled(lambda x: x * 2, mesh, ((64, 32), ("fsdp", None)))
    (gather,) = plan.collectives(text, 8)
    assert (gather.kind, gather.bytes, gather.group) == ("all-gather", 64 * 32 * F32, 4)
    assert gather.sent == 3 / 4 * 64 * 32 * F32


def test_a_collective_in_a_loop_counts_every_turn():
    mesh = parallel.make_mesh("data=8")

    def f(x, w):
        body = lambda x, _: (jax.nn.relu(x @ w), None)  # noqa: E731
        return jax.lax.scan(body, x, None, length=6)[0]

    text = compiled(f, mesh, ((16, 64), ()), ((64, 64), (None, "data")))
    found = {(c.kind, c.times, c.bytes) for c in plan.collectives(text, 8)}
    assert ("all-gather", 6, 16 * 64 * F32) in found  # and perhaps one more, of the result


def test_bytes_in_memory():
    one = parallel.make_mesh("", jax.devices()[:1])
    assert plan.hbm_bytes(compiled(lambda x: x + 1, one, ((1000,), ()))) == 2 * 1000 * F32
    product = compiled(jnp.matmul, one, ((64, 32), ()), ((32, 16), ()))
    assert plan.hbm_bytes(product) == (64 * 32 + 32 * 16 + 64 * 16) * F32


TPU_TEXT = """HloModule m, is_scheduled=true

%cond.1 (p: (s32[], f32[4,8])) -> pred[] {
  %constant.5 = s32[]{:T(128)} constant(4)
  %p = (s32[]{:T(128)}, f32[4,8]{1,0:T(8,128)}) parameter(0)
  %gte = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%gte, %constant.5), direction=LT
}

%sliced (a: f32[4,8], i: s32[]) -> f32[1,8] {
  %a = f32[4,8]{1,0:T(8,128)} parameter(0)
  %i = s32[]{:T(128)} parameter(1)
  %zero = s32[] constant(0)
  ROOT %ds = f32[1,8]{1,0:T(8,128)} dynamic-slice(%a, %i, %zero), dynamic_slice_sizes={1,8}
}

%all-reduce-scatter.1 (b: f32[16,8]) -> f32[2,8] {
  %b = f32[16,8]{1,0:T(8,128)} parameter(0)
  %ar = f32[16,8]{1,0} all-reduce(%b), channel_id=3, replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
  ROOT %ds2 = f32[2,8]{1,0} dynamic-slice(%ar, %b), dynamic_slice_sizes={2,8}
}

%body.1 (p.1: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %p.1 = (s32[]{:T(128)}, f32[4,8]{1,0:T(8,128)}) parameter(0)
  %i.1 = s32[]{:T(128)S(6)} get-tuple-element(%p.1), index=0
  %w = f32[4,8]{1,0:T(8,128)} get-tuple-element(%p.1), index=1
  %row = f32[1,8]{1,0:T(8,128)S(1)} fusion(%w, %i.1), kind=kLoop, calls=%sliced
  %ag = bf16[8,8]{1,0:T(8,128)(2,1)} all-gather(%row), channel_id=7, replica_groups=mesh['x'=2,'y'=4], device_ids=([2,4]) {'y'}, dimensions={0}
  %ag.2 = bf16[8,8]{1,0:T(8,128)(2,1)} all-gather(%row), channel_id=7, replica_groups=[2,4]<=[8], dimensions={0}
  ROOT %t = (s32[]{:T(128)}, f32[4,8]{1,0:T(8,128)}) tuple(%i.1, %w)
}

ENTRY %main (x: f32[4,8], y: f32[16,8]) -> f32[2,8] {
  %x = f32[4,8]{1,0:T(8,128)} parameter(0)
  %y = f32[16,8]{1,0:T(8,128)} parameter(1)
  %loop = (s32[]{:T(128)}, f32[4,8]{1,0:T(8,128)}) while(%x), condition=%cond.1, body=%body.1
  ROOT %rs = f32[2,8]{1,0} fusion(%y), kind=kCustom, calls=%all-reduce-scatter.1
}
"""  # noqa: E501


def test_the_text_of_the_tpu_compiler():
    program, entry = parse(TPU_TEXT)
    assert entry == "main"
    loop = next(i for i in program["main"] if i.opcode == "while")
    assert _turns(program, loop) == 4
    found = {c.kind: c for c in plan.collectives(TPU_TEXT, 8)}
    gather, scatter = found["all-gather"], found["reduce-scatter"]
    assert (gather.bytes, gather.group, gather.times) == (8 * 8 * 2, 4, 4)
    assert (scatter.bytes, scatter.group, scatter.times) == (16 * 8 * F32, 8, 1)
    assert scatter.sent == 7 / 8 * 16 * 8 * F32
    # A turn reads a row of w into fast memory and writes two gathered arrays; then y and its part.
    turn = 8 * F32 + 2 * 8 * 8 * 2
    assert plan.hbm_bytes(TPU_TEXT) == 4 * turn + (16 * 8 + 2 * 8) * F32
    assert _group("replica_groups={}", 8) == 8


@pytest.mark.parametrize("text", ["v5e", "v9:4x4", "v5e:4by4", ""])
def test_a_slice_that_is_not_one_is_refused(text):
    with pytest.raises(InputError, match="v5e, v5p, v6e"):
        plan.chip_of(text)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("Ran out of memory: Used 17.50G of 15.75G hbm. Exceeded by 1.75G.", (17.5, 15.75)),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (20.31G) exceeds available HBM (15.75G).",
            (20.31, 15.75),
        ),
        ("INTERNAL: something else", None),
    ],
)
def test_the_compilers_refusals(said, found):
    """libtpu 0.0.42 said the second of a real plan; the first is the other wording we read."""
    assert needed(said) == (found and tuple(gib * 2**30 for gib in found))


def test_a_program_that_cannot_be_read_leaves_its_memory_and_dashes():
    """As what libtpu 0.0.52 makes of DiT-XL/2 for v6e, with its blocks gathered in their turns."""
    mesh, traced = parallel.make_mesh("fsdp=8"), jax.jit(jnp.sin).trace(jnp.ones(8))
    found = plan.cost_of(traced, 800, mesh, lambda traced: (None, 3 * 2**30))
    assert found.fits
    cells = row("v6e:2x4", plan.chip_of("v6e:2x4"), found)
    assert cells == ["v6e:2x4", "fsdp=8", "3.00 / 32.00", "yes", "0.000", *6 * ["-"]]


def test_without_the_compiler_the_plan_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install -e "\.\[tpu\]"'):
        plan.devices_of("v5e:4x4")


@pytest.mark.exhaustive
def test_the_plan_of_a_real_step():
    pytest.importorskip("libtpu")
    text = plan.report(
        lambda **options: get_config(channels=16, batch_size=64, **options),
        {"accumulate": 1},
        "v5e:2x2",
        "data=-1;fsdp=-1",
        "digits",
    )
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| v5e")]
    assert [row[1] for row in rows] == ["data=4", "fsdp=4"]
    assert all(row[3] == "yes" for row in rows)
    assert "all-reduce" in text
