"""P9, P14 and P15, in processes of their own: peak memory, a million agents, a large sweep.

``python -m experiments.benchmarks.fresh memory|agents|pieces|batch N`` prints what one of them
measured; ``... sweep N`` prints seconds and memory of N runs, in pieces and in one batch.
"""

import ctypes
import gc
import itertools
import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import experiments
from experiments.benchmarks.rows import Row, absent, on_gpu

ROOT = Path(experiments.__file__).parents[1]
DEGREE, DIMENSION, SAMPLES = 6, 64, 10
BAR_S = 12.0
ROOM = "50 MB"  # of a piece of a sweep
PROCESS = Path("/proc/self")


def measured(what: str, n: int) -> dict[str, Any] | str:
    """Return what a fresh process measures, or in words that the machine was too small."""
    command = [sys.executable, "-m", "experiments.benchmarks.fresh", what, str(n)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    short = any(word in done.stderr for word in ("RESOURCE_EXHAUSTED", "MemoryError"))
    if short or done.returncode == -signal.SIGKILL:
        return "there was not enough memory"
    raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")


def problem_of(n: int, d: int) -> Any:
    """Return least squares of n agents, made on the device without a copy."""
    import jax
    import jax.numpy as jnp

    import jaxdopt as jd
    from jaxdopt.problems.linear import squared_loss

    @jax.jit
    def features() -> jax.Array:
        shape = (n, SAMPLES, d)
        parts = (jax.lax.broadcasted_iota(jnp.float32, shape, axis) for axis in range(3))
        return jnp.sin(sum((a + 1) * part for a, part in enumerate(parts)))

    data = features(), jnp.ones((n, SAMPLES), jnp.float32)
    return jd.problems.FiniteSum(squared_loss, data, jnp.zeros(d, jnp.float32))


def memory(n: int) -> dict[str, Any]:
    """Measure P9: the peak of a run that records every step, over its state and its data.

    On a CPU it is that of a second call, above what the process holds before it: XLA's compiler
    takes some memory too.
    """
    import jax

    import jaxdopt as jd

    d, steps = 8 * DIMENSION, 20
    device = jax.devices()[0]

    def go(n: int) -> Any:
        problem, network = problem_of(n, d), jd.networks.metropolis(jd.graphs.ring(n))
        key = jax.random.key(0)
        result = jd.run(
            jd.GradientTracking(1e-4), problem, network, problem.start(), key, steps=steps, every=1
        )
        return jax.block_until_ready((problem, result))

    def size(tree: Any) -> int:
        return sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves(tree))

    few, many = 8, n
    records = [size((result.metrics, result.costs)) for _, result in (go(few),)]
    began = time.perf_counter()
    own = size([(problem, result.state) for problem, result in (go(many),)])
    compiling = time.perf_counter() - began
    stats = device.memory_stats()
    before = settled() if stats is None else 0
    _, result = go(many)
    peak = resident("VmHWM") - before if stats is None else stats["peak_bytes_in_use"]
    records.append(size((result.metrics, result.costs)))
    return {"peak": peak, "own": own, "d": d, "records": records, "compile_s": compiling}


