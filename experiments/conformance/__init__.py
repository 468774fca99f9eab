"""Golden trajectories of every method, as JSON that a loop in any language can run itself against.

``python -m experiments conformance --out FOLDER`` writes a file a method, with all that the method
was given and all that it drew, and `checker.py`, which says what is in them and compares, in NumPy
alone. The repository holds them in `suite`; a test asks that they are what the
library computes today.

Methods that ask the problem for a gradient get that of all samples: noise would be the problem's
and not theirs. Those that draw samples, messages or coins themselves have them in tables. Runs of
events that change other agents' estimates are taken apart, into one estimate after every event.
"""

import dataclasses
import functools
import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxdopt as jd
from experiments.catalogue import roles
from jaxdopt import networks
from jaxdopt.algorithms.compressed import messages
from jaxdopt.algorithms.federated.sketched_sgd import sketch_key
from jaxdopt.networks.events import durations

FOLDER = Path(__file__).parent / "suite"
STEPS, EVENTS = 20, 40
N, D, L2, L1 = 5, 3, 0.05, 0.03
KEY = jax.random.key(0)
GIVEN: dict[str, Any] = {
    "stepsize": 0.2,
    "local_steps": 2,
    "server_stepsize": 0.9,
    "consensus_stepsize": 0.4,
    "dynamic": False,
    "server": None,
    "alpha": 0.5,
    "gradient_weight": 0.4,
    "growth": 0.05,
    "overlap": 2,
    "penalty": 0.5,
    "period": 7,
    "probability": 0.2,
    "prox_stepsize": 2.0,
    "proximal": 0.3,
    "relaxation": 0.5,
    "strong_convexity": 0.1,
    "compressor": jd.compressors.Dither(bits=4),
}
"""What methods are built with, by the names of their fields."""
OWN: dict[str, dict[str, Any]] = {
    "ADSGD": {"relaxation": 0.8},
    "BCPP": {"stepsize": 0.5},
    "CBO": {"drift": 0.8, "noise": 0.9, "alpha": 3.0},
    "ConsensusHopping": {"noise": 0.3, "alpha": 3.0},
    "BEER": {"compressor": jd.compressors.TopK(2)},
    "CHOCOSGD": {"compressor": jd.compressors.TopK(2)},
    "CompressedSGD": {"compressor": jd.compressors.TopK(2)},
    "DGC": {"compressor": jd.compressors.TopK(2)},
    "DecoupledDiLoCo": {"period": 4, "quorum": 3},
    "DeepSqueeze": {"compressor": jd.compressors.TopK(2)},
    "EControl": {"compressor": jd.compressors.TopK(2), "eta": 0.2},
    "EF14": {"compressor": jd.compressors.TopK(2)},
    "EF21": {"compressor": jd.compressors.TopK(2)},
    "EF21SGDM": {"compressor": jd.compressors.TopK(2)},
    "FOCUS": {"stepsize": 0.05},
    "FZooS": {
        **{"features": 6, "memory": 13, "active": 2, "candidates": 4, "initial": 3, "refit": 2},
        **{"lengthscale": 1.5, "radius": 0.4, "jitter": 0.1},
    },
    "FedZO": {"directions": 2, "radius": 0.1},
    "JustOneByte": {"radius": 0.1},
    "MASHA2": {"compressor": jd.compressors.TopK(2)},
    "STPP": {"stepsize": 0.05},
    "SketchedSGD": {"sketch": jd.compressors.RademacherSketch(2), "clip": 0.5},
    "StreamingDiLoCo": {"period": 4},
}
METHODS = {name: method for name, method in roles.METHODS.items() if name != "SybilWall"}
"""All whose draws a file can tell: SybilWall draws whom an agent tells of."""
COMPOSITE = ("FedDualAvg", "FedMid", "FedNMap", "PGEXTRA", "ZhangHuJohansson")


