"""XLA's flags for CPUs: added once, where jaxlib knows them, beside what a user says."""

import importlib.metadata
import os
import subprocess
import sys

import pytest

from diffjax.cpu import FLAGS, xla_flags

SUMS, IN_PLACE = (f"{flag}={value}" for flag, (value, *_) in FLAGS.items())
YNN = SUMS.split("=")[0]


@pytest.mark.parametrize(
    ("given", "jaxlib", "expected"),
    [
        ("", "0.10.2", f"{SUMS} {IN_PLACE}"),
        ("--xla_a=1", "0.12.0.1", f"--xla_a=1 {SUMS}"),
        (f"{YNN}= --xla_a=1", "0.10.2", f"{YNN}= --xla_a=1 {IN_PLACE}"),
        (f"{SUMS} {IN_PLACE}", "0.10.2", f"{SUMS} {IN_PLACE}"),
        ("", "0.9.1", ""),
        ("--xla_a=1", "0.13.0.dev20261101", "--xla_a=1"),
        ("", "1.0.0", ""),
    ],
)
def test_a_flag_is_added_where_it_is_known_and_not_given(given, jaxlib, expected):
    assert xla_flags({"XLA_FLAGS": given} if given else {}, jaxlib) == expected


def test_the_installed_jax_starts_with_them():
    """XLA ends a process that is given a flag it does not know."""
    flags = xla_flags({}, importlib.metadata.version("jaxlib"))
    environ = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    run = [sys.executable, "-c", "import jax; print(jax.devices()[0].platform)"]
    assert subprocess.run(run, env=environ, capture_output=True, text=True).stdout == "cpu\n"


def test_the_module_does_not_import_jax():
    code = "import sys, importlib.util as u; s = u.find_spec('diffjax').submodule_search_locations"
    code += "[0]; m = u.spec_from_file_location('cpu', s + '/cpu.py'); o = u.module_from_spec(m)"
    code += "; m.loader.exec_module(o); print('jax' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert out == "False\n"


PAGES = """
import resource
import numpy as np
from diffjax.cpu import keep_freed_memory
if {kept} and not keep_freed_memory():
    raise SystemExit("no mallopt")
for turn in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.full(8_000_000, float(turn))
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_freed_memory_is_used_again():
    run = lambda kept: subprocess.run(  # noqa: E731
        [sys.executable, "-c", PAGES.format(kept=kept)], capture_output=True, text=True
    )
    if "no mallopt" in (out := run(True)).stderr:
        pytest.skip("this C library has no mallopt")
    kept, usual = int(out.stdout), int(run(False).stdout)
    assert kept < 10
    assert usual > 10  # new pages, of 4 KiB or 2 MiB: what the test is about


COPIES = """
import jax, jax.numpy as jnp, optax
from diffjax.training import init_state, make_train_step
loss = lambda params, key, batch: (jnp.sum((batch @ params["w"]) ** 2), {})
optimizer = optax.adam(1e-3)
state = init_state({"w": jnp.ones((96, 96))}, optimizer)
step = jax.jit(make_train_step(loss, optimizer), donate_argnums=0)
program = step.lower(state, jax.random.key(0), jnp.ones((4, 96))).compile()
print(program.as_text().count("f32[96,96]{1,0} copy("))
"""


def test_a_step_copies_no_parameter():
    flags = xla_flags({}, importlib.metadata.version("jaxlib"))
    if IN_PLACE not in flags:
        pytest.skip("this jaxlib is not given the flag")
    run = lambda flags: subprocess.run(  # noqa: E731
        [sys.executable, "-c", COPIES],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert run(flags).stdout == "0\n"
    assert int(run(SUMS).stdout) > 0  # what the flag is for
