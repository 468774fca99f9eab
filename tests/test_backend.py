"""What a GPU is given computes the same as what a CPU is given, of which a program has one."""

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

import jaxdopt as jd
from jaxdopt import _backend, _selection, compressors
from jaxdopt.compressors.base import word_of
from jaxdopt.networks.operators import sparse

CUDA, CPU = ("cuda",), ("cpu",)


def lowered(function, *arguments, platforms):
    """Return what is compiled of a function for a platform, which need not be there."""
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=platforms).as_text()


def compiled(function, *arguments):
    """Return the program for the device at hand."""
    return str(jax.jit(function).lower(*arguments).compile().as_text())


@pytest.fixture
def gpu(monkeypatch):
    """All branches are a GPU's."""
    for module in (_selection, sparse, _backend):
        monkeypatch.setattr(module, "by_backend", lambda *operands, cpu, gpu: gpu(*operands))


def test_a_program_has_the_branch_of_its_platform_and_no_conditional():
    def either(x):
        return _backend.by_backend(x, cpu=jnp.sin, gpu=jnp.cos)

    x = jnp.ones(3)
    for function in (either, jax.vmap(either), jax.jit(either)):
        on = {p: lowered(function, x, platforms=p) for p in (CPU, CUDA, ("rocm",))}
        assert ["stablehlo.sine" in text for text in on.values()] == [True, False, False]
        assert ["stablehlo.cosine" in text for text in on.values()] == [False, True, True]
        assert " conditional(" not in compiled(function, x)
    slope = jax.grad(lambda x: either(x).sum())
    assert "stablehlo.sine" not in lowered(slope, x, platforms=CPU)  # the cosine's slope
    np.testing.assert_allclose(slope(x), np.cos(x))


@pytest.mark.parametrize("length", [1, 2, 7])
def test_a_scan_of_two_steps_an_iteration_is_the_same(gpu, length):
    def body(x, k):
        return jnp.sin(x) + k, x.sum()

    x, ks = jnp.arange(3.0), jnp.arange(float(length))
    both = _backend.scan(body, x, ks), jax.lax.scan(body, x, ks)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), *both)


def test_a_scan_on_a_cpu_is_the_plain_one():
    def plain(x, ks):
        return jax.lax.scan(lambda x, k: (jnp.sin(x) + k, x), x, ks)

    def ours(x, ks):
        return _backend.scan(lambda x, k: (jnp.sin(x) + k, x), x, ks)

    given = jnp.ones(3), jnp.ones(8)
    limits = {CPU: 8, CUDA: 4}  # of the loop's counter
    for platform, limit in limits.items():
        assert f"dense<{limit}> : tensor<i64>" in lowered(ours, *given, platforms=platform)
    texts = compiled(plain, *given), compiled(ours, *given)
    assert [text.count("while(") for text in texts] == [1, 1]
    assert [text.count(" fusion(") for text in texts] == [texts[0].count(" fusion(")] * 2
    assert " conditional(" not in texts[1]


