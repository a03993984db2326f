"""python -m diffjax.evaluate: both sides, refusals in one sentence, resumption, and the pages."""

import html
import json
import re
import shutil
import socket
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffjax import evaluate, evaluation
from diffjax.errors import InputError
from diffjax.evaluation import compare, drawn, extractors, judging, report, sides
from diffjax.run import start

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
    (("fake.npz", "real.npz", "--features", "clap"), "--features must be pixels, pca"),
    (("fake.npz", "real.npz", "--features", "clip:photos"), "photos is no folder"),
    (("fake.npz", "real.npz", "--features", "absent.pth"), "absent.pth does not exist; FID's"),
    (("fake.npz", "real.npz", "--groups", "1"), "--groups must be 0 or at least 2"),
    (("fake.npz", "real.npz", "--ema", "0.1"), "--ema is of a workdir of train.py"),
    (("fake.npz", "real.npz", "--judgements", "absent.json"), "holds no judgements"),
    (("fake.npz", "real.npz", "--seed", "-1"), "the seed must be from 0"),
]


@pytest.mark.parametrize(("arguments", "sentence"), BAD, ids=lambda a: str(a)[:20])
def test_bad_input_is_one_sentence_and_exit_2(files, arguments, sentence, monkeypatch, capsys):
    samples, reference, *flags = (*arguments, "real.npz")[: max(2, len(arguments))]
    given = ["evaluate", str(files / samples), "--reference", str(files / reference), *flags]
    monkeypatch.setattr("sys.argv", [*given, "--no-report"])
    with pytest.raises(SystemExit) as exit:
        start.run(evaluate.main)
    assert exit.value.code == 2
    said = capsys.readouterr().err.strip().split("\r")[-1]
    assert re.search(sentence, said)
    assert said.count("\n") == 0


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

    monkeypatch.setattr(
        evaluate,
        "choose_features",
        lambda *a: extractors.choose_features(*a)._replace(function=again, logits=None),
    )
    assert run(files, "fake.npz", "real.npz", "--features", "pca", "--groups", "0") == first


@pytest.mark.exhaustive
def test_two_processes_share_the_features(files, monkeypatch):
    alone = run(files, "fake.npz", "unlabelled.npz", "--groups", "0")
    shutil.rmtree(files / "evaluation")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    given = [files / "fake.npz", "--reference", files / "unlabelled.npz", "--groups", "0"]
    given += ["--no-report", "--distributed", "--coordinator", f"localhost:{port}"]
    # pieces of 50, so that each process has some of both sides
    code = "import diffjax.evaluation.comparison as c; c.PIECE = 50; import diffjax.evaluate as e; "
    code += "from diffjax.run import start; start.run(e.main)"
    processes = []
    for number in range(2):
        more = ["--num-processes", "2", "--process-id", number]
        command = [sys.executable, "-c", code, *map(str, [*given, *more])]
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True))
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "Frechet distance" in said[0][0]
    lines = [line for line in said[1][0].splitlines() if "Gloo" not in line]
    assert lines == [], "the main process speaks"
    record = json.loads((files / "evaluation" / "metrics.json").read_text())
    assert record["metrics"] == alone["metrics"]
    assert len([*(files / "evaluation" / "evaluation").glob("features-*.npz")]) == 5


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
    for name in ("config.py", "config.json"):
        (tmp_path / name).write_text("{}")
    asked = []

    def drawer(model, mesh, sampling):
        def draw(params, frozen, seed, num, first, batch):
            if len(asked) == 2:
                raise KeyboardInterrupt
            asked.append(first)
            return drawn.images.Images(FAKE[first : first + num], LABELS[first : first + num])

        return draw

    monkeypatch.setattr(drawn.images, "drawer", drawer)
    monkeypatch.setattr(drawn, "PIECE", 40)
    experiment = types.SimpleNamespace(model=None)

    def read(weight=1.0):
        run = drawn.Run(tmp_path, experiment, None, {"w": np.full(2, weight)}, {}, 6, "six")
        return drawn.samples_of(run, 90, 0, tmp_path / "cache")

    with pytest.raises(KeyboardInterrupt):
        read()
    asked.clear()
    np.testing.assert_array_equal(read().images, FAKE)
    assert asked == [80], "two of three pieces were there"
    asked.clear()
    with pytest.raises(KeyboardInterrupt):
        read(weight=2.0)
    assert asked == [0, 40], "other weights draw anew"


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


