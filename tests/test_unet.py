"""The U-Net family: published sizes, exact gradients, conditions, and rules for its skips."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import check_forms

from diffjax import models
from diffjax.errors import InputError
from diffjax.models import layers, resnet, unet_presets
from diffjax.models.unet import with_attention
from diffjax.models.unet_attention import scanned
from diffjax.pretrained.naming import count

LABEL = {"label": ((), jnp.int32)}
TOKENS = {"tokens": ((77, 768), jnp.float32)}
# constructor, size, channels, conditions, parameters of the reference
PUBLISHED = [
    (models.ddpm_cifar10, 32, 3, {}, 35_746_307),
    (models.adm_imagenet64, 64, 3, LABEL, 295_904_454),
]
LARGE = [
    (models.ddpm_celebahq256, 256, 3, {}, 113_673_219),
    (models.adm_imagenet256, 256, 3, LABEL, 553_838_086),
    (models.stable_diffusion_v1, 64, 4, TOKENS, 859_520_964),
    (models.adm_classifier, 64, 3, {}, 65_438_568),
]
ROWS = [pytest.param(*row, id=row[0].__name__) for row in PUBLISHED]
ROWS += [pytest.param(*r, id=r[0].__name__, marks=pytest.mark.exhaustive) for r in LARGE]


@pytest.mark.parametrize(("make", "size", "channels", "cond", "expected"), ROWS)
def test_published_parameter_counts(make, size, channels, cond, expected):
    of = jax.ShapeDtypeStruct
    inputs = of((1, size, size, channels), jnp.float32), of((1,), jnp.float32)
    cond = {name: of((1, *shape), dtype) for name, (shape, dtype) in cond.items()}
    shapes = jax.eval_shape(make().init, jax.random.key(0), *inputs, cond)
    assert count(shapes["params"]) == expected


def drawn(module, *inputs, seed=0):
    """Parameters of a module, drawn so that no layer is at its zero initialisation."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    rng = np.random.default_rng(seed)

    def leaf(path, like):
        w = rng.standard_normal(like.shape)
        if path[-1].key == "scale":
            return jnp.float32(1 + 0.2 * w)
        return jnp.float32(w / np.sqrt(max(like.size // like.shape[-1], 4)))

    return jax.tree_util.tree_map_with_path(leaf, shapes)


LABELLED = {
    "channels": 8,
    "multipliers": (1, 2),
    "blocks": 1,
    "attention_levels": (1,),
    "head_channels": 8,
    "num_classes": 3,
    "resample": unet_presets.RESIDUAL_BLOCKS,
}
X = jax.random.normal(jax.random.key(7), (3, 8, 8, 2))
T = jnp.array([1.0, 500.0, 900.0])
READER_COND = {
    "tokens": jax.random.normal(jax.random.key(8), (3, 4, 6)),
    "token_mask": jnp.array([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]),
}


@functools.cache
def labelled():
    """A small ADM with its parameters and its compiled function."""
    module = models.adm_unet(**LABELLED)
    params = drawn(module, X, T, {"label": jnp.zeros(3, int)})
    return module, params, jax.jit(models.network(module))


@functools.cache
def reader():
    """A small latent-diffusion U-Net with its parameters and its compiled function."""
    module = models.latent_unet(8, (1,), 1, (0,), heads=2)
    module = module.clone(style=module.style._replace(groups=4))
    params = drawn(module, X, T, READER_COND)
    return module, params, jax.jit(models.network(module))


@settings(max_examples=6, deadline=None)
@given(st.permutations(range(3)), st.lists(st.integers(0, 3), min_size=3, max_size=3))
def test_a_permuted_batch_is_a_permuted_result(order, label):
    _, params, net = labelled()
    order, label = jnp.array(order), jnp.array(label)
    y = net(params, X, T, {"label": label}, None)
    permuted = net(params, X[order], T[order], {"label": label[order]}, None)
    np.testing.assert_allclose(y[order], permuted, atol=1e-4)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 3), st.integers(0, 3))
def test_every_label_differs_from_every_other_and_from_the_null_label(a, b):
    _, params, net = labelled()
    ya, yb = (net(params, X, T, {"label": jnp.full(3, label)}, None) for label in (a, b))
    assert (a == b) == bool(jnp.abs(ya - yb).max() < 1e-4)


def test_masked_tokens_do_not_matter_and_the_others_do():
    _, params, net = reader()
    y = net(params, X, T, READER_COND, None)

    def changed_at(row, place):
        tokens = READER_COND["tokens"].at[row, place].add(1.0)
        return jnp.abs(net(params, X, T, {**READER_COND, "tokens": tokens}, None) - y)

    assert float(changed_at(0, 2).max()) == 0
    change = changed_at(0, 1)
    assert float(change[0].max()) > 1e-3
    assert float(change[1:].max()) < 1e-5


@pytest.mark.exhaustive
@pytest.mark.parametrize(("make", "name"), [(labelled, "label"), (reader, "tokens")])
def test_gradient_is_that_of_finite_differences(make, name, x64):
    """In float64, along one direction of the parameters and the input at once."""
    module, params, _ = make()
    module = module.clone(style=module.style._replace(dtype=jnp.float64))
    x, t = X[:1].astype(float), T[1:2].astype(float)
    known = {"label": jnp.array([1]), "tokens": READER_COND["tokens"][:1].astype(float)}
    cond = {name: known[name]}
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: jnp.asarray(p, float), params)
    direction = jax.tree.map(lambda p: jnp.asarray(0.1 * rng.standard_normal(p.shape)), params)

    def along(step):
        moved = jax.tree.map(lambda p, d: p + step * d, params, direction)
        return jnp.sum(jnp.sin(models.network(module)(moved, x + step, t, cond, None)))

    value_and_slope = jax.jit(jax.value_and_grad(along))
    step = 1e-5
    above, below = value_and_slope(step)[0], value_and_slope(-step)[0]
    slope = value_and_slope(0.0)[1]
    np.testing.assert_allclose(slope, (above - below) / (2 * step), rtol=1e-7)


