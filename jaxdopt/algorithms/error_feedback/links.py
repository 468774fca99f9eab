"""What servers with compressed links share: messages up, and the public model that comes back.

    i ∈ Sₖ:  gᵢ = ∇fᵢ(w; ξᵢ) at the public w, and what the method sends, compressed
    x is the server's, and then   w ← w + C_s(x − w),   or w = x if the downlink is whole

What the downlink has not sent yet is x − w, so that w is its own memory. All clients hold the same
w, those who are absent, too. This is EF21-P's form; for C_s with C_s(−x) = −C_s(x) it is the server
of DoubleSqueeze, which keeps e = w − x.

Sources: Tang, Yu, Lian, Zhang, Liu (2019), arXiv 1905.05957 (DoubleSqueeze); Gruntkowska, Tyurin,
Richtárik (2022), arXiv 2209.15218 (EF21-P).
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdopt._checks import require
from jaxdopt._numbers import evaluate
from jaxdopt.algorithms.compressed.messages import message
from jaxdopt.algorithms.federated.clients import Clients, common, participants


def begin(method: Any, x0: jax.Array, memory: str = "compressor downlink") -> jax.Array:
    """Return the mean of x0's rows, [d], as the first model of the server and of all clients.

    Args:
        method: with ``compressor`` and ``downlink``.
        x0: [n, d].
        memory: the links that remember what they have not sent, which takes a contractive C.

    Raises:
        ValueError: a compressor of more coordinates than there are, or one of these links' that is
            not contractive.
    """
    for link in ("compressor", "downlink"):
        if (compressor := getattr(method, link)) is not None:
            require_fits(compressor, x0.shape[1])
            if link in memory:
                require_contractive(method, link, x0.shape[1])
    return common(x0)


def gradients(state: Any, problem: Any, network: Any, key: jax.Array) -> tuple[Clients, jax.Array]:
    """Return who takes part, and their gradients at the public model, [s, d]."""
    clients = participants(problem, network)
    return clients, clients.grad(clients.share(state.public), jax.random.fold_in(key, 0))


def mean_stepsize(method: Any, x: jax.Array) -> jax.Array:
    """Return the server's stepsize: the mean, if clients have own ones."""
    return jnp.mean(method.stepsize, dtype=x.dtype)


def publish(method: Any, key: jax.Array, server: jax.Array, public: jax.Array) -> jax.Array:
    """Return what all clients hold after a step, [d]: w + C_s(x − w), or x itself."""
    if method.downlink is None:
        return server
    return public + message(method.downlink, key, (server - public)[None], channel=1)[0]


def require_fits(compressor: Any, d: int) -> None:
    """Refuse a compressor that is to keep more coordinates than a vector has."""
    k = getattr(compressor, "k", None) or 0
    require(k <= d, f"k is {k} and vectors have {d} coordinates; give at most {d}.")


def require_contractive(method: Any, link: str, d: int) -> None:
    """Refuse a compressor without δ, whose errors a memory would let grow."""
    compressor = inner = getattr(method, link)
    while hasattr(inner, "compressor"):  # made of another one
        inner = inner.compressor
    require(
        hasattr(inner, "delta"),
        f"{type(method).__name__} needs a contractive {link} and a {type(inner).__name__} has no "
        "delta; give Contractive of an unbiased one, or one such as TopK(k) or ScaledSign().",
    )
    evaluate(compressor, 0).delta(d)  # or it says itself why it has none