VECTORS = {
    "of floats": np.random.default_rng(0).standard_normal((3, 37)),
    "with ties": np.random.default_rng(1).integers(-2, 3, (5, 64)).astype(float),
    "of zeros": np.zeros((2, 9)),
    "of extremes": np.array([[0.0, np.inf, -np.inf, 5e-324, -1e308, 1e308, 1.0, -0.0]]),
    "of one": np.ones((4, 1)),
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("with ties", "float64"),
        ("of floats", "bfloat16"),
        pytest.param("with ties", "float32", marks=pytest.mark.slow),
        *(
            pytest.param(name, "float64", marks=pytest.mark.slow)
            for name in VECTORS
            if name != "with ties"
        ),
    ],
)
def test_top_k_by_digits_is_top_k_by_bisection(name, dtype):
    x = jnp.asarray(VECTORS[name]).astype(dtype)
    words = jax.lax.bitcast_convert_type(jnp.abs(x), word_of(x))
    ks = sorted({1, x.shape[1] // 2 + 1, x.shape[1]})
    by_bits = jax.jit(lambda words: [_selection.largest(words, k) for k in ks])(words)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_selection, "by_backend", lambda *given, cpu, gpu: gpu(*given))
        by_digits = jax.jit(lambda words: [_selection.largest(words, k) for k in ks])(words)
    for k, bits, digits in zip(ks, by_bits, by_digits, strict=True):
        expected = np.zeros(x.shape, bool)
        best = np.argsort(~np.asarray(words), axis=1, kind="stable")[:, :k]
        np.put_along_axis(expected, best, True, axis=1)  # the first of those that tie
        assert np.array_equal(bits, expected)
        assert np.array_equal(digits, expected)


def test_random_k_draws_the_same_coordinates(gpu):
    x, key = jnp.asarray(VECTORS["of floats"]), jax.random.key(3)
    on_gpu = jax.jit(lambda x: compressors.RandomK(5)(key, x))(x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_selection, "by_backend", lambda *given, cpu, gpu: cpu(*given))
        assert np.array_equal(on_gpu, jax.jit(lambda x: compressors.RandomK(5)(key, x))(x))


def test_thresholds_are_a_loop_on_a_cpu_and_unrolled_on_a_gpu():
    def top(x):
        return compressors.TopK(3)(None, x)

    x = jnp.ones((2, 20), jnp.float32)
    loops = {p: lowered(top, x, platforms=p).count("stablehlo.while") for p in (CPU, CUDA)}
    assert loops == {CPU: 2, CUDA: 0}
    assert "x15x" not in lowered(top, x, platforms=CPU)
    assert " conditional(" not in compiled(top, x)


GRAPHS = {
    "all of many neighbors": nx.random_regular_graph(20, 40, seed=1),
    "some of many": nx.gnp_random_graph(60, 0.3, seed=0),
    "two tiers": nx.random_regular_graph(70, 90, seed=1),
}


@pytest.fixture(params=GRAPHS)
def table(request):
    """A table of many slots."""
    weights = jd.networks.metropolis(GRAPHS[request.param]).csr()
    return jd.networks.mixing(weights, form=jd.networks.Neighbors)


class TestTables:
    def test_all_ways_are_the_same(self, table, gpu):
        x = jnp.asarray(np.random.default_rng(0).standard_normal((table.n, 4, 16)))
        expected = np.tensordot(table.csr().toarray(), np.asarray(x), axes=1)

        def ways(table, x):
            given = jnp.zeros_like(x), (table.index, table.weights), table.tiers
            sums = [
                way(*given, lambda me, other: x[other] - x[me])
                for way in (sparse._by_slots, sparse._at_once)
            ]
            assert table._product_is_quicker(x)
            return [*(x + pull for pull in (*sums, table._product(x))), table @ x]

        for mixed in jax.jit(ways)(table, x):
            np.testing.assert_allclose(mixed, expected, rtol=0, atol=1e-14)

    def test_a_gpu_keeps_consensus_and_the_mean(self, table, gpu):
        @jax.jit
        def pulls(x):
            given = jnp.zeros_like(x), (table.index, table.weights), table.tiers
            return sparse._at_once(*given, lambda me, i: x[i] - x[me]), table._product(x)

        same = jnp.full((table.n, 2), 0.5, jnp.float32)
        assert not any(np.any(pull) for pull in pulls(same))
        x = jax.random.normal(jax.random.key(0), (table.n, 2), jnp.float32)
        for pull in pulls(x):
            assert np.max(np.abs(pull.sum(axis=0))) < 1e-5

    @pytest.mark.parametrize("table", ["some of many"], indirect=True)
    def test_values_and_slopes_of_any_weights(self, table):
        random = np.random.default_rng(0)
        x = jnp.asarray(random.standard_normal((table.n, 64)))
        weights = table.weights * random.uniform(size=table.weights.shape)  # not symmetric any more

        def objective(weights, x):
            mixed = jd.replace(table, weights=weights) @ x
            return jnp.sum(jnp.sin(mixed)), mixed

        def slopes():
            return jax.jit(jax.value_and_grad(objective, argnums=(0, 1), has_aux=True))(weights, x)

        on_cpu = slopes()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sparse, "by_backend", lambda *given, cpu, gpu: gpu(*given))
            on_gpu = slopes()
        for a, b in zip(*map(jax.tree.leaves, (on_cpu, on_gpu)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)

    def test_programs_for_a_cpu_are_slot_after_slot(self, table):
        x = jnp.ones((table.n, 64))
        texts = {p: lowered(lambda x: table @ x, x, platforms=p) for p in (CPU, CUDA)}
        assert ["stablehlo.dot_general" in text for text in texts.values()] == [False, True]
        assert "stablehlo.while" in texts[CPU]
        assert "stablehlo.while" not in texts[CUDA]
        assert " conditional(" not in compiled(lambda x: table @ x, x)


def test_wide_rows_of_many_agents_are_gathered_at_once():
    graph = nx.random_regular_graph(20, 700, seed=1)
    table = jd.networks.metropolis(graph)
    x = jnp.ones((table.n, 2))
    text = lowered(lambda x: table @ x, x, platforms=CUDA)
    assert not table._product_is_quicker(x)
    assert "stablehlo.dot_general" not in text
    assert "stablehlo.while" not in text
    assert "tensor<700x20x2x" in text


def test_a_column_stochastic_table_at_once(gpu):
    graph = nx.random_regular_graph(20, 90, seed=1)
    pushes = jd.networks.push_pull(nx.DiGraph(graph)).column
    pushes = jd.networks.mixing(pushes.csr(), kind="column", form=jd.networks.Pushes)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((90, 2)))
    expected = pushes.csr() @ np.asarray(x)
    np.testing.assert_allclose(jax.jit(lambda x: pushes @ x)(x), expected, rtol=0, atol=1e-14)


def test_tiers_name_agents_in_increasing_order():
    star = jd.networks.mixing(
        jd.networks.metropolis(GRAPHS["two tiers"]).csr(), form=jd.networks.Neighbors
    )
    ((agents, index, weights), *rest) = star.tiers
    with pytest.raises(ValueError, match="not in increasing order; sort its rows by agent"):
        jd.replace(star, tiers=((agents[::-1], index[::-1], weights[::-1]), *rest))