def test_pairs_are_of_few_rows_and_always_the_same():
    a, b = (compare.Sets(rng.standard_normal((n, 2))) for n in (50, 30))
    seen = []
    metric = compare.few(lambda a, b: seen.append((a.features, b.features)) or 0.0, 40)
    assert metric(a, b) == metric(a, b) == 0
    assert [len(side) for side in seen[0]] == [40, 30]
    assert len(np.unique(seen[0][0], axis=0)) == 40
    np.testing.assert_array_equal(seen[0][0], seen[1][0])
    assert compare.few(_agreement_stand_in, 0) is _agreement_stand_in


def _agreement_stand_in(a, b):
    return 0.0


def test_shares_of_all_have_an_interval():
    x = compare.Sets(rng.standard_normal((40, 1)))
    family = compare.Family({compare.AGREEMENT: "higher"}, lambda a, b: (1.0,))
    (figure,) = compare.compare([family], x, x, 2)[0].values()
    assert figure.high == pytest.approx(1)
    assert figure.low == pytest.approx(1 / (1 + 1.96**2 / 40), abs=1e-4)  # p = 1 in Wilson's


def test_wilsons_interval():
    rate, low, high = judging.win_rate([True] * 5 + [False] * 5)
    np.testing.assert_allclose([rate, low, high], [0.5, 0.2366, 0.7634], atol=1e-4)
    assert judging.win_rate([True] * 3)[2] == pytest.approx(1)


def write_judgements(path, question, won):
    choices = [{"sample_won": bool(w)} for w in won]
    path.write_text(json.dumps({"question": question._asdict(), "judgements": choices}))
    return path


def test_judgements_of_one_question_are_merged(tmp_path):
    samples, real = sides.side("fake", FAKE, None), sides.side("real", REAL, None)
    by_real, by_run = judging.question(samples, real, True), judging.question(samples, real, False)
    paths = [
        write_judgements(tmp_path / "1.json", by_real, [1] * 8),
        write_judgements(tmp_path / "2.json", by_real, [0] * 24),
        write_judgements(tmp_path / "3.json", by_run, [1]),
    ]
    judged = judging.read_judgements(paths)
    first, second = judging.merged(judged, samples)
    assert (first["value"], first["num"], first["judges"]) == (0.25, 32, 2)
    assert (second["real"], second["value"]) == (False, 1)
    with pytest.raises(InputError, match="judges other samples than these 89 of fake"):
        judging.merged(judged, sides.side("fake", FAKE[1:], None))


@pytest.fixture
def pages(files):
    for package in ("jinja2", "matplotlib"):
        pytest.importorskip(package, reason=f"the report needs {package}, which is not installed")
    flags = ["--reference", str(files / "real.npz"), "--groups", "0", "--features", "pca"]
    evaluate.main([str(files / "fake.npz"), *flags])
    return files / "evaluation"


def check_page(page):
    """Self-contained, for phones and screen readers, and under 10 MB."""
    assert not re.search(r"""(src|href)=["'](?!data:|judge.html|#)""", page), "self-contained"
    assert "@import" not in page
    assert 'lang="en"' in page
    assert "viewport" in page
    assert "prefers-color-scheme: dark" in page
    assert len(page) < 10e6
    assert all("alt=" in image for image in re.findall(r"<img[^>]*>", page))
    assert all("aria-label=" in chart for chart in re.findall(r'<figure class="chart"[^>]*>', page))


LARGE = """
import numpy as np
from diffjax.data import Source
from diffjax.evaluation import sides

class Pictures:
    def __len__(self):
        return 500
    def __getitem__(self, i):
        return {"x": np.full((1024, 1024, 3), i % 256, np.uint8), "label": i % 2}

def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024

before = anonymous()
side = sides.of_source("large", lambda: Source(Pictures(), (1024, 1024, 3), 2))
assert side.images.shape == (500, 1024, 1024, 3)
assert side.images[499, 3, 3, 2] == 499 % 256 and side.labels[499] == 1
print(anonymous() - before)
"""


@pytest.mark.exhaustive
def test_a_gigabyte_and_a_half_of_images_is_not_held_in_memory():
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is read from /proc, which is not here")
    out = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    assert float(out.stdout) < 100


