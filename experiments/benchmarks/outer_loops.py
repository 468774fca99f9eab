"""P17: rounds of DiLoCo beside the loop that one would write without the library.

``python -m experiments.benchmarks.outer_loops`` measures it alone.
"""

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxdopt as jd
from experiments.benchmarks.rows import Row, absent, agree, first_call, table, timed
from experiments.tables import text

AGENTS, LOCAL_STEPS, STEPSIZE, SERVER_STEPSIZE, MOMENTUM = 8, 20, 1e-3, 0.7, 0.9
EPSILON = 1e-6  # of Adam: a key's bias has no slope, and no step may be made of rounding errors
MOST = 1.2
Loss = Callable[[Any, Any], Any]


def network() -> tuple[Any, Loss]:
    """Return a network of 79,510 weights on batches of 32 images, and its loss by hand."""
    random = np.random.default_rng(0)
    images = random.standard_normal((AGENTS, 256, 784), dtype=np.float32)
    labels = random.integers(0, 10, (AGENTS, 256))
    problem = jd.problems.mlp(images, labels, hidden=(100,))

    def loss(params: Any, batch: Any) -> Any:
        optax = importlib.import_module("optax")
        features, labels = batch
        first, last = params
        inner = jnp.tanh(features @ first["W"] + first["b"])
        scores = inner @ last["W"] + last["b"]
        return optax.losses.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

    return jd.problems.Minibatch(problem, 32), loss


def transformer() -> tuple[Any, Loss]:
    """Return a transformer of width 32 on batches of 4 windows of 32 tokens, and its loss."""
    windows = np.concatenate(jd.data.markov_text(characters=4000).windows(32))
    model = jd.problems.neural.Transformer(16, length=32, width=32)
    problem = jd.problems.next_token(model, windows[: len(windows) // 8 * 8], agents=AGENTS)

    def loss(params: Any, batch: Any) -> Any:
        optax = importlib.import_module("optax")
        scores = model.apply({"params": params}, batch[:, :-1])
        return optax.losses.softmax_cross_entropy_with_integer_labels(scores, batch[:, 1:]).mean()

    return jd.problems.Minibatch(problem, 4), loss


def hand_written(problem: Any, loss: Loss, rounds: int) -> Callable[..., Any]:
    """Return DiLoCo as a scan of vmapped scans, on the pytree of parameters.

    The samples are those that the library draws, so that the results can be compared.
    """
    optax = importlib.import_module("optax")
    inner = optax.adam(STEPSIZE, eps=EPSILON)
    outer = optax.sgd(SERVER_STEPSIZE, momentum=MOMENTUM, nesterov=True)

    def local(params: Any, memory: Any, data: Any, indices: Any) -> tuple[Any, Any]:
        def one(carry: Any, chosen: Any) -> tuple[Any, None]:
            params, memory = carry
            g = jax.grad(loss)(params, jax.tree.map(lambda leaf: leaf[chosen], data))
            updates, memory = inner.update(g, memory, params)
            return (optax.apply_updates(params, updates), memory), None

        return jax.lax.scan(one, (params, memory), indices)[0]

    @jax.jit
    def program(params: Any, data: Any, key: Any) -> Any:
        def one(carry: Any, k: Any) -> tuple[Any, None]:
            params, momentum, memory = carry
            keys = jax.vmap(jax.random.fold_in, (None, 0))(
                jax.random.fold_in(key, k), jnp.arange(LOCAL_STEPS)
            )
            indices = jax.vmap(problem.indices, out_axes=1)(keys)
            workers, memory = jax.vmap(local, (None, 0, 0, 0))(params, memory, data, indices)
            change = jax.tree.map(lambda slow, fast: slow - fast.mean(axis=0), params, workers)
            updates, momentum = outer.update(change, momentum, params)
            return (optax.apply_updates(params, updates), momentum, memory), None

        memory = jax.vmap(lambda _: inner.init(params))(jnp.arange(AGENTS))
        start = params, outer.init(params), memory
        return jax.lax.scan(one, start, jnp.arange(rounds))[0][0]

    return program


def rounds(number: int, repeats: int) -> list[Row]:
    """Return P17: so many rounds of 8 workers, each of 20 steps of Adam, of two models."""
    bar = f"<= {MOST:.2f}"
    try:
        optax, _ = (importlib.import_module(name) for name in ("optax", "flax"))
    except ImportError:
        return [absent("P17", "rounds of DiLoCo", bar, "not installed")]
    adam = optax.scale_by_adam(eps=EPSILON)
    method = jd.DiLoCo(STEPSIZE, SERVER_STEPSIZE, local_steps=LOCAL_STEPS, local=adam)
    clients, key, found = jd.networks.Server(AGENTS), jax.random.key(0), []
    for name, make in (("a network", network), ("a transformer", transformer)):
        problem, loss = make()
        x0, program = problem.start(), hand_written(problem, loss, number)
        params = problem.unravel(x0[0])

        def ours(problem: Any = problem, x0: Any = x0) -> Any:
            settings = {"steps": number, "every": number, "defaults": ()}
            return jd.run(method, problem, clients, x0, key, **settings).state.server

        def theirs(problem: Any = problem, program: Any = program, params: Any = params) -> Any:
            return program(params, problem.data, key)

        result, compiling = first_call(ours)
        agree(result, problem.ravel(theirs()))
        mine, hand = timed(ours, theirs, repeats=repeats)
        what = f"DiLoCo of {name}, d = {problem.d:,}: time of jd.run over a hand-written loop's"
        per, ratio = 1e3 / number, mine / hand
        found.append(Row("P17", what, mine * per, hand * per, ratio, bar, ratio <= MOST, compiling))
    return found


if __name__ == "__main__":
    print(text(table(rounds(5, repeats=10))))
