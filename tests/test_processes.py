"""Runs over two processes on this machine: the numbers of one, and stops that both agree on."""

import functools
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jaxdopt as jd

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
SETTINGS = """
import jax
import jaxdopt as jd

N, D = 12, 3
problem = jd.problems.quadratic(N, D, curvature_spread=0.3)
ring = jd.networks.metropolis(jd.graphs.ring(N))
random = jd.networks.metropolis(jd.graphs.erdos_renyi(N, 0.3, seed=1))
METHODS = {
    "tracking": (jd.GradientTracking(0.1), ring),
    "compressed": (jd.CHOCOSGD(0.1, jd.compressors.TopK(1)), random),
    "server": (jd.SCAFFOLD(0.1, local_steps=2), jd.networks.participation.uniform(N, 5)),
}
KEY = jax.random.key(0)

def estimates(state, problem):
    return state.x

def sweep(problem, keys):
    noisy = jd.problems.GaussianNoise(problem, 0.1)
    return jd.sweep(jd.run, over="key")(jd.DGD(0.1), noisy, ring, problem.start(), keys, steps=3)

OPTIONS = {"steps": 20, "every": 2, "metrics": {"x": estimates}}
"""

WORKER = (
    """
import os, signal, sys, time
import jax
__name__ = "settings"
number, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)
jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=number)
signal.signal(signal.SIGINT, signal.default_int_handler)
"""
    + SETTINGS
    + """
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxdopt import _memory, records

records.ROWS = 4
mesh = jax.make_mesh((4,), ("agents",))
rows = NamedSharding(mesh, PartitionSpec("agents"))
spread = lambda v: jax.device_put(v, rows) if v.shape[:1] == (N,) else v
problem, x0 = jax.tree.map(spread, problem), spread(problem.start())
room = _memory.available(x0)
assert 0 < room < 1.5 * _memory.available(), room  # of this machine once, not of each process
kept = {}
for name, (method, network) in METHODS.items():
    result = jd.run(method, problem, network, x0, KEY, **OPTIONS)
    kept |= {f"{name} {metric}": rows for metric, rows in result.history.items()}
    assert not result.state.x.is_fully_addressable and not result.diverged, result

keys = jax.jit(jax.random.split, static_argnums=1, out_shardings=rows)(KEY, 4)
swept = sweep(problem, keys)
assert swept.state.x.shape == (4, N, D) and not swept.state.x.is_fully_addressable, swept
kept |= {f"swept {metric}": rows for metric, rows in swept.history.items()}

method, network = METHODS["tracking"]
gaps, shown = kept["tracking gap"], []
aims = {"gap": float(gaps[3] + gaps[4]) / 2}
stopped = jd.run(method, problem, network, x0, KEY, **OPTIONS, until=aims, callback=shown.append)
assert stopped.stopped == "until" and len(stopped.history["gap"]) == 5, stopped
assert len(shown) == 5 * (number == 0), shown

def interrupt(record):
    if record["step"] == 4:  # in the first process alone
        os.kill(os.getpid(), signal.SIGINT)

def call(**more):
    given = OPTIONS | {"checkpoint": f"{folder}/run", "until": {"gap": 0.0}} | more
    return jd.run(method, problem, network, x0, KEY, **given)

first = call(callback=interrupt)
assert first.stopped == "interrupt" and 3 <= len(first.history["gap"]) <= 8, first
again = call(checkpoint_every=1e-3)
kept |= {f"again {metric}": rows for metric, rows in again.history.items()}
try:
    jd.run(jd.DGD(0.1), problem, network, x0, KEY, **OPTIONS, checkpoint=f"{folder}/run")
except ValueError as error:
    assert "the method of the run in" in str(error), error
else:
    raise AssertionError("another method goes on from this run")

def fail(record):
    raise OSError("disk full")

try:
    call(callback=fail, steps=40)
except (OSError, RuntimeError) as error:
    assert str(error) == ("the callback has failed in the first process.", "disk full")[number == 0]
if number == 0:
    np.savez(f"{folder}/kept.npz", **kept)

def slow(record):
    with open(f"{folder}/told", "a") as told:
        print(record["step"], file=told)
    time.sleep(0.05)

call(steps=4000, checkpoint=f"{folder}/long", callback=slow)  # saved at its end alone
"""
)