@pytest.mark.exhaustive
def test_pages_are_whole(pages):
    text = (pages / "report.html").read_text()
    for name in ("report.html", "judge.html"):
        check_page((pages / name).read_text())
    assert "python -m diffjax.evaluate" in text
    assert "8 samples of class 2" in text


@pytest.mark.exhaustive
def test_pages_of_large_pictures_stay_small(tmp_path):
    pytest.importorskip("jinja2", reason="the report needs jinja2, which is not installed")
    noise = np.random.default_rng(0).integers(0, 256, (160, 384, 384, 3), dtype=np.uint8)
    side = sides.side("noise", noise, np.arange(160) % 20)
    sets = compare.Sets(noise[:, ::64, ::64, 0].reshape(160, -1).astype(float))
    figure = {"value": 1.0, "low": None, "high": None, "floor": None, "better": "lower"}
    record = {"metrics": {"KID": figure}, "seed": 0, "samples": {"name": "noise", "num": 160}}
    record |= {"reference": {"name": "noise", "num": 160}, "features": {"name": "pixels"}}
    films = np.stack([noise[:10]] * 6)
    extras = report.Extras(denoising=films, bits=np.arange(160.0))
    for path in report.write_report(tmp_path, record, side, side, sets, sets, extras):
        check_page(path.read_text())


def in_browser(page, script):
    """The document after a script of a real browser."""
    judged = page.with_name("judged.html")
    script = f"<script>{script}</script></body>"
    judged.write_text(page.read_text().replace("</body>", script))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    done = subprocess.run([*command, judged.as_uri()], capture_output=True, text=True, timeout=180)
    return done.stdout


browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to open the pages in")


@pytest.mark.exhaustive
@browser
@pytest.mark.parametrize("by", ["keys", "touch"])
@pytest.mark.parametrize("other_is", ["chosen", "refused"])
def test_judging_in_a_browser(pages, other_is, by):
    side = "pair.other" if other_is == "chosen" else "(pair.other === 'A' ? 'B' : 'A')"
    act = {
        "keys": "document.dispatchEvent(new KeyboardEvent('keydown', {key: side.toLowerCase()}))",
        "touch": "document.getElementById(side.toLowerCase()).click()",
    }[by]
    page = in_browser(
        pages / "judge.html",
        f"""
      document.dispatchEvent(new KeyboardEvent('keydown', {{key: 'x'}}));
      document.dispatchEvent(new KeyboardEvent('keydown', {{key: 'a', ctrlKey: true}}));
      document.dispatchEvent(new KeyboardEvent('keydown', {{key: 'a', repeat: true}}));
      if (choices.length) throw 'counted another key';
      for (const pair of pairs) {{ const side = {side}; {act}; }}
      document.body.dataset.focus = document.activeElement.id;
      document.body.dataset.saved = at('json').value;""",
    )
    assert f"<title>done {judging.PAIRS}</title>" in page
    percent = 0 if other_is == "chosen" else 100
    assert f"taken for real in {percent}% of {judging.PAIRS} pairs" in page
    assert 'data-focus="save"' in page, "the keyboard goes on at the link that saves"
    saved = html.unescape(re.search(r'data-saved="([^"]*)"', page)[1])
    (pages / "judgements.json").write_text(saved)
    flags = ["--reference", str(pages.parent / "real.npz"), "--groups", "0", "--features", "pca"]
    merged = [*flags, "--judgements", str(pages / "judgements.json")]
    evaluate.main([str(pages.parent / "fake.npz"), *merged])
    assert f"{percent}% of 40 pairs by 1 judge" in " ".join(
        (pages / "report.html").read_text().split()
    )


@pytest.mark.exhaustive
@browser
def test_the_report_in_a_browser(pages):
    page = in_browser(
        pages / "report.html",
        """
      const links = [...document.querySelectorAll('a, [tabindex="0"]')];
      links.forEach(link => { link.focus(); if (document.activeElement !== link) throw link; });
      document.body.dataset.reached = links.length;
      document.body.dataset.wide = document.documentElement.scrollWidth > innerWidth;
      document.body.dataset.broken = [...document.images].filter(i => !i.naturalWidth).length;""",
    )
    assert int(re.search(r'data-reached="(\d+)"', page)[1]) >= 2
    assert 'data-wide="false"' in page
    assert 'data-broken="0"' in page
