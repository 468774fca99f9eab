"""Weak scaling: equally many agents a device on more and more devices, in a process of its own.

``python -m experiments.benchmarks.scaling quick|default`` prints the rows as JSON.
"""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pandas as pd
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy.sparse.csgraph import reverse_cuthill_mckee

import experiments
import jaxdopt as jd
from experiments.benchmarks.accelerators import Distances
from experiments.benchmarks.collectives import per_step
from experiments.benchmarks.rows import timed

ROOT = Path(experiments.__file__).parents[1]
DEVICES, AGENTS, DIMENSION, STEPS = (1, 2, 4, 8), {"quick": 32, "default": 512}, 64, 20


@dataclasses.dataclass(frozen=True)
class Point:
    """One step of a method on so many devices."""

    network: str
    method: str
    devices: int
    agents: int
    ms: float
    collectives: dict[str, list[float]]  # of a step: how many, and the bytes they bring to a device


def measured(scale: str) -> tuple[list[Point], str]:
    """Return all points and what they were measured on; fewer than two devices are simulated."""
    command = [sys.executable, "-m", "experiments.benchmarks.scaling", scale]
    environment = dict(os.environ)
    if len(jax.devices()) < 2:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
        environment |= {"XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=environment
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return [Point(**point) for point in found["points"]], found["about"]


def table(points: list[Point]) -> pd.DataFrame:
    """Return the points as a table."""
    rows = [
        {
            "network": point.network,
            "method": point.method,
            "devices": str(point.devices),
            "agents": f"{point.agents:,}",
            "ms a step": f"{point.ms:.3f}",
            "KiB a step": f"{sum(size for _, size in point.collectives.values()) / 1024:.1f}",
            "collectives a step": ", ".join(
                f"{number:g} {kind}" for kind, (number, _) in point.collectives.items()
            )
            or "-",
        }
        for point in points
    ]
    return pd.DataFrame(rows)


def measure(scale: str) -> dict[str, Any]:
    """Measure all points on the devices of this process."""

    def grid(n: int) -> Any:
        return jd.networks.metropolis(jd.graphs.torus(n // 16, 16))

    def over(graph: Callable[[int], Any]) -> Callable[[int], Any]:
        return lambda n: jd.networks.metropolis(graph(n))

    def renumbered(n: int) -> Any:
        links = nx.to_scipy_sparse_array(jd.graphs.random_geometric(n), format="csr")
        order = reverse_cuthill_mckee(links, symmetric_mode=True)
        return jd.networks.metropolis(links[order][:, order])

    small_world = partial(jd.graphs.watts_strogatz, degree=4, probability=0.02)
    local = jd.FedAvg(0.01, local_steps=2)
    cases: list[tuple[str, Any, Callable[[int], Any]]] = [
        ("ring", jd.GradientTracking(0.01), over(jd.graphs.ring)),
        ("torus, 16 wide", jd.GradientTracking(0.01), grid),
        ("small world", jd.GradientTracking(0.01), over(small_world)),
        ("geometric", jd.DSGD(0.01), over(jd.graphs.random_geometric)),
        ("geometric, renumbered", jd.DSGD(0.01), renumbered),
        ("exponential", jd.DSGD(0.01), over(jd.graphs.exponential)),
        ("6-regular, random", jd.DSGD(0.01), over(partial(jd.graphs.regular, degree=6))),
        ("complete", jd.DSGD(0.01), jd.networks.Complete),
        ("server", local, jd.networks.Server),
        ("server, 1 of 4", local, lambda n: jd.networks.participation.uniform(n, n // 4)),
    ]
    points = [
        point(name, method, network, devices, AGENTS[scale])
        for name, method, network in cases
        for devices in DEVICES
        if devices <= len(jax.devices())
    ]
    kind, cores = jax.devices()[0].device_kind, os.cpu_count()
    simulated = jax.default_backend() == "cpu"
    where = f"{len(jax.devices())} {kind}"
    if simulated:
        where = f"devices simulated on {cores} cores, so that their times do not scale"
    about = f"d = {DIMENSION}, float32, jax {jax.__version__}; {where}"
    return {"points": [dataclasses.asdict(each) for each in points], "about": about}


def point(
    name: str, method: Any, network_of: Callable[[int], Any], devices: int, agents: int
) -> Point:
    """Measure a method with so many agents on every device."""
    n = devices * agents
    network = network_of(n)
    b = np.random.default_rng(0).standard_normal((n, DIMENSION)).astype(np.float32)
    mesh = jax.make_mesh((devices,), ("agents",), (AxisType.Auto,), devices=jax.devices()[:devices])
    b = jax.device_put(b, NamedSharding(mesh, PartitionSpec("agents")))
    if devices > 1:
        network = jd.networks.sharded(network, mesh)
    problem, x0, key = Distances(b), jnp.zeros_like(b), jax.random.key(0)

    def program(steps: int) -> Any:
        def run(problem: Any, network: Any, x0: jax.Array) -> Any:
            return jd.run(
                method, problem, network, x0, key, steps=steps, every=steps, defaults=()
            ).state.x

        return jax.jit(run).lower(problem, network, x0).compile()

    found = per_step(lambda steps: program(steps).as_text(), STEPS) if devices > 1 else {}
    compiled = program(10 * STEPS)
    (seconds,) = timed(lambda: compiled(problem, network, x0), repeats=3)
    counts = {kind: list(each) for kind, each in found.items()}
    return Point(name, type(method).__name__, devices, n, 1e3 * seconds / (10 * STEPS), counts)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
