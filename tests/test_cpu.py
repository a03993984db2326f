"""The XLA flag for CPUs: added once, where jaxlib knows it, and beside what a user says."""

import importlib.metadata
import os
import subprocess
import sys

import pytest

from diffjax.cpu import SUMS_ONLY, YNN, xla_flags


@pytest.mark.parametrize(
    ("given", "jaxlib", "expected"),
    [
        ("", "0.10.2", SUMS_ONLY),
        ("--xla_a=1", "0.12.0.1", f"--xla_a=1 {SUMS_ONLY}"),
        (f"{YNN}= --xla_a=1", "0.10.2", f"{YNN}= --xla_a=1"),
        (SUMS_ONLY, "0.10.2", SUMS_ONLY),
        ("", "0.9.1", ""),
        ("--xla_a=1", "0.13.0.dev20261101", "--xla_a=1"),
        ("", "1.0.0", ""),
    ],
)
def test_the_flag_is_added_where_it_is_known_and_not_given(given, jaxlib, expected):
    assert xla_flags({"XLA_FLAGS": given} if given else {}, jaxlib) == expected


def test_the_installed_jax_starts_with_it():
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
