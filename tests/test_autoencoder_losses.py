"""Losses of autoencoders against linear-Gaussian data, integrals, and the optima of games."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import integrate, stats
from scipy.spatial.distance import jensenshannon

from diffjax import latents, losses
from diffjax.errors import InputError
from diffjax.models import VAE
from diffjax.training import init_state, make_train_step

RNG = np.random.default_rng(0)

# --- linear-Gaussian data: the bound is tight ---------------------------------------------

D, L = 5, 2
DATA = RNG.standard_normal((40, L)) @ RNG.standard_normal((L, D)) + 0.3 * RNG.standard_normal(
    (40, D)
)
LINEAR = VAE((D,), L, hidden=())


def principal_components():
    """The maximum-likelihood linear VAE of DATA: Tipping & Bishop 1999, and its log p(x)."""
    center = DATA.mean(0)
    values, vectors = np.linalg.eigh(np.cov(DATA.T, bias=True))
    values, vectors = values[::-1], vectors[:, ::-1]
    noise = values[L:].mean()
    W = vectors[:, :L] * np.sqrt(values[:L] - noise)
    to_mean = W / values[:L]  # W'W + noise I is diag(values)
    encoder = {
        "kernel": np.concatenate([to_mean, np.zeros((D, L))], axis=1),
        "bias": np.concatenate([-center @ to_mean, np.log(noise / values[:L])]),
    }
    params = {"encoder": {"out": encoder}, "decoder": {"out": {"kernel": W.T, "bias": center}}}
    log_p = stats.multivariate_normal(center, W @ W.T + noise * np.eye(D)).logpdf(DATA)
    return jax.tree.map(jnp.asarray, params), jnp.log(noise), log_p


def encode(params, x):
    return LINEAR.apply({"params": params}, x, method="encode")


def decode(params, z):
    return LINEAR.apply({"params": params}, z, method="decode")


@pytest.fixture
def exact_expectation(monkeypatch, x64):
    """The loss with eps in its key's place, over points that integrate squares exactly."""
    given = lambda eps, mean, logvar: latents.reparameterize(mean, logvar, eps)  # noqa: E731
    monkeypatch.setattr("diffjax.losses.autoencoder.sample_posterior", given)
    points = np.sqrt(L) * np.concatenate([np.eye(L), -np.eye(L)])

    def bound(params, logvar):
        """-log p(x) or more, (N,)."""
        objective = losses.variational(encode, decode, losses.gaussian_nll(logvar))
        eps = jnp.asarray(np.repeat(points, len(DATA), axis=0))
        result = objective(params, eps, jnp.tile(DATA, (2 * L, 1)))
        return (result.distance + result.penalty).reshape(2 * L, -1).mean(0)

    return jax.jit(bound)


def test_bound_of_linear_gaussian_data_is_the_likelihood(exact_expectation):
    params, logvar, log_p = principal_components()
    np.testing.assert_allclose(-exact_expectation(params, logvar), log_p, rtol=1e-10)
    mean = lambda *a: jnp.mean(exact_expectation(*a))  # noqa: E731
    for leaf in jax.tree.leaves(jax.jit(jax.grad(mean, (0, 1)))(params, logvar)):
        np.testing.assert_allclose(leaf, 0, atol=1e-10)


def test_bound_falls_short_by_the_posteriors_divergence(exact_expectation):
    """log p(x) + bound = KL(q || p(z | x)), here of normals by numerical integration."""
    params, logvar, log_p = principal_components()
    bias = params["encoder"]["out"]["bias"]
    shift, ratio = np.array([0.2, -0.5]), np.array([1.5, 0.7])
    stds = np.exp(np.asarray(bias[L:]) / 2)
    gap = sum(
        divergence(stats.norm(m, s * np.sqrt(r)), stats.norm(0, s))
        for m, s, r in zip(shift, stds, ratio, strict=True)
    )
    params["encoder"]["out"]["bias"] = bias + np.concatenate([shift, np.log(ratio)])
    np.testing.assert_allclose(exact_expectation(params, logvar) + log_p, gap, rtol=1e-6)


def divergence(q, p):
    """KL(q || p) by quadrature."""
    low, high = q.ppf(1e-14), q.ppf(1 - 1e-14)
    return integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), low, high)[0]


