"""What all tests share: float64, and quick compilation."""

import gc
import importlib.metadata
import os
import signal
from pathlib import Path

# Nearly all of the tests' time is XLA's. Users' programs are fully optimized; .ci/run sets this to
# 0 where it asks what is marked `optimized`.
quick = os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") != "0"
if quick and importlib.metadata.version("jaxlib") == "0.10.2":  # XLA refuses flags it has not got
    # the older code generator, in one piece, compiles in half the time; set before JAX is imported
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
    )

import jax  # noqa: E402
import pytest  # noqa: E402

import jaxdopt.programs  # noqa: E402

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", quick)

gc.set_threshold(100_000, 20, 100)  # to look through all jaxprs takes a tenth of the time else

jaxdopt.programs.KEPT = 1000  # tests come back to many programs; `forgotten` sees to memory

STUDIES = Path(__file__).parent / "experiments"
MAPS = Path("/proc/self/maps")
COMPILED = []  # since the last look at the maps


def _note(event, *_, **__):
    if event.endswith("backend_compile_duration"):
        COMPILED.append(event)


jax.monitoring.register_event_duration_secs_listener(_note)


def pytest_collection_modifyitems(items):
    """Mark as slow all studies, and what is asked of more than one method a kind; long ones first.

    What is begun last is then short, and no worker waits long for the other.
    """
    for item in items:
        study = STUDIES in item.path.parents
        rest = item.get_closest_marker("kinds") and not item.callspec.params["row"].first
        if rest or study:
            item.add_marker(pytest.mark.slow)
        if study:
            item.add_marker(pytest.mark.long)
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture
def float32():
    """Run a test as most users do, without float64."""
    with jax.enable_x64(False):
        yield


@pytest.fixture
def handled():
    """SIGINT as in a terminal: what runs in the background ignores it."""
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, old)


@pytest.fixture(autouse=True)
def forgotten():
    """Forget compiled programs in time: each takes some 250 of the 65,530 maps of a process."""
    yield
    if len(COMPILED) > 40:  # to count the maps takes 10 ms
        COMPILED.clear()
        if MAPS.exists() and MAPS.read_bytes().count(b"\n") > 40_000:
            jaxdopt.programs._KEPT.programs.clear()
            jax.clear_caches()