def test_remat_changes_no_parameter_and_no_value():
    module, params, net = labelled()
    other = module.clone(remat=True)
    cond = {"label": jnp.arange(3)}
    shapes = jax.eval_shape(other.init, jax.random.key(0), X, T, cond)["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda s: s.shape, shapes)
    remat = jax.jit(models.network(other))
    y, z = (f(params, X, T, cond, None) for f in (net, remat))
    np.testing.assert_allclose(z, y, atol=1e-5)
    text = str(jax.make_jaxpr(models.network(other))(params, X, T, cond, None))
    assert text.count("remat") >= 5


@pytest.mark.exhaustive
@pytest.mark.parametrize("remat", [False, True])
def test_runs_of_equal_layers_in_a_scan_change_no_value(remat):
    """Two runs on the way down, two on the way up, one layer alone where the width changes."""
    module = models.adm_unet(**LABELLED | {"blocks": 3})
    check_forms(module, X, T, {"label": jnp.arange(3)}, remat=remat)
    shapes = jax.eval_shape(
        module.clone(scan_blocks=True).init, jax.random.key(0), X, T, {"label": jnp.arange(3)}
    )
    names = {name for name in shapes["params"] if name.startswith(("down_", "up_"))}
    assert names == {
        *("down_0_0_to_2", "down_1_0", "down_1_1_to_2"),
        *("up_1_0_to_2", "up_1_3", "up_0_0", "up_0_1_to_3"),
    }


@pytest.mark.exhaustive
def test_transformer_blocks_in_a_scan_change_no_value():
    """Within layers that are recomputed."""
    module = models.latent_unet(8, (1, 1), 1, (1,), heads=2, depth=3)
    module = module.clone(style=module.style._replace(groups=4))
    params = drawn(module, X, T, READER_COND)
    form = with_attention(module.clone(remat=True), scanned)
    shapes = jax.eval_shape(form.init, jax.random.key(0), X, T, READER_COND)["params"]
    assert shapes["middle_0"]["attention"]["block_0_to_2"]["ff_in"]["kernel"].shape == (3, 8, 64)
    stacked = models.stack_blocks(params, shapes)

    def gradient(module):
        net = models.network(module)
        return jax.jit(jax.grad(lambda p: (net(p, X, T, READER_COND, None) ** 2).sum()))

    slope = models.stack_blocks(gradient(module)(params), shapes)
    chex.assert_trees_all_close(gradient(form)(stacked), slope, rtol=1e-3, atol=1e-4)
    chex.assert_trees_all_equal(models.unstack_blocks(stacked), params)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "rule",
    [models.skip_tuning(jnp.linspace(0.6, 0.9, 4)), models.free_u((1.4,), (0.8,))],
    ids=["skip_tuning", "free_u"],
)
def test_rules_for_skips_act_within_a_scan(rule):
    module = models.latent_unet(8, (1,), 3, (), heads=2)
    module = module.clone(style=module.style._replace(groups=4))
    params = drawn(module, X, T, READER_COND)
    other = module.clone(scan_blocks=True)
    shapes = jax.eval_shape(other.init, jax.random.key(0), X, T, READER_COND)["params"]
    run = lambda module, params: jax.jit(models.network(module, skip=rule))(  # noqa: E731
        params, X, T, READER_COND, None
    )
    y = run(module, params)
    np.testing.assert_allclose(run(other, models.stack_blocks(params, shapes)), y, atol=1e-5)
    assert jnp.abs(y - models.network(module)(params, X, T, READER_COND, None)).max() > 1e-3