def test_kl_is_the_integral():
    mean, std = np.array([[0.0, 1.5], [-2.0, 0.1]]), np.array([[1.0, 0.3], [2.0, 0.05]])
    exact = [
        sum(divergence(stats.norm(m, s), stats.norm()) for m, s in zip(*row, strict=True))
        for row in zip(mean, std, strict=True)
    ]
    kl = losses.kl_to_standard_normal(jnp.asarray(mean), jnp.asarray(2 * np.log(std)))
    np.testing.assert_allclose(kl, exact, rtol=1e-5)


def test_loss_draws_what_it_says():
    """Over many keys the one-draw loss has the mean of the exact bound: log p(x) at its best."""
    params, logvar, log_p = principal_components()
    loss = losses.autoencoder_loss(losses.variational(encode, decode, losses.gaussian_nll(logvar)))
    keys = jax.random.split(jax.random.key(0), 400)
    values = jax.jit(jax.vmap(lambda key: loss(params, key, {"x": jnp.asarray(DATA)})[0]))(keys)
    assert abs(values.mean() + log_p.mean()) < 4 * values.std() / np.sqrt(len(keys))


def test_posterior_has_its_moments():
    mean, logvar = jnp.full(50_000, 2.0), jnp.full(50_000, np.log(0.25))
    z = latents.sample_posterior(jax.random.key(0), mean, logvar)
    assert abs(z.mean() - 2) < 0.01
    assert abs(z.std() - 0.5) < 0.01
    point = latents.sample_posterior(jax.random.key(1), mean, jnp.full_like(mean, -jnp.inf))
    np.testing.assert_array_equal(point, mean)


def test_latents_of_mean_and_deviation_are_standardised():
    z = jnp.asarray(3 + 0.5 * RNG.standard_normal(1000), jnp.float32)
    scale = latents.LatentScale(1 / jnp.std(z), jnp.mean(z))
    x0 = scale.to_diffusion(z)
    np.testing.assert_allclose([x0.mean(), x0.std()], [0, 1], atol=1e-5)
    np.testing.assert_allclose(scale.to_autoencoder(x0), z, rtol=1e-5)


# --- distances ----------------------------------------------------------------------------


def test_distances_are_likelihoods():
    x, x_hat = jnp.asarray(RNG.standard_normal((2, 3, 4, 4, 1)))
    nll = -stats.norm(x_hat, 0.3).logpdf(x).sum((1, 2, 3))
    np.testing.assert_allclose(losses.gaussian_nll(2 * np.log(0.3))(x, x_hat), nll, rtol=1e-5)
    for distance, unit in ((losses.l1, stats.laplace), (losses.l2, stats.norm)):
        difference = unit(x_hat).logpdf(x_hat) - unit(x_hat).logpdf(x)
        np.testing.assert_allclose(distance(x, x_hat), difference.sum((1, 2, 3)), rtol=1e-5)


def test_pyramid_and_sum():
    one, zero = jnp.ones((2, 8, 8, 1)), jnp.zeros((2, 8, 8, 1))
    np.testing.assert_allclose(jax.jit(losses.multiscale(losses.l1, 3))(one, zero), 64 + 16 + 4)
    checkers = jnp.asarray(np.indices((8, 8)).sum(0) % 2 * 2.0 - 1)[None, :, :, None]
    np.testing.assert_allclose(jax.jit(losses.multiscale(losses.l1, 2))(checkers, 0 * checkers), 64)
    both = losses.weighted_sum((2.0, losses.l1), (0.5, losses.l2))
    np.testing.assert_allclose(both(one, zero), 2 * 64 + 0.5 * 32)


def test_features_are_compared_by_direction():
    x = jnp.asarray(RNG.standard_normal((2, 4, 4, 3)), jnp.float32)
    distance = jax.jit(losses.feature_distance(lambda x: [x, x[:, ::2, ::2]]))
    np.testing.assert_allclose(distance(x, 3 * x), 0, atol=1e-6)
    np.testing.assert_allclose(distance(x, -x), 2 * 4, rtol=1e-5)
    assert np.all(np.isfinite(jax.jit(jax.grad(lambda x: distance(x, x).sum()))(0 * x)))


# --- codebooks ----------------------------------------------------------------------------


def test_nearest_code_by_brute_force():
    z, codebook = RNG.standard_normal((2, 3, 3, 4)), RNG.standard_normal((7, 4))
    exact = np.square(z[..., None, :] - codebook).sum(-1).argmin(-1)
    codes, indices = latents.vector_quantize(jnp.asarray(z), jnp.asarray(codebook))
    np.testing.assert_array_equal(indices, exact)
    np.testing.assert_allclose(codes, codebook[exact], rtol=1e-5, atol=1e-6)
    twice = jnp.asarray(np.concatenate([codebook, codebook]))  # ties: the first
    np.testing.assert_array_equal(latents.nearest_codes(jnp.asarray(z), twice), exact)


