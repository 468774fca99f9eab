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
