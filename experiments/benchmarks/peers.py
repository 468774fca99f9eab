"""Other libraries, where they are installed, on what they and we can do."""

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np

import jaxdopt as jd
from experiments.benchmarks import speed
from experiments.benchmarks.rows import Row, absent, agree, first_call, timed

LOCAL_STEPS = 5


def against(
    what: str,
    package: str,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    steps: int,
    repeats: int,
) -> list[Row]:
    """Return the row of a peer, after both results were compared."""
    result, compiling = first_call(ours)
    agree(result, theirs())
    mine, other = timed(ours, theirs, repeats=repeats)
    per, version = 1e3 / steps, importlib.metadata.version(package)
    what = f"{what} over jd.run's ({package} {version})"
    return [Row("peer", what, mine * per, other * per, other / mine, "-", True, compiling)]


def dgd(n: int, steps: int, dtype: Any) -> Callable[[], Any]:
    """Return our side of decentralized gradient descent on a ring."""
    problem = speed.problem_of(n, dtype)
    network = jd.networks.metropolis(jd.graphs.ring(n))
    settings = jd.DGD(speed.STEPSIZE), problem, network, problem.start(), jax.random.key(0)
    return lambda: jd.run(*settings, steps=steps, every=steps).state.x


def fedavg(n: int, rounds: int) -> Callable[[], Any]:
    """Return our side of federated averaging with all clients."""
    problem, network = speed.problem_of(n, np.float32), jd.networks.participation.full(n)
    method = jd.FedAvg(speed.STEPSIZE, local_steps=LOCAL_STEPS)
    settings = method, problem, network, problem.start(), jax.random.key(0)
    return lambda: jd.run(*settings, steps=rounds, every=rounds).state.server


def optax_loop(n: int, steps: int, repeats: int) -> list[Row]:
    """Return DGD on a ring as a scan with optax's descent and its gradients by JAX."""
    optax = importlib.import_module("optax")
    dtype = np.float32
    problem, optimizer = speed.problem_of(n, dtype), optax.sgd(speed.STEPSIZE)
    features, labels = (jnp.asarray(part) for part in speed.data(n, dtype))

    def loss(x: Any, a: Any, b: Any) -> Any:
        return jax.nn.softplus(-b * (a @ x)).mean() + speed.L2 / 2 * x @ x

    @jax.jit
    def loop(x: Any, a: Any, b: Any) -> Any:
        def one(carry: Any, _: None) -> tuple[Any, None]:
            x, state = carry
            slopes = jax.vmap(jax.grad(loss))(x, a, b)
            updates, state = optimizer.update(slopes, state)
            mixed = (x + jnp.roll(x, 1, axis=0) + jnp.roll(x, -1, axis=0)) / 3
            return (optax.apply_updates(mixed, updates), state), None

        return jax.lax.scan(one, (x, optimizer.init(x)), None, length=steps)[0][0]

    def theirs() -> Any:
        return loop(problem.start(), features, labels)

    what = f"DGD, n = {n}, float32: time of a scan with optax.sgd"
    return against(what, "optax", dgd(n, steps, dtype), theirs, steps, repeats)


def tvopt_solver(n: int, steps: int, repeats: int) -> list[Row]:
    """Return DGD on a ring by tvopt's solver, with a cost whose gradient is one for all agents."""
    tvopt = {
        part: importlib.import_module(f"tvopt.{part}") for part in ("costs", "networks", "sets")
    }
    solvers = importlib.import_module("tvopt.distributed_solvers")
    features, labels = speed.data(n, np.float32)
    a, b = features.astype(float), labels.astype(float)

    class Logistic(tvopt["costs"].Cost):
        """All agents' logistic losses; x is [d, n]."""

        def gradient(self, x: np.ndarray) -> np.ndarray:
            margins = b * np.matmul(a, x.T[:, :, None])[:, :, 0]
            weights = -b / (1 + np.exp(margins)) / b.shape[1]
            return np.matmul(weights[:, None, :], a)[:, 0].T + speed.L2 * x

    weights = jd.networks.metropolis(jd.graphs.ring(n)).csr().toarray()
    network = tvopt["networks"].Network(weights - np.diag(np.diag(weights)) > 0, weights=weights)
    cost = Logistic(tvopt["sets"].R(speed.DIMENSION, n))
    problem = {"f": cost, "network": network}

    def theirs() -> Any:
        return solvers.dpgm(problem, speed.STEPSIZE, num_iter=steps).T

    what = f"DGD, n = {n}, our float32 and its float64: time of tvopt's solver"
    return against(what, "tvopt", dgd(n, steps, np.float32), theirs, steps, repeats)


