"""The tables and the picture of `benchmarks/solvers.py`."""


def write(rows, calls, sde_calls, out):
    """Write."""
