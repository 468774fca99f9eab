"""Several rounds in one exchange: powers and Chebyshev polynomials as dense matrices, and costs."""

import jax
import jax.numpy as jnp
import loops
import networkx as nx
import numpy as np
import pytest
from numpy.polynomial import chebyshev

import jaxdopt as jd
from jaxdopt import graphs, networks
from jaxdopt.networks import (
    Asleep,
    Chebyshev,
    Circulant,
    Complete,
    Cyclic,
    Dense,
    Disconnected,
    Neighbors,
    Pushes,
    RandomLinks,
    Repeated,
    mixing,
)

KEY = jax.random.key(0)
N = 12
ER = graphs.erdos_renyi(N, 0.35, seed=1)
ARCS = nx.cycle_graph(N, create_using=nx.DiGraph)
ARCS.add_edges_from([(0, 5), (5, 1), (9, 2), (3, 8), (8, 0)])
FIXED = {
    "Circulant": networks.metropolis(graphs.ring(N)),
    "Neighbors": mixing(loops.metropolis(ER), form=Neighbors),
    "Dense": mixing(loops.metropolis(ER), form=Dense),
    "Complete": Complete(N),
    "directed": networks.metropolis(graphs.directed_ring(N)),
    "row": networks.row_stochastic(ARCS),
    "column": mixing(loops.column_stochastic(ARCS), kind="column", form=Pushes),
}
SYMMETRIC = ("Circulant", "Neighbors", "Dense", "Complete")


def polynomial(W, rounds, radius):
    """Return T_K(W / λ) / T_K(1 / λ) from the eigenvectors of W."""
    values, vectors = np.linalg.eigh(W)
    first = np.eye(rounds + 1)[rounds]
    shrunk = chebyshev.chebval(values / radius, first) / chebyshev.chebval(1 / radius, first)
    return vectors @ np.diag(shrunk) @ vectors.T


class TestRepeated:
    @pytest.mark.parametrize(("name", "rounds"), [*((n, 3) for n in FIXED), ("Neighbors", 1)])
    def test_is_the_power(self, name, rounds):
        base = FIXED[name]
        W = base.csr().toarray()
        network = Repeated(base, rounds)
        power = np.linalg.matrix_power(W, rounds)
        x = loops.rows(N, 2)
        mixed, pulled, matrix, _ = loops.everything(network, x)
        np.testing.assert_allclose(mixed, power @ x, rtol=1e-13)
        np.testing.assert_allclose(pulled, x - power @ x, atol=1e-13)
        np.testing.assert_allclose(matrix, power, atol=1e-15)
        assert (network.n, network.kind) == (N, base.kind)
        assert network.symmetric is base.symmetric
        assert network.repetitions == rounds
        assert not network.varies
        assert network.spectral_gap == pytest.approx(1 - (1 - base.spectral_gap) ** rounds)
        second = np.sort(np.abs(np.linalg.eigvals(power)))[-2]
        assert network.spectral_gap == pytest.approx(1 - second, abs=1e-7)

    @pytest.mark.slow
    def test_rounds_of_a_network_that_changes_have_their_own_numbers(self):
        base = Cyclic([FIXED["Neighbors"], FIXED["Circulant"], FIXED["Dense"], FIXED["directed"]])
        for inner in (base, RandomLinks(FIXED["Neighbors"], 0.5)):
            rounds = loops.matrices(inner, 9, KEY)
            found = loops.matrices(Repeated(inner, 3), 3, KEY)
            for k in range(3):
                expected = rounds[3 * k + 2] @ rounds[3 * k + 1] @ rounds[3 * k]
                np.testing.assert_allclose(found[k], expected, atol=1e-15)
        # a product of symmetric matrices is not symmetric
        network = Repeated(RandomLinks(FIXED["Neighbors"], 0.5), 3)
        assert network.network.symmetric
        assert not network.symmetric
        assert not network.at(0, KEY).symmetric
        assert network.varies

    def test_the_gap_of_a_product_of_rounds(self):
        now = Repeated(RandomLinks(FIXED["Circulant"], 0.7), 2).at(0, KEY)
        values = np.linalg.eigvals(
            loops.matrices(Repeated(RandomLinks(FIXED["Circulant"], 0.7), 2), 1, KEY)[0]
        )
        assert now.spectral_gap == pytest.approx(1 - np.sort(np.abs(values))[-2], abs=1e-9)

    def test_the_gap_of_many_agents_needs_no_matrix(self):
        ring = networks.metropolis(graphs.ring(20_000))
        assert Repeated(ring, 4).spectral_gap == pytest.approx(4 * ring.spectral_gap, rel=1e-6)

    @pytest.mark.slow
    def test_links_that_are_cut_are_cut_in_every_round(self):
        W = FIXED["Neighbors"].csr().toarray()
        awake = np.arange(N) % 3 > 0
        cut = loops.cut(W, lambda i, j: awake[i] and awake[j])
        network = Asleep(Repeated(FIXED["Neighbors"], 3), awake[None])
        found = loops.matrices(network, 2, KEY)
        np.testing.assert_allclose(found[1], np.linalg.matrix_power(cut, 3), atol=1e-15)
        assert np.array_equal(network.at(0, KEY).active, awake)
        # and of one that changes: round by round
        inner = RandomLinks(FIXED["Neighbors"], 0.6)
        rounds = [
            loops.cut(w, lambda i, j: awake[i] and awake[j]) for w in loops.matrices(inner, 4, KEY)
        ]
        found = loops.matrices(Asleep(Repeated(inner, 2), awake[None]), 2, KEY)
        for k in range(2):
            np.testing.assert_allclose(found[k], rounds[2 * k + 1] @ rounds[2 * k], atol=1e-15)

    def test_traffic_counts_the_links_of_all_rounds(self):
        """Of a ring, of nothing and of all in turn, two rounds a step."""
        empty = Repeated(
            networks.sequence([graphs.ring(N), np.zeros((N, N)), graphs.complete(N)]), 2
        )
        counts = [2 * N, 0, N * (N - 1)]
        for k in range(3):
            now = loops.at(empty, k, KEY)
            expected = (counts[2 * k % 3] + counts[(2 * k + 1) % 3]) / 2
            assert float(now.link_count) == expected
        assert Repeated(FIXED["Neighbors"], 2).link_count == FIXED["Neighbors"].link_count


