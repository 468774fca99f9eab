"""The table of roles: every method on every kind of network runs as it should, or is refused.

There is no third outcome. Where it runs, its steps are those on the same rounds written as plain
matrices (on which the NumPy loops check it), with the rows of those who sleep put back by hand.
"""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import ROWS

import jaxdopt as jd
from experiments.catalogue import roles
from jaxdopt._pytree import replace  # a cut network of parts has no common root

KEY = jax.random.key(3)
N, STEPS = roles.N, 3
MIXING = {"mixing", "pull", "push", "push-pull"}
FIXED = {*MIXING, "symmetric", "links", "hop", "all"}

# what papers and their theorems ask, written down apart from the classes: the catalogue says on
# which kind of network a method runs, and whether W has to be symmetric; this table, what else
KINDS = {"undirected": "mixing", "directed": "push-pull", "server": "server", "full": "server"}
NEEDS = {
    "all": "GradientDescent SGD CentralizedRR",
    "mixing": "SybilWall",
    "mixing symmetric links": "LinearizedADMM",
    "push": "SGP PushSum OSGP PushDIGing APD APDSC",
    "push-pull hop": "BCPP",
    "tree": "STPP",
    "tree both_ways": "RelaySGD",
    "server sum": "SCAFFOLD SCAFFOLDMomentum MIFA FedVARP FOCUS FedSUM FedSUMB FedSUMCR "
    "EDiT DecoupledDiLoCo EF21 EF21SGDM EControl",
    "pull hop": "CBO ConsensusHopping",
    "server all": "FedNMap ZhangHuJohansson FZooS",
    "server sum all": "MASHA1 MASHA2",
    "server": "FedZO",
    "all server_or_links": "JustOneByte",
    "returns": "AFACD FedBuff AsyncDiLoCo",
    "returns sum": "AsyncFedAvg AFACS AEDiT",
    "returns ticks sum": "FedFix",
    "timeline_of_mixing": "ADSGD",
    "timeline_of_symmetric": "ASBCD",
    "timeline_of_push-pull": "RFAST",
    "pairs": "ADPSGD",
}
NEED = {
    row.name: {KINDS[row.network]} | ({"symmetric"} & {row.needs})
    for row in ROWS
    if row.network in KINDS
} | {
    name: {word.replace("_", " ") for word in words.split()}
    for words, names in NEEDS.items()
    for name in names.split()
}
OFFERS = {
    "ring": FIXED,
    "graph": FIXED,
    "complete": FIXED,
    "directed ring": FIXED - {"symmetric", "links"},
    "one-peer exponential": FIXED - {"symmetric", "links"},
    "random matching": FIXED - {"links"},
    "trace of graphs": FIXED - {"links"},
    "rows": {"pull", "hop", "all"},
    "columns": {"push", "hop", "all"},
    "trace of columns": {"push", "hop", "all"},
    "push-pull": {"pull", "push", "push-pull", "hop", "all"},
    "push-pull of trees": {"pull", "push-pull", "hop", "all"},
    "tree": {"tree", "both ways", "push-pull", "hop", "all"},
    "trees down and up": {"tree", "push-pull", "hop", "all"},
    "server": {"server", "sum", "all"},
    "participation, few": {"server", "sum"},
    "participation, many": {"server", "sum"},
    "arrivals": {"returns", "sum"},
    "arrivals at ticks": {"returns", "sum", "ticks"},
    "timeline": {"timeline of mixing", "timeline of symmetric", "timeline of push-pull"},
    "timeline of push-pull": {"timeline of push-pull"},
    "pairs": {"pairs"},
    "timed": FIXED,
    "timed participation": {"server", "sum"},
    "random links": FIXED,
    "random links of columns": {"push", "hop", "all"},
    "disconnected": FIXED,
    "disconnected push-pull": {"pull", "push", "push-pull", "hop", "all"},
    "asleep": FIXED - {"all"},
    "asleep push-pull": {"pull", "push", "push-pull", "hop"},
    "asleep repeated": {*MIXING, "symmetric"},
    "liars on a graph": {"mixing"},
    "liars at a server": {"server"},
    "liars who return": {"returns"},
    "repeated": {*MIXING, "symmetric", "all"},
    "repeated columns": {"push", "all"},
    "repeated random links": {*MIXING, "all"},
    "Chebyshev": {*MIXING, "symmetric", "all"},
}
OFFERS = {
    kind: words if words.isdisjoint({"server", "links"}) else words | {"server or links"}
    for kind, words in OFFERS.items()
}
LYING = ("liars on a graph", "liars at a server", "liars who return")
OWN_TESTS = (*LYING, "arrivals", "arrivals at ticks", "timeline", "timeline of push-pull", "pairs")


def _firsts(words):
    """The first name for every set of words, which stands for all with the same."""
    return {frozenset(own): name for name, own in reversed(words.items())}.values()


def _cells():
    """Methods with kinds of networks: every pair of needs and offers once, the rest if slow."""
    classes = [kind for kind in OFFERS if kind in _firsts(OFFERS)]
    others = [kind for kind in OFFERS if kind not in classes]
    alone = _firsts(NEED)
    for name in roles.METHODS:
        quick = () if name in alone else pytest.mark.slow
        yield pytest.param(name, classes, marks=quick, id=name)
        yield pytest.param(name, others, marks=pytest.mark.slow, id=f"{name}, more kinds")


CELLS = list(_cells())


@functools.cache
def network(kind):
    return roles.KINDS[kind]()


@functools.cache
def rounds(kind, k):
    """Round k's network, and the same as matrices if it is one of a graph or a server."""
    now = network(kind).at(k, KEY)
    return now, None if kind in OWN_TESTS else plain(kind, now, k)


