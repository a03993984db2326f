"""What makes JAX faster on a CPU, said before JAX starts; this module does not import it."""

from collections.abc import Mapping

YNN = "--xla_cpu_experimental_ynn_fusion_type"
SUMS_ONLY = f"{YNN}=LIBRARY_FUSION_TYPE_REDUCE"
"""Of what XLA hands to its YNN library sums gain, and the backward pass of convolutions loses."""

KNOWN = ((0, 10), (0, 13))
"""From which jaxlib on, and before which, the flag is known: tried on 0.10.2 and 0.12.0.

XLA ends a process that gives it a flag it does not know, so that others do without.
"""


def xla_flags(environ: Mapping[str, str], jaxlib: str) -> str:
    """XLA_FLAGS with the one flag that helped on CPUs; see docs/networks.md.

    Set `os.environ["XLA_FLAGS"]` to it before JAX starts its backend. Programs for a GPU or a TPU
    do not read the flag.

    Args:
      environ: the environment; what it says of the flag already is kept.
      jaxlib: version of jaxlib, e.g. `importlib.metadata.version("jaxlib")`.

    Returns:
      The value, which may be "".
    """
    given = environ.get("XLA_FLAGS", "")
    if YNN in given or not KNOWN[0] <= _major_minor(jaxlib) < KNOWN[1]:
        return given
    return f"{given} {SUMS_ONLY}".strip()


def _major_minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
