"""Images: grids, and the files they are read from and written to.

Samples are float arrays (N, H, W, C) in [-1, 1], pictures (H, W, C) uint8; C is 1 or 3.
"""

import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from diffjax.codec import Codec, Sink, Writer
from diffjax.errors import InputError, sentence
from diffjax.types import Array, PyTree

MIN_TILE = 48  # pixels: smaller images are enlarged in the grid, by a whole factor
SHEET = 2_500  # images of a sheet at most
ANIMATED = 100  # images of an animation at most


def to_uint8(x: Array | np.ndarray) -> np.ndarray:
    """Floats in [-1, 1] to the nearest of 0 .. 255; what lies outside is clipped."""
    return np.round((np.clip(np.asarray(x, np.float32), -1, 1) + 1) * 127.5).astype(np.uint8)


def grid(images: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """Tile images row by row on a white ground.

    Args:
      images: (N, H, W, C) uint8, C 1 or 3.
      columns: images per row.
      gap: pixels between tiles, before enlarging.

    Returns:
      (H', W', C) uint8; tiles under 48 pixels are enlarged by a whole factor.
    """
    n, h, w, c = images.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (h + gap) + gap, columns * (w + gap) + gap, c), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (h + gap) + gap, (i % columns) * (w + gap) + gap
        sheet[top : top + h, left : left + w] = image
    factor = max(1, -(-MIN_TILE // h))
    return sheet.repeat(factor, axis=0).repeat(factor, axis=1)


def sheet(samples: np.ndarray, raw: Mapping[str, np.ndarray]) -> np.ndarray:
    """A grid of samples, one class a row if they have classes and fit, else a square.

    Args:
      samples: (N, H, W, C) in [-1, 1], or uint8.
      raw: the raw conditions; `label` (N,) sorts the samples.

    Returns:
      (H', W', C) uint8.
    """
    images = samples if samples.dtype == np.uint8 else to_uint8(samples)
    labels = np.asarray(raw.get("label", np.zeros(len(images), int)))[: len(images)]
    per_class = int(np.bincount(labels).max())
    several = len(np.unique(labels)) > 1
    columns = per_class if several and per_class <= 32 else int(np.ceil(len(images) ** 0.5))
    return grid(images[np.argsort(labels, kind="stable")], columns)


def save_png(path: str | Path, image: np.ndarray) -> None:
    """Write (H, W, C) uint8 as a PNG; C 1 is grey."""
    _pil(image).save(path, format="PNG")


def save_gif(path: str | Path, frames: Sequence[np.ndarray], seconds: float = 3.0) -> None:
    """Write frames (H, W, C) uint8 as an endless GIF that rests on the last.

    Args:
      path: the file.
      frames: in order.
      seconds: length of one round without the rest, which is 1.5 s.
    """
    first, *rest = [_pil(frame) for frame in frames]
    each = max(20, int(1000 * seconds / len(frames)))
    durations = [each] * len(rest) + [each + 1500]
    first.save(path, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0)


def _pil(image: np.ndarray):
    from PIL import Image

    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def load_image(path: str | Path, size: tuple[int, int], channels: int) -> np.ndarray:
    """A picture as a model is given it: resized, in [-1, 1].

    Args:
      path: a file that Pillow reads.
      size: (H, W).
      channels: 1 for grey, 3 for RGB.

    Returns:
      (H, W, channels) float32.

    Raises:
      InputError: it cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(path) as file:
            image = file.convert("L" if channels == 1 else "RGB").resize(size[::-1])
    except Exception as error:
        raise InputError(f"{path} is not a picture that can be read: {sentence(error)}") from error
    return (np.asarray(image, np.float32) / 127.5 - 1).reshape(*size, channels)


def png_sheet() -> Writer:
    """A PNG of all samples, sorted by class; of very many, the first."""

    def open(path: Path, num: int, raw: Mapping[str, np.ndarray]) -> Sink:
        kept, left = [], [min(num, SHEET)]

        def add(samples: np.ndarray) -> None:
            kept.append(to_uint8(samples[: left[0]]))
            left[0] -= len(kept[-1])

        def close() -> str:
            images = np.concatenate(kept)
            save_png(path, sheet(images, raw))
            some = f"{num} samples" if len(images) == num else f"the first {len(images)} of {num}"
            return f"{some} in {path}"

        return Sink(add, close)

    return Writer(open)


def npz_arrays(to_stored: Callable[[np.ndarray], np.ndarray]) -> Writer:
    """An npz of `samples`, written as they come, and the raw conditions: `labels`, ...

    Args:
      to_stored: samples -> what is stored of them, e.g. `to_uint8`.

    Returns:
      The writer, whose memory does not grow with the number of samples. What it has written
      stands in FILE.part until all is there.
    """

    def open(path: Path, num: int, raw: Mapping[str, np.ndarray]) -> Sink:
        unfinished = path.with_name(f"{path.name}.part")
        archive = zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED)
        member = None

        def add(samples: np.ndarray) -> None:
            nonlocal member
            stored = np.ascontiguousarray(to_stored(samples))
            if member is None:
                member = archive.open("samples.npy", "w", force_zip64=True)
                header = {"descr": stored.dtype.str, "fortran_order": False}
                shape = (num, *stored.shape[1:])
                np.lib.format.write_array_header_1_0(member, header | {"shape": shape})
            member.write(stored.data)

        def close() -> str:
            member.close()
            names = {"labels" if name == "label" else name: a for name, a in raw.items()}
            for name, array in names.items():
                with archive.open(f"{name}.npy", "w") as file:
                    np.lib.format.write_array(file, np.asarray(array))
            archive.close()
            unfinished.replace(path)
            also = "".join(f" and `{name}`" for name in names)
            return f"arrays `samples`{also} in {path}"

        return Sink(add, close)

    return Writer(open)


def gif_of_denoising() -> Writer:
    """A GIF of the denoising of the first samples, 100 at most."""

    def open(path: Path, num: int, raw: Mapping[str, np.ndarray]) -> Sink:
        shown = []

        def add(frames: np.ndarray) -> None:
            save_gif(path, [sheet(frame, raw) for frame in frames])
            shown.append(frames.shape[1])

        return Sink(add, lambda: f"animation of {sum(shown)} samples in {path}")

    return Writer(open, frames=ANIMATED)


WRITERS = {".png": png_sheet(), ".npz": npz_arrays(to_uint8), ".gif": gif_of_denoising()}

pixels = Codec(writers=WRITERS, sheet=sheet)
"""Pictures diffused as they are."""


arrays = Codec(writers={".npz": npz_arrays(lambda x: np.asarray(x, np.float32))})
"""Arrays that are no picture, such as latents without their autoencoder, as they are."""


def decoded(
    encode: Callable[[Mapping[str, PyTree], Array], Array],
    decode: Callable[[Mapping[str, PyTree], Array], Array],
) -> Codec:
    """Pictures diffused as latents: `pixels` with an autoencoder between.

    Args:
      encode: (frozen, pictures (B, H, W, C)) -> latents, scaled for diffusion.
      decode: (frozen, latents) -> pictures.
    """
    return Codec(encode, decode, WRITERS, sheet)