def drjax_rounds(n: int, rounds: int, repeats: int) -> list[Row]:
    """Return FedAvg's rounds of all clients by DrJAX's broadcast, map and mean."""
    drjax = importlib.import_module("drjax")
    problem = speed.problem_of(n, np.float32)
    features, labels = (jnp.asarray(part) for part in speed.data(n, np.float32))

    def local(x: Any, a: Any, b: Any) -> Any:

        def descend(y: Any, _: None) -> tuple[Any, None]:
            slopes = -b * jax.nn.sigmoid(-b * (a @ y))
            return y - speed.STEPSIZE * (slopes @ a / len(b) + speed.L2 * y), None

        return jax.lax.scan(descend, x, None, length=LOCAL_STEPS)[0]

    @drjax.program(clients=n)
    def one(x: Any, a: Any, b: Any) -> Any:
        return drjax.reduce_mean(drjax.map_fn(local, (drjax.broadcast(x), a, b)))

    @jax.jit
    def loop(x: Any, a: Any, b: Any) -> Any:
        return jax.lax.scan(lambda x, _: (one(x, a, b), None), x, None, length=rounds)[0]

    def theirs() -> Any:
        return loop(problem.start()[0], features, labels)

    what = f"FedAvg, {n} clients, {LOCAL_STEPS} local steps, float32: time of DrJAX's rounds"
    return against(what, "drjax", fedavg(n, rounds), theirs, rounds, repeats)


def fedjax_rounds(n: int, rounds: int, repeats: int) -> list[Row]:
    """Return FedAvg's rounds of all clients by fedjax, whose batches are all of a client's data.

    Its last version, of 2023, calls `jax.tree_map`, which newer versions of JAX no longer have; it
    gets it back here.
    """
    fedjax, algorithm = map(importlib.import_module, ("fedjax", "fedjax.algorithms.fed_avg"))
    problem = speed.problem_of(n, np.float32)
    features, labels = speed.data(n, np.float32)

    def slopes(x: Any, batch: Any, _: Any) -> Any:
        a, b = batch["a"], batch["b"]
        return -(b * jax.nn.sigmoid(-b * (a @ x))) @ a / len(b) + speed.L2 * x

    size = labels.shape[1]
    lengths = {"num_epochs": None, "num_steps": LOCAL_STEPS}
    batches = fedjax.ShuffleRepeatBatchHParams(batch_size=size, seed=0, **lengths)
    sgd = fedjax.optimizers.sgd
    theirs_of = algorithm.federated_averaging(slopes, sgd(speed.STEPSIZE), sgd(1.0), batches)
    keys = jax.random.split(jax.random.key(0), n)
    clients = [
        (i, fedjax.ClientDataset({"a": features[i], "b": labels[i]}), keys[i]) for i in range(n)
    ]

    def theirs() -> Any:
        with mock.patch.object(jax, "tree_map", jax.tree.map, create=True):
            state = theirs_of.init(problem.start()[0])
            for _ in range(rounds):
                state, _ = theirs_of.apply(state, clients)
        return state.params

    what = f"FedAvg, {n} clients, {LOCAL_STEPS} local steps, float32: time of fedjax's rounds"
    return against(what, "fedjax", fedavg(n, rounds), theirs, rounds, repeats)