def built(name: str) -> Any:
    """Return a method with all its numbers."""
    fields = {field.name for field in dataclasses.fields(METHODS[name])}
    given = GIVEN | OWN.get(name, {})
    return METHODS[name](**{field: given[field] for field in fields & given.keys()})


@functools.cache
def problem(composite: bool = False) -> Any:
    """Return logistic regression on uneven data whose numbers are short."""
    random = np.random.default_rng(13)
    features = [np.round(random.standard_normal((4 + i % 3, D)) + i / 4, 2) for i in range(N)]
    labels = [np.where(f.sum(axis=1) + random.standard_normal(len(f)) > i, 1.0, -1.0)
              for i, f in enumerate(features)]  # fmt: skip
    smooth = jd.problems.logistic_regression(features, labels, l2=L2)
    return jd.problems.Composite(smooth, jd.problems.prox.L1(L1)) if composite else smooth


def start() -> np.ndarray:
    """Return the agents' starts [n, d]."""
    return np.round(np.random.default_rng(14).standard_normal((N, D)), 2)


def world(method: Any) -> tuple[Any, dict[str, Any]]:
    """Return a network that the method runs on, and all that a loop has to know of it."""
    needs, random = set(method.needs), np.random.default_rng(15)
    graph = jd.graphs.ring(N)
    graph.add_edge(0, 2)
    W = np.asarray(networks.metropolis(graph).matrix())
    links = np.eye(N) + np.roll(np.eye(N), 1, axis=0) + (random.random((N, N)) < 0.3)
    pull, push = ((links > 0) * random.integers(1, 9, (N, N)) for _ in range(2))
    row, column = pull / pull.sum(axis=1, keepdims=True), push / push.sum(axis=0)
    undirected = networks.mixing(W, form=networks.Dense)
    directed = networks.Directed(
        networks.mixing(row, kind="row", form=networks.Dense),
        networks.mixing(column, kind="column", form=networks.Dense),
    )
    work = random.integers(32, 128, (60, N)) / 32
    travel = random.integers(0, 128, (60, N, N)) / 32
    clock: dict[str, Any] = {"compute": _table(work)}
    if "returns" in needs:
        spoken: list[Any] = ["every", 1.5] if "ticks" in needs else ["buffer", 2]
        spoken = ["each"] if type(method) is jd.AsyncFedAvg else spoken
        rule: dict[str, Any] = {"rule": "each"} if spoken == ["each"] else dict([spoken])
        served = networks.arrivals(N, **rule, **clock, steps=STEPS)
        known = {"rule": spoken, "returns": _returns(served), "compute": work}
        return served, known | {"weights": 1 / N / np.asarray(served.frequency)}
    if "timeline" in needs:
        wires = directed if "timeline of push-pull" in needs else undirected
        lost = np.where(random.random(travel.shape) < 0.3, np.inf, travel)
        timed = networks.timeline(wires, **clock, delay=_table(lost), steps=EVENTS)
        known = {"row": row, "column": column} if wires is directed else {"W": W}
        return timed, known | {"compute": work, "delay": lost, "read": _read(timed)}
    if "pairs" in needs:
        met = networks.pairwise(undirected, **clock, delay=_table(travel), steps=EVENTS)
        return met, {"W": W, "compute": work, "delay": travel}
    if needs & {"server", "server or links"}:
        if "all" in needs or type(method) in (jd.FedMid, jd.FedDualAvg):
            return networks.Server(N), {}
        active = random.random((STEPS, N)) < np.linspace(0.3, 0.9, N)
        active[5] = False  # a round in which no client takes part
        return networks.participation.Trace(jnp.asarray(active), N), {"active": active.astype(int)}
    if "tree" in needs:
        down, up = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 2])
        tree = networks.Tree(down) if "both ways" in needs else networks.Tree(down, up)
        return tree, {"down": down, "up": down if "both ways" in needs else up}
    if needs & {"push", "push-pull"}:
        used = {"row": row, "column": column} if "push-pull" in needs else {"column": column}
        return directed, used
    return undirected, {"W": W}


