"""Sketched SGD: FedAvg whose updates travel as linear sketches, up and down.

    i ∈ Sₖ:  uᵢ = xₖ,   K times  uᵢ ← uᵢ − η (clip(gᵢ(uᵢ)) + ξᵢ);      yᵢ = Rₖ (uᵢ − xₖ)
    xₖ₊₁ = xₖ + η_g Rₖᵀ y,   y = Σ_{i ∈ Sₖ} pᵢ yᵢ / Σ_{i ∈ Sₖ} pᵢ

All know the round's matrix Rₖ [s, d], E Rₖᵀ Rₖ = I, from a shared seed. s numbers go up, and as
sketches add up, the s of their mean y come back. A round without participants changes nothing. For
private models gradients are clipped to a length ℓ, and noise ξ ~ N(0, σ² I) is added to each; a
step is (ε, δ)-private for σ² = O(ℓ² log(1/δ) / ε²). Without noise messages are no secret: who
knows Rₖ can look for the sample that explains one.

Source: Song, Wang, Yu, Zhang (2022), arXiv 2210.08371.
Confidence: from memory (the abstract is at hand), derived (the constants of the sketches).
Theorem in the tests: with SRHT of full size it is `FedAvg`. With K = 1 and full gradients it
reaches the solution for any sketch: errors of messages vanish with the gradient. With variance
ω of the sketch the stepsize η is at most about 1 / ((1 + ω) L K).
"""

from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._checks import Called, Count
from jaxdopt._numbers import Nonnegative, Positive
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.compressed.messages import CHANNEL
from jaxdopt.algorithms.federated.clients import Central, clipped, common, participants
from jaxdopt.costs import LINK_AXES

NOISE = 0x5E7C4  # folded into the key of a local step, whose gradient uses the key itself
Sketch = Annotated[
    Any, Called("Sketch", "one of jd.compressors, such as CountSketch(size=64)", "decode")
]
"""A linear sketch, with ``encode`` and ``decode``."""


@pytree
class State(Central):
    """The state of Sketched SGD."""

    server: jax.Array  # [d] the server's model
    n: int = static()


@pytree
class SketchedSGD:
    """xₖ₊₁ = xₖ + η_g Rₖᵀ mean_{Sₖ} Rₖ (uᵢ − xₖ),  uᵢ after K local steps of clipped, noisy gᵢ.

    Args:
        stepsize: η ≥ 0 of local steps, one for all clients or [n, 1].
        sketch: of `jd.compressors`, such as ``SRHT(64)``; its R is that of the step's key.
        server_stepsize: η_g ≥ 0, on the decoded mean.
        local_steps: K ≥ 1, the gradient steps of a client in a round; static.
        clip: ℓ > 0, the greatest length of a local gradient; by default none.
        noise: σ ≥ 0, the standard deviation of each coordinate of a local gradient's noise.
    """

    stepsize: Nonnegative
    sketch: Sketch
    server_stepsize: Nonnegative = 1.0
    local_steps: Count = static(default=1)
    clip: Positive | None = None
    noise: Nonnegative = 0.0
    needs: ClassVar[set[str]] = {"server"}
    axes: ClassVar = LINK_AXES

    @property
    def compressor(self) -> Any:
        """The sketch, both ways."""
        return self.sketch

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        return State(common(x0), problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round."""
        clients, x = participants(problem, network), state.server
        stepsize, clip, noise = clients.own((self.stepsize, self.clip, self.noise))
        index = jnp.arange(state.n) if clients.index is None else clients.index
        start, seed = clients.share(x), sketch_key(key)

        def local(u: jax.Array, step: jax.Array) -> tuple[jax.Array, None]:
            local_key = jax.random.fold_in(key, step)
            g = clipped(clients.grad(u, local_key), clip)
            return u - stepsize * (g + noise * self.noises(local_key, index, u)), None

        u, _ = jax.lax.scan(local, start, jnp.arange(self.local_steps))
        y = clients.mean(self.sketch.encode(seed, u - start))
        move = self.sketch.decode(seed, y[None], len(x))[0]
        return State(x + self.server_stepsize * move, state.n)

    def noises(self, key: jax.Array, agents: jax.Array, like: jax.Array) -> jax.Array:
        """Return N(0, I) for agents [s] in a local step of this key, [s, d] like ``like``."""
        own = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, NOISE), agents)
        return jax.vmap(lambda key: jax.random.normal(key, like.shape[1:], like.dtype))(own)


def sketch_key(key: jax.Array) -> jax.Array:
    """Return the key of a step's matrix, from the step's own."""
    return jax.random.fold_in(key, CHANNEL)
