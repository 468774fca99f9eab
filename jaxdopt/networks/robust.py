"""Liars: networks some of whose agents lie, and whose honest agents aggregate robustly.

Who lies is the network's business: methods do not change. `robust` puts a rule of
`jaxdopt.aggregators` in the place of a network's weights or of a server's mean, and an attack of
`jaxdopt.attacks` between liars and those who hear them:

    (network @ x)ᵢ = R(xᵢ; xⱼ of all honest in-neighbors j; what each lying in-neighbor tells i)

The attack knows all honest messages that i is sent in this product, after their half-step. Liars
may tell everyone something else; their own rows follow the protocol on true messages. They are
never measured: in `jd.run`, metrics, divergence and costs are those of the agents that never lie.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import _repr, _selection
from jaxdopt._checks import count, require
from jaxdopt._leaves import is_traced, wide_dtype
from jaxdopt._pytree import pytree, replace, static
from jaxdopt._wrapper import layers, rewrap, wrapped
from jaxdopt.aggregators.before import Aggregator
from jaxdopt.attacks import Attack
from jaxdopt.networks.checks import require_network
from jaxdopt.networks.operators.complete import Complete
from jaxdopt.networks.sequences import own_key
from jaxdopt.networks.wrapper import Wrapper
from jaxdopt.roles import OF_ATTRIBUTE, Missing, lacks, offers

LIES, HEARS, RULE = 0xF0011E55, 0xF00EA125, 0xF000A1E5  # folded into the key before the round
TOGETHER = 1_500_000  # numbers that are gathered for a batch of receivers: a CPU's caches
LEAST = 6  # receivers of a batch; where fewer have room, four times as many numbers


class Robust(Wrapper):
    """The base of networks with liars."""

    network: Any
    rule: Any
    attack: Any
    liars: Any  # [n] bool; before a round [T, n] where they change
    key: Any
    never: bytes  # which agents never lie, as packed bits
    cuttable = symmetric = False

    @property
    def honest(self) -> np.ndarray:
        """Which agents never lie, [n] bool; the same in every round."""
        return np.unpackbits(np.frombuffer(self.never, np.uint8), count=self.n).astype(bool)

    def _facts(self) -> dict[str, str]:
        facts = {"agents": str(self.n), "liars": f"{self.n - int(self.honest.sum())} of {self.n}"}
        facts |= _repr.fields(self, "liars", "never", "key")
        return {name: fact for name, fact in facts.items() if fact != "None"}

    def at(self, k: Any, key: jax.Array) -> Any:
        """Return round k's network, its ``liars`` [n] set."""
        now = self.liars if self.liars.ndim == 1 else self.liars[k % len(self.liars)]
        depth = sum(isinstance(layer, Robust) for layer in layers(self))
        drawn = own_key(key, LIES + depth, k)
        return replace(rewrap(self, wrapped(self).at(k, key)), liars=now, key=drawn)

    def __getattr__(self, name: str) -> Any:
        if name in REFUSED:
            word = OF_ATTRIBUTE.get(name, "all")
            raise Missing(lacks(self, word, f"what asks for .{name}"))
        return super().__getattr__(name)

    def _on(self, receiver: Any, messages: Callable[[], jax.Array]) -> Any:
        """Return the attack on one receiver in this round, of all agents' messages [n, d]."""
        at = getattr(self.attack, "at", None)
        return self.attack if at is None else at(wrapped(self).time, receiver, messages())

    def _draws(self, constant: int, receiver: Any = 0) -> Any:
        return None if self.key is None else own_key(self.key, constant, receiver)


REFUSED = {"row", "column", "links", "matrix", "csr", "cut", "eigenvalues", "spectral_gap"}
REFUSED |= {"diagonal", "in_neighbors"}