def _table(seconds: np.ndarray) -> Any:
    return durations.Table(seconds)


def _returns(served: Any) -> list[list[list[int]]]:
    """Return who returns for every aggregation, with the version that it had fetched."""
    rows = zip(np.asarray(served.agents), np.asarray(served.staleness), strict=True)
    return [
        [[int(i), k - int(age)] for i, age in zip(who, ages, strict=True) if i < N]
        for k, (who, ages) in enumerate(rows)
    ]


def _read(timed: Any) -> np.ndarray:
    """Return the version that is read of every agent in every event, −1 of those not heard."""
    events, sender = timed.completions(), np.asarray(timed.sender)
    read = np.full((EVENTS, N), -1)
    for e, i in enumerate(events.agent[:EVENTS]):
        heard = events.read[e] >= 0
        read[e, sender[i][heard]] = events.read[e][heard]
        read[e, i] = events.version[e] - 1
    return read


def drawn(method: Any) -> dict[str, Any]:
    """Return what a method draws in every step, by name."""
    keys = jax.vmap(lambda k: jax.random.fold_in(KEY, k))(jnp.arange(STEPS))
    tables: dict[str, Any] = {}
    for name, function in inspect.getmembers(type(method), inspect.isfunction):
        asked = list(inspect.signature(function).parameters)
        if asked[:2] == ["self", "key"] and asked[2:] in ([], ["n"]):  # of all together, or each
            draw = functools.partial(function, method, **dict.fromkeys(asked[2:], N))
            tables[name] = np.asarray(jax.vmap(draw)(keys))
    if hasattr(method, "sketch"):
        sent = jax.vmap(lambda key: method.sketch.encode(sketch_key(key), jnp.eye(D)))(keys)
        tables["sketch"] = np.asarray(sent.swapaxes(1, 2))  # of unit vectors
    if "values" in method.needs:
        tables |= _drawn_for_values(method, keys)
    if isinstance(getattr(method, "compressor", None), jd.compressors.Dither):

        def uniform(key: Any, channel: int) -> jax.Array:
            ask: Any = lambda key, x: jax.random.uniform(key, x.shape, x.dtype)  # noqa: E731
            return messages.message(ask, key, jnp.zeros((N, D)), channel)

        channels = 2 if getattr(method, "vectors", 1) == 2 or type(method) is jd.BCPP else 1
        tables["uniform"] = np.stack(
            [jax.vmap(lambda key, c=c: uniform(key, c))(keys) for c in range(channels)], axis=1
        )
    if "finite sum" in method.needs and not hasattr(method, "sampling"):
        tables["samples"] = np.asarray(jax.vmap(lambda key: problem().draw(key, 1))(keys))
    return tables


def _drawn_for_values(method: Any, keys: Any) -> dict[str, Any]:
    """Return what a method draws that asks for values, given the keys of all steps."""
    rows, steps = jnp.zeros((N, D)), getattr(method, "local_steps", 0)
    local = jax.vmap(
        lambda key: jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(steps + 2))
    )
    if isinstance(method, jd.FedZO):
        estimated = method.estimated(problem())
        return {"direction": jax.vmap(jax.vmap(estimated.drawn))(local(keys)[:, :steps])}
    if isinstance(method, jd.JustOneByte):
        each = jax.vmap(method.direction, (None, 0, None))
        return {"direction": jax.vmap(lambda key: each(key, jnp.arange(N), rows[0]))(keys)}
    if isinstance(method, jd.FZooS):
        ask = functools.partial(method.offsets, count=method.candidates, like=rows)
        state = method.init(rows, problem(), networks.Server(N), KEY)
        return {
            "initial": method.offsets(local(keys)[0, steps + 1], method.initial, rows),
            "offsets": jax.vmap(jax.vmap(ask))(local(keys)[:, : steps + 1]),
            "frequencies": state.frequencies,
            "phases": state.phases,
        }
    return {"normal": jax.vmap(lambda key: method.normals(key, rows))(keys)}


