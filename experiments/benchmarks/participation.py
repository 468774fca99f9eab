"""P10: work follows those who take part, whether 10 of 100 or 10 of 1000.

Both have the same data, a hundred megabytes: what is gathered comes from memory as slow.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxdopt as jd
from experiments.benchmarks.rows import Row, agree, first_call, timed
from jaxdopt.problems.linear import logistic_loss

ACTIVE, BATCH, SAMPLES, DIMENSION, LOCAL_STEPS = 10, 10, 32_000, 784, 5
STEPSIZE, L2 = 0.01, 1e-2


@jd.pytree
class Unmeasured:
    """A problem without an objective: metrics would look at all clients' data."""

    problem: Any

    @property
    def n(self) -> int:
        """The number of clients."""
        return self.problem.n

    @property
    def d(self) -> int:
        """The number of parameters."""
        return self.problem.d

    def grad(self, x: jax.Array, key: jax.Array) -> jax.Array:
        """Return every client's gradient at its own row."""
        return self.problem.grad(x, key)

    def take(self, agents: jax.Array) -> "Unmeasured":
        """Return the problem of some clients."""
        return Unmeasured(self.problem.take(agents))


def problem_of(n: int) -> Unmeasured:
    """Return logistic regression over n clients, in batches."""
    random = np.random.default_rng(0)
    features = random.standard_normal((n, SAMPLES // n, DIMENSION), dtype=np.float32)
    labels = np.sign(features[:, :, 0]).astype(np.float32)
    whole = jd.problems.FiniteSum(
        logistic_loss, (features, labels), jnp.zeros(DIMENSION, jnp.float32), l2=L2
    )
    return Unmeasured(jd.problems.Minibatch(whole, BATCH))


def hand_written(steps: int) -> Callable[..., Any]:
    """Return what an expert would write for 1000: draw, gather, five steps, the mean.

    Who takes part is the library's draw, so that the results can be compared.
    """

    def gradient(x: Any, a: Any, b: Any) -> Any:
        slopes = -b * jax.nn.sigmoid(-b * (a @ x))
        return slopes @ a / len(b) + L2 * x

    @jax.jit
    def program(x: Any, a: Any, b: Any, step: Any, pattern: Any, key: Any) -> Any:
        def one(x: Any, k: Any) -> tuple[Any, None]:
            who = pattern.at(k, key).clients
            round_key = jax.random.fold_in(key, k)

            def local(y: Any, step_number: Any) -> tuple[Any, None]:
                bits = jax.random.bits(
                    jax.random.fold_in(round_key, step_number), (ACTIVE, BATCH), jnp.uint32
                )
                samples = bits >> 27  # of 32
                g = jax.vmap(gradient)(y, a[who[:, None], samples], b[who[:, None], samples])
                return y - step * g, None

            y, _ = jax.lax.scan(
                local, jnp.broadcast_to(x, (ACTIVE, DIMENSION)), jnp.arange(LOCAL_STEPS)
            )
            return y.mean(axis=0), None

        return jax.lax.scan(one, x, jnp.arange(steps))[0]

    return program


def participation(steps: int, repeats: int) -> list[Row]:
    """Return P10 for FedAvg: its overhead, and that sleeping clients cost nothing."""
    calls, hands, first = {}, {}, {}
    method, key = jd.FedAvg(STEPSIZE, local_steps=LOCAL_STEPS), jax.random.key(0)
    for n in (100, 1000):
        problem, pattern = problem_of(n), jd.networks.participation.uniform(n, ACTIVE)
        whole = problem.problem.problem
        program, (a, b), x0 = hand_written(steps), whole.data, whole.start()

        def ours(problem: Any = problem, pattern: Any = pattern, x0: Any = x0) -> Any:
            return jd.run(method, problem, pattern, x0, key, steps=steps, every=steps).state.server

        def theirs(
            program: Any = program, pattern: Any = pattern, a: Any = a, b: Any = b, x0: Any = x0
        ) -> Any:
            return program(x0[0], a, b, jnp.float32(STEPSIZE), pattern, key)

        result, first[n] = first_call(ours)
        if n == 1000:
            agree(result, theirs())
        calls[n], hands[n] = ours, theirs
    few, many, hand = timed(calls[100], calls[1000], hands[1000], repeats=repeats)
    per_step = 1e3 / steps
    return [
        Row(
            "P10",
            f"FedAvg, {ACTIVE} of 1000 clients: time of jd.run over a hand-written gather's",
            many * per_step,
            hand * per_step,
            many / hand,
            "<= 1.20",
            many / hand <= 1.2,
            first[1000],
        ),
        Row(
            "P10",
            f"FedAvg: time of {ACTIVE} of 1000 clients over that of {ACTIVE} of 100",
            many * per_step,
            few * per_step,
            many / few,
            "<= 1.30",
            many / few <= 1.3,
            first[100],
        ),
    ]