@pytest.mark.exhaustive
def test_classifier_in_a_scan_changes_no_value():
    module = models.adm_classifier(3, 8, (1, 2), 3, (1,), head_channels=8)
    check_forms(module, X, T, None)


@pytest.mark.parametrize(("groups", "shape"), [(4, (2, 5, 3, 8)), (8, (3, 8)), (None, (2, 6, 16))])
def test_group_norm_is_that_of_flax(x64, groups, shape):
    """Value and gradient, against its variance in two passes."""
    rng = np.random.default_rng(0)
    x, target = 3 + rng.standard_normal(shape), rng.standard_normal(shape)
    ours = layers.GroupNorm(groups, 1e-3)
    theirs = nn.GroupNorm(groups or 4, epsilon=1e-3, use_fast_variance=False)
    params = {name: jnp.asarray(rng.standard_normal(shape[-1:])) for name in ("scale", "bias")}

    @jax.jit
    def both(params, x):
        loss = lambda module: lambda p, x: jnp.sum(target * module.apply({"params": p}, x))  # noqa: E731
        return [jax.value_and_grad(loss(module), (0, 1))(params, x) for module in (ours, theirs)]

    a, b = both(params, jnp.asarray(x))
    chex.assert_trees_all_close(a, b, rtol=1e-9, atol=1e-11)


def test_groups_must_divide_the_channels():
    with pytest.raises(InputError, match="3 groups do not divide 8 channels"):
        layers.GroupNorm(3).init(jax.random.key(0), jnp.zeros((1, 4, 4, 8)))


def test_bfloat16_reader_is_close_and_gives_float32():
    module, params, net = reader()
    half = module.clone(style=module.style._replace(dtype=jnp.bfloat16))
    y = net(params, X, T, READER_COND, None)
    rough = jax.jit(models.network(half))(params, X, T, READER_COND, None)
    assert rough.dtype == jnp.float32
    assert float(jnp.abs(rough - y).max() / jnp.abs(y).max()) < 0.1


