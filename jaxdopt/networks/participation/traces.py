"""Tables of rounds: participation as it was recorded, or drawn from chains with a memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import count, require
from jaxdopt._leaves import is_traced
from jaxdopt._numbers import Number
from jaxdopt._pytree import pytree, static
from jaxdopt.networks.participation.patterns import Pattern

MARKOV = 0xF0003A2C  # folded into the key


@pytree
class Trace(Pattern):
    """Participation by a table of rounds, which does not repeat.

    Args:
        rows: who takes part, [T, n] bool; or, with a bound, the clients' numbers, [T, s] int.
        n: the number of clients; static.
        bound: s, the most that take part in a round; None for a table of booleans; static.
    """

    rows: Any
    n: int = static()
    bound: int | None = static(default=None)

    @property
    def horizon(self) -> int:  # type: ignore[override]
        """The number of rounds."""
        return self.rows.shape[-2]

    def _active(self, k: Any, key: jax.Array) -> jax.Array:
        return self.rows[k]

    _clients = _active


def markov(n: int, leave: Any, join: Any, *, steps: int, key: jax.Array) -> Trace:
    """Return participation by Markov chains: active clients leave and inactive ones join at random.

    Every client has an independent two-state chain that starts from its stationary distribution. It
    is active in a share join / (join + leave) of the rounds, with autocorrelation
    (1 − leave − join)ᵗ. The rounds are drawn here, from this key rather than the run's; they are
    traced and can be swept.

    Args:
        n: the number of clients.
        leave: the probability that an active client is inactive in the next round; or [n].
        join: the probability that an inactive client is active in the next round; or [n].
        steps: the number of rounds, the horizon.
        key: from `jax.random.key`.

    Raises:
        ValueError: a probability outside [0, 1], or both 0, where no client changes its state.
    """
    n, steps = count("n", n), count("steps", steps)
    for name, value in (("leave", leave), ("join", join)):
        require(
            np.shape(value) in ((), (n,)),
            f"{name} has shape {np.shape(value)}; give one probability, or one a client as ({n},).",
        )
    leave, join = (jnp.broadcast_to(jnp.asarray(v, jnp.float32), (n,)) for v in (leave, join))
    for name, value in (("leave", leave), ("join", join)):
        Number(minimum=0.0, maximum=1.0).accept(name, value[:, None])
    require(
        is_traced((leave, join)) or bool(jnp.all(leave + join > 0)),
        "a client neither leaves nor joins, so that its share of the rounds is not known; give "
        "leave + join > 0.",
    )
    drawn = jax.random.uniform(jax.random.fold_in(key, MARKOV), (steps, n), jnp.float32)

    def follow(active: jax.Array, drawn: jax.Array) -> tuple[jax.Array, jax.Array]:
        active = jnp.where(active, drawn >= leave, drawn < join)
        return active, active

    first = drawn[0] < join / (join + leave)
    _, rest = jax.lax.scan(follow, first, drawn[1:])
    return Trace(jnp.concatenate([first[None], rest]), n)


def trace(rounds: Any, *, n: int | None = None) -> Trace:
    """Return recorded participation, which does not repeat.

    Args:
        rounds: [T, n] booleans (or zeros and ones); or, with ``n``, a list of T lists of clients'
            indices; or the path of a .npy or .csv file with such an array, one round a row.
        n: the number of clients, required for lists of indices.

    Raises:
        ValueError: an empty trace, a wrong shape, or an index that is no client's.
    """
    if isinstance(rounds, str | Path):
        rounds = _read(Path(rounds))
    if not hasattr(rounds, "ndim"):
        rounds = _mask(rounds, n)
    shape = np.shape(rounds)
    require(
        len(shape) == 2 and min(shape) > 0 and n in (None, shape[1]),
        f"the trace has shape {shape} and n is {n}; give who takes part as [T, n] booleans, with "
        "at least one round and one client.",
    )
    if is_traced(rounds):
        return Trace(rounds.astype(bool), shape[1])
    table = np.asarray(rounds)
    odd = table[(table != 0) & (table != 1)]
    require(
        odd.size == 0,
        f"the trace has the value {odd.flat[0] if odd.size else 0}; give booleans, or zeros and "
        "ones.",
    )
    table, clients = table.astype(bool), shape[1]
    most = max(int(table.sum(axis=1).max()), 1)
    if 2 * most > clients:
        return Trace(jnp.asarray(table), clients)
    rows = np.tile(clients + np.arange(most), (len(table), 1))
    for row, who in zip(rows, table, strict=True):
        row[: who.sum()] = np.flatnonzero(who)
    return Trace(jnp.asarray(rows, jnp.int32), clients, most)


def _mask(rounds: Sequence[Any], n: int | None) -> np.ndarray:
    """Return lists of clients' numbers, or of booleans, as a table [T, n]."""
    rows = [np.atleast_1d(np.asarray(row)) for row in rounds]
    require(rows, "the trace has no rounds; give at least one.")
    if all(row.dtype == bool for row in rows):
        lengths = {len(row) for row in rows}
        require(
            len(lengths) == 1,
            f"the trace has rounds of {' and '.join(map(str, sorted(lengths)))} clients; give all "
            "the same.",
        )
        return np.stack(rows)
    require(n is not None, "n is None and the trace has clients' numbers; say how many there are.")
    table = np.zeros((len(rows), count("n", n)), bool)
    for k, row in enumerate(rows):
        odd = [i for i in row.tolist() if i != int(i) or not 0 <= i < table.shape[1]]
        require(
            not odd,
            f"round {k} of the trace has client {odd[0] if odd else 0} and there are {n}; give "
            f"integers from 0 to {table.shape[1] - 1}.",
        )
        table[k, row.astype(int)] = True
    return table


def _read(path: Path) -> np.ndarray:
    require(
        path.suffix in (".npy", ".csv") and path.exists(),
        f"the trace {str(path)!r} is no file that ends in .npy or .csv; give one with a round a "
        "row.",
    )
    if path.suffix == ".npy":
        return np.load(path)
    return np.loadtxt(path, delimiter=",", ndmin=2)
