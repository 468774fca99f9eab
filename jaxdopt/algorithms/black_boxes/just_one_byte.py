"""Just One Byte: all machines keep the same model and exchange one scalar each in a step.

    zᵢ ~ N(0, I),   gᵢ = (fᵢ(x + ε zᵢ) − fᵢ(x − ε zᵢ)) / (2 ε),   ĝᵢ = gᵢ in a byte
    xₖ₊₁ = xₖ − (η/n) Σᵢ ĝᵢ zᵢ

zᵢ is drawn from the step's key and the agent's number, so that all can draw it again, one after the
other: nothing of size d is ever sent. The scalars ĝ of all steps are the log of a run, from which a
machine that joins `replay`s it bit for bit. On a graph the scalars of a step are flooded: all pass
on over all their links what they hear for the first time, n scalars over a link in as many rounds
as the diameter. The trajectory is the server's, and links that fail are not waited for. At a
server a machine sends one scalar and gets n. All take part in every step; who was away replays.

Source: Zelikman, Huang, Liang, Haber, Goodman (2023), arXiv 2306.10015.
Confidence: authors' code.
Departs: a byte has 8 steps to a factor of e and 255 symbols (16 steps and a sign are nine bits);
the authors' joiner downloads the weights.
Theorem in the tests: E gᵢ zᵢ → ∇fᵢ as ε → 0; on quadratics at x the variance of the step's
direction is (d + 1) Σᵢ |∇fᵢ|² / n²; in 32 bits it is distributed SPSA, gradient descent on
`jd.problems.ZerothOrder` with one direction.
"""

from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._checks import Called
from jaxdopt._leaves import cast_floats
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.federated.clients import Central, Shared, common
from jaxdopt.compressors import FLOAT, LogByte
from jaxdopt.costs import LINK_AXES, QUERY_AXES, Cost, samples, told_to_all
from jaxdopt.problems.zeroth_order import Radius, normal
from jaxdopt.schedules import at

Code = Annotated[Any, Called("Code", "jd.compressors.LogByte(), or None for 32 bits", "decode")]


@pytree
class State(Central):
    """The state of Just One Byte."""

    server: jax.Array  # [d] the model, the same at all machines
    scalars: jax.Array  # [n] what they have sent in the last step, as it is sent
    n: int = static()


@pytree
class JustOneByte:
    """xₖ₊₁ = xₖ − (η/n) Σᵢ ĝᵢ zᵢ,  ĝᵢ a byte for (fᵢ(x + ε zᵢ) − fᵢ(x − ε zᵢ)) / (2 ε).

    Args:
        stepsize: η ≥ 0, one for all.
        radius: ε > 0, how far from x the values are.
        code: of scalars, with ``encode``, ``decode`` and ``bits``; None sends them in 32 bits.
    """

    stepsize: Shared
    radius: Radius = 1e-3
    code: Code | None = LogByte()
    needs: ClassVar[set[str]] = {"all", "server or links", "values"}
    axes: ClassVar = {**LINK_AXES, **QUERY_AXES}

    def direction(self, key: jax.Array, i: Any, like: jax.Array) -> jax.Array:
        """Return zᵢ of the step with this key, an array like x [d]."""
        return normal(key, i, like.shape, like.dtype)

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        x = common(x0)
        return State(x, self._encoded(jnp.zeros(problem.n, x.dtype)), problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        x, n = state.server, state.n
        z = jax.vmap(lambda i: self.direction(key, i, x))(jnp.arange(n))
        away = jnp.asarray(self.radius, x.dtype) * z
        f = problem.value(jnp.stack([x[None] + away, x[None] - away], axis=1), key)
        scalars = self._encoded((f[:, 0] - f[:, 1]) / (2 * jnp.asarray(self.radius, x.dtype)))
        return State(self._moved(x, scalars, key), scalars, n)

    def replay(self, x0: jax.Array, scalars: jax.Array, key: jax.Array, start: Any = 0) -> Any:
        """Return the model [d] after the steps of a log, the same bit for bit as of those who ran.

        Args:
            x0: the model before them, [d].
            scalars: what was sent, [T, n], the ``state.scalars`` of step after step.
            key: the run's.
            start: the first step's number.
        """
        return _replayed(self, x0, scalars, key, start)

    def cost(self, state: State, problem: Any, network: Any) -> Cost:
        """Count two values, and a scalar that is told to all."""
        sent = told_to_all(network, FLOAT if self.code is None else self.code.bits(1))
        return Cost(2 * samples(problem), vectors=0, calls=1, **sent)

    def _encoded(self, g: jax.Array) -> jax.Array:
        return g if self.code is None else self.code.encode(g)

    def _moved(self, x: jax.Array, scalars: jax.Array, key: jax.Array) -> jax.Array:
        g = scalars if self.code is None else self.code.decode(scalars, x.dtype)

        def add(total: jax.Array, sent: Any) -> tuple[jax.Array, None]:
            i, g = sent
            return total + g * self.direction(key, i, x), None

        numbered = jnp.arange(len(scalars)), g
        total, _ = jax.lax.scan(add, jnp.zeros_like(x), numbered)
        return x - jnp.asarray(self.stepsize, x.dtype) / len(scalars) * total


@jax.jit
def _replayed(method: Any, x0: jax.Array, scalars: jax.Array, key: jax.Array, start: Any) -> Any:
    def one(x: jax.Array, logged: Any) -> tuple[jax.Array, None]:
        k, sent = logged
        now = cast_floats(at(method, k), x.dtype)
        return now._moved(x, sent, jax.random.fold_in(key, k)), None

    return jax.lax.scan(one, x0, (start + jnp.arange(len(scalars)), scalars))[0]