class TestChebyshev:
    @pytest.mark.parametrize(
        ("name", "rounds"),
        [*((name, 3) for name in SYMMETRIC), ("Neighbors", 1), ("Neighbors", 2), ("Dense", 8)],
    )
    def test_is_the_polynomial(self, name, rounds):
        base = FIXED[name]
        network = Chebyshev(base, rounds)
        W = base.csr().toarray()
        radius = 1 - base.spectral_gap
        if name == "Complete":
            assert network.radius == 0
            expected = W
        else:
            assert network.radius == pytest.approx(radius)
            expected = polynomial(W, rounds, radius)
        x = loops.rows(N, 2)
        mixed, pulled, matrix, _ = loops.everything(network, x)
        np.testing.assert_allclose(mixed, expected @ x, rtol=1e-12)
        np.testing.assert_allclose(pulled, x - expected @ x, atol=1e-12)
        np.testing.assert_allclose(matrix, expected, atol=1e-13)
        assert network.symmetric
        assert network.kind == "doubly"

    @pytest.mark.slow
    def test_contracts_as_its_theorem_says(self):
        """By 1 / T_K(1/λ) exactly: at worst over [−λ, λ], and reached at λ."""
        base = networks.metropolis(graphs.ring(32))
        radius = 1 - base.spectral_gap
        for rounds in (5, 12):
            network = Chebyshev(base, rounds)
            factor = 1 / chebyshev.chebval(1 / radius, np.eye(rounds + 1)[rounds])
            assert 1 - network.spectral_gap == pytest.approx(factor, rel=1e-9)
            assert network.spectral_gap > Repeated(base, rounds).spectral_gap
            if rounds == 5:
                assert networks.contraction(network, KEY) == pytest.approx(factor, rel=0.02)

    @pytest.mark.parametrize("radius", [0.0, 0.5, 0.97, 1.0])
    def test_another_radius_and_a_traced_one(self, radius):
        base = FIXED["Neighbors"]
        W = base.csr().toarray()
        expected = polynomial(W, 3, radius) if radius else np.linalg.matrix_power(W, 3)
        if not radius:  # T_K(z / λ) / T_K(1 / λ) -> zᴷ
            assert np.abs(polynomial(W, 3, 1e-5) - expected).max() < 1e-8
        network = Chebyshev(base, 3, radius)
        np.testing.assert_allclose(
            loops.dense(network, jnp.arange(1), KEY)[0], expected, atol=1e-12
        )
        traced = jax.jit(lambda r: Chebyshev(base, 3, r).matrix())(radius)
        np.testing.assert_allclose(traced, expected, atol=1e-12)

    @pytest.mark.slow
    def test_of_sleeping_agents_stays_symmetric(self):
        awake = np.arange(N) % 4 > 0
        W = FIXED["Neighbors"].csr().toarray()
        cut = loops.cut(W, lambda i, j: awake[i] and awake[j])
        network = Asleep(Chebyshev(FIXED["Neighbors"], 3, 0.9), awake[None])
        found = loops.matrices(network, 1, KEY)[0]
        np.testing.assert_allclose(found, polynomial(cut, 3, 0.9), atol=1e-13)
        assert network.symmetric
        assert network.at(0, KEY).symmetric