def test_skip_rules_of_ones_are_none_and_their_factors_compile_once():
    module, params, net = labelled()
    cond, seen = {"label": jnp.arange(3)}, []

    @jax.jit
    def with_rule(b, s, factors):
        def rule(h, skip, stage, index):
            seen.append((stage, index, h.shape[1]))
            h, skip = models.free_u(b, s)(h, skip, stage, index)
            return models.skip_tuning(factors)(h, skip, stage, index)

        return models.network(module, skip=rule)(params, X, T, cond, None)

    y = net(params, X, T, cond, None)
    ones = jnp.ones(2), jnp.ones(2), jnp.ones(4)
    np.testing.assert_allclose(with_rule(*ones), y, atol=1e-4)
    for changed in range(3):
        factors = [a.at[-1].set(0.5) if i == changed else a for i, a in enumerate(ones)]
        assert float(jnp.abs(with_rule(*factors) - y).max()) > 1e-3
    assert seen == [(0, 0, 4), (0, 1, 4), (1, 2, 8), (1, 3, 8)]  # traced once


def test_free_u_scales_half_the_channels_and_four_frequencies():
    """Of noise with the mean and one slow wave, which of its parts is which is known."""
    row = jnp.arange(8)[None, :, None, None]
    parts = [
        jnp.full((1, 8, 8, 4), 3.0),
        jnp.cos(2 * jnp.pi * 2 * row / 8) * jnp.ones((1, 8, 8, 4)),
    ]
    h, skip = models.free_u((1.5,), (0.2,))(X[:1], sum(parts), 0, 0)
    np.testing.assert_allclose(h, X[:1] * jnp.array([1.5, 1.0])[None, None, None], rtol=1e-6)
    np.testing.assert_allclose(skip, 0.2 * parts[0] + parts[1], atol=1e-5)
    same = models.free_u((1.5,), (0.2,))(h, skip, 1, 0)
    assert same[0] is h
    assert same[1] is skip


def test_nearest_and_average_are_inverse_one_way():
    np.testing.assert_array_equal(resnet.average_pool(resnet.nearest(X)), X)


@functools.cache
def classifier():
    """A small classifier with its parameters."""
    module = models.adm_classifier(5, 8, (1, 2), 1, (1,), head_channels=8)
    return drawn(module, X, T), jax.jit(models.network(module))


def test_classifier_gives_logits_of_each_image_alone():
    params, net = classifier()
    logits, order = net(params, X, T, None, None), jnp.array([2, 0, 1])
    assert logits.shape == (3, 5)
    np.testing.assert_allclose(
        net(params, X[order], T[order], None, None), logits[order], atol=1e-4
    )
    assert float(jnp.abs(net(params, X, T + 50, None, None) - logits).max()) > 1e-3


@pytest.mark.parametrize(
    ("make", "x", "cond", "words"),
    [
        (labelled, X[:, :7], {"label": jnp.zeros(3, int)}, "multiples of 2; got 7 x 8"),
        (labelled, X, None, r"cond\['label'\]; got \[\]"),
        (reader, X, {}, r"cond\['tokens'\]"),
    ],
)
def test_bad_input_is_a_sentence(make, x, cond, words):
    module, params, _ = make()
    with pytest.raises(InputError, match=words):
        models.network(module)(params, x, T, cond, None)


def test_the_output_of_a_layer_beside_that_of_the_network():
    """With blocks computed again, too. The middle sees the way down, and not the way up."""
    module, params, net = labelled()
    given = X, T, {"label": jnp.zeros(3, int)}, None

    @functools.partial(jax.jit, static_argnums=1)
    def middle(params, remat=False):
        return models.with_features(module.clone(remat=remat), "middle_1")(params, *given)

    out, seen = middle(params)
    np.testing.assert_allclose(out, net(params, *given), atol=1e-5)
    np.testing.assert_allclose(middle(params, True)[1], seen, atol=1e-5)
    for name, changes in (("conv_out", False), ("conv_in", True)):
        other = {**params, name: jax.tree.map(lambda a: a + 0.1, params[name])}
        assert bool((middle(other)[1] != seen).any()) == changes
    with pytest.raises(InputError, match="UNet calls 0 of that name"):
        jax.eval_shape(models.with_features(module, "middle"), params, *given)
