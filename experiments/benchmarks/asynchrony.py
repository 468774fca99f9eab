"""P7: agents that never wait, as runs of completions, against a NumPy loop over events."""

import heapq
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxdopt as jd
from experiments.benchmarks.rows import Row, agree, first_call, on_gpu, timed
from jaxdopt.networks.events import draws, durations

STEPSIZE, L2 = 0.1, 1e-2
DIMENSION, SAMPLES, DEGREE = 32, 10, 4
COMPUTE, DELAY = durations.Exponential(1.0), durations.Exponential(0.5)


def data(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features [n, m, d] and labels ±1 [n, m] of a synthetic logistic regression."""
    random = np.random.default_rng(0)
    features = random.standard_normal((n, SAMPLES, DIMENSION)).astype(np.float32)
    return features, np.sign(features @ random.standard_normal(DIMENSION)).astype(np.float32)


def drawn(made: Any, network: Any, key: jax.Array) -> tuple[np.ndarray, dict]:
    """Return all times that the loop will need: [count, n], and {(receiver, sender): [count]}."""
    counts = int(np.max(made.completions().version)) + 1
    n = network.n
    k, me = (a.ravel() for a in np.indices((counts, n)))
    own = jax.random.fold_in(key, durations.COMPUTE), jax.random.fold_in(key, durations.DELAY)
    compute = draws.drawn(COMPUTE, own[0], k, me, me).reshape(counts, n)
    heard = network.csr().tocoo()
    away = heard.row != heard.col
    receiver, sender = heard.row[away], heard.col[away]
    k, link = (a.ravel() for a in np.indices((counts, len(receiver))))
    delay = draws.drawn(DELAY, own[1], k, receiver[link], sender[link]).reshape(counts, -1)
    pairs = zip(receiver.tolist(), sender.tolist(), strict=True)
    return compute, {pair: delay[:, i] for i, pair in enumerate(pairs)}


def event_by_event(
    features: np.ndarray, labels: np.ndarray, weights: Any, compute: Any, delay: Any, events: int
) -> np.ndarray:
    """Return the estimates after some events: a heap of completions and of messages on their way.

    The times are drawn beforehand, which is not counted.
    """
    n, m, _ = features.shape
    matrix = weights.tocsr()
    others = [matrix.indices[a:b] for a, b in zip(matrix.indptr, matrix.indptr[1:], strict=False)]
    others = [who[who != i].tolist() for i, who in enumerate(others)]
    mixing = [np.array([matrix[i, j] for j in who], np.float32) for i, who in enumerate(others)]
    place = [{j: s for s, j in enumerate(who)} for who in others]
    own = weights.diagonal().astype(np.float32)
    x = np.zeros((n, DIMENSION), np.float32)
    inbox = [np.zeros((len(who), DIMENSION), np.float32) for who in others]
    newest = [[0] * len(who) for who in others]
    step, l2, mean = np.float32(STEPSIZE), np.float32(L2), np.float32(1 / m)
    heap = [(compute[0, i], 1, i, 0, 0, None) for i in range(n)]
    heapq.heapify(heap)
    done = 0
    while done < events:
        time, kind, i, j, version, content = heapq.heappop(heap)
        if kind == 0:
            slot = place[i][j]
            if version > newest[i][slot]:
                newest[i][slot] = version
                inbox[i][slot] = content
            continue
        a, b = features[i], labels[i]
        g = (-b / (1 + np.exp(b * (a @ x[i])))) @ a * mean + l2 * x[i]
        new = own[i] * x[i] + mixing[i] @ inbox[i] - step * g
        x[i] = new
        done += 1
        for receiver in others[i]:
            arrival = time + delay[receiver, i][version]
            heapq.heappush(heap, (arrival, 0, receiver, i, version + 1, new))
        heapq.heappush(heap, (time + compute[version + 1, i], 1, i, 0, version + 1, None))
    return x


def asynchrony(n: int, seconds: float, repeats: int) -> list[Row]:
    """Return P7: completions of ADSGD a second, without and with the simulation of the timeline."""
    from jaxdopt.problems.linear import logistic_loss

    features, labels = data(n)
    zeros = jnp.zeros(DIMENSION, np.float32)
    problem = jd.problems.FiniteSum(logistic_loss, (features, labels), zeros, l2=L2)
    network = jd.networks.metropolis(jd.graphs.regular(n, DEGREE))
    method, x0, key = jd.ADSGD(STEPSIZE), problem.start(), jax.random.key(0)

    def simulated() -> Any:
        return jd.networks.timeline(network, compute=COMPUTE, delay=DELAY, seconds=seconds, key=key)

    made = simulated()
    events = len(made.completions().time)
    lasts = drawn(made, network, key)

    def ours() -> Any:
        steps = made.horizon
        return jd.run(method, problem, made, x0, key, steps=steps, every=steps).state.x

    def loop() -> Any:
        return event_by_event(features, labels, network.csr(), *lasts, events)

    result, compiling = first_call(ours)
    agree(result, loop())
    mine, host = timed(ours, lambda: simulated().end, repeats=repeats)
    (theirs,) = timed(loop, repeats=min(repeats, 3))
    what = f"ADSGD, {n} agents, {events:,} completions: time of a NumPy loop over events over "
    return [
        Row(
            name,
            f"{what}{whose}; per completion",
            ours_s * 1e3 / events,
            theirs * 1e3 / events,
            theirs / ours_s,
            bar,
            met,
            compiling,
        )
        for name, whose, ours_s, bar, met in (
            ("P7", "jd.run's", mine, ">= 20", theirs / mine >= 20),
            (
                "P7b",
                "jd.run's and the simulation's",
                mine + host,
                ">= 30" if on_gpu() else "-",
                theirs / (mine + host) >= 30,
            ),
        )
    ]
