"""A server and its clients."""

from typing import Any, NoReturn

import jax

from jaxdopt._checks import count
from jaxdopt._pytree import pytree, replace, static
from jaxdopt.networks.operators.base import Operator
from jaxdopt.roles import Missing, Network, lacks


@pytree
class Server(Network):
    """A server and n clients, over one link up and one down for every client.

    Clients do not hear each other: there is no ``@``, and the server's average is `mean`. In a
    round where only some take part, ``active`` says who. ``clients`` [s] names the same ones where
    they are few, so that work follows them: padded to s by different indices of n and more.
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
        everybody = self.active is None and self.clients is None
        return frozenset({"server", "all"} if everybody else {"server"})

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
