"""What makes JAX faster on a CPU, said before JAX starts; this module does not import it."""

import ctypes
from collections.abc import Mapping

FLAGS = {
    "--xla_cpu_experimental_ynn_fusion_type": ("LIBRARY_FUSION_TYPE_REDUCE", (0, 10), (0, 13)),
    "--xla_cpu_copy_insertion_use_region_analysis": ("true", (0, 10), (0, 12)),
}
"""Flag -> (value, the jaxlib from which on it is known, that before which it is).

Of what XLA hands to its YNN library sums gain, and the backward pass of convolutions loses. With
the analysis of regions a training step writes the new state over the old one; without, it copies
parameters and moments first. XLA ends a process that gives it a flag it does not know: the first
was tried on 0.10.2 and 0.12.0, the second on 0.10.2 and 0.11.2.
"""

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
"""glibc's names of what `mallopt` sets: malloc.h."""


def xla_flags(environ: Mapping[str, str], jaxlib: str) -> str:
    """XLA_FLAGS with the flags that helped on CPUs; see docs/networks.md.

    Set `os.environ["XLA_FLAGS"]` to it before JAX starts its backend. Programs for a GPU or a TPU
    do not read these flags.

    Args:
      environ: the environment; what it says of a flag already is kept.
      jaxlib: version of jaxlib, e.g. `importlib.metadata.version("jaxlib")`.

    Returns:
      The value, which may be "".
    """
    given = environ.get("XLA_FLAGS", "")
    version = _major_minor(jaxlib)
    added = [
        f"{flag}={value}"
        for flag, (value, first, end) in FLAGS.items()
        if flag not in given and first <= version < end
    ]
    return " ".join(filter(None, [given, *added]))


def keep_freed_memory() -> bool:
    """Let malloc keep what is freed for the next step, in place of giving it back to Linux.

    A training step asks for some hundred MiB and frees them; new pages for them, at each step,
    take Linux an eighth of the step's time. Call it before any thread starts. The process then
    keeps the most memory that it ever had.

    Returns:
      Whether the C library has it, as glibc does.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1, M_ARENA_MAX: 1}
    return all(mallopt(name, value) for name, value in settings.items())


def _major_minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
