"""Dealing out samples: nothing lost, nothing twice, nobody empty."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxdopt as jd

LABELS = np.repeat(np.arange(4), [30, 20, 40, 10])[np.random.default_rng(0).permutation(100)]
PARTITIONS = {
    "iid": "iid",
    "iid seeded": jd.partition.iid(seed=3),
    "by label": "by_label",
    "shards": jd.partition.by_label(shards=2, seed=1),
    "dirichlet": jd.partition.dirichlet(0.5, seed=2),
    "balanced": jd.partition.balanced_dirichlet(0.5, seed=2),
    "gamma": jd.partition.gamma_similarity(0.33, seed=2),
}


def deal(partition, agents, labels=LABELS):
    """The sample numbers that each agent is given."""
    return jd.partition.split(np.arange(len(labels)), labels, agents=agents, partition=partition)


@pytest.mark.parametrize("agents", [1, 3, 7, 16])
@pytest.mark.parametrize("name", PARTITIONS)
def test_every_sample_goes_to_one_agent(name, agents):
    parts = deal(PARTITIONS[name], agents)
    assert len(parts) == agents
    assert min(map(len, parts)) >= 1
    assert sorted(np.concatenate(parts)) == list(range(100))
    again = deal(PARTITIONS[name], agents)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))
    if name != "dirichlet":
        slack = 2 if name == "shards" else 1
        assert max(map(len, parts)) - min(map(len, parts)) <= slack


def test_by_label_sorts():
    parts = deal("by_label", 10)
    flat = LABELS[np.concatenate(parts)]
    assert np.all(np.diff(flat) >= 0)
    assert np.mean([len(set(LABELS[part])) for part in deal("iid", 10)]) > 3


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), alpha=st.floats(0.2, 100), agents=st.integers(1, 8))
def test_dirichlet_is_a_partition_for_any_concentration(seed, alpha, agents):
    parts = deal(jd.partition.dirichlet(alpha, seed=seed), agents)
    assert sorted(np.concatenate(parts)) == list(range(100))
    assert min(map(len, parts)) >= 1


def test_dirichlet_concentrates_with_alpha():
    def skew(alpha):
        labels = np.repeat(np.arange(4), 250)
        parts = deal(jd.partition.dirichlet(alpha, seed=0), 5, labels)
        shares = [np.bincount(labels[part], minlength=4) / len(part) for part in parts]
        return np.mean([np.abs(share - 0.25).sum() for share in shares])

    assert skew(0.1) > 0.8 > 0.2 > skew(1000.0)


def test_dirichlet_lets_each_class_draw_its_agents():
    """Yurochkin et al.: shares of a class are Dirichlet(α): mean 1/n, variance (n−1)/(n²(nα+1))."""
    n, alpha, size = 5, 0.7, 4000
    labels = np.repeat(np.arange(40), size)
    shares = []
    for seed in range(20):
        parts = deal(jd.partition.dirichlet(alpha, seed=seed), n, labels)
        counts = np.stack([np.bincount(labels[part], minlength=40) for part in parts], axis=1)
        shares.append(counts / size)
    shares = np.concatenate(shares)  # [800, n]
    np.testing.assert_allclose(shares.mean(axis=0), 1 / n, atol=0.04)
    variance = (n - 1) / (n**2 * (n * alpha + 1))
    np.testing.assert_allclose(shares.var(axis=0).mean(), variance, rtol=0.1)


@pytest.mark.slow
def test_balanced_dirichlet_lets_each_agent_draw_its_classes():
    """Hsu et al.: Dirichlet(α p), of variance p (1 − p) / (α + 1); all sizes are equal.

    Only the first agent is looked at, for which no class has run out.
    """
    labels = np.repeat(np.arange(3), [2000, 4000, 4000])
    p, alpha = np.array([0.2, 0.4, 0.4]), 2.0
    mixes = []
    for seed in range(800):
        parts = jd.partition.balanced_dirichlet(alpha, seed=seed)(labels, 50)
        assert {len(part) for part in parts} == {200}
        mixes.append(np.bincount(labels[parts[0]], minlength=3) / 200)
    mixes = np.stack(mixes)
    np.testing.assert_allclose(mixes.mean(axis=0), p, atol=0.03)
    spread = p * (1 - p) / (alpha + 1)
    drawn = (p * (1 - p) - spread) / 200  # of 200 multinomial draws by a mix
    np.testing.assert_allclose(mixes.var(axis=0), spread + drawn, rtol=0.12)


def test_balanced_sizes_differ_by_one_at_most_and_a_small_alpha_gives_one_class_an_agent():
    labels = np.repeat(np.arange(10), 500)
    parts = deal(jd.partition.balanced_dirichlet(0.3), 10, labels)
    assert [len(part) for part in parts] == [500] * 10
    assert sorted(map(len, deal(jd.partition.balanced_dirichlet(0.3), 7, labels)))[::6] == [
        714,
        715,
    ]
    alone = deal(jd.partition.balanced_dirichlet(1e-6), 10, labels)
    assert sorted(len(set(labels[part])) for part in alone)[4] == 1


@pytest.mark.parametrize("scheme", [jd.partition.dirichlet, jd.partition.balanced_dirichlet])
def test_infinite_alpha_is_iid(scheme):
    for a, b in zip(deal(scheme(np.inf, 3), 7), deal(jd.partition.iid(3), 7), strict=True):
        np.testing.assert_array_equal(a, b)


def test_gamma_similarity_is_by_label_at_0_and_iid_at_1():
    for gamma, end in ((0.0, "by_label"), (1.0, jd.partition.iid(3))):
        for a, b in zip(
            deal(jd.partition.gamma_similarity(gamma, 3), 7), deal(end, 7), strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_gamma_similarity_deals_a_share_evenly_and_the_rest_by_label():
    """A count of the rest by the loop: agent i's part of the sorted samples is the i-th stretch."""
    gamma, n, labels = 0.66, 10, np.repeat(np.arange(10), 400)  # sorted, as data often are
    parts = deal(jd.partition.gamma_similarity(gamma, 1), n, labels)
    assert [len(part) for part in parts] == [400] * n
    drawn = np.concatenate([part[:264] for part in parts])
    counts = np.bincount(labels[drawn], minlength=10)
    assert np.abs(counts - 264).max() < 5 * np.sqrt(264 * 0.34)  # a random share of each class
    rest = labels[np.concatenate([part[264:] for part in parts])]
    assert np.all(np.diff(rest) >= 0)
    others = [part[264:] for part in deal(jd.partition.gamma_similarity(gamma, 2), n, labels)]
    assert not np.array_equal(others[0], parts[0][264:])


