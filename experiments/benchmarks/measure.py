"""All benchmarks, in order, with the machine and the versions that they ran on."""

import datetime
import resource
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from tqdm import tqdm

import jaxdopt as jd
from experiments.benchmarks import (
    accelerators,
    aggregation,
    asynchrony,
    calls,
    fresh,
    leaves,
    mixing,
    outer_loops,
    participation,
    peers,
    speed,
)
from experiments.benchmarks.rows import Row


def measure(quick: bool = False, progress: bool = True) -> tuple[list[Row], dict[str, Any]]:
    """Return all rows, and the machine and versions they were measured with."""
    repeats = 3 if quick else 15
    dtypes = [np.float32, np.float64] if jnp.zeros(()).dtype == np.float64 else [np.float32]
    lengths = {16: 200} if quick else {16: 2000, 256: 200}
    cases: list[tuple[str, Callable[[], list[Row]]]] = [
        (f"{method}, n = {n}", partial(speed.single, method, n, steps, repeats, dtype))
        for method in ("DGD", "GradientTracking")
        for n, steps in lengths.items()
        for dtype in dtypes
    ]
    n, d = (64, 128) if quick else (1024, mixing.D)
    graphs = {"ring": jd.graphs.ring(n), "6-regular": jd.graphs.regular(n, 6)}
    cases += [(name, partial(mixing.mixing, name, g, repeats, d)) for name, g in graphs.items()]
    cases.append(("sweep", partial(speed.sweeping, 100 if quick else 500, 2 if quick else 3)))
    rounds = (20, 2) if quick else (100, repeats)
    cases.append(("participation", partial(participation.participation, *rounds)))
    finishes = (256, 20.0, 2) if quick else (1024, 100.0, 5)
    cases.append(("asynchrony", partial(asynchrony.asynchrony, *finishes)))
    cases.append(("compilations", speed.compilations))
    sizes = (64, 1024) if quick else (4096, 65_536)
    cases.append(("growth", partial(mixing.growth, repeats, sizes)))
    cases.append(("memory bound", partial(accelerators.memory_bound_if_gpu, repeats)))
    cases.append(("peak memory", partial(fresh.peak_memory, 2048 if quick else 16_384)))
    wide = (256, 40, 64, repeats) if quick else (1024, 128, 1000, repeats)
    cases.append(("wide tables", partial(accelerators.wide_table, *wide)))
    rows_of = (16, 1000, 50, repeats) if quick else (64, 100_000, 1000, repeats)
    cases.append(("largest", partial(accelerators.largest, *rows_of)))
    cases.append(("a call", partial(calls.call, repeats)))
    cases.append(("from nothing", partial(fresh.from_nothing, 100_000 if quick else 1_000_000)))
    cases.append(("large sweep", partial(fresh.large_sweep, 2000 if quick else 10_000)))
    messages = (64, 128, repeats) if quick else (*aggregation.FULL, 5)
    cases.append(("aggregation", partial(aggregation.aggregation, *messages)))
    few = (2, 2) if quick else (5, repeats)
    cases.append(("rounds", partial(outer_loops.rounds, *few)))
    layers = (2, 16, 2) if quick else (4, 128, repeats)
    cases.append(("leaves", partial(leaves.per_leaf, *layers)))
    cases.append(("peers", partial(peers.peers, 16, 200 if quick else 2000, repeats)))
    rows: list[Row] = []
    bar = tqdm(cases, disable=not progress, unit="case")
    for name, run in bar:
        bar.set_description(name)
        rows += run()
    rows.sort(key=lambda row: order(row.name))
    stats = jax.devices()[0].memory_stats() or {}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    about = {
        "jax": jax.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "python": sys.version.split()[0],
        "device": str(jax.devices()[0].device_kind),
        "backend": jax.default_backend(),
        "date": datetime.date.today().isoformat(),
        "peak_memory_MiB": round(peak / (2**20 if sys.platform == "darwin" else 2**10)),
    }
    if "peak_bytes_in_use" in stats:
        about["device_peak_memory_MiB"] = round(stats["peak_bytes_in_use"] / 2**20)
    return rows, about


def order(name: str) -> tuple[int, str]:
    """Return where a row stands: P2 before P10, and peers last."""
    digits = "".join(filter(str.isdigit, name))
    return int(digits) if digits else sys.maxsize, name