def test_gradient_goes_straight_through():
    z, codebook = (jnp.asarray(RNG.standard_normal(s), jnp.float32) for s in ((6, 4), (7, 4)))
    use = lambda q: jnp.sum(jnp.sin(q) * jnp.arange(24.0).reshape(6, 4))  # noqa: E731
    quantized = lambda z, e: use(latents.vector_quantize(z, e)[0])  # noqa: E731
    to_z, to_codes = jax.jit(jax.grad(quantized, (0, 1)))(z, codebook)
    nearest = codebook[latents.nearest_codes(z, codebook)]
    np.testing.assert_allclose(to_z, jax.grad(use)(nearest), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(to_codes, 0)


def test_codes_are_drawn_to_the_means_of_their_vectors():
    """The codebook term is least at k-means' centres, and moves no encoder; the other no code."""
    z = jnp.asarray(RNG.standard_normal((1, 30, 2)), jnp.float32)
    codebook = jnp.asarray(RNG.standard_normal((3, 2)), jnp.float32)
    indices = np.asarray(latents.nearest_codes(z, codebook))[0]
    assert set(indices) == {0, 1, 2}

    def terms(z, e):
        codebook, commitment = losses.codebook_terms(z, e[indices][None])
        return codebook.sum(), commitment.sum()

    means = jnp.stack([z[0, indices == k].mean(0) for k in range(3)])
    (of_z, of_e), (commit_z, commit_e) = jax.jit(jax.jacrev(terms, (0, 1)))(z, codebook)
    np.testing.assert_array_equal(of_z, 0)
    np.testing.assert_array_equal(commit_e, 0)
    counts = np.bincount(indices)[:, None]
    np.testing.assert_allclose(codebook - of_e / (2 * counts), means, atol=1e-5)  # Newton's step
    np.testing.assert_allclose(z - commit_z / 2, codebook[indices][None], atol=1e-5)


def test_vector_quantized_loss_trains_all_three_parts():
    """On data of two points, a scalar encoder, two codes and a scalar decoder reach zero."""
    x = jnp.asarray([[-1.0], [1.0]])
    loss = losses.autoencoder_loss(
        losses.vector_quantized(
            lambda p, x: p["encoder"] * x,
            lambda p, z: p["codes"][latents.nearest_codes(z, p["codes"])],
            lambda p, codes: p["decoder"] * codes,
            losses.l2,
        )
    )
    params = {"encoder": 0.8, "codes": jnp.asarray([[-0.1], [0.3]]), "decoder": 1.7}
    state = init_state(jax.tree.map(jnp.asarray, params), optax.sgd(0.1))
    step = jax.jit(make_train_step(loss, optax.sgd(0.1)))
    for _ in range(150):
        state, metrics = step(state, jax.random.key(0), {"x": x})
    assert metrics["loss"] < 1e-6
    assert metrics["codebook"] < 1e-6


# --- games --------------------------------------------------------------------------------

REAL, FAKE = np.array([9, 3]), np.array([4, 8])  # of 12 samples, how many are at each of 2 points


def of_logits(game, logits):
    """The discriminator's loss where it says `logits` (2,) of the two points."""
    return game.discriminator(
        *(jnp.repeat(logits, counts, total_repeat_length=12) for counts in (REAL, FAKE))
    )


def best(game, grid):
    values = jax.jit(jax.vmap(functools.partial(of_logits, game)))(grid)
    return grid[np.argmin(values)], float(values.min())


def test_hinge_is_least_at_the_sign_of_the_difference():
    """And is worth 2 sum min(p, q) there."""
    axis = np.linspace(-2, 2, 41)
    grid = jnp.asarray(np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2))
    logits, value = best(losses.hinge, grid)
    np.testing.assert_allclose(logits, [1, -1], atol=1e-6)
    assert value == pytest.approx(2 * np.minimum(REAL, FAKE).sum() / 12)


def test_cross_entropy_is_least_at_the_log_ratio():
    """And is worth 2 log 2 - 2 JSD(p, q) there: Goodfellow et al. 2014."""
    logits = jnp.log(jnp.asarray(REAL / FAKE))
    value, gradient = jax.value_and_grad(functools.partial(of_logits, losses.non_saturating))(
        logits
    )
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    assert value == pytest.approx(2 * np.log(2) - 2 * jensenshannon(REAL, FAKE) ** 2, rel=1e-5)
    far = jax.grad(losses.non_saturating.generator)(jnp.full(4, -20.0))
    np.testing.assert_allclose(far, -1 / 4, rtol=1e-5)  # no saturation where D is sure


