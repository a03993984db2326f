"""How far emoji drawn by caption are the captions': `python benchmarks/emoji.py prompts FOLDER`.

    python benchmarks/emoji.py prompts FOLDER        # seen.txt and unseen.txt, 100 captions each
    python sample.py RUN --prompt @FOLDER/seen.txt --num 100 --npz FOLDER/RUN_seen.npz
    python benchmarks/emoji.py judge FOLDER          # all *_seen.npz and *_unseen.npz there
    python benchmarks/emoji.py picture FOLDER OUT.png NAME [NAME ...]
    python benchmarks/emoji.py autoencoders RUN [RUN ...]
    python benchmarks/emoji.py epochs RUN            # of configs/emoji_latent.py

The judge has nothing of the model's encoders. A picture is its histograms of oriented gradients
(Dalal & Triggs 2005) and its mean colours in 8x8 squares, a text the words of a caption with its
keywords (tf-idf, 128 singular directions), and a kernel ridge regression from the one to the other
is fitted to the real training emoji. A prompt counts as found where its own text is the nearest of
100 to the picture that was drawn for it.
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


def gradients(x):
    """Histograms of oriented gradients in 8 directions and 8x8 squares: (N, 64, 64, 3) uint8."""
    down, right = np.gradient(x.astype(np.float32).mean(-1) / 255, axis=(1, 2))
    strength = np.hypot(down, right)
    angle = ((np.arctan2(down, right) % np.pi) / np.pi * 8).astype(int) % 8
    cells = [(strength * (angle == i)).reshape(-1, 8, 8, 8, 8).sum((2, 4)) for i in range(8)]
    found = np.stack(cells, -1)
    return (found / np.sqrt((found**2).sum(-1, keepdims=True) + 0.1)).reshape(len(x), -1)


def features(x):
    """Gradients and three times the mean colours of (N, 64, 64, 3) uint8."""
    colours = (x / np.float32(255)).reshape(-1, 8, 8, 8, 8, 3).mean((2, 4)).reshape(len(x), -1)
    return np.concatenate([gradients(x), 3 * colours], 1)


def unit(a):
    """Rows of length 1."""
    return a / np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-9)


def towers():
    """(images -> unit vectors, texts -> unit vectors), fitted to real emoji."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer

    from diffjax import data

    train = data.emoji("train").examples.arrays
    words = make_pipeline(
        TfidfVectorizer(sublinear_tf=True), TruncatedSVD(128, random_state=0), Normalizer()
    )
    texts = words.fit_transform(long_forms(train["captions"]))
    fit = KernelRidge(kernel="rbf", gamma=0.005, alpha=0.3).fit(features(train["x"]), texts)
    return lambda x: unit(fit.predict(features(x))), words.transform


def found_among(queries, keys, count):
    """Share of queries whose own key is among the `count` nearest; ties count as misses."""
    near = queries @ keys.T
    own = np.diag(near)[:, None]
    return np.mean((near >= own).sum(1) <= count)


def judge(folder):
    """Print the table of all samples of a folder, beside real emoji and chance."""
    image_tower, text_tower = towers()
    print("| pictures | captions | prompt first of 100 | among the first 5 |")
    print("|---|---|---:|---:|")
    for kind in SPLITS:
        real = chosen(kind)
        keys, rows = text_tower(long_forms(real["captions"])), {"real emoji": real["x"]}
        for path in sorted(folder.glob(f"*_{kind}.npz")):
            with np.load(path) as file:
                rows[path.name.removesuffix(f"_{kind}.npz")] = file["samples"]
        for name, x in rows.items():
            shares = [found_among(image_tower(x), keys, n) for n in (1, 5)]
            print(f"| {name} | {kind} | " + " | ".join(f"{share:.0%}" for share in shares) + " |")
    print("| chance | | 1% | 5% |")


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
    """Print how well autoencoders of workdirs give pictures back, and the use of codebooks."""
    import jax

    from diffjax import data, media
    from diffjax.evaluation.pairs import psnr, ssim
    from diffjax.run.autoencoder import open_autoencoder

    print("| autoencoder | split | PSNR, dB | SSIM | codes used | perplexity |")
    print("|---|---|---:|---:|---:|---:|")
    for run in runs:
        coder, load = open_autoencoder(run)
        encode, decode = (jax.jit(f) for f in (coder.encode, coder.decode))
        for split in ("train", "test"):
            x = data.emoji(split).examples.arrays["x"][:160]
            parts = np.split(x / np.float32(127.5) - 1, 5)
            latents = [encode(load(), part)[0] for part in parts]
            back = media.to_uint8(np.concatenate([decode(load(), z) for z in latents]))
            means = psnr(x, back, 255).mean(), ssim(x, back, 255).mean()
            row = f"| {Path(run).name} | {split} | {means[0]:.1f} | {means[1]:.3f} "
            print(row + use_of_codes(np.concatenate(latents), load().get("codebook")))


def use_of_codes(latents, codebook):
    """Two columns: how many codes the latents use, and the perplexity of their shares."""
    from diffjax.latents import nearest_codes

    if codebook is None:
        return "| - | - |"
    counts = np.bincount(np.asarray(nearest_codes(latents, unit(codebook))).ravel())
    shares = counts[counts > 0] / counts.sum()
    perplexity = np.exp(-(shares * np.log(shares)).sum())
    return f"| {len(shares):,} of {len(codebook):,} | {perplexity:.0f} |"


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