def start(number, arguments, folder, **variables):
    own = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    with open(folder / f"said-{number}", "w") as said:
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdout=said,
            stderr=said,
            env={**os.environ, **own, **variables},
            cwd=folder,
        )


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def is_free(port):
    with socket.socket() as tried:
        return tried.connect_ex(("localhost", port)) != 0


@functools.cache
def settings():
    names: dict[str, Any] = {"__name__": "settings"}  # as in the workers: the same metric
    exec(SETTINGS, names)
    return names


def own_run(name, **options):
    """A run as the workers make it, in this process and on one device."""
    names = settings()
    problem = names["problem"]
    method, network = names["METHODS"][name]
    options = names["OPTIONS"] | options
    return jd.run(method, problem, network, problem.start(), names["KEY"], **options)


def close(found, expected):
    for name, rows in expected.items():
        np.testing.assert_allclose(found[name], rows, rtol=1e-10, atol=1e-10, err_msg=name)


def test_two_processes_are_one(tmp_path):
    where = str(free_port()), str(tmp_path)
    processes = [start(i, ["-c", WORKER, str(i), *where], tmp_path) for i in range(2)]

    def said():
        return "\n".join((tmp_path / f"said-{number}").read_text() for number in range(2))

    try:
        end = time.monotonic() + 300
        while not (tmp_path / "told").exists():
            assert all(each.poll() is None for each in processes), said()
            assert time.monotonic() < end, said()
            time.sleep(0.1)
        for process in processes:  # as a scheduler does, but not at the same moment
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
        assert [each.wait(60) for each in processes] == 2 * [-signal.SIGTERM], said()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    kept = np.load(tmp_path / "kept.npz")
    names = settings()
    known = names["sweep"](names["problem"], jax.random.split(names["KEY"], 4)).history
    close({metric: kept[f"swept {metric}"] for metric in known}, known)
    for name in (*names["METHODS"], "again"):
        known = own_run("tracking" if name == "again" else name).history
        close({metric: kept[f"{name} {metric}"] for metric in known}, known)
    (saved,) = (int(path.name.removeprefix("state-")) for path in tmp_path.glob("long/state-*"))
    assert 2 * saved == int((tmp_path / "told").read_text().split()[-1])
    seen = []  # goes on in this process, with one device
    more = {"checkpoint": tmp_path / "long", "callback": seen.append}
    on = own_run("tracking", steps=2 * saved + 8, **more)
    assert [record["step"] for record in seen] == [2 * (saved + i) for i in range(1, 5)]
    close(on.history, own_run("tracking", steps=2 * saved + 8).history)


def test_the_pages_script_runs_as_slurm_starts_it(tmp_path):
    page = (ROOT / "docs/clusters.md").read_text()
    script = re.findall(r"```py\n(.*?)```", page, re.S)[0]
    names: Any = {}
    exec(re.sub(r"jax.distributed.init.*|checkpoint=.*", "", script), names)  # in this process
    (tmp_path / "cluster.py").write_text(script)
    first = 2**16 - 2**12  # of the ports that JAX takes, by the number of the job
    job = next(number for number in range(100, 2**12) if is_free(first + number))
    slurm = {"SLURM_JOB_ID": str(job), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    slurm |= {"JAX_NUM_CPU_DEVICES": "2", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    processes = [
        start(i, ["cluster.py"], tmp_path, **slurm, SLURM_PROCID=str(i), SLURM_LOCALID=str(i))
        for i in range(2)
    ]
    ends = [process.wait(300) for process in processes]
    said = [(tmp_path / f"said-{i}").read_text() for i in range(2)]
    assert ends == [0, 0], said
    (line,) = re.findall(r"^None 500 (.*)$", "\n".join(said), re.M)
    np.testing.assert_allclose(float(line), names["result"].history["gap"][-1], rtol=1e-3)
    assert (tmp_path / "results/cluster/state-10").is_dir()
