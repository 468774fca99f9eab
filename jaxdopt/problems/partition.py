"""How pooled samples are dealt out to agents: always with a seed, and no agent stays empty."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxdopt._pytree import count, require

Partition = Callable[[np.ndarray, int], Sequence[np.ndarray]]
"""A function of the labels [m] and the number of agents that returns their sample indices."""

ATTEMPTS = 1000  # Dirichlet draws before giving up on one without empty agents


def iid(seed: int = 0) -> Partition:
    """Deal shuffled samples out evenly."""

    def deal(labels: np.ndarray, agents: int) -> Sequence[np.ndarray]:
        order = np.random.default_rng(seed).permutation(len(labels))
        return np.array_split(order, agents)

    return deal


def by_label(shards: int = 1, seed: int = 0) -> Partition:
    """Sort samples by label, cut them into ``shards`` shards an agent, deal these out.

    One shard (the default) is the most heterogeneous split: agents hold consecutive stretches of
    the sorted samples. With two and more (McMahan et al. 2017, arXiv 1602.05629) the shards are
    shuffled.
    """
    shards = count("shards", shards)

    def deal(labels: np.ndarray, agents: int) -> Sequence[np.ndarray]:
        pieces = np.array_split(np.argsort(labels, kind="stable"), agents * shards)
        if shards == 1:
            return pieces
        order = np.random.default_rng(seed).permutation(len(pieces)).reshape(agents, shards)
        return [np.concatenate([pieces[p] for p in row]) for row in order]

    return deal


def dirichlet(alpha: float, seed: int = 0) -> Partition:
    """Give each class to the agents in proportions drawn from Dirichlet(alpha).

    Small alpha: few classes an agent, and very uneven sizes; large alpha: close to `iid`. Draws
    that leave an agent empty are thrown away. Source: Hsu, Qi, Brown (2019), arXiv 1909.06335.
    """
    require(alpha > 0, f"alpha is {alpha}; give a positive concentration, such as 0.3.")

    def deal(labels: np.ndarray, agents: int) -> Sequence[np.ndarray]:
        require(
            not np.issubdtype(labels.dtype, np.floating) or len(np.unique(labels)) <= 100,
            "the labels have more than 100 values; a Dirichlet split needs classes.",
        )
        random = np.random.default_rng(seed)
        classes = [np.flatnonzero(labels == value) for value in np.unique(labels)]
        for _ in range(ATTEMPTS):
            parts: list[list[np.ndarray]] = [[] for _ in range(agents)]
            for samples in classes:
                shares = random.dirichlet(np.full(agents, alpha))
                cuts = np.round(np.cumsum(shares)[:-1] * len(samples)).astype(int)
                for part, piece in zip(
                    parts, np.split(random.permutation(samples), cuts), strict=True
                ):
                    part.append(piece)
            merged = [np.concatenate(part) for part in parts]
            if min(map(len, merged)) > 0:
                return merged
        raise ValueError(
            f"{ATTEMPTS} Dirichlet({alpha:g}) draws all left some of {agents} agents empty; raise "
            "alpha or take fewer agents."
        )

    return deal


NAMED = {"iid": iid, "by_label": by_label}


def split(data: Any, labels: Any, *, agents: int | None, partition: Any = "iid") -> Any:
    """Deal pooled data out: leaves [m, ...] become lists of n arrays, as `FiniteSum` takes them.

    Args:
        data: a pytree of arrays [m, ...].
        labels: [m], what `by_label` sorts and `dirichlet` counts.
        agents: n; None if ``partition`` is a list of index arrays.
        partition: "iid", "by_label", one of this module's functions called, or index arrays.

    Raises:
        ValueError: an unknown partition, fewer samples than agents, an empty agent, indices out of
            range or given twice.
    """
    labels = np.asarray(labels)
    m = len(labels)
    if isinstance(partition, str):
        require(
            partition in NAMED,
            f"partition is {partition!r}; give 'iid', 'by_label', jd.partition.dirichlet(alpha), "
            "or a list of index arrays.",
        )
        partition = NAMED[partition]()
    if callable(partition):
        agents = count("agents", agents)
        require(agents <= m, f"{m} samples cannot be split over {agents} agents; take at most {m}.")
        partition = partition(labels, agents)
    parts = [np.atleast_1d(np.asarray(part, None if np.size(part) else int)) for part in partition]
    _require_partition(parts, agents, m)
    return jax.tree.map(lambda leaf: [np.asarray(leaf)[part] for part in parts], data)


def _require_partition(parts: Sequence[np.ndarray], agents: int | None, m: int) -> None:
    """Refuse index arrays that are not for these agents, out of range, given twice or empty."""
    require(
        agents in (None, len(parts)) and len(parts) > 0,
        f"agents is {agents} and partition has {len(parts)} index arrays; give one an agent.",
    )
    for i, part in enumerate(parts):
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
