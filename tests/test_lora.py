"""LoRA as functions of a small tree: exact identities against the base and the gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from flax import linen as nn
from flax.traverse_util import flatten_dict
from tiny import close

from diffjax import lora, recipe
from diffjax.errors import InputError
from diffjax.models import DiT, adm_unet, network
from diffjax.models.stacking import stack_blocks, unstack_blocks

UNET = adm_unet(8, (1, 2), 1, attention_levels=(1,), num_classes=3)
WHICH = {"dense": lora.dense, "all": lora.dense_and_conv, "attention": lora.attention}


class Small(nn.Module):
    """Convolutions with stride and without, and dense layers, one of them of attention."""

    @nn.compact
    def __call__(self, x, t, cond=None, train=False):
        h = nn.tanh(nn.Conv(4, (3, 3), strides=2, name="conv_in")(x))
        h = h + nn.Dense(4, name="time")(t[:, None] / 1000)[:, None, None]
        h = h + nn.Conv(4, (1, 1), name="mix")(nn.Dense(4, name="to_q")(h) * h)
        return nn.Dense(2, name="out")(h.reshape(len(h), -1))


@pytest.fixture(autouse=True)
def in_float64():
    """These are identities: rounding is kept out of their way."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def base():
    """A network away from its initialisation, with what it is given."""
    x, t, _ = tiny.inputs(dtype=np.float64)
    return tiny.randomised(Small(), x, t, None), (x, t, None, None)


def random_lora(params, which, rank=2, seed=1):
    """A LoRA none of whose numbers is zero."""
    g = np.random.default_rng(seed)
    shapes = lora.init(jax.random.key(0), params, which, rank)
    return jax.tree.map(lambda a: jnp.asarray(0.3 * g.standard_normal(a.shape)), shapes)


@pytest.mark.parametrize("scale", [0.0, 0.7, -2.0])
@pytest.mark.parametrize("which", WHICH)
def test_merged_is_unmerged_at_any_scale(base, which, scale):
    check_unmerged(Small(), *base, WHICH[which], scale)


@pytest.mark.exhaustive
@pytest.mark.parametrize("which", WHICH)
def test_a_u_net_unmerged(which):
    x, t, cond = tiny.inputs(dtype=np.float64)
    check_unmerged(
        UNET, tiny.randomised(UNET, x, t, cond), (x, t, cond, None), WHICH[which], 0.7, 1e-5
    )


def check_unmerged(module, params, inputs, which, scale, tolerance=1e-9):
    """What is merged is the same function as what is not, and is another than the base."""
    given, net = random_lora(params, which), network(module)
    beside = lora.unmerged(module, scale)({"base": params, "lora": given}, *inputs)
    whole = net(lora.merge(params, given, scale), *inputs)
    close(whole, beside, tolerance)
    assert bool(jnp.abs(whole - net(params, *inputs)).max() > 1e-3) == bool(scale)


@pytest.mark.parametrize("method", ["lora", "rslora", "dora", "lora_ga"])
def test_a_new_lora_is_the_base(base, method):
    """Bitwise where nothing is subtracted or scaled, within rounding elsewhere."""
    params = jax.tree.map(lambda a: a.astype(jnp.float32), base[0])
    method, equal = getattr(lora, method), np.testing.assert_array_equal
    if method in (lora.dora, lora.lora_ga):
        equal = close
    trained = method.init(jax.random.key(3), params, lora.dense_and_conv, 2)
    if method.start:
        gradient = jax.tree.map(lambda a: a * jnp.cos(a), params)
        trained = method.start(gradient, lora.dense_and_conv, 2)
    new = lora.merge(params, method.lora(params, trained), method.scale(3.0, 2))
    jax.tree.map(equal, params, new)


def test_a_step_from_zero_moves_b_alone(base):
    """At B = 0 the gradient of A is zero, and that of B is s A' G."""
    params, inputs = base
    given = lora.init(jax.random.key(0), params, lora.dense, 2)

    def loss(params):
        return jnp.mean(network(Small())(params, *inputs) ** 2)

    of_lora = (jax.grad(lambda tree: loss(lora.merge(params, tree, 3.0))))(given)
    gradient = flatten_dict((jax.grad(loss))(params))
    for path, layer in lora.layers(of_lora).items():
        assert not jnp.any(layer["a"])
        close(3.0 * lora.layers(given)[path]["a"].T @ gradient[path], layer["b"], 1e-6)


