"""The search for robustness coefficients: its ratio is the loop's, and what it finds is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import robust

from experiments import kappa
from experiments.study import Results, joined


@pytest.mark.parametrize(("rule", "before"), [("Krum", "alone"), ("median", "ARC"), ("CAF", "NNM")])
def test_the_ratio_is_the_largest_of_all_sets_by_the_loop(rule, before):
    f, x, key = 2, kappa.inputs(3, seed=1)[:3], jax.random.key(0)
    made = kappa.made(rule, before, f)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def both(x, n):
        return made(x, jnp.arange(len(x)) < n), kappa.ratio(made, x, n, f, key)

    for n in (9, 6):
        for one, aggregate, ratio in zip(x, *both(x, n), strict=True):
            expected = robust.coefficient(np.asarray(aggregate), one[:n], f)
            np.testing.assert_allclose(ratio, expected, rtol=1e-5)  # variances have a floor


def test_inputs_are_drawn_and_then_all_zeros_and_ones():
    x = kappa.inputs(5, seed=0)
    assert x.shape == (5 + 2**9, 9, 3)
    assert len(np.unique(x[5:, :, 0], axis=0)) == 2**9
    assert set(x[5:].ravel()) == {0.0, 1.0}
    assert not np.any(x[5:, :, 1:])


def test_pairs_have_fewer_liars_than_half_of_the_messages_or_buckets():
    assert kappa.pairs((3, 4), "NNM") == [(3, 1), (4, 1)]
    assert kappa.pairs((9,), "alone") == [(9, 1), (9, 2), (9, 3), (9, 4)]
    assert kappa.pairs((9,), "bucketing") == [(9, 1), (9, 2)]


@pytest.fixture(scope="module")
def results():
    """The trimmed mean and Krum, alone and with mixing, from few inputs."""
    sizes = kappa.SCALES["quick"] | {"draws": 100, "starts": 8, "steps": 60}
    world = kappa.STUDY.world(sizes, 0)
    found = Results(world, "quick")
    programs = kappa.programs(world, found)
    parts = {at: program.run() for at, program in programs.items()}
    found["coefficients"] = joined(parts, ("before", "rule"))
    return found


def test_no_claim_is_refuted_and_zeros_and_ones_are_exact(results):
    verdicts = {claim.text: claim.judge(results)["verdict"] for claim in kappa.CLAIMS}
    few = next(text for text in verdicts if text.startswith("the search finds"))
    del verdicts[few]  # with fewer draws than it needs
    assert set(verdicts.values()) == {"holds", "not judged"}
    assert list(verdicts.values()).count("holds") >= 4
    bits = results["coefficients"].found.sel(inputs="0 and 1", before="alone", n=9)
    q = [1 / 7, 2 / 5, 1, 4]
    np.testing.assert_allclose(bits.sel(rule="trimmed mean"), q, rtol=1e-6)
    climbed = results["coefficients"].found.sel(inputs="climbed")
    drawn = results["coefficients"].found.sel(inputs="random")
    assert (climbed.sel(rule="Krum") > drawn.sel(rule="Krum")).all()
