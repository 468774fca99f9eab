"""`robust`: a graph's network or a server with liars, checked."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import count, require, who_lies
from jaxdopt._leaves import is_traced
from jaxdopt._wrapper import layers
from jaxdopt.networks.checks import require_network
from jaxdopt.networks.liars.base import Robust
from jaxdopt.networks.liars.mixing import RobustMixing
from jaxdopt.networks.liars.server import RobustServer
from jaxdopt.roles import offers


def robust(
    network: Any, *, rule: Any, attack: Any = None, liars: Any = 0, hears: int | None = None
) -> Robust:
    """Return a network with liars, whose honest agents aggregate by a robust rule.

    On a graph, ``network @ x`` is each agent's rule of the messages it hears, its own first; the
    weights do not matter. One product is one message, of which all leaves are judged together. On
    a server, the mean of federated methods becomes the rule of those who take part. Methods that
    need a symmetric W, links, columns that sum to 1, or plain sums refuse such networks.

    Args:
        network: a graph's, such as ``jd.networks.metropolis(graph)``, fixed or changing, or a
            server or pattern of participation.
        rule: of `jaxdopt.aggregators`. Its numbers are traced: sweep "network.rule.f".
        attack: of `jaxdopt.attacks`; None: liars tell the truth, as with poisoned data. Its numbers
            are traced, too.
        liars: how many, the last ones; who, [n] booleans; or who in every round, [T, n], which
            repeats.
        hears: how many messages an agent hears in a product, its own included: those of all liars
            that it is connected to, and honest ones drawn anew, as in MoNNA; by default all.

    Raises:
        ValueError: a network that neither mixes nor has a server, or whose exchanges take several
            rounds; liars who are everyone, or traced; an f too large for the rule or for some
            neighborhood, which is named; a rule with a pivot for a server.

    Example:
        >>> import jax, jax.numpy as jnp, jaxdopt as jd
        >>> network = jd.networks.robust(
        ...     jd.networks.Complete(4),
        ...     rule=jd.aggregators.Median(),
        ...     attack=jd.attacks.Constant(1e9),
        ...     liars=1,
        ... )
        >>> x = jnp.array([[1.0], [2.0], [3.0], [4.0]])
        >>> (network.at(0, jax.random.key(0)) @ x)[:3, 0].tolist()
        [2.5, 2.5, 2.5]
    """
    require_network(network)
    require(
        not any(isinstance(layer, Robust) for layer in layers(network)),
        f"the {type(network).__name__} has liars already; give the network that it is around.",
    )
    require(
        not hasattr(attack, "breakdown"),
        f"attack is {attack!r}, a rule; give one of jd.attacks, such as ALIE().",
    )
    words, n = offers(network), network.n
    mask = _mask(liars, n)
    given = network, rule, attack, jnp.asarray(mask)
    if not words.isdisjoint({"server", "returns"}):
        require(hears is None, f"hears is {hears!r}, and a server hears all; leave it out.")
        found: Robust = RobustServer(*given)
        require(
            not getattr(found.rule, "pivot", False),
            f"{found.rule!r} needs one's own message, which a server has not; give another rule, "
            "such as TrimmedMean(f).",
        )
        most = getattr(network, "size", None) or getattr(network, "bound", None) or n
        _require_few(found.rule, {"the server hears {} messages": most})
        return found
    require(
        "hop" in words and not words.isdisjoint({"mixing", "pull"}) and "tree" not in words,
        f"a {type(network).__name__} is neither a graph's network with exchanges of one round nor "
        "a server; give such as jd.networks.metropolis(graph) or jd.networks.Server(n).",
    )
    if hears is not None:
        count("hears", hears)
    found = RobustMixing(*given, hears=hears)
    if not getattr(network, "varies", False) and not is_traced(network):
        _require_neighborhoods(found)
    return found


def _mask(liars: Any, n: int) -> np.ndarray:
    """Return who lies, [n] or [T, n] bool, or refuse it."""
    require(
        not is_traced(liars),
        "liars is traced, and who is measured depends on it; give a number or a mask of booleans, "
        "outside of the transformation.",
    )
    mask = who_lies(liars, n, most=n - 1, rounds=True)
    ever = mask if mask.ndim == 1 else mask.any(axis=0)
    require(
        not ever.all(),
        f"all {n} agents lie in some round, and nobody is left to be measured; leave one honest.",
    )
    return mask


def _require_neighborhoods(network: RobustMixing) -> None:
    """Refuse an f that is too large for some neighborhood, or fewer messages than liars tell."""
    with jax.ensure_compile_time_eval():  # of a network, concrete though rules may be traced
        senders, present = (np.asarray(table) for table in network._in_neighbors)
    heard = 1 + present.sum(axis=1)
    if network.hears is not None:
        lying = (present & ~network.honest[senders]).sum(axis=1)
        worst = int(np.argmax(lying))
        require(
            network.hears > lying[worst],
            f"hears is {network.hears}, and agent {worst} hears {lying[worst]} liars beside "
            f"itself; give at least {lying[worst] + 1}.",
        )
        heard = np.minimum(heard, network.hears)
    _, first = np.unique(heard, return_index=True)
    who = {f"agent {i} hears {{}} messages, its own included": int(heard[i]) for i in first}
    _require_few(network.rule, who)


def _require_few(rule: Any, messages: dict[str, int]) -> None:
    """Refuse a rule that cannot do with the messages of some receiver."""
    for who, number in messages.items():
        try:
            rule.breakdown(number)
        except ValueError as error:
            raise ValueError(f"{who.format(number)}: {error}") from error
