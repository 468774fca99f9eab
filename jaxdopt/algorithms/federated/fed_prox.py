"""FedProx: FedAvg whose local steps are pulled back to the server's model.

    i ∈ Sₖ:  yᵢ = xₖ,   K times  yᵢ ← yᵢ − η (gᵢ(yᵢ) + μ (yᵢ − xₖ))
    xₖ₊₁ = xₖ − η_g Σ_{i ∈ Sₖ} pᵢ (xₖ − yᵢ) / Σ_{i ∈ Sₖ} pᵢ

The paper solves min fᵢ(y) + (μ/2)|y − xₖ|² up to an accuracy; here it is K gradient steps. μ
reduces the clients' drift, and so the bias, at the price of progress; unequal participation biases
it as it does FedAvg. A round without participants changes nothing.

Source: Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith (2020), arXiv 1812.06127, algorithm 2.
Confidence: paper (its local solver by gradient steps).
Theorem in the tests: with μ = 0 it is `FedAvg`, and the bias falls with μ.
"""

from typing import Any, ClassVar

import jax

from jaxdopt._checks import Count
from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.federated.clients import Central, common, descend, participants


@pytree
class State(Central):
    """The state of FedProx."""

    server: jax.Array  # [d] the server's model
    n: int = static()


@pytree
class FedProx:
    """yᵢ ← yᵢ − η (gᵢ(yᵢ) + μ (yᵢ − xₖ)), K times;  xₖ₊₁ = xₖ − η_g mean_{Sₖ} (xₖ − yᵢ).

    Args:
        stepsize: η ≥ 0 of local steps, one for all clients or [n, 1].
        proximal: μ ≥ 0, the pull back to the server's model; 0 is `FedAvg`.
        server_stepsize: η_g ≥ 0, on the clients' mean update; 1 averages their models.
        local_steps: K ≥ 1, the gradient steps of a client in a round; static.
    """

    stepsize: Nonnegative
    proximal: Nonnegative = 0.1
    server_stepsize: Nonnegative = 1.0
    local_steps: Count = static(default=1)
    needs: ClassVar[set[str]] = {"server"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        return State(common(x0), problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round."""
        clients = participants(problem, network)
        start = clients.share(state.server)
        y, *_ = descend(
            clients,
            start,
            self.stepsize,
            self.local_steps,
            key,
            lambda y, g: g + self.proximal * (y - start),
        )
        return State(state.server - self.server_stepsize * clients.mean(start - y), state.n)