@pytest.mark.parametrize("which", [pytest.param("dense", marks=pytest.mark.exhaustive), "all"])
def test_lora_ga_s_first_step_is_the_best_change_of_twice_the_rank(base, which):
    """By the network's own gradient and an SVD cut off at 2r (Wang et al. 2024, Theorem 3.1)."""
    params, inputs = base
    rank, scale, which = 1, 0.7, WHICH[which]

    def loss(params):
        return jnp.mean((network(Small())(params, *inputs) - inputs[0][:, 0, 0]) ** 2)

    gradient = (jax.grad(loss))(params)
    trained = lora.lora_ga.start(gradient, which, rank)

    def whole(tree):
        return lora.merge(params, lora.lora_ga.lora(params, tree), scale)

    jax.tree.map(close, params, whole(trained))
    down = (jax.grad(lambda tree: loss(whole(tree))))(trained)
    assert all(not jnp.any(leaf) for leaf in jax.tree.leaves(down["start"]))
    _, step = jax.jvp(whole, (trained,), (jax.tree.map(jnp.negative, down),))
    for path, g in flatten_dict(gradient).items():
        if not which(path, g.shape):
            assert not jnp.any(flatten_dict(step)[path])
            continue
        u, s, vt = np.linalg.svd(g.reshape(-1, g.shape[-1]), full_matrices=False)
        best = (u * np.where(np.arange(len(s)) < 2 * rank, s, 0)) @ vt
        factor = (scale * g.shape[-1] ** 0.25 / 4) ** 2
        found = np.asarray(flatten_dict(step)[path]).reshape(best.shape)
        np.testing.assert_allclose(found, -factor * best, atol=1e-6 * abs(best).max(), rtol=0)


def test_rslora_s_output_keeps_its_size_at_any_rank():
    """With A and B of unit entries the change grows as sqrt(r), as alpha / r it would fall."""
    x = jax.random.normal(jax.random.key(0), (64, 128))
    w = {"dense": {"kernel": jnp.zeros((128, 32))}}

    def size(method, rank):
        g = np.random.default_rng(rank)
        layer = {"a": g.standard_normal((128, rank)), "b": g.standard_normal((rank, 32))}
        tree = {"dense": {"kernel": jax.tree.map(jnp.asarray, layer)}}
        return jnp.std(x @ lora.merge(w, tree, method.scale(2.0, rank))["dense"]["kernel"])

    assert float(size(lora.rslora, 256) / size(lora.rslora, 4)) == pytest.approx(1, abs=0.15)
    assert float(size(lora.lora, 256) / size(lora.lora, 4)) == pytest.approx(1 / 8, abs=0.03)


def test_dora_s_magnitude_and_direction(base):
    """Columns have the norms that are trained, which begin as the base's; their step is radial."""
    params, _ = base
    trained = lora.dora.init(jax.random.key(0), params, lora.dense_and_conv, 2)
    moved = jax.tree.map(lambda a: a + 0.1, trained)
    new = flatten_dict(lora.merge(params, lora.dora.lora(params, moved), 0.5))
    plain = flatten_dict(lora.merge(params, _without_magnitude(moved), 0.5))
    for path in lora.layers(trained):
        before, after, along = (
            np.asarray(tree[path]).reshape(-1, tree[path].shape[-1])
            for tree in (flatten_dict(params), new, plain)
        )
        norms = np.linalg.norm(before, axis=0) + 0.1
        np.testing.assert_allclose(np.linalg.norm(after, axis=0), norms, rtol=1e-9)
        cosine = (after * along).sum(0) / norms / np.linalg.norm(along, axis=0)
        np.testing.assert_allclose(cosine, 1, rtol=1e-9)


def _without_magnitude(tree):
    if not isinstance(tree, dict):
        return tree
    return {k: _without_magnitude(v) for k, v in tree.items() if k != "magnitude"}


