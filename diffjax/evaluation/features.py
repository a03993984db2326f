"""Features: what a metric compares in place of images."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.errors import InputError
from diffjax.evaluation import efficientnet, inception
from diffjax.evaluation.frechet import SFID_CHANNELS
from diffjax.evaluation.resize import antialiased, bicubic
from diffjax.pretrained.tensors import READERS, read_tensors
from diffjax.pretrained.torch_legacy import read_legacy_torch_file
from diffjax.types import Array

BATCH = 64
PART = 2**24
"""Bytes of an array that are hashed at a time."""
CANONICAL = "6726825d"
"""First digits of the SHA-256 of the weights that FID is defined by, as in their file's name."""
SOURCE = (
    "pt_inception-2015-12-05-6726825d.pth, from the releases of github.com/mseitzer/pytorch-fid"
)


class Features(NamedTuple):
    """An extractor of features.

    Attributes:
      name: what every printed figure calls it.
      function: (N, H, W, C) uint8 -> (N, D) float. A row does not depend on the other images.
      fingerprint: changes with anything that changes a feature; part of a cache's key.
      logits: (N, H, W, C) uint8 -> (N, K) of a classifier, or None.
      canonical: these are FID's own weights, by their checksum.
      joint: (N, H, W, C) uint8 -> "features" and "logits", and "maps" of FID's network, in one
        pass; None where there are features alone.
    """

    name: str
    function: Callable[[np.ndarray], np.ndarray]
    fingerprint: str
    logits: Callable[[np.ndarray], np.ndarray] | None = None
    canonical: bool = False
    joint: Callable[[np.ndarray], dict[str, np.ndarray]] | None = None

    def all_of(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Everything that is known of images, by name, (N, ...) each, in one pass."""
        return self.joint(images) if self.joint else {"features": self.function(images)}


def fingerprint(*parts: str | bytes | np.ndarray) -> str:
    """First 16 hexadecimal digits of a SHA-256 over texts and arrays, with shapes and types."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.shape}{part.dtype}".encode())
            for rows in np.array_split(part, 1 + part.nbytes // PART) if part.ndim else (part,):
                digest.update(np.ascontiguousarray(rows).tobytes())
        else:
            digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def of_params(params) -> str:
    """`fingerprint` of a tree of parameters."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return fingerprint(*(p for path, w in leaves for p in (str(path), np.asarray(w))))


def rgb(images: Array) -> Array:
    """Grey images repeated into three channels; colour as it is."""
    return jnp.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images


def resized(images: Array, size: int) -> Array:
    """Images in colour at size x size, by Pillow's bicubic filter in float, in [0, 255]."""
    weights = antialiased(bicubic)
    rows, columns = (jnp.asarray(weights(n, size), jnp.float32) for n in images.shape[1:3])
    tall = jnp.einsum("ih,bhwc->biwc", rows, rgb(images).astype(jnp.float32))
    return jnp.clip(jnp.einsum("jw,biwc->bijc", columns, tall), 0, 255)


def in_batches(apply: Callable[..., Array], params, batch: int = BATCH) -> Callable:
    """A jitted function of fixed-size batches as one of any number of images.

    The last batch is filled up with zeros. Every image meets the same compiled program, so that
    its features are bit-identical whatever the number of images. Batches are spread over the
    local devices.

    Args:
      apply: (params, (batch, H, W, C) uint8) -> (batch, D), or a tree of such.
      params: passed as an argument.
      batch: images per call.

    Returns:
      (N, H, W, C) uint8 -> (N, D) float32, or a tree of such.
    """
    devices = jax.local_devices()
    devices = devices[: np.gcd(len(devices), batch)]
    mesh = jax.sharding.Mesh(np.array(devices), ("data",))
    spec = jax.sharding.PartitionSpec
    sharded, whole = (jax.sharding.NamedSharding(mesh, spec(*a)) for a in (("data",), ()))
    params = jax.device_put(params, whole)
    compiled = jax.jit(apply)

    def function(images: np.ndarray):
        parts = []
        for first in range(0, len(images), batch):
            part = np.zeros((batch, *images.shape[1:]), np.uint8)
            count = len(images[first : first + batch])
            part[:count] = images[first : first + batch]
            with jax.default_matmul_precision("highest"):
                out = compiled(params, jax.device_put(part, sharded))
            parts.append(jax.tree.map(lambda a, n=count: np.asarray(a)[:n], out))
        return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)

    return function