def trajectory(method: Any, network: Any) -> dict[str, Any]:
    """Return the estimates after every step or event, and what is known of the latter."""
    steps = len(np.asarray(network.agents)) if hasattr(network, "agents") else STEPS
    recorded = {"x": lambda state, _: state.server if jd.agents.copied(state) else state.x}
    if hasattr(method, "sampling"):
        recorded |= {name: lambda s, _, n=name: getattr(s.passes, n) for name in ("order", "place")}
    whole = problem(type(method).__name__ in COMPOSITE)
    run = jd.run(method, whole, network, start(), KEY, steps=steps, metrics=recorded, defaults=())
    x = run.history["x"]
    if "order" in recorded:  # the place of a pass says which sample of its order is next
        order, place = run.history["order"][1:], run.history["place"][:-1]
        return {"samples": np.take_along_axis(order, place[..., None], axis=2), "x": x}
    if x.ndim == 2:
        return {"x": x[:, None]}
    if not hasattr(network, "agents"):
        return {"x": x}
    table = np.asarray(network.agents)
    run_of, place = np.nonzero(table < N)
    known, after = {"agent": table[run_of, place][:EVENTS]}, [x[0]]
    partner = np.asarray(getattr(network, "partners", table))[run_of, place][:EVENTS]
    known |= {"partner": partner} if hasattr(network, "partners") else {}
    for e, rows in enumerate(zip(known["agent"], partner, strict=True)):
        after.append(after[-1].copy())
        after[-1][list(rows)] = x[run_of[e] + 1, list(rows)]
    return known | {"x": np.array(after)}


def case(name: str) -> dict[str, Any]:
    """Return all that is in a method's file; its arrays as nested lists."""
    method, smooth = built(name), problem()
    network, known = world(method)
    values = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    compressor, _, code = (values.pop(name, None) for name in ("compressor", "sketch", "code"))
    entries: dict[str, Any] = {
        "method": name,
        "iteration": str(type(method).__doc__).partition("\n")[0],
        "arguments": {field: value for field, value in values.items() if value is not None},
    }
    if compressor is not None:
        size = {s: getattr(compressor, s) for s in ("levels", "k") if hasattr(compressor, s)}
        entries["compressor"] = {"name": type(compressor).__name__} | size
    if code is not None:
        entries["code"] = {"name": "LogByte", "steps": code.steps, "top": code.top}
    features, labels = (np.asarray(part) for part in smooth.data)
    counts = np.asarray(smooth.counts)
    entries |= {
        "features": [rows[:m] for rows, m in zip(features, counts, strict=True)],
        "labels": [rows[:m] for rows, m in zip(labels, counts, strict=True)],
        "l2": L2,
    }
    entries |= {"l1": L1} if name in COMPOSITE else {}
    entries |= known | drawn(method) | trajectory(method, network)
    return {key: _plain(value) for key, value in entries.items()}


def _plain(value: Any) -> Any:
    """Return nested lists of Python's numbers; null for what is infinite."""
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.ndarray | jax.Array | np.generic):
        rows = np.asarray(value).astype(object)
        rows[np.isinf(np.asarray(value))] = None
        return rows.tolist()
    return value


def text(entries: dict[str, Any]) -> str:
    """Return a case as JSON, an entry a line; every number is read back as the same float64."""
    lines = [f'"{key}": {json.dumps(value, ensure_ascii=False)}' for key, value in entries.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def write(out: Path) -> list[Path]:
    """Write all cases and the checker to a folder; return the paths."""
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in METHODS:
        paths.append(out / f"{name}.json")
        paths[-1].write_text(text(case(name)), encoding="utf-8")
    checker = out / "checker.py"
    if out.resolve() != FOLDER:
        shutil.copy(FOLDER / "checker.py", checker)
    return [*paths, checker]
