"""python -m diffjax.evaluate: both sides, refusals in one sentence, resumption, and the pages."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from diffjax import evaluate, evaluation
from diffjax.errors import InputError
from diffjax.evaluation import compare, report, sides

rng = np.random.default_rng(0)
REAL = rng.integers(0, 256, (120, 8, 8, 1), dtype=np.uint8)
FAKE = rng.integers(0, 200, (90, 8, 8, 1), dtype=np.uint8)
LABELS = np.arange(90) % 3
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def files(tmp_path):
    """Two sides as npz, and what goes wrong with others."""
    np.savez(tmp_path / "real.npz", x=REAL, label=np.arange(120) % 3)
    np.savez(tmp_path / "fake.npz", samples=FAKE, labels=LABELS)
    np.savez(tmp_path / "colour.npz", arr_0=FAKE.repeat(3, axis=3))
    np.savez(tmp_path / "wide.npz", arr_0=FAKE.repeat(2, axis=2))
    np.savez(tmp_path / "one.npz", samples=FAKE[:1])
    np.savez(tmp_path / "nan.npz", samples=np.full((3, 8, 8, 1), np.nan))
    np.savez(tmp_path / "unlabelled.npz", x=REAL)
    np.savez(tmp_path / "labels.npz", samples=FAKE, labels=LABELS[:4])
    np.savez(tmp_path / "other.npz", y=FAKE)
    (tmp_path / "corrupt.npz").write_bytes((tmp_path / "fake.npz").read_bytes()[:2000])
    (tmp_path / "empty").mkdir()
    kinds = {"sizes": (FAKE[0], FAKE[1, :6]), "mixed": (FAKE[0], FAKE[:3, :, :, 0])}
    for name, images in kinds.items():
        (tmp_path / name).mkdir()
        for i, image in enumerate(images):
            image = image[..., 0] if image.shape[-1] == 1 else np.moveaxis(image, 0, -1)
            Image.fromarray(image).save(tmp_path / name / f"{i}.png")
    return tmp_path


def run(files, samples, reference="real.npz", *flags):
    evaluate.main(
        [str(files / samples), "--reference", str(files / reference), "--no-report", *flags]
    )
    return json.loads((files / "evaluation" / "metrics.json").read_text())


BAD = [
    (("empty",), "empty holds no images"),
    (("absent",), "does not exist; expected a folder of images"),
    (("sizes",), "images of two kinds: 0.png is 8x8 grey and 1.png 8x6 grey"),
    (("mixed",), "images of two kinds: 0.png is 8x8 grey and 1.png 8x8 colour"),
    (("colour.npz",), "8x8 colour and .*real.npz 8x8 grey"),
    (("wide.npz",), "16x8 grey and .*real.npz 8x8 grey"),
    (("one.npz",), "holds one image; a comparison needs at least two"),
    (("nan.npz",), "NaN or infinite values"),
    (("corrupt.npz",), "corrupt.npz is not an intact npz file"),
    (("labels.npz",), r"90 images and labels \(4,\)"),
    (("other.npz",), "expected images `samples`, `x` or `arr_0`.*got y"),
    (("fake.npz", "unlabelled.npz", "--features", "classifier"), "needs labels, which .* lacks"),
    (("fake.npz", "real.npz", "--features", "clip"), "--features must be pixels, pca"),
    (("fake.npz", "real.npz", "--groups", "1"), "--groups must be 0 or at least 2"),
]


@pytest.mark.parametrize(("arguments", "sentence"), BAD, ids=lambda a: str(a)[:20])
def test_bad_input_is_one_sentence(files, arguments, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        run(files, *arguments)
    assert "\n" not in str(caught.value)


def test_a_reference_is_asked_for(files):
    with pytest.raises(InputError, match="--reference is needed"):
        evaluate.main([str(files / "fake.npz")])


def test_figures_say_what_they_are_of(files, capsys):
    record = run(files, "fake.npz", "unlabelled.npz", "--features", "pixels", "--groups", "3")
    flat = [x.reshape(len(x), -1) / 127.5 - 1 for x in (REAL, FAKE)]
    metrics = record["metrics"]
    assert metrics["Frechet distance"]["value"] == pytest.approx(evaluation.fid(*flat))
    assert metrics["KID"]["low"] < metrics["KID"]["value"] < metrics["KID"]["high"]
    assert metrics["KID"]["value"] == pytest.approx(evaluation.kid(*flat))
    assert not any("FID" in name for name in metrics), "these are not FID's weights"
    assert (record["samples"]["num"], record["reference"]["num"]) == (90, 120)
    assert "jackknife over 3 groups" in record["interval"]
    printed = capsys.readouterr().out
    assert "features: pixels" in printed
    assert "90 samples are fewer than 10,000" in printed


def test_reconstructions(files):
    off = REAL.astype(int)
    np.savez(files / "near.npz", samples=np.where(off > 127, off - 5, off + 5).astype(np.uint8))
    record = run(files, "near.npz", "real.npz", "--features", "pca", "--groups", "0", "--paired")
    psnr = record["metrics"]["PSNR (dB)"]
    assert psnr["value"] == pytest.approx(20 * np.log10(255 / 5))
    with pytest.raises(InputError, match="two batches"):
        run(files, "fake.npz", "real.npz", "--features", "pca", "--groups", "0", "--paired")


def test_features_are_computed_once(files, monkeypatch):
    first = run(files, "fake.npz", "real.npz", "--features", "pca", "--groups", "0")

    def again(images):
        raise AssertionError("computed again")

    kept = evaluate.choose_features
    monkeypatch.setattr(
        evaluate, "choose_features", lambda *a: kept(*a)._replace(function=again, logits=None)
    )
    assert run(files, "fake.npz", "real.npz", "--features", "pca", "--groups", "0") == first


def test_published_statistics_are_read(files):
    flat = REAL.reshape(120, -1) / 127.5 - 1
    mu, sigma = evaluation.moments(flat)
    np.savez(files / "adm.npz", mu=mu, sigma=sigma)
    side = sides.read_npz(files / "adm.npz")
    np.testing.assert_array_equal(side.moments[1], sigma)
    with pytest.raises(InputError, match="statistics alone"):
        run(files, "fake.npz", "adm.npz")


def test_export_is_what_others_read(files):
    flags = ("--features", "pixels", "--groups", "0", "--export", str(files / "ref.npz"))
    run(files, "fake.npz", "real.npz", *flags)
    with np.load(files / "ref.npz") as file:
        np.testing.assert_allclose(file["mu"], (REAL / 127.5 - 1).reshape(120, -1).mean(axis=0))
        assert file["sigma"].shape == (64, 64)


def test_folders_with_classes(files):
    for i, image in enumerate(FAKE[:6]):
        folder = files / "photos" / f"class{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(folder / f"{i}.png")
    side = sides.read_folder(files / "photos")
    np.testing.assert_array_equal(side.labels, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(side.images[1], FAKE[2])


def test_draws_that_are_there_are_not_drawn_again(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    drawn = []

    def draw(workdir, num, seed, file):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(seed)
        np.savez(file, samples=FAKE[:num], labels=LABELS[:num])

    monkeypatch.setattr(sides, "draw", draw)
    monkeypatch.setattr(sides, "DRAWN", 40)

    def read():
        return sides.read_workdir(tmp_path / "run", 90, 0, tmp_path / "cache", lambda n: None)

    with pytest.raises(KeyboardInterrupt):
        read()
    drawn.clear()
    assert len(read().images) == 90
    assert len(drawn) == 1, "two of three pieces were there"


@pytest.mark.exhaustive
def test_intervals_of_real_against_real_hold_zero():
    held = []
    for seed in range(100):
        x, y = np.random.default_rng(seed).standard_normal((2, 80, 4))
        a, b = compare.Sets(x), compare.Sets(y)

        def metric(a, b):
            return evaluation.kid(a.features, b.features)

        reach = compare.jackknife(metric, a, b, 10) * 2.262
        held.append(abs(metric(a, b)) <= reach)
    assert np.mean(held) >= 0.92  # 95% less two of its standard errors


def test_jackknife_of_a_mean_is_its_standard_error():
    x = compare.Sets(rng.standard_normal((400, 1)))
    got = compare.jackknife(lambda a, b: float(b.features.mean()), x, x, 400)
    np.testing.assert_allclose(got, x.features.std(ddof=1) / 20)


def test_wilsons_interval():
    rate, low, high = report.win_rate([True] * 5 + [False] * 5)
    np.testing.assert_allclose([rate, low, high], [0.5, 0.2366, 0.7634], atol=1e-4)
    assert report.win_rate([True] * 3)[2] == pytest.approx(1)


@pytest.fixture
def pages(files):
    for package in ("jinja2", "matplotlib"):
        pytest.importorskip(package, reason=f"the report needs {package}, which is not installed")
    flags = ["--reference", str(files / "real.npz"), "--groups", "0", "--features", "pca"]
    evaluate.main([str(files / "fake.npz"), *flags])
    return files / "evaluation"


@pytest.mark.exhaustive
def test_pages_are_whole(pages):
    text = (pages / "report.html").read_text()
    for name in ("report.html", "judge.html"):
        page = (pages / name).read_text()
        assert not re.search(r"""(src|href)=["'](?!data:|judge.html|#)""", page), "self-contained"
        assert 'lang="en"' in page
        assert "viewport" in page
        assert len(page) < 10e6
    assert all("alt=" in image for image in re.findall(r"<img[^>]*>", text))
    assert "python -m diffjax.evaluate" in text
    assert "samples of class 2" in text


@pytest.mark.exhaustive
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to open the pages in")
@pytest.mark.parametrize("real_is", ["chosen", "refused"])
def test_judging_by_keys_in_a_browser(pages, real_is):
    chosen = "pair.real" if real_is == "chosen" else "(pair.real === 'A' ? 'B' : 'A')"
    script = f"""<script>for (const pair of pairs)
      document.dispatchEvent(new KeyboardEvent('keydown', {{key: {chosen}.toLowerCase()}}));
    </script></body>"""
    page = pages / "judged.html"
    page.write_text((pages / "judge.html").read_text().replace("</body>", script))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=60)
    assert f"<title>done {report.PAIRS}</title>" in done.stdout
    percent = "0%" if real_is == "chosen" else "100%"
    assert f"taken for real in {percent} of {report.PAIRS} pairs" in done.stdout
