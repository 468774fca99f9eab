"""What all tests share: float64, and quick compilation."""

import os
from pathlib import Path

import jax
import pytest

jax.config.update("jax_enable_x64", True)
# Nearly all of the tests' time is XLA's. Users' programs are fully optimized, and so are those of
# the tests that start processes; the shorter pass of .ci/run sets this to 0 for all the others.
quick = os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") != "0"
jax.config.update("jax_disable_most_optimizations", quick)

MAPS = Path("/proc/self/maps")


@pytest.fixture
def float32():
    """Run a test as most users do, without float64."""
    with jax.enable_x64(False):
        yield


@pytest.fixture(autouse=True)
def forgotten():
    """Forget compiled programs in time: each takes some 250 of the 65,530 maps of a process."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