@pytest.mark.parametrize("kind", [Repeated, pytest.param(Chebyshev, marks=pytest.mark.slow)])
def test_run_counts_every_round(kind):
    problem = jd.problems.quadratic(N, 3)

    def history(network):
        return jd.run(jd.DGD(0.1), problem, network, problem.start(), KEY, steps=4, every=2).history

    base = FIXED["Neighbors"]
    once, often = history(base), history(kind(base, 5))
    for name in ("rounds", "vectors", "bits", "traffic"):
        np.testing.assert_allclose(often[name], 5 * once[name])
    assert once["rounds"].tolist() == [0, 2, 4]
    assert once["traffic"][-1] == 4 * 3 * 32 * int(base.link_count)
    for name in ("step", "gradients"):
        assert np.array_equal(often[name], once[name])
    if kind is Repeated:
        links = history(RandomLinks(base, 0.5))
        many = history(Repeated(RandomLinks(base, 0.5), 2))
        assert np.array_equal(many["rounds"], 2 * links["rounds"])
        # the links of rounds 0 ... 7 instead of 0 ... 3
        counts = [int(loops.at(RandomLinks(base, 0.5), k, KEY).link_count) for k in range(8)]
        assert many["traffic"][-1] == 3 * 32 * sum(counts)


def test_a_run_with_powers_is_a_run_with_the_power():
    problem = jd.problems.quadratic(N, 2)
    W = FIXED["Dense"].csr().toarray()
    for network, matrix in (
        (Repeated(FIXED["Dense"], 3), W @ W @ W),
        (Chebyshev(FIXED["Dense"], 2, 0.8), polynomial(W, 2, 0.8)),
    ):
        pair = [
            jd.run(jd.ExactDiffusion(0.1), problem, w, problem.start(), KEY, steps=20)
            for w in (network, mixing(matrix))
        ]
        np.testing.assert_allclose(pair[0].state.x, pair[1].state.x, rtol=1e-9, atol=1e-12)


def test_pytrees_stacks_and_vmap():
    x = loops.rows(N, 2)
    for network in (Repeated(FIXED["Neighbors"], 2), Chebyshev(FIXED["Neighbors"], 2, 0.9)):
        again = jax.tree.unflatten(*jax.tree.flatten(network)[::-1])
        assert type(again) is type(network)
        assert again.repetitions == 2
        jax.tree.map(lambda _: "odd", network)
        other = jd.replace(
            network, network=mixing(networks.lazy_metropolis(ER).csr(), form=Neighbors)
        )
        stacked = networks.stack([network.at(2, KEY), other])
        mixed = jax.jit(jax.vmap(lambda w: w @ x))(stacked)
        for one, found in zip((network, other), mixed, strict=True):
            np.testing.assert_allclose(found, loops.apply(one, x), rtol=1e-13)
        with pytest.raises(ValueError, match="this is a stack of networks"):
            _ = stacked @ x
    # the radius is a number: swept and differentiated
    radii = jnp.array([0.5, 0.9])
    batch = jax.vmap(lambda r: Chebyshev(FIXED["Circulant"], 3, r))(radii)
    assert isinstance(batch.network, Circulant)
    slope = jax.jit(jax.grad(lambda r: jnp.sum((Chebyshev(FIXED["Circulant"], 3, r) @ x) ** 2)))(
        0.8
    )
    assert np.isfinite(slope)
    assert slope != 0