def test_a_column_of_zeros_stays_under_dora():
    kernel = jnp.array([[0.0, 3.0], [0.0, 4.0]])
    params = {"out": {"kernel": kernel}}
    trained = lora.dora.init(jax.random.key(0), params, lora.dense, 1)
    new = lora.merge(params, lora.dora.lora(params, trained))
    np.testing.assert_allclose(new["out"]["kernel"], kernel, rtol=1e-6)


def test_lora_plus_is_two_learning_rates(base):
    """The same steps as an optimizer of A and one of B, whose rate is 16 times as large."""
    params, _ = base
    given = random_lora(params, lora.dense)
    plus = lora.lora_plus(optax.adam(1e-2), 16.0)
    two = {"a": optax.adam(1e-2), "b": optax.adam(0.16)}
    apart = optax.partition(two, lambda t: jax.tree_util.tree_map_with_path(_last, t))
    found = []
    for optimizer in (plus, apart):
        tree, state = given, optimizer.init(given)
        for _ in range(3):
            updates, state = optimizer.update(jax.tree.map(jnp.sin, tree), state, tree)
            tree = optax.apply_updates(tree, updates)
        found.append(tree)
    jax.tree.map(lambda a, b: close(a, b, 1e-9), *found)


def _last(path, leaf):
    return path[-1].key


@pytest.mark.exhaustive
def test_blocks_in_a_scan_are_changed_one_by_one():
    """Stacked kernels have matrices for each block: the same function as of blocks apart."""
    x, t, cond = tiny.inputs(dtype=np.float64)
    module = DiT(patch_size=2, width=16, depth=2, heads=2, num_classes=3, learn_sigma=False)
    params = tiny.randomised(module, x, t, cond)
    scanned = module.clone(scan_blocks=True)
    like = jax.eval_shape(scanned.init, jax.random.key(0), x, t, cond)["params"]
    stacked = stack_blocks(params, like)
    given = random_lora(stacked, lora.attention)
    merged = lora.merge(stacked, given, 0.5)
    apart = lora.merge(params, unstack_blocks(given), 0.5)
    jax.tree.map(np.testing.assert_array_equal, unstack_blocks(merged), apart)
    gradient = jax.tree.map(jnp.sin, stacked)
    start = lora.aligned_lora(gradient, lora.attention, 2)
    other = lora.aligned_lora(unstack_blocks(gradient), lora.attention, 2)
    for path, layer in lora.layers(unstack_blocks(start)).items():  # singular vectors have a sign
        close(*(t["a"] @ t["a"].T for t in (layer, lora.layers(other)[path])), 1e-6)


def test_several_add_up(base):
    params, _ = base
    one, two = (random_lora(params, lora.dense, seed=s) for s in (1, 2))
    both = lora.merge(lora.merge(params, one, 0.5), two, -1.5)
    other = lora.merge(lora.merge(params, two, -1.5), one, 0.5)
    jax.tree.map(lambda a, b: close(a, b, 1e-12), both, other)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tree: {"no": {"kernel": {"a": jnp.ones((2, 1)), "b": jnp.ones((1, 2))}}}, "no/ker"),
        (lambda tree: jax.tree.map(lambda a: a[..., :-1], tree), "is of another base"),
    ],
)
def test_a_lora_of_another_network_is_refused(base, change, words):
    params, _ = base
    with pytest.raises(InputError, match=words):
        lora.merge(params, change(random_lora(params, lora.dense)))


def test_what_cannot_be_asked_for_is_refused(base):
    params, inputs = base
    with pytest.raises(InputError, match="no kernel that the LoRA was asked"):
        lora.init(jax.random.key(0), {"w": jnp.ones(3)}, lora.dense, 2)
    with pytest.raises(InputError, match="a rank from 1; got 0"):
        lora.init(jax.random.key(0), params, lora.dense, 0)
    dora = lora.dora.lora(params, lora.dora.init(jax.random.key(0), params, lora.dense, 1))
    with pytest.raises(InputError, match=r"and no DoRA; use lora\.merge"):
        lora.unmerged(Small())({"base": params, "lora": dora}, *inputs)


def test_the_flags_make_the_scale_one():
    assert recipe.low_rank(rank=9).scale == recipe.low_rank("lora_ga", rank=9).scale == 1
    assert recipe.low_rank("rslora", 9, 6.0).scale == pytest.approx(2)
