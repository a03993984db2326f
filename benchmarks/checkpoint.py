"""Seconds that a checkpoint's checksums take, beside zlib.crc32: `python benchmarks/checkpoint.py`.

One array of float32 on the host, whole and cut along its last axis, the best of three runs of
each; then how long `checkpoint.save` keeps the training waiting, and how long until the files
are whole.
"""

import sys
import tempfile
import time
import zlib

import jax.numpy as jnp
import numpy as np

from diffjax import checkpoint, checksums

ELEMENTS = 50_000_000


def seconds(function, times=3):
    """The shortest of some runs."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        function()
        found.append(time.perf_counter() - began)
    return min(found)


def saving(values):
    """Seconds until `save` returns, and until the files are whole."""
    with tempfile.TemporaryDirectory() as folder:
        manager = checkpoint.manager(folder)
        began = time.perf_counter()
        checkpoint.save(manager, 1, {"w": values})
        returned = time.perf_counter() - began
        checkpoint.finish(manager)
        whole = time.perf_counter() - began
        manager.close()
    return returned, whole


def main(elements):
    """Print the table."""
    values = np.random.default_rng(0).standard_normal(elements, np.float32)
    matrix = values.reshape(-1, 1000)
    half = np.ascontiguousarray(matrix[:, :500])
    cut = checksums.Part(half, matrix.shape, (slice(None), slice(0, 500)))
    crc = seconds(lambda: zlib.crc32(values))
    ours = seconds(lambda: checkpoint.checksums({"w": values}))
    part = seconds(lambda: checksums.sums({"w": [cut]}))
    returned, whole = saving(jnp.asarray(values))
    print(f"{elements:,} float32: zlib.crc32 {crc:.3f} s")
    print(f"checksum, whole: {ours:.3f} s, {ours / crc:.2f} of crc32")
    print(f"checksum, half of each row: {part:.3f} s, {2 * part / crc:.2f} of crc32 of as much")
    print(f"save: returns after {returned:.3f} s, whole on the disk after {whole:.3f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ELEMENTS)