BAD: dict[str, tuple] = {
    "no rounds": (lambda: Repeated(FIXED["Dense"], 0), "repetitions is 0; give an integer of at"),
    "half a round": (lambda: Repeated(FIXED["Dense"], 1.5), "repetitions is 1.5; give an integer"),  # type: ignore[arg-type]
    "rounds true": (lambda: Chebyshev(FIXED["Dense"], True), "repetitions is True; give an int"),
    "two parts": (
        lambda: Repeated(networks.push_pull(ARCS), 2),
        "a Directed network has no one matrix to repeat; give one with weights",
    ),
    "an array": (lambda: Repeated(np.eye(3), 2), "a ndarray is given where a network"),
    "repeated twice": (
        lambda: Repeated(Repeated(FIXED["Dense"], 2), 3),
        r"takes 2 rounds an exchange itself; give the one that it wraps, .* 2 \* 3",
    ),
    "repeated Chebyshev asleep": (
        lambda: Repeated(Disconnected(Chebyshev(FIXED["Dense"], 4), 0.5), 2),
        "takes 4 rounds an exchange",
    ),
    "repeated sleep": (
        lambda: Repeated(Asleep(FIXED["Dense"], 0.5), 2), r"give Asleep\(Repeated\(network"
    ),
    "Chebyshev that changes": (
        lambda: Chebyshev(RandomLinks(FIXED["Dense"], 0.5), 2),
        "Chebyshev needs one network with a symmetric W; use Repeated for others",
    ),
    "directed Chebyshev": (
        lambda: Chebyshev(FIXED["directed"], 2), "needs one network with a symmetric W"
    ),
    "radius above 1": (
        lambda: Chebyshev(FIXED["Dense"], 2, 1.1), r"radius is 1\.1; give at most 1"
    ),
    "radius below 0": (lambda: Chebyshev(FIXED["Dense"], 2, -0.1), "radius is -0.1; give at least"),
    "many radii": (
        lambda: Chebyshev(FIXED["Dense"], 2, np.ones(3)), r"radius has shape \(3,\); give one"
    ),
    "radius true": (lambda: Chebyshev(FIXED["Dense"], 2, True), "radius is True, a boolean"),
    "sleep of a directed power": (
        lambda: Asleep(Repeated(FIXED["directed"], 2), 0.5), "links of this Repeated cannot be cut"
    ),
    "a power before at": (
        lambda: Repeated(RandomLinks(FIXED["Dense"], 0.5), 2) @ jnp.ones((N, 1)),
        r"a RandomLinks network changes with time; take one step's, network\.at\(k, key\)",
    ),
    "links of a power": (
        lambda: Repeated(FIXED["Dense"], 2).links, "the same links both ways in every round"
    ),
    "contraction of no rounds": (
        lambda: networks.contraction(FIXED["Dense"], rounds=0), "rounds is 0; give an integer"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_mistakes_are_told_in_one_sentence(name):
    call, match = BAD[name]
    with pytest.raises(ValueError, match=match) as error:
        call()
    assert loops.one_sentence(error), str(error.value)


def test_contraction_is_the_second_eigenvalue():
    for name in ("Circulant", "directed"):
        measured = networks.contraction(FIXED[name], KEY)
        assert measured == pytest.approx(1 - FIXED[name].spectral_gap, rel=0.01)
    assert networks.contraction(Complete(N)) == 0
    # a network whose links fail mixes more slowly, and every other round none at all at the root
    failing = networks.contraction(RandomLinks(FIXED["Circulant"], 0.5), KEY)
    assert 1 - FIXED["Circulant"].spectral_gap < failing < 1