def of_network(
    name: str, apply: Callable[..., dict], params, mark: str, canonical: bool = False
) -> Features:
    """The extractor of a network that has logits beside its features.

    Args:
      name: what figures call it.
      apply: (params, (B, H, W, C) uint8) -> {"features", "logits"} and perhaps more, (B, ...) each.
      params: its parameters.
      mark: the fingerprint.
      canonical: as of `Features`.
    """
    joint = in_batches(apply, params)
    features, logits = (lambda images, n=n: joint(images)[n] for n in ("features", "logits"))
    return Features(name, features, mark, logits, canonical, joint)


def pixels() -> Features:
    """The pixels themselves in [-1, 1], flattened: for small images."""

    def function(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1) / 127.5 - 1

    return Features("pixels", function, "pixels-1")


def principal_components(images: np.ndarray, num: int = 64) -> Features:
    """Pixels projected on the leading principal components of a reference set.

    Args:
      images: (N, H, W, C) uint8, the reference.
      num: components; at most N - 1 and the number of pixels.

    Returns:
      Features of min(num, ...) numbers, in the unit of pixels in [-1, 1].
    """
    flat = pixels().function(images)
    mean = flat.mean(axis=0)
    _, vectors = np.linalg.eigh((flat - mean).T @ (flat - mean))
    basis = vectors[:, ::-1][:, : min(num, len(images) - 1)]

    def function(images: np.ndarray) -> np.ndarray:
        flat = pixels().function(images) - mean
        return np.stack([row @ basis for row in flat])

    name = f"{basis.shape[1]} principal components"
    return Features(name, function, fingerprint("pca-1", mean, basis))


def inception_features(
    path: str | Path, prepare: Callable[[Array], Array] = inception.tf1_input
) -> Features:
    """FID's features from a file of weights.

    Args:
      path: of .pt, .pth or .safetensors with pytorch-fid's names.
      prepare: `tf1_input`, as in the original graph, or `torch_input`, as in pytorch-fid.

    Returns:
      2,048 features; the 1,008 logits without their bias, as for the inception score; and in
      `joint` the "maps" of sFID, 2,023 numbers.

    Raises:
      InputError: no such file, or of another network.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; FID's weights are {SOURCE}.")
    params = inception.inception_params(read_tensors([path]))
    module = inception.Inception()

    def apply(params, images):
        out = module.apply({"params": params}, prepare(rgb(images)))
        maps = out.maps[..., :SFID_CHANNELS].reshape(len(images), -1)
        logits = out.logits - params["fc"]["bias"][None]
        return {"features": out.pool, "logits": logits, "maps": maps}

    canonical = hashlib.sha256(path.read_bytes()).hexdigest().startswith(CANONICAL)
    name = f"Inception 2015{'' if canonical else f' with the weights of {path.name}'}"
    mark = fingerprint("inception-2", prepare.__name__, of_params(params))
    return of_network(name, apply, params, mark, canonical)


def efficientnet_features() -> Features:
    """EfficientNet-lite0's 1,280 features before its last layer, and its 1,000 logits.

    Images are resized to 224 x 224 by Pillow's bicubic filter in float.

    Raises:
      InputError: the optional package of weights is not installed.
    """
    params = efficientnet.efficientnet_params(
        read_legacy_torch_file(efficientnet.efficientnet_file())
    )
    module = efficientnet.EfficientNetLite0()

    def apply(params, images):
        x = resized(images, efficientnet.SIZE)
        found, logits = module.apply({"params": params}, (x - 127) / 128)
        return {"features": found, "logits": logits}

    mark = fingerprint("efficientnet-1", of_params(params))
    return of_network("EfficientNet-lite0", apply, params, mark)


def extract(
    function: Callable[[np.ndarray], np.ndarray],
    parts: Iterable[np.ndarray],
    progress: Callable[[int], object] = lambda count: None,
) -> np.ndarray:
    """Features of images that come in parts.

    Args:
      function: of `Features`.
      parts: arrays (n, H, W, C) uint8.
      progress: called with the number of images of each part.

    Returns:
      (N, D) float32 or float64.
    """
    found = []
    for part in parts:
        found.append(function(part))
        progress(len(part))
    return np.concatenate(found)


def is_weights(name: str) -> bool:
    """Whether --features names a file of weights."""
    return Path(name).suffix in READERS