def decent_bench_steps(n: int, steps: int, repeats: int) -> list[Row]:
    """Return DGD on a ring by decent-bench's method, each agent's gradient by NumPy."""
    interface = importlib.import_module("decent_array").interoperability
    agents, costs, networks, methods = (
        importlib.import_module(f"decent_bench.{part}")
        for part in ("agents", "costs", "networks", "algorithms.p2p")
    )
    interface.set_backend("numpy")
    features, labels = (part.astype(float) for part in speed.data(n, np.float32))
    weights = jd.networks.metropolis(jd.graphs.ring(n)).csr().toarray()

    class Logistic(costs.Cost):
        """An agent's logistic loss."""

        shape = (speed.DIMENSION,)

        def __init__(self, a: np.ndarray, b: np.ndarray) -> None:
            self.a, self.b = a, b

        def gradient(self, x: Any, **_: Any) -> Any:
            x = interface.to_numpy(x)
            weights = -self.b / (1 + np.exp(self.b * (self.a @ x))) / len(self.b)
            return interface.from_numpy(weights @ self.a + speed.L2 * x)

        def _unasked(self, *_: Any, **__: Any) -> Any:
            raise NotImplementedError

        function = hessian = proximal = m_smooth = m_cvx = _unasked
        __add__ = _unasked

    def theirs() -> Any:
        members = [agents.Agent(Logistic(a, b)) for a, b in zip(features, labels, strict=True)]
        network = networks.P2PNetwork(
            nx.from_numpy_array(weights - np.diag(np.diag(weights))), members
        )
        network.weights = interface.from_numpy(weights)
        x0 = {member: interface.from_numpy(np.zeros(speed.DIMENSION)) for member in members}
        method = methods.DGD(step_size=speed.STEPSIZE, x0=x0)
        method.initialize(network)
        for k in range(steps):
            network._step(k)
            method.step(network, k)
        return np.array([interface.to_numpy(member.x) for member in members])

    what = f"DGD, n = {n}, our float32 and its float64: time of decent-bench's steps"
    return against(what, "decent-bench", dgd(n, steps, np.float32), theirs, steps, repeats)


def byzfl_rounds(n: int, rounds: int, repeats: int) -> list[Row]:
    """Return a server's robust gradient steps by ByzFL's rule and attack, gradients by NumPy."""
    byzfl, f = importlib.import_module("byzfl"), 3
    rule = jd.aggregators.chain(jd.aggregators.NNM(f), jd.aggregators.TrimmedMean(f))
    server = jd.networks.participation.full(n)
    network = jd.networks.robust(server, rule=rule, attack=jd.attacks.SignFlip(), liars=f)
    problem = speed.problem_of(n, np.float32)
    settings = jd.FedAvg(speed.STEPSIZE), problem, network, problem.start(), jax.random.key(0)

    def ours() -> Any:
        return jd.run(*settings, steps=rounds, every=rounds).state.server

    a, b = (part[: n - f].astype(float) for part in speed.data(n, np.float32))
    lie, mix, trim = byzfl.SignFlipping(), byzfl.NNM(f), byzfl.TrMean(f)

    def theirs() -> Any:
        x = np.zeros(speed.DIMENSION)
        for _ in range(rounds):
            weights = -b / (1 + np.exp(b * (a @ x))) / b.shape[1]
            honest = np.matmul(weights[:, None], a)[:, 0] + speed.L2 * x
            sent = np.concatenate([honest, np.tile(lie(honest), (f, 1))])
            x = x - speed.STEPSIZE * trim(mix(sent))
        return x

    what = (
        f"robust server, {n} clients, {f} lie, float32 and float64: time of ByzFL's rule in NumPy"
    )
    return against(what, "byzfl", ours, theirs, rounds, repeats)


PEERS = {
    "optax": optax_loop,
    "tvopt": tvopt_solver,
    "decent_bench": decent_bench_steps,
    "drjax": drjax_rounds,
    "fedjax": fedjax_rounds,
    "byzfl": byzfl_rounds,
}


def peers(n: int, steps: int, repeats: int) -> list[Row]:
    """Return the rows of all peers; what is not installed is skipped with a word."""
    rows = []
    for package, row in PEERS.items():
        if importlib.util.find_spec(package) is None:
            rows.append(absent("peer", f"{package}'s time over jd.run's", "-", "not installed"))
        else:
            rows += row(n, steps, repeats)
    return rows
