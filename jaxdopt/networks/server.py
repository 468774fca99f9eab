"""A server and its clients."""

from typing import Any, NoReturn

import jax

from jaxdopt._checks import count
from jaxdopt._pytree import pytree, replace, static
from jaxdopt.networks.operators.base import Operator
from jaxdopt.roles import Missing, Network, lacks


@pytree
class Server(Network):
    """A server and n clients, each with an uplink and a downlink.

    Clients do not hear each other: there is no ``@``, and the server's average is `mean`. In a
    round where only some clients take part, ``active`` [n] says which. Where they are few,
    ``clients`` [s] has their indices, so that only their work is done; it is padded to length s
    with distinct indices n and above.

    Args:
        n: the number of clients; static.
        k: the round's number; set by ``at``.
        active: which clients take part, [n] bool; by default all.
        clients: their numbers, [s] int, padded.

    Raises:
        ValueError: n is not a positive integer.
    """

    n: int = static()
    k: Any = None
    active: Any = None
    clients: Any = None
    symmetric = True
    kind = "server"
    cuttable = varies = False
    repetitions = 1

    def __post_init__(self) -> None:
        """Check the number of clients."""
        count("n", self.n)

    @property
    def offers(self) -> frozenset[str]:  # type: ignore[override]
        """What every round can do; see `jaxdopt.roles`."""
        every = self.active is None and self.clients is None
        return frozenset({"server", "sum", "all"} if every else {"server", "sum"})

    def __matmul__(self, x: Any) -> NoReturn:
        raise Missing(lacks(self, "mixing", "network @ x"))

    mean = Operator.mean
    awake = Operator.awake
    time = Operator.time

    def at(self, k: Any, key: jax.Array) -> Any:
        """Return round k's network: this one, with the time set."""
        return replace(self, k=k)

    @property
    def link_count(self) -> int:
        """The number of directed links: 2 n, all with the server."""
        return 2 * self.n
