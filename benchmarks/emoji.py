"""How far emoji drawn by caption are the captions': `python benchmarks/emoji.py prompts FOLDER`.

    python benchmarks/emoji.py prompts FOLDER        # seen.txt and unseen.txt, 100 captions each
    python sample.py RUN --prompt @FOLDER/seen.txt --num 100 --npz FOLDER/RUN_seen.npz
    python benchmarks/emoji.py judge FOLDER          # all *_seen.npz and *_unseen.npz there
    python benchmarks/emoji.py picture FOLDER OUT.png NAME [NAME ...]
    python benchmarks/emoji.py autoencoders RUN [RUN ...]
    python benchmarks/emoji.py epochs RUN            # of configs/emoji_latent.py

The judge has not seen the model's text encoder: pictures are EfficientNet-lite0's features, texts
the words of a caption with its keywords (tf-idf, 128 singular directions), and a ridge regression
from the one to the other is fitted to the real training emoji. A prompt counts as found where its
own text is the nearest of 100 to the picture that was drawn for it. Needs the extra `eval`.
"""

import sys
import time
from pathlib import Path

import numpy as np

NUM = 100
SPLITS = {"seen": "train", "unseen": "test"}


def chosen(kind):
    """The 100 emoji whose captions are asked for."""
    from diffjax import data

    arrays = data.emoji(SPLITS[kind]).examples.arrays
    places = np.random.default_rng(0).permutation(len(arrays["x"]))[:NUM]
    return {name: a[places] for name, a in arrays.items()}


def long_forms(captions):
    """The longest form of each emoji's caption: its name with keywords."""
    return [max(forms, key=len) for forms in captions]


def prompts(folder):
    """Write the captions of seen and unseen emoji, one a line."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in SPLITS:
        (folder / f"{kind}.txt").write_text("\n".join(chosen(kind)["caption"]) + "\n")


def towers(folder):
    """(images -> unit vectors, texts -> unit vectors, images -> features), fitted to real emoji."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer, StandardScaler

    from diffjax import data
    from diffjax.evaluation.features import efficientnet_features

    features, train = efficientnet_features().function, data.emoji("train").examples.arrays
    kept = folder / "features.npy"
    if not kept.is_file():
        np.save(kept, features(train["x"]))
    words = make_pipeline(
        TfidfVectorizer(sublinear_tf=True), TruncatedSVD(128, random_state=0), Normalizer()
    )
    texts = words.fit_transform(long_forms(train["captions"]))
    fit = make_pipeline(StandardScaler(), RidgeCV(np.logspace(2, 5, 7)))
    fit.fit(np.load(kept), texts)

    def unit(a):
        return a / np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-9)

    return (lambda f: unit(fit.predict(f))), words.transform, features


def found_among(queries, keys, count):
    """Share of queries whose own key is among the `count` nearest; ties count as misses."""
    near = queries @ keys.T
    own = np.diag(near)[:, None]
    return np.mean((near >= own).sum(1) <= count)


def judge(folder):
    """Print the table of all samples of a folder, beside real emoji and chance."""
    image_tower, text_tower, features = towers(folder)
    print(
        "| pictures | captions | prompt among 100: first | among 5 | its emoji among 100: first |"
    )
    print("|---|---|---:|---:|---:|")
    for kind in SPLITS:
        real = chosen(kind)
        keys, real_features = text_tower(long_forms(real["captions"])), features(real["x"])
        rows = {"real": real_features}
        for path in sorted(folder.glob(f"*_{kind}.npz")):
            with np.load(path) as file:
                rows[path.name.removesuffix(f"_{kind}.npz")] = features(file["samples"])
        centre = np.load(folder / "features.npy").mean(0)
        normal = lambda f: (f - centre) / np.linalg.norm(f - centre, axis=1, keepdims=True)  # noqa: E731, B023
        for name, found in rows.items():
            shares = [found_among(image_tower(found), keys, n) for n in (1, 5)]
            shares.append(found_among(normal(found), normal(real_features), 1))
            print(f"| {name} | {kind} | " + " | ".join(f"{share:.0%}" for share in shares) + " |")
    print("| chance | | 1% | 5% | 1% |")


