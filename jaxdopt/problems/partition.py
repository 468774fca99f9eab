"""Partitions: how pooled samples are divided among agents, reproducibly and with no agent empty."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from jaxdopt._checks import count, require

T = TypeVar("T")

Partition = Callable[[np.ndarray, int], Sequence[np.ndarray]]
"""A function of the labels [m] and the number of agents that returns their sample indices."""

ATTEMPTS = 100  # Dirichlet draws before agents that are short of samples are given some


def iid(seed: int = 0) -> Partition:
    """Deal samples out evenly, shuffled with this seed."""

    def deal(labels: np.ndarray, agents: int) -> Sequence[np.ndarray]:
        order = np.random.default_rng(seed).permutation(len(labels))
        return np.array_split(order, agents)

    return deal


def by_label(shards: int = 1, seed: int = 0) -> Partition:
    """Sort samples by label, cut them into ``shards`` shards an agent, deal these out.

    One shard (the default) is the most heterogeneous split: agents hold consecutive stretches of
    the sorted samples. With two and more (McMahan et al. 2017, arXiv 1602.05629) the shards are
    shuffled with the seed.
    """
    shards = count("shards", shards)

    def deal(labels: np.ndarray, agents: int) -> Sequence[np.ndarray]:
        pieces = np.array_split(np.argsort(labels, kind="stable"), agents * shards)
        if shards == 1:
            return pieces
        order = np.random.default_rng(seed).permutation(len(pieces)).reshape(agents, shards)
        return [np.concatenate([pieces[p] for p in row]) for row in order]

    return deal


def dirichlet(alpha: float, seed: int = 0, *, minimum: int = 1) -> Partition:
    """Give each class to the agents in proportions drawn from Dirichlet(alpha): sizes are uneven.

    With a small alpha agents have few classes and very uneven sizes; with a large one they are
    alike, and at infinity this is `iid`. Draws (from the seed) that leave an agent with fewer than
    ``minimum`` samples are discarded. If `ATTEMPTS` draws are, as with a small alpha and many
    agents, agents that are short of samples in the last one get them one by one from the agent with
    the most.

    Raises:
        ValueError: alpha is not positive; when dealt, fewer samples than agents need, or labels
            that are not classes.

    Source: Yurochkin and others (2019), arXiv 1905.12022. For equal sizes: `balanced_dirichlet`.
    """
    require(alpha > 0, f"alpha is {alpha}; give a positive concentration, such as 0.3.")
    minimum = count("minimum", minimum)

    def deal(labels: np.ndarray, agents: int) -> Sequence[np.ndarray]:
        require(
            agents * minimum <= len(labels),
            f"{len(labels)} samples are too few for {minimum} an agent and {agents} agents; take "
            "fewer agents or a smaller minimum.",
        )
        classes = _samples_by_class(labels)
        if np.isinf(alpha):
            return iid(seed)(labels, agents)
        random = np.random.default_rng(seed)
        parts: list[np.ndarray] = []
        for _ in range(ATTEMPTS):
            pieces: list[list[np.ndarray]] = [[] for _ in range(agents)]
            for samples in classes:
                shares = random.dirichlet(np.full(agents, alpha))
                cuts = np.round(np.cumsum(shares)[:-1] * len(samples)).astype(int)
                dealt = np.split(random.permutation(samples), cuts)
                for piece, mine in zip(pieces, dealt, strict=True):
                    piece.append(mine)
            parts = [np.concatenate(piece) for piece in pieces]
            if min(map(len, parts)) >= minimum:
                return parts
        return _filled(parts, minimum, random)

    return deal


def balanced_dirichlet(alpha: float, seed: int = 0) -> Partition:
    """Let each agent draw its own mix of classes from Dirichlet(alpha p), p the classes' shares.

    All agents have the same number of samples, up to one if n does not divide their number. One
    after another, agents draw (from the seed) their samples by their own mix without replacement; a
    class that has run out is dropped from the mixes of later agents. With a small alpha most agents
    have a single class; at infinity this is `iid`. The entries of alpha p sum to alpha: with 10
    classes of one size, alpha = 10 draws mixes uniformly.

    Source: Hsu, Qi, Brown (2019), arXiv 1909.06335.
    """
    require(alpha > 0, f"alpha is {alpha}; give a positive concentration, such as 0.3.")

    def deal(labels: np.ndarray, agents: int) -> Sequence[np.ndarray]:
        classes = _samples_by_class(labels)
        if np.isinf(alpha):
            return iid(seed)(labels, agents)
        random = np.random.default_rng(seed)
        left = np.array([len(samples) for samples in classes])
        shares = left / left.sum()
        queues = [random.permutation(samples) for samples in classes]
        parts = []
        for i in range(agents):
            mix = random.dirichlet(alpha * shares)
            wanted = len(labels) // agents + (i < len(labels) % agents)
            taken = _drawn(random, wanted, mix, left)
            starts = [len(queue) - rest for queue, rest in zip(queues, left, strict=True)]
            parts.append(
                np.concatenate(
                    [q[s : s + k] for q, s, k in zip(queues, starts, taken, strict=True)]
                )
            )
            left = left - taken
        return parts

    return deal


def gamma_similarity(gamma: float, seed: int = 0) -> Partition:
    """Deal a share gamma of the samples out evenly, as `iid` does, and the rest sorted by label.

    All agents have the same number of samples, up to one. From gamma = 1, which is `iid`, to 0,
    which is `by_label`, agents become less alike. Which samples are dealt evenly is drawn with the
    seed.

    Raises:
        ValueError: gamma is not in [0, 1].

    Source: Karimireddy, Kale, Mohri, Reddi, Stich, Suresh (2020), arXiv 1910.06378 ("s %
    similarity"); ByzFL's "gamma_similarity_niid".
    """
    require(0 <= gamma <= 1, f"gamma is {gamma}; give a share in [0, 1], such as 0.5.")

    def deal(labels: np.ndarray, agents: int) -> Sequence[np.ndarray]:
        order = np.random.default_rng(seed).permutation(len(labels))
        alike = round(gamma * len(labels))
        even = np.array_split(order[:alike], agents)
        rest = np.sort(order[alike:])
        rest = rest[np.argsort(labels[rest], kind="stable")]
        sizes = [len(part) for part in np.array_split(order, agents)]
        ends = np.cumsum([size - len(part) for size, part in zip(sizes, even, strict=True)])
        pairs = zip(even, np.split(rest, ends[:-1]), strict=True)
        return [np.concatenate(pair) for pair in pairs]

    return deal


def _samples_by_class(labels: np.ndarray) -> list[np.ndarray]:
    require(
        not np.issubdtype(labels.dtype, np.floating) or len(np.unique(labels)) <= 100,
        "the labels have more than 100 values; a Dirichlet split needs classes.",
    )
    return [np.flatnonzero(labels == value) for value in np.unique(labels)]


def _drawn(random: Any, wanted: int, mix: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Return how many of each class ``wanted`` draws by a mix give, with at most ``left`` each.

    Draws from a class that has run out are repeated together, which has the same distribution as
    drawing one by one.
    """
    taken = np.zeros_like(left)
    while (missing := wanted - taken.sum()) > 0:
        open_ = np.where(taken < left, mix, 0.0)
        if open_.sum() == 0:  # none of the agent's own classes is left
            open_ = (left - taken).astype(float)
        taken = np.minimum(taken + random.multinomial(missing, open_ / open_.sum()), left)
    return taken


def _filled(parts: list[np.ndarray], minimum: int, random: Any) -> list[np.ndarray]:
    """Return the parts with at least ``minimum`` samples each, taken from the largest."""
    lists = [random.permutation(part).tolist() for part in parts]
    for samples in lists:
        while len(samples) < minimum:
            samples.append(max(lists, key=len).pop())
    return [np.array(samples, int) for samples in lists]


NAMED = {"iid": iid, "by_label": by_label}
FACTORIES = (iid, by_label, dirichlet, balanced_dirichlet, gamma_similarity)


def split(data: Any, labels: Any, *, agents: int | None, partition: Any = "iid") -> Any:
    """Divide pooled data among agents: leaves [m, ...] become lists of n arrays, for `FiniteSum`.

    Args:
        data: a pytree of arrays [m, ...].
        labels: [m], by which `by_label` and the Dirichlet splits divide the samples.
        agents: n; None if ``partition`` is a list or dict of index arrays.
        partition: "iid", "by_label", what a function of this module returns, or index arrays: a
            list of n, or a dict {agent: indices}.

    Raises:
        ValueError: an unknown partition, fewer samples than agents, an empty agent, indices out of
            range or given twice, data of other lengths than the labels, missing labels.
    """
    labels = _as_labels(labels)
    m = len(labels)
    remedy = "give 'iid', 'by_label', jd.partition.dirichlet(alpha), or a list of index arrays"
    if isinstance(partition, str):
        require(partition in NAMED, f"partition is {partition!r}; {remedy}.")
        partition = NAMED[partition]()
    require(
        partition not in FACTORIES if callable(partition) else True,
        f"partition is the function {getattr(partition, '__name__', '')}, not called; give what it "
        "returns, such as jd.partition.by_label(2) or dirichlet(0.3).",
    )
    if callable(partition):
        agents = count("agents", agents)
        require(agents <= m, f"{m} samples cannot be split over {agents} agents; take at most {m}.")
        partition = partition(labels, agents)
    if isinstance(partition, Mapping):
        partition = in_order(partition)
    require(np.iterable(partition), f"partition is {partition!r}; {remedy}.")
    parts = [np.asarray(part, None if np.size(part) else int) for part in partition]
    _require_partition(parts, agents, m)

    def rows(leaf: Any) -> list[np.ndarray]:
        leaf = np.asarray(leaf)
        require(
            leaf.ndim > 0 and len(leaf) == m,
            f"the data has an array of shape {leaf.shape} and there are {m} labels; give one label "
            "a row.",
        )
        return [leaf[part] for part in parts]

    return jax.tree.map(rows, data, is_leaf=lambda leaf: isinstance(leaf, list))


def in_order(of_agents: Mapping[Any, T]) -> list[T]:
    """Return the values of a dict ``of_agents``, in order of the keys if these are 0 ... n − 1.

    Example:
        >>> in_order({1: "b", 0: "a"}), in_order({"x": "a", "y": "b"})
        (['a', 'b'], ['a', 'b'])
    """
    numbered = set(of_agents) == set(range(len(of_agents)))
    return [of_agents[agent] for agent in (range(len(of_agents)) if numbered else of_agents)]


def _as_labels(labels: Any) -> np.ndarray:
    """Return labels [m], of any values that can be sorted."""
    labels = np.asarray(labels)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    require(labels.ndim == 1, f"labels has shape {labels.shape}; give one label a sample, [m].")
    if np.issubdtype(labels.dtype, np.floating) or labels.dtype == object:
        missing = sum(map(is_missing, labels.tolist()))
        require(missing == 0, f"labels has {missing} values missing; drop those samples.")
    try:
        np.sort(labels)
    except TypeError as error:
        kinds = sorted({type(label).__name__ for label in labels.tolist()})
        raise ValueError(
            f"labels has values of the types {', '.join(kinds)}, which cannot be sorted; give all "
            "of one type."
        ) from error
    return labels


def is_missing(value: Any) -> bool:
    """Return whether a value is None, NaN, or pandas' NA or NaT."""
    kind = type(value).__name__
    return kind in ("NoneType", "NAType", "NaTType") or (kind == "float" and value != value)


def _require_partition(parts: Sequence[np.ndarray], agents: int | None, m: int) -> None:
    """Refuse index arrays that are not for these agents, out of range, given twice or empty."""
    require(
        agents in (None, len(parts)) and len(parts) > 0,
        f"agents is {agents} and partition has {len(parts)} index arrays; give one an agent.",
    )
    for i, part in enumerate(parts):
        require(
            part.ndim == 1,
            f"the indices of agent {i} have shape {part.shape}; give each agent an index array, as "
            "[np.flatnonzero(owner == i) for i in range(n)] makes of every sample's owner [m].",
        )
        require(len(part) > 0, f"agent {i} has no samples; give every agent at least one.")
    used = np.concatenate(parts)
    require(
        np.issubdtype(used.dtype, np.integer),
        f"the partition's index arrays have dtype {used.dtype}; give integers.",
    )
    out = used[(used < 0) | (used >= m)]
    if len(out):
        raise ValueError(f"the partition names sample {out[0]}; samples have numbers 0 to {m - 1}.")
    twice = np.flatnonzero(np.bincount(used) > 1)
    if len(twice):
        raise ValueError(f"the partition gives sample {twice[0]} away twice; give it once.")
