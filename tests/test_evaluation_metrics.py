"""Metrics against public packages' numbers, closed forms, and what they must not depend on."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from diffjax import evaluation
from diffjax.errors import InputError
from diffjax.evaluation import distances, resize

GOLDEN = np.load(Path(__file__).parent / "golden" / "evaluation.npz")
CASES: dict[str, dict] = {}
for _name in GOLDEN.files:
    _case, _key = _name.split("/")
    CASES.setdefault(_case, {})[_key] = GOLDEN[_name]
close = partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
rng = np.random.default_rng(0)
X, Y = rng.standard_normal((60, 5)), rng.standard_normal((50, 5)) + 0.3


def test_singular_covariance_warns_and_is_right():
    case = CASES["fid-singular-48x64"]
    with pytest.warns(UserWarning, match="48 examples in 64 dimensions"):
        close(evaluation.fid(case["x"], case["y"]), case["value"])
    with pytest.warns(UserWarning, match="singular"):
        close(evaluation.sfid(CASES["sfid"]["x"], CASES["sfid"]["y"]), CASES["sfid"]["value"])


def test_fid_of_features_is_that_of_their_moments():
    wanted = evaluation.frechet_distance(*evaluation.moments(X), *evaluation.moments(Y))
    close(evaluation.fid(X, Y), wanted)
    copied = np.hstack([X, X[:, :1]])  # singular for another reason than few rows
    assert evaluation.fid(copied, copied) < 1e-6


def test_fid_ignores_a_rotation_and_a_common_shift():
    q = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    close(evaluation.fid(X @ q + 1e3, Y @ q + 1e3), evaluation.fid(X, Y), rtol=1e-5)


def test_kid():
    case = CASES["kid-singular-48x64"]
    close(evaluation.kid(case["x"], case["y"]), case["unbiased"])
    got = evaluation.kid_subsets(*(case[k] for k in ("x", "y", "index_x", "index_y")))
    close(got, [case["mean"], case["std"]])


def test_inception_score():
    case = CASES["inception_score"]
    for splits in (1, 10):
        got = evaluation.inception_score(case["logits"], splits)
        close(got, [case[f"mean_{splits}"], case[f"std_{splits}"]])
    close(evaluation.inception_score(np.zeros((8, 4)), 2), (1, 0))
    close(evaluation.inception_score(1e3 * np.eye(4), 1), (4, 0))


@pytest.mark.parametrize("name", ["prdc-ties-80x3", "prdc-outlier"])
@pytest.mark.parametrize("k", [3, 5])
def test_neighbours(name, k):
    case = CASES[name]
    sets = case["real"], case["fake"]
    wanted = [case[f"precision_{k}"], case[f"recall_{k}"]]
    assert list(evaluation.precision_recall(*sets, k)) == wanted
    wanted = [case[f"precision_strict_{k}"], case[f"recall_strict_{k}"]]
    assert list(evaluation.precision_recall(*sets, k, strict=True)) == wanted
    wanted = [case[f"density_{k}"], case[f"coverage_{k}"]]
    close(evaluation.density_coverage(*sets, k), wanted)


def test_a_copy_of_the_neighbour_that_set_the_radius_is_on_it():
    real = np.random.default_rng(1).standard_normal((1500, 33)) + 5  # two blocks
    radii, index = distances.nearest_others(real)
    copies = real[index[:, 0]]
    x, y = distances.as_rows(copies, real)
    of = distances.balls(y, radii[:, 0])
    for rows, columns, block in distances.products(x, y):
        squares = distances.squared(block, x, y, rows, columns)
        below, within = distances.inside(squares, copies[rows], of.part(columns))
        if rows == columns:
            assert not np.diagonal(below).any()
            assert np.diagonal(within).all()


AWKWARD = {
    "float32 cannot tell them apart": lambda r: 1e4 + 1e-3 * r.standard_normal((90, 7)),
    "many are equal": lambda r: np.repeat(r.integers(0, 3, (30, 2)), 3, axis=0).astype(float),
    "one is far away": lambda r: np.r_[r.standard_normal((89, 7)), np.full((1, 7), 1e9)],
    "very large": lambda r: 1e30 * r.standard_normal((90, 7)),
}


@pytest.mark.parametrize("make", AWKWARD.values(), ids=AWKWARD)
def test_neighbours_are_exact_where_float32_is_not(make):
    x, y = (make(np.random.default_rng(seed)) for seed in (0, 1))

    def sorted_distances(a, b):
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=-1))

    between, within = sorted_distances(x, y), sorted_distances(x, x)
    np.fill_diagonal(within, np.inf)
    np.testing.assert_array_equal(distances.nearest(x, y, 3)[0], np.sort(between)[:, :3])
    np.testing.assert_array_equal(distances.nearest_others(x, 3)[0], np.sort(within)[:, :3])
    own_y = sorted_distances(y, y)
    reach_x, reach_y = np.sort(within)[:, 2], np.sort(own_y)[:, 3]
    wanted = (between <= reach_x[:, None]).any(axis=0).mean(), (between <= reach_y).any(1).mean()
    assert evaluation.precision_recall(x, y) == wanted


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_pass_over_all_pairs_gives_what_each_metric_gives(dtype, monkeypatch):
    monkeypatch.setattr(distances, "ROWS", 16)
    x, y = (np.asarray(a, dtype) + 3 for a in (X, Y))
    a, b = (np.stack([rng.choice(len(s), 12, False) for _ in range(4)]) for s in (x, y))
    found = evaluation.all_pairs(x, y, 4, a, b)
    assert found[1:3] == evaluation.precision_recall(x, y, 4)
    assert found[3:5] == evaluation.density_coverage(x, y, 4)
    close(found.kid, evaluation.kid(x, y), rtol=1e-4)
    kids = [evaluation.kid(x[i], y[j]) for i, j in zip(a, b, strict=True)]
    close(found.kid_subsets, kids, rtol=1e-4)


def test_nearest_others_are_those_of_a_loop(monkeypatch):
    monkeypatch.setattr(distances, "ROWS", 7)
    found, index = distances.nearest_others(X, 3)
    for i, row in enumerate(X):
        others = np.linalg.norm(X - row, axis=1)
        others[i] = np.inf
        np.testing.assert_array_equal(index[i], np.argsort(others)[:3])
        close(found[i], np.sort(others)[:3])


def test_results_do_not_depend_on_blocks(monkeypatch):
    def values():
        return [
            evaluation.kid(X, Y),
            evaluation.cmmd(X, Y),
            *evaluation.precision_recall(X, Y),
            *evaluation.density_coverage(X, Y),
            *evaluation.nearest_ratio(X, Y),
        ]

    whole = values()
    for module in (evaluation.distances, evaluation.kernels):
        monkeypatch.setattr(module, "ROWS", 7)
    close(values(), whole)


def test_cmmd():
    case = CASES["cmmd-plain"]
    close(evaluation.cmmd(case["x"], case["y"]), case["raw"])


@pytest.mark.parametrize("kind", ["rbf", "poly"])
def test_two_sample_test(kind):
    case = CASES["mmd_test-same"]
    x, y = case["x"], case["y"]
    median = evaluation.median_distance(np.concatenate([x, y]).astype(float))
    close(median, case["median_distance"])
    kernel = evaluation.gaussian(median) if kind == "rbf" else evaluation.polynomial
    statistic, p = evaluation.mmd_test(x, y, case["permutations"], kernel)
    close([statistic, p], [case[f"{kind}_statistic"], case[f"{kind}_p"]])


def test_p_of_the_same_split_counts_as_equal():
    swapped = np.roll(np.arange(40), 20)[None]
    assert evaluation.mmd_test(X[:20], X[20:40], swapped)[1] == 1


@pytest.mark.exhaustive
def test_p_is_uniform_when_nothing_differs():
    drawn = np.random.default_rng(2)
    permutations = np.stack([drawn.permutation(40) for _ in range(99)])
    ps = [
        evaluation.mmd_test(*drawn.standard_normal((2, 20, 3)), permutations)[1] for _ in range(400)
    ]
    for level in (0.1, 0.5):
        assert abs(np.mean(np.array(ps) <= level) - level) < 4 * np.sqrt(level / 400)


def test_extrapolations():
    case = CASES["fid_infinity"]
    got = evaluation.fid_infinity(*(case[k] for k in ("real", "fake", "sizes", "order")))
    close(got, case["value"])
    case = CASES["is_infinity"]
    close(evaluation.is_infinity(case["logits"], case["sizes"], case["order"]), case["value"])


@pytest.mark.parametrize("name", ["vendi-wide", "vendi-copies"])
def test_vendi(name):
    case = CASES[name]
    for key in case.keys() - {"x"}:
        close(evaluation.vendi(case["x"], float(key[2:])), case[key], rtol=1e-5)
    close(evaluation.vendi(np.eye(7), 2), 7)
    close(evaluation.vendi(X[[0, 0, 0]]), 1)


def test_memorisation():
    case = CASES["memorisation"]
    train, test, gen = case["train"], case["test"], case["gen"]
    close(evaluation.nearest_ratio(train, gen), case["ratio"])
    close(100 * evaluation.authenticity(train, gen), case["auth_pct"])
    close(evaluation.copying_z(train, test, gen), case["zu"])
    got = evaluation.copying_ct(train, test, gen, case["centres"], float(case["tau"]))
    close(got, case["c_t"])


def test_copies_are_found():
    train, test = X[:40], X[40:]
    assert evaluation.authenticity(train, train[:9]) == 0
    assert evaluation.copying_z(train, test, train[:20]) < -4
    np.testing.assert_array_equal(evaluation.nearest_ratio(np.repeat(train, 2, 0), train), 0)


def test_sliced_wasserstein_of_a_shift_and_of_two_sizes():
    shift = np.arange(5.0)
    close(evaluation.mind(X, X + shift, np.eye(5)), shift @ shift)
    along = evaluation.directions(0, 8, 5)
    repeated = evaluation.sliced_wasserstein(np.repeat(X[:4], 3, 0), np.repeat(Y[:6], 2, 0), along)
    close(evaluation.sliced_wasserstein(X[:4], Y[:6], along), repeated)
    close(np.linalg.norm(along, axis=1), 1)


def test_exact_wasserstein():
    x, y = np.array([[0.0], [1.0], [5.0]]), np.array([[6.0], [0.5], [2.0]])
    close(evaluation.wasserstein(x, y), np.sqrt((0.25 + 1 + 1) / 3))
    close(evaluation.wasserstein(x, y, order=1), (0.5 + 1 + 1) / 3)
    pytest.importorskip("ot", reason="sets of two sizes need POT, which is not installed")
    twice = np.repeat(x, 2, axis=0)
    close(evaluation.wasserstein(twice, y), evaluation.wasserstein(x, y))


def test_psnr_and_ssim():
    case = CASES["image-unit"]
    pair, unit = (case["x"], case["y"]), float(case["data_range"])
    for name in ("psnr", "ssim", "ssim_reflect"):
        close(getattr(evaluation, name)(*pair, unit), case[name], rtol=1e-5)
    close(evaluation.psnr(case["x"], case["x"] + 0.1, 1.0), 20)
    close(evaluation.ssim(case["x"], case["x"], 1.0), 1)
    assert np.isinf(evaluation.psnr(case["x"], case["x"], 1.0)).all()


@pytest.mark.parametrize("name", ["resize-24x24-12x12", "resize-13x17-29x29"])
def test_resize(name):
    case = CASES[name]
    size = case["tf1_bilinear"].shape[:2]
    kernels = {
        f"pil_float_{k}": getattr(resize, k) for k in ("box", "bilinear", "bicubic", "lanczos")
    }
    ways = {key: resize.antialiased(kernel) for key, kernel in kernels.items()}
    ways |= {"torch_bilinear": resize.torch_bilinear, "tf1_bilinear": resize.tf1_bilinear}
    for key, way in ways.items():
        close(resize.resize(case["image"], size, way), case[key], atol=1e-3)
        same = case["image"].shape[:2]
        close(resize.resize(case["image"], same, way), case["image"])


BAD = [
    (lambda: evaluation.fid(X[:1], Y), "N of at least 2"),
    (lambda: evaluation.kid(X, Y[:, :3]), "3 features and the others 5"),
    (lambda: evaluation.cmmd(X, np.full((3, 5), np.nan)), "NaN or infinite"),
    (lambda: evaluation.precision_recall(X[:3], Y), "need at least 4 examples; got 3"),
    (lambda: evaluation.inception_score(X[:4], 5), "N of at least 5"),
    (lambda: evaluation.vendi(X, -1), "at least 0"),
    (lambda: evaluation.ssim(*np.zeros((2, 1, 8, 8, 1)), 1.0), "at least 11 x 11"),
    (lambda: evaluation.mmd_test(X, Y, np.zeros((3, 7), int)), r"permutations \(P, 110\)"),
]


@pytest.mark.parametrize(("call", "sentence"), BAD)
def test_refusals(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()