def picture(folder, out, *names):
    """A sheet: rows of real emoji and of each set of samples, for the first captions of each."""
    from diffjax import media

    blocks = []
    for kind in SPLITS:
        shown = slice(0, 20)
        rows = [chosen(kind)["x"][shown]]
        for name in names:
            with np.load(folder / f"{name}_{kind}.npz") as file:
                rows.append(file["samples"][shown])
        blocks.append(media.grid(np.concatenate(rows), 20))
        print(kind, *chosen(kind)["caption"][shown], sep=" | ")
    gap = np.full((12, blocks[0].shape[1], 3), 255, np.uint8)
    media.save_png(out, np.concatenate([blocks[0], gap, blocks[1]]))


def autoencoders(*runs):
    """Print how well autoencoders of workdirs give pictures back."""
    import jax

    from diffjax import data, media
    from diffjax.evaluation.pairs import psnr, ssim
    from diffjax.run.autoencoder import open_autoencoder

    print("| autoencoder | split | PSNR, dB | SSIM |")
    print("|---|---|---:|---:|")
    for run in runs:
        coder, load = open_autoencoder(run)
        again = jax.jit(lambda params, x, c=coder: c.decode(params, c.encode(params, x)[0]))
        for split in ("train", "test"):
            x = data.emoji(split).examples.arrays["x"][:160]
            parts = [
                again(load(), x[i : i + 32] / np.float32(127.5) - 1) for i in range(0, 160, 32)
            ]
            back = media.to_uint8(np.concatenate(parts))
            means = psnr(x, back, 255).mean(), ssim(x, back, 255).mean()
            print(f"| {Path(run).name} | {split} | {means[0]:.1f} | {means[1]:.3f} |")


def epochs(run):
    """Print the seconds of an epoch from the cache, and with the encoder within."""
    import jax

    from diffjax import data, parallel
    from diffjax.run.autoencoder import PART, open_autoencoder
    from diffjax.run.state import compiled_step, initial_state
    from diffjax.run.workdir import load_experiment, read_record

    experiment = load_experiment(run)
    source = experiment.source()
    batch, count = experiment.batch_size, len(source.examples)
    steps, mesh = count // batch, parallel.make_mesh(devices=jax.devices()[:1])

    def seconds(function, batches, number):
        jax.block_until_ready(function(next(batches)))
        began = time.process_time(), time.perf_counter()
        for _ in range(number):
            out = function(next(batches))
        jax.block_until_ready(out)
        spent = time.process_time() - began[0], time.perf_counter() - began[1]
        return [value * steps / number for value in spent]

    coder, load = open_autoencoder(read_record(run)["options"]["autoencoder"])
    frozen = {PART: load()}
    state = parallel.init_sharded(
        lambda key: initial_state(experiment, key), mesh, jax.random.key(0)
    )
    step, place = compiled_step(experiment, parallel.jit_train_step, state, mesh, frozen)
    encode = jax.jit(coder.encode)
    pixels = data.emoji("train")
    rows = {}

    def train(b):
        nonlocal state
        state, metrics = step(state, jax.random.key(1), b, frozen)
        return metrics

    def both(b):
        jax.block_until_ready(encode(frozen[PART], b["x"]))
        return train(next(cached))

    def read(src, augment):
        return map(data.arrays_of, data.batches(src, batch, augment=augment))

    cached = place(read(source, experiment.augment))
    rows["latents alone: from the cache"] = seconds(lambda b: b["x"], cached, steps)
    rows["latents alone: encoded"] = seconds(
        lambda b: encode(frozen[PART], b["x"]), read(pixels, ()), 12
    )
    rows["training: from the cache"] = seconds(train, cached, 12)
    rows["training: encoded within"] = seconds(both, read(pixels, ()), 12)
    print(f"{count:,} examples, batches of {batch}, {steps} steps an epoch")
    print("| an epoch | CPU s | s |\n|---|---:|---:|")
    for name, (cpu, wall) in rows.items():
        print(f"| {name} | {cpu:.1f} | {wall:.1f} |")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    command, first, *rest = sys.argv[1:]
    {
        "prompts": prompts,
        "judge": judge,
        "picture": picture,
        "autoencoders": autoencoders,
        "epochs": epochs,
    }[command](Path(first), *rest)