def settled() -> int:
    """Return the bytes that this process holds, from which its peak is measured anew."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is freed goes back to Linux, and counts again
    PROCESS.joinpath("clear_refs").write_text("5")
    return resident("VmRSS")


def resident(field: str) -> int:
    """Return the bytes that Linux reports of this process: VmRSS now, VmHWM at its peak."""
    lines = PROCESS.joinpath("status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def agents(n: int) -> dict[str, Any]:
    """Measure P14: seconds to the first step of gradient tracking on a random 6-regular graph."""
    marks = {"began": time.perf_counter()}
    import jax

    import jaxdopt as jd

    jax.devices()
    marks["imports"] = time.perf_counter()
    graph = jd.graphs.regular(n, DEGREE)
    marks["graph"] = time.perf_counter()
    network = jd.networks.metropolis(graph)
    marks["weights"] = time.perf_counter()
    problem = jax.block_until_ready(problem_of(n, DIMENSION))
    marks["data"] = time.perf_counter()
    x0, key = problem.start(), jax.random.key(0)
    result = jd.run(jd.GradientTracking(1e-3), problem, network, x0, key, steps=1, every=1)
    jax.block_until_ready(result.state.x)
    marks["first step"] = time.perf_counter()
    names = list(marks)
    parts = {b: marks[b] - marks[a] for a, b in itertools.pairwise(names)}
    return {"parts": parts, "total": sum(parts.values())}


def sweep(runs: int, memory: str | None) -> dict[str, Any]:
    """Measure P15: seconds and peak memory of runs, a hundred seeds of as many stepsizes.

    Both are of a second sweep, which compiles nothing; the memory is what the process holds beyond
    that before the first one, its programs among it.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    import jaxdopt as jd

    features = np.random.default_rng(0).standard_normal((16 * 50, 10))
    problem = jd.problems.logistic_regression(features, features[:, 0] > 0, agents=16, l2=0.1)
    problem = jd.problems.Minibatch(problem, 20)
    network = jd.networks.metropolis(jd.graphs.ring(16))
    methods = jax.vmap(jd.DSGD)(jnp.linspace(0.01, 0.1, runs // 100))
    keys = jax.random.split(jax.random.key(0), 100)
    swept = jd.sweep(jd.run, over=("algorithm", "key"), memory=memory, progress=False)

    def go() -> Any:
        result = swept(methods, problem, network, problem.start(), keys, steps=50, every=10)
        return jax.block_until_ready(result)

    before = settled()
    began = time.perf_counter()
    go()
    compiling = time.perf_counter() - began
    settled()
    began = time.perf_counter()
    result = go()
    seconds = time.perf_counter() - began
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(result))
    found = {"seconds": seconds, "peak": resident("VmHWM") - before, "results": kept}
    return found | {"loss": float(result.metrics["loss"][..., -1].mean()), "compile_s": compiling}


def large_sweep(runs: int) -> list[Row]:
    """Return P15: the peak memory of many runs in pieces, over that of one batch."""
    what = f"peak memory of a sweep of {runs:,} runs in pieces of {ROOM}, over one batch's"
    linux = PROCESS.joinpath("clear_refs").exists() and not on_gpu()
    pieces, batch = (
        measured(name, runs) if linux else "needs Linux and a CPU" for name in ("pieces", "batch")
    )
    if isinstance(pieces, str):
        return [absent("P15", what, "<= 1", pieces)]
    if isinstance(batch, str):
        return [absent("P15", what, "<= 1", batch)]
    if abs(pieces["loss"] - batch["loss"]) > 1e-4 * batch["loss"]:
        raise AssertionError(f"pieces end at {pieces['loss']} and one batch at {batch['loss']}")
    peaks = [found["peak"] / 2**20 for found in (pieces, batch)]
    ratio = peaks[0] / peaks[1]
    what = f"{what} ({peaks[0]:.0f} and {peaks[1]:.0f} MiB, {pieces['results'] / 2**20:.0f} of it"
    what = f"{what} results)"
    ours, theirs = (1e3 * found["seconds"] for found in (pieces, batch))
    return [Row("P15", what, ours, theirs, ratio, "<= 1", ratio <= 1, pieces["compile_s"])]


def peak_memory(n: int) -> list[Row]:
    """Return both halves of P9."""
    what = f"peak memory of a recorded run over its state and data, n = {n} (GradientTracking)"
    other = f"bytes of the records with n = {n} over those with n = 8"
    linux = PROCESS.joinpath("clear_refs").exists()
    found = measured("memory", n) if on_gpu() or linux else "needs Linux or a GPU"
    if isinstance(found, str):
        return [absent("P9", what, "<= 3", found), absent("P9", other, "= 1", found)]
    ratio, growth = found["peak"] / found["own"], found["records"][1] / found["records"][0]
    none = float("nan")
    what = f"{what}, {found['own'] / 2**20:.0f} MiB"
    return [
        Row("P9", what, none, none, ratio, "<= 3", ratio <= 3, found["compile_s"]),
        Row("P9", other, none, none, growth, "= 1", growth == 1, none),
    ]


def from_nothing(n: int, full: int = 1_000_000) -> list[Row]:
    """Return P14: the seconds of a process from its start to the first step; the bar is for all."""
    what = f"{n:,} agents, 6-regular, d = {DIMENSION}: s from nothing to the first step"
    bar = f"<= {BAR_S:g} s" if n == full else "-"
    found = measured("agents", n)
    if isinstance(found, str):
        return [absent("P14", what, bar, found)]
    parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in found["parts"].items())
    none, total = float("nan"), found["total"]
    first = found["parts"]["first step"]
    return [Row("P14", f"{what} ({parts})", none, none, total, bar, total <= BAR_S, first)]


if __name__ == "__main__":
    what, number = sys.argv[1], int(sys.argv[2])
    if what == "sweep":
        (row,) = large_sweep(number)
        print(f"{row.what}: {row.figure}; {row.ours_ms / 1e3:.1f} and {row.theirs_ms / 1e3:.1f} s")
    else:
        measures = {"memory": memory, "agents": agents}
        measures |= {"pieces": partial(sweep, memory=ROOM), "batch": partial(sweep, memory="1 TB")}
        print(json.dumps(measures[what](number)))
