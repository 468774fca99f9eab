"""A round's network as `run` shows it to methods: without what would be wrong, unnoticed."""

from typing import Any, NoReturn


class Guarded:
    """A network that refuses what its round cannot give: W x, or links that last.

    A method that says ``network @ x`` needs rows and columns that sum to 1; one that keeps a
    variable for every link needs the same links in every round.
    """

    def __init__(self, network: Any, mixes: bool, lasts: bool) -> None:
        self._network, self._mixes, self._lasts = network, mixes, lasts

    def __getattr__(self, name: str) -> Any:
        if name == "laplacian" and not self._mixes:
            refuse_mixing()
        if name == "links" and not self._lasts:
            raise ValueError(
                "this network has other links in other rounds, and the method keeps a variable for "
                "every link; take one graph, with RandomLinks or Asleep if links should fail."
            )
        return getattr(self._network, name)

    def __matmul__(self, x: Any) -> Any:
        return self._network @ x if self._mixes else refuse_mixing()


def guarded(now: Any, network: Any) -> Any:
    """Return ``now``, a round of ``network``, as methods may use it."""
    mixes = getattr(now, "kind", None) not in ("row", "column")
    lasts = not getattr(network, "rewires", False)
    return now if mixes and lasts else Guarded(now, mixes, lasts)


def refuse_mixing() -> NoReturn:
    """Raise what a method hears that mixes with weights which are not doubly stochastic."""
    raise ValueError(
        "this network's weights are not doubly stochastic, and the method needs that; take a "
        "method for directed graphs (network.row, network.column), or weights such as "
        "jd.networks.metropolis(graph)."
    )