def test_adaptive_weight_makes_the_pulls_equal():
    a, b = {"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([0.0, 0.5])}
    np.testing.assert_allclose(losses.adaptive_weight(a, b), 10, rtol=1e-4)
    assert losses.adaptive_weight(a, {"w": jnp.zeros(2)}) == 1e4


MODULE = VAE((D,), L, hidden=(3,))
X = jnp.asarray(DATA[:8], jnp.float32)
OBJECTIVE = losses.variational(
    lambda params, x: MODULE.apply({"params": params}, x, method="encode"),
    lambda params, z: MODULE.apply({"params": params}, z, method="decode"),
    losses.l2,
    beta=0.1,
)
LAST = ("decoder", "out", "kernel")
PLAYERS = {
    "generator": jax.jit(MODULE.init)(jax.random.key(0), X)["params"],
    "discriminator": jnp.asarray(RNG.standard_normal(D), jnp.float32),
}


def discriminate(params, x):
    return jnp.sin(x @ params)


@jax.jit
def separate_gradients(key):
    """Of the objective, its distance, the generator's term and the discriminator's, each alone."""
    g, w = PLAYERS["generator"], PLAYERS["discriminator"]
    fake = OBJECTIVE(g, jax.random.clone(key), X).x_hat

    def generators(g):
        result = OBJECTIVE(g, key, X)
        fooling = losses.hinge.generator(discriminate(w, result.x_hat))
        distance = jnp.mean(result.distance)
        return distance + jnp.mean(result.penalty), distance, fooling

    def telling(w):
        return losses.hinge.discriminator(discriminate(w, X), discriminate(w, fake))

    return *jax.jacrev(generators)(g), jax.grad(telling)(w)


def test_each_player_has_its_own_gradient():
    loss = losses.adversarial_loss(OBJECTIVE, discriminate, LAST, weight=0.7)
    gradient = jax.jit(jax.grad(loss, has_aux=True))
    grads, aux = gradient(PLAYERS, jax.random.key(5), {"x": X})
    base, rec, gan, telling = separate_gradients(jax.random.key(5))
    norm = lambda grad: np.linalg.norm(grad["decoder"]["out"]["kernel"])  # noqa: E731
    balance = norm(rec) / norm(gan)
    np.testing.assert_allclose(aux["adaptive_weight"], balance, rtol=1e-4)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    expected = jax.tree.map(lambda a, b: np.asarray(a) + 0.7 * balance * b, base, gan)
    jax.tree.map(close, grads["generator"], expected)
    close(grads["discriminator"], telling)


def test_a_start_needs_the_context_that_counts():
    """Without it the adversarial terms would never begin."""
    loss = losses.adversarial_loss(OBJECTIVE, discriminate, LAST, start=3)
    with pytest.raises(InputError, match="begin with the context"):
        loss(PLAYERS, jax.random.key(0), {"x": X})
    with pytest.raises(InputError, match="a start of at least 0; got -1"):
        losses.adversarial_loss(OBJECTIVE, discriminate, LAST, start=-1)


def test_two_optimizers_in_one_train_step():
    """Before `start` the discriminator rests; then each player moves at its own rate."""
    loss = losses.adversarial_loss(OBJECTIVE, discriminate, LAST, start=1)
    rates = {"generator": optax.sgd(0.01), "discriminator": optax.sgd(0.1)}
    optimizer = optax.multi_transform(rates, {name: name for name in PLAYERS})
    context = {"adversarial_step": jnp.zeros((), int)}
    begin = init_state(PLAYERS, optimizer, context)
    step = jax.jit(make_train_step(loss, optimizer))
    first, _ = step(begin, jax.random.key(0), {"x": X})
    np.testing.assert_array_equal(first.params["discriminator"], PLAYERS["discriminator"])
    second, _ = step(first, jax.random.key(0), {"x": X})
    assert second.context["adversarial_step"] == 2
    key = jax.random.fold_in(jax.random.key(0), 1)
    grads, _ = jax.jit(jax.grad(loss, has_aux=True))(first.params, key, {"x": X}, 1)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    for name, rate in (("generator", 0.01), ("discriminator", 0.1)):
        moved = jax.tree.map(
            lambda old, g, rate=rate: np.asarray(old) - rate * g, first.params[name], grads[name]
        )
        jax.tree.map(close, second.params[name], moved)
