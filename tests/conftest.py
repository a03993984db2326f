"""Every test runs with 8 virtual CPU devices, key-reuse and NaN checks, and strict ranks."""

import os

os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8"
    " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import pytest

jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_debug_nans", True)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Double precision for the length of a test."""
    with jax.enable_x64(True):
        yield


pytest_plugins = ["scripts", "systems"]


def pytest_collection_modifyitems(items):
    """Files that start processes come first, so that no worker ends with one alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