@functools.cache
def problem():
    return roles.problem()


def start():
    return jnp.asarray(np.random.default_rng(1).standard_normal((N, problem().d)))


def test_all_methods_and_kinds_are_in_the_table():
    assert set(NEED) == set(roles.METHODS)
    assert set(OFFERS) == set(roles.KINDS)


def sentences(method, kind):
    """What run, a bare init and a sweep say of a method that does not fit, before any work."""
    where, now = network(kind), rounds(kind, 0)[0]
    stacked = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], method)
    calls = [
        lambda: jd.run(method, problem(), where, start(), KEY, steps=2),
        lambda: method.init(start(), problem(), now, KEY),
    ]
    if jax.tree.leaves(method):
        sweep = jd.sweep(jd.run, over=("algorithm",))
        calls.append(lambda: sweep(stacked, problem(), where, start(), KEY, steps=2))
    for call in calls:
        with pytest.raises(ValueError, match=r".") as error:
            call()
        yield str(error.value)


@pytest.mark.parametrize("name", roles.METHODS)
def test_a_method_fits_where_its_needs_are_offered(name):
    method = roles.built(name)
    for kind, offered in OFFERS.items():
        try:
            jd.roles.check(method, network(kind), problem())
        except ValueError:
            assert not NEED[name] <= offered, kind
        else:
            assert NEED[name] <= offered, kind


def test_the_printed_table_is_this_one():
    for name in ("DGD", "FedAvg", "RFAST"):
        for kind, offered in OFFERS.items():
            assert roles.fits(name, kind) == (NEED[name] <= offered), (name, kind)


@pytest.mark.parametrize(("name", "kinds"), CELLS)
def test_a_method_is_refused_in_one_sentence_where_it_does_not_fit(name, kinds):
    method = roles.built(name)
    for kind in kinds:
        if NEED[name] <= OFFERS[kind]:
            continue
        for text in sentences(method, kind):
            assert text.startswith(f"{name} needs "), text
            assert text.endswith(".")
            assert "\n" not in text
            assert len(text) <= 260, text
            remedy = text.partition("; give ")[2]
            named = re.findall(r"(?:jd\.networks\.)?\b[A-Za-z_.]+(?=\(|=)|AsyncFedAvg", remedy)
            assert len(named) >= 2, text


@pytest.mark.parametrize("name", ["DGD", "FedAvg", "ADSGD"])
def test_compare_refuses_before_it_runs(name):
    kind = {"DGD": "server", "FedAvg": "ring", "ADSGD": "ring"}[name]
    with pytest.raises(ValueError, match=f"{name} needs "):
        jd.compare(
            {"fits": jd.GradientDescent(0.1), name: roles.built(name)}, problem(), network(kind),
            over={"stepsize": [0.1]}, steps=2, progress=False,
        )  # fmt: skip


def plain(kind, now, k):
    """Round k as matrices, all awake, and who is awake: [n] bool or None."""
    offered, active = OFFERS[kind], getattr(now, "active", None)
    if "server" in offered:
        return jd.networks.Server(N, k=k, active=active), None

    def dense(part, sums, **more):
        matrix = np.asarray(part.matrix() if hasattr(part, "matrix") else part.csr().toarray())
        return jd.networks.Dense(matrix, kind=sums, **more)

    if "mixing" in offered:
        degree = now.links.degree if "links" in offered else None
        more = {"symmetric": "symmetric" in offered, "degree": degree}
        return dense(now, "doubly", **more).at(k, KEY), active
    parts = {}
    if "pull" in offered or "tree" in offered:
        parts["row"] = replace(dense(now.row, "row"), k=k)
    if "push" in offered or "push-pull" in offered:
        parts["column"] = replace(dense(now.column, "column", pushes="push" in offered), k=k)
    if "tree" in offered:
        return replace(now, **parts), active
    if len(parts) == 2:
        return replace(network("push-pull"), **parts), active
    return next(iter(parts.values())).at(k, KEY), active


def put_back(before, after, awake):
    """The state with sleepers' rows as they were: axis 1 of what is in flight, else axis 0."""

    def leaf(path, old, new):
        old, new = np.array(old), np.array(new)
        if "flight" in jax.tree_util.keystr(path):
            new[:, ~awake] = old[:, ~awake]
        elif new.shape[:1] == (N,):
            new[~awake] = old[~awake]
        return jnp.asarray(new)

    return jax.tree_util.tree_map_with_path(leaf, before, after)


@pytest.mark.parametrize(("name", "kinds"), CELLS)
@pytest.mark.slow
def test_a_method_that_fits_does_what_it_does_on_plain_rounds(name, kinds):
    method = roles.built(name)
    step = jax.jit(method.step)
    for kind in kinds:
        if not NEED[name] <= OFFERS[kind]:
            continue
        got = method.init(start(), problem(), rounds(kind, 0)[0], KEY)
        expected: Any = got
        for k in range(STEPS):
            key, (now, plain_round) = jax.random.fold_in(KEY, k), rounds(kind, k)
            before = got
            got = step(got, problem(), now, key)
            assert jnp.all(jnp.isfinite(got.x))
            if plain_round is None:  # against loops over events elsewhere
                continue
            now, awake = plain_round
            expected = expected if k else method.init(start(), problem(), now, KEY)
            after = step(expected, problem(), now, key)
            if awake is not None:
                asleep = ~np.asarray(awake)
                after = put_back(expected, after, np.asarray(awake))
                assert np.array_equal(got.x[asleep], before.x[asleep])  # bit for bit
            expected = after
            np.testing.assert_allclose(got.x, expected.x, rtol=1e-10, atol=1e-12, err_msg=kind)
