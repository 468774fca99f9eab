"""What networks with liars share: who lies, the attack on a receiver, and messages as rows."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import _repr
from jaxdopt._checks import require
from jaxdopt._leaves import is_traced, wide_dtype
from jaxdopt._pytree import pytree, replace, static
from jaxdopt._wrapper import rewrap, wrapped
from jaxdopt.aggregators import Aggregator
from jaxdopt.attacks import Attack
from jaxdopt.networks.sequences import own_key
from jaxdopt.networks.wrapper import Wrapper
from jaxdopt.roles import OF_ATTRIBUTE, Missing, lacks

# folded into the key before the round, and into the round's key before the receiver
ROUND, LIES, HEARS, RULE = 0xF0011E56, 0xF0011E55, 0xF00EA125, 0xF000A1E5
REFUSED = {"row", "column", "links", "matrix", "csr", "cut", "eigenvalues", "spectral_gap"}
REFUSED |= {"diagonal", "in_neighbors"}


@pytree
class Robust(Wrapper):
    """The base of networks with liars.

    Args:
        network: a graph's or a server's.
        rule: of `jaxdopt.aggregators`.
        attack: of `jaxdopt.attacks`, or None: liars tell the truth.
        liars: who lies, [n] bool, or before a round [T, n], which repeats.
        key: of the round's draws; set by ``at``.
        never: which agents never lie, as hexadecimal digits, by default as ``liars`` says; static.
    """

    network: Any
    rule: Aggregator
    attack: Attack | None
    liars: Any
    key: Any = None
    never: str = static(default="")
    kind = "robust"
    cuttable = symmetric = False

    def __post_init__(self) -> None:
        """Find out who never lies."""
        if not (self.never or is_traced(self.liars)):
            mask = np.atleast_2d(np.asarray(self.liars, bool))
            object.__setattr__(self, "never", np.packbits(~mask.any(axis=0)).tobytes().hex())

    @property
    def honest(self) -> np.ndarray:
        """Which agents never lie, [n] bool; the same in every round."""
        packed = np.frombuffer(bytes.fromhex(self.never), np.uint8)
        return np.unpackbits(packed, count=self.n).astype(bool)

    def _facts(self) -> dict[str, str]:
        facts = {"agents": str(self.n), "liars": f"{self.n - int(self.honest.sum())} of {self.n}"}
        facts |= _repr.fields(self, "liars", "never", "key")
        return {name: fact for name, fact in facts.items() if fact != "None"}

    def at(self, k: Any, key: jax.Array) -> Any:
        """Return round k's network, its ``liars`` [n] set."""
        now = self.liars if self.liars.ndim == 1 else self.liars[k % len(self.liars)]
        drawn = own_key(key, ROUND, k)
        return replace(rewrap(self, wrapped(self).at(k, key)), liars=now, key=drawn)

    def __getattr__(self, name: str) -> Any:
        if name in REFUSED:
            word = OF_ATTRIBUTE.get(name, "all")
            raise Missing(lacks(self, word, f"what asks for .{name}"))
        return super().__getattr__(name)

    def on(self, receiver: Any, messages: Callable[[], jax.Array]) -> Any:
        """Return the attack on one receiver in this round, of all agents' messages [n, d]."""
        at = getattr(self.attack, "at", None)
        return self.attack if at is None else at(wrapped(self).time, receiver, messages())

    def draws(self, constant: int, receiver: Any = 0) -> Any:
        """Return the key of one receiver's draws of a kind; None outside of a round."""
        return None if self.key is None else own_key(self.key, constant, receiver)


def as_messages(x: Any, n: int) -> tuple[jax.Array, Callable[[jax.Array], Any]]:
    """Return a tree's leaves [n, ...] as one message an agent, [n, d], and the way back."""
    leaves, structure = jax.tree.flatten(x)
    leaves = [jnp.asarray(leaf) for leaf in leaves]
    for leaf in leaves:
        require(
            leaf.shape[:1] == (n,),
            f"a leaf has shape {leaf.shape} and the network {n} agents; give [n, ...].",
        )
    wide = [leaf.astype(wide_dtype(leaf.dtype)).reshape(n, -1) for leaf in leaves]
    ends = np.cumsum([rows.shape[1] for rows in wide])[:-1]

    def restored(rows: jax.Array) -> Any:
        parts = jnp.split(rows, ends, axis=1)
        back = [
            part.reshape(len(rows), *leaf.shape[1:]).astype(
                leaf.dtype if jnp.issubdtype(leaf.dtype, jnp.floating) else part.dtype
            )
            for part, leaf in zip(parts, leaves, strict=True)
        ]
        return jax.tree.unflatten(structure, back)

    return jnp.concatenate(wide, axis=1), restored