@pytest.mark.parametrize("alpha", [1e-300, 1e-6, 0.1])
@pytest.mark.parametrize("minimum", [1, 3])
def test_a_small_alpha_and_many_agents_have_an_answer(alpha, minimum):
    """Two classes and 100 agents: nearly every draw leaves somebody without samples."""
    labels = np.repeat([0, 1], 200)
    parts = deal(jd.partition.dirichlet(alpha, minimum=minimum), 100, labels)
    assert sorted(np.concatenate(parts)) == list(range(400))
    assert min(map(len, parts)) == minimum
    balanced = deal(jd.partition.balanced_dirichlet(alpha), 100, labels)
    assert [len(part) for part in balanced] == [4] * 100
    assert sorted(np.concatenate(balanced)) == list(range(400))


def test_a_minimum_that_most_draws_have_only_selects_among_them():
    parts = deal(jd.partition.dirichlet(1.0, minimum=10), 4)
    assert min(map(len, parts)) >= 10
    assert min(map(len, deal(jd.partition.dirichlet(1.0), 4))) < 10


def test_labels_of_any_type():
    names = np.array(["ant", "bee", "cat", "dog"])[LABELS]
    for name, partition in PARTITIONS.items():
        plain = deal(partition, 5)
        for labels in (names, names.astype(object), LABELS[:, None], LABELS.tolist()):
            for a, b in zip(deal(partition, 5, labels), plain, strict=True):
                np.testing.assert_array_equal(a, b, err_msg=name)


def test_a_dict_of_indices_is_dealt_out_by_its_values():
    """Keys that are the agents' numbers say which; other keys are names."""
    rows = np.arange(6)
    for partition in (
        {0: [4, 0], 1: [1, 2, 3]},
        {1: [1, 2, 3], 0: [4, 0]},
        {"b": [4, 0], "a": [1, 2, 3]},
    ):
        parts = jd.partition.split(rows, rows, agents=None, partition=partition)
        assert [part.tolist() for part in parts] == [[4, 0], [1, 2, 3]]


def test_index_arrays_and_trees():
    data = {"x": np.arange(12.0).reshape(6, 2), "y": np.arange(6)}
    parts = jd.partition.split(data, data["y"], agents=None, partition=[[4, 0], [1, 2, 3]])
    np.testing.assert_array_equal(parts["y"][0], [4, 0])
    np.testing.assert_array_equal(parts["x"][1], data["x"][[1, 2, 3]])


def test_a_problem_takes_a_partition():
    features = np.random.default_rng(0).standard_normal((100, 3))
    parts = deal(PARTITIONS["dirichlet"], 5)
    problem = jd.problems.softmax_regression(
        features, LABELS, agents=5, partition=PARTITIONS["dirichlet"], l2=0.1
    )
    assert problem.sizes.tolist() == [len(part) for part in parts]
    for i, part in enumerate(parts):
        np.testing.assert_array_equal(problem.data[1][i, : len(part)], LABELS[part])