@pytree
class RobustMixing(Robust):
    """A graph with liars: ``network @ x`` is every agent's rule of what it hears.

    `robust` makes it. Its rows sum to 1 and depend on x: there is no matrix, and no sum is kept.

    Args:
        network: who hears whom; its weights do not matter.
        rule: of `jaxdopt.aggregators`; slot 0 is the agent's own message.
        attack: of `jaxdopt.attacks`, or None: liars tell the truth.
        liars: who lies, [n] bool, or [T, n], which repeats.
        key: of the round's draws; set by ``at``.
        never: which agents never lie, packed; static.
        hears: how many messages an agent hears, its own included; static.
    """

    network: Any
    rule: Aggregator
    attack: Attack | None
    liars: Any
    key: Any = None
    never: bytes = static(default=b"")
    hears: int | None = static(default=None)
    kind = "robust"
    offers = frozenset({"mixing"})

    def __matmul__(self, x: Any) -> Any:
        rows, restored = _as_messages(x, self.n)
        return restored(self._mixed(rows))

    def laplacian(self, x: Any) -> Any:
        """Return x − network @ x, whose sum over agents is not zero."""
        return jax.tree.map(jnp.subtract, x, self @ x)

    def mean(self, x: Any) -> NoReturn:
        """Raise `Missing`: a mean of all agents would be that of liars, too."""
        raise Missing(lacks(self, "all", "network.mean"))

    def told(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return what every agent hears of x [n, d]; see `jaxdopt.networks.told`."""
        return self._of_each(x, _heard)

    @property
    def link_count(self) -> Any:
        """The number of directed links from honest senders that carry a message."""
        senders, present = self._in_neighbors
        heard = present & jnp.asarray(self.honest)[senders]
        if self.hears is None:
            return jnp.sum(heard)
        most = jnp.sum(present, axis=1)
        lying = jnp.sum(present & self.liars[senders], axis=1)
        return jnp.sum(jnp.maximum(jnp.minimum(self.hears - 1, most) - lying, 0))

    @property
    def _in_neighbors(self) -> tuple[jax.Array, jax.Array]:
        return wrapped(self).row.in_neighbors

    @property
    def _is_shared(self) -> bool:
        """Whether all honest agents hear the same, and what they draw does not matter."""
        everyone = type(wrapped(self)) is Complete and wrapped(self).active is None
        told_alike = self.attack is None or getattr(self.attack, "broadcasts", False)
        steps = getattr(self.rule, "preparations", ())
        return everyone and told_alike and self.hears is None and not any(map(_scatters, steps))

    def _mixed(self, rows: jax.Array) -> jax.Array:
        require(
            self.liars.ndim == 1,
            "liars change with the round, and the network has none; pass network.at(k, key).",
        )
        if self._is_shared:
            return self._shared(rows)

        def aggregate(i: Any, _: Any, there: jax.Array, messages: jax.Array) -> jax.Array:
            return self.rule(messages, there, 0, self._draws(RULE, i))

        return self._of_each(rows, aggregate)

    def _shared(self, rows: jax.Array) -> jax.Array:
        """Return the aggregates where all hear the same: rules with a pivot have one each."""

        def all_of(messages: jax.Array) -> jax.Array:
            by_each = jax.vmap(lambda i: self.rule(messages, None, i, self._draws(RULE)))
            return by_each(jnp.arange(self.n))

        if self.attack is None:
            return all_of(rows)
        attack = self._on(0, lambda: rows)
        lie = attack(rows, jnp.sum(self.liars), self._draws(LIES), ~self.liars)
        told = jnp.where(self.liars[:, None], lie, rows)
        return jnp.where(self.liars[:, None], all_of(rows), all_of(told))

    def _of_each(self, rows: jax.Array, function: Callable[..., Any]) -> Any:
        """Return a function of every receiver: its number, whom it hears, which slots, messages."""
        senders, present = self._in_neighbors
        size = rows[0].size * (senders.shape[1] + 1)
        together = TOGETHER // max(size, 1)
        if together < LEAST:
            together = max(4 * TOGETHER // size, 1)

        def receive(its: tuple[jax.Array, ...]) -> Any:
            return function(its[0], *self._received(rows, *its))

        each = jnp.arange(self.n), senders, present
        if together >= self.n:
            return jax.vmap(receive)(each)
        return jax.lax.map(receive, each, batch_size=together)

    def _received(
        self, rows: jax.Array, i: jax.Array, senders: jax.Array, present: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return whom agent i hears, itself first, which slots are heard, and the messages."""
        slots = jnp.concatenate([i[None], senders])
        there = jnp.concatenate([jnp.ones(1, bool), present])
        messages, lying = rows[slots], self.liars[slots] & there
        liars = jnp.sum(lying[1:])
        if self.attack is not None:
            attack = self._on(i, lambda: rows)
            lie = attack(messages, liars, self._draws(LIES, i), there & ~lying)
            deceived = lying & ~self.liars[i]
            messages = jnp.where(deceived[:, None], lie.astype(messages.dtype), messages)
        if self.hears is not None:
            require(
                self.key is not None,
                "hears draws who is heard, and the network has no round; pass network.at(k, key).",
            )
            others = (there & ~lying).at[0].set(False)
            draws = jax.random.bits(self._draws(HEARS, i), others.shape, jnp.uint32)
            rank = jnp.where(others, draws >> 1 | jnp.uint32(1), 0)
            wanted = jnp.maximum(self.hears - 1 - liars, 0)
            chosen = _selection.largest(rank[None], wanted)[0] & others
            there = jnp.where(others, chosen, there)
        return slots, there, messages


@pytree
class RobustServer(Robust):
    """A server some of whose clients lie: the mean of their messages becomes a rule.

    `robust` makes it. Methods that add messages up instead need the word "sum", which it lacks.

    Args:
        network: a server, or a pattern of participation.
        rule: of `jaxdopt.aggregators`, without a pivot.
        attack: of `jaxdopt.attacks`, or None: liars tell the truth.
        liars: who lies, [n] bool, or [T, n], which repeats.
        key: of the round's draws; set by ``at``.
        never: which agents never lie, packed; static.
    """

    network: Any
    rule: Aggregator
    attack: Attack | None
    liars: Any
    key: Any = None
    never: bytes = static(default=b"")
    kind = "robust"

    @property
    def offers(self) -> frozenset[str]:  # type: ignore[override]
        """What every round can do; see `jaxdopt.roles`."""
        return offers(wrapped(self)) & {"server", "returns", "ticks"}

    def __matmul__(self, x: Any) -> NoReturn:
        raise Missing(lacks(self, "mixing", "network @ x"))

    def mean(self, x: Any) -> Any:
        """Return the rule's aggregate of all clients, leaves [n, ...] -> [...]."""
        rows, restored = _as_messages(x, self.n)
        mixed = restored(self.aggregate(rows)[None])
        return jax.tree.map(lambda leaf: leaf[0], mixed)

    def aggregate(self, rows: jax.Array, clients: Any = None, taking_part: Any = None) -> jax.Array:
        """Return the rule's aggregate [d] of messages [s, d]; 0 if there are none.

        Args:
            rows: a message a row.
            clients: whose they are, [s] int, n and above on the padding; by default all in order.
            taking_part: [s] bool, which of them there are; by default all.
        """
        there = jnp.ones(len(rows), bool) if taking_part is None else taking_part
        if clients is None:
            lying = self.liars & there
        else:
            lying = self.liars.at[clients].get(mode="fill", fill_value=False) & there
        told = rows
        if self.attack is not None:
            honest = there & ~lying

            def messages() -> jax.Array:  # of those who are absent: what an honest client sends
                one = jnp.broadcast_to(rows[jnp.argmax(honest)], (self.n, rows.shape[1]))
                if clients is None:
                    return jnp.where(there[:, None], rows, one)
                return one.at[jnp.where(there, clients, self.n)].set(rows, mode="drop")

            attack = self._on(0, messages)
            lie = attack(rows, jnp.sum(lying), self._draws(LIES), honest)
            told = jnp.where(lying[:, None], lie.astype(rows.dtype), rows)
        heard = None if taking_part is None else there
        result = self.rule(told, heard, 0, self._draws(RULE))
        return result if heard is None else jnp.where(jnp.any(there), result, 0)

    @property
    def link_count(self) -> int:
        """The number of directed links of the agents that never lie: two each."""
        return 2 * int(np.sum(self.honest))


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
    never = np.packbits(~mask if mask.ndim == 1 else ~mask.any(axis=0)).tobytes()
    given = network, rule, attack, jnp.asarray(mask), None, never
    if not words.isdisjoint({"server", "returns"}):
        require(hears is None, f"hears is {hears!r}, and a server hears all; leave it out.")
        found: Robust = RobustServer(*given)
        last = getattr(found.rule, "rule", found.rule)  # of a chain
        require(
            not getattr(last, "_pivot", False),
            f"{last!r} needs one's own message, which a server has not; give another rule, such "
            "as TrimmedMean(f).",
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
    found = RobustMixing(*given, hears)
    if not getattr(network, "varies", False) and not is_traced(network):
        _require_neighborhoods(found, mask)
    return found


def told(network: Any, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return what every agent hears of x [n, d] in a round, for rules that are a method's own.

    Args:
        network: a graph's round, with liars or without.
        x: the agents' messages, [n, d].

    Returns:
        The senders [n, s], the messages [n, s, d], and which slots have one [n, s]; slot 0 is the
        agent itself.
    """
    if hasattr(network, "told"):
        return network.told(x)
    senders, present = network.row.in_neighbors
    itself = jnp.arange(network.n)[:, None]
    slots = jnp.concatenate([itself, senders], axis=1)
    there = jnp.concatenate([jnp.ones_like(itself, dtype=bool), present], axis=1)
    return slots, x[slots], there


def _heard(*received: Any) -> tuple[Any, Any, Any]:
    _, slots, there, messages = received
    return slots, messages, there


def _scatters(preparation: Any) -> bool:
    return getattr(preparation, "_scatters", False)


def _mask(liars: Any, n: int) -> np.ndarray:
    """Return who lies, [n] or [T, n] bool, or refuse it."""
    require(
        not is_traced(liars),
        "liars is traced, and who is measured depends on it; give a number or a mask of booleans, "
        "outside of the transformation.",
    )
    try:
        mask = np.asarray(liars)
    except ValueError:  # lists of different lengths
        mask = np.asarray(liars, object)
    if mask.ndim == 0 and mask.dtype != bool:
        number = count("liars", liars, 0, "how many lie, or who, [n] booleans")
        require(
            number < n,
            f"liars is {number} and there are {n} agents; give at most {n - 1}, as someone has to "
            "be honest.",
        )
        return np.arange(n) >= n - number
    require(
        mask.dtype == bool and mask.ndim in (1, 2) and mask.shape[-1] == n and len(mask) > 0,
        f"liars is an array of {mask.dtype}{list(mask.shape)}; give how many lie, or who, as "
        f"[{n}] booleans or, of every round, [T, {n}].",
    )
    ever = mask if mask.ndim == 1 else mask.any(axis=0)
    require(
        not ever.all(),
        f"all {n} agents lie in some round, and nobody is left to be measured; leave one honest.",
    )
    return mask


def _require_neighborhoods(network: RobustMixing, mask: np.ndarray) -> None:
    """Refuse an f that is too large for some neighborhood, or fewer messages than liars tell."""
    with jax.ensure_compile_time_eval():  # of a network, concrete though rules may be traced
        senders, present = map(np.asarray, network._in_neighbors)
    heard = 1 + present.sum(axis=1)
    if network.hears is not None:
        ever = mask if mask.ndim == 1 else mask.any(axis=0)
        lying = (present & ever[senders]).sum(axis=1)
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


def _as_messages(x: Any, n: int) -> tuple[jax.Array, Callable[[jax.Array], Any]]:
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
