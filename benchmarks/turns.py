"""Contenders that take turns in one process, their time and their memory.

A contender is a function without arguments of either library. Part of `benchmarks/networks.py`.
"""

import ctypes
import time
from pathlib import Path


def finished(value):
    """Wait for a result of either library."""
    import jax
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return jax.block_until_ready(value)


class Compiled:
    """A call of a jitted function, compiled at the first, whose program tells its memory."""

    def __init__(self, function, *given):
        self.function, self.given, self.program = function, given, None

    def __call__(self):
        if self.program is None:
            self.program = self.function.lower(*self.given).compile()
        return self.program(*self.given)

    def temporary(self):
        """Bytes beside arguments and results."""
        return self.program.memory_analysis().temp_size_in_bytes


def in_turn(contenders, rounds, clock):
    """Seconds of each call of each contender."""
    times = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            began = clock()
            finished(call())
            times[name].append(clock() - began)
    return times


def beginning(call):
    """(seconds of the first call, with compilation; `peak_memory` of the second)."""
    began = time.perf_counter()
    finished(call())
    return time.perf_counter() - began, peak_memory(call)


def peak_memory(call):
    """Bytes at the peak of a call above those held before it."""
    import torch

    if isinstance(call, Compiled):
        return call.temporary()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        finished(call())
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what earlier calls freed goes back to the system
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = resident("VmRSS")
    finished(call())
    return max(resident("VmHWM") - before, 0)


def resident(which):
    """A line of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(which):
            return 1024 * int(line.split()[1])
