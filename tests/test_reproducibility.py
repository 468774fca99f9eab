"""The same key and versions give the same result, whatever else is run; and a file says which."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import jaxdopt as jd

KEY = jax.random.key(5)
RANDOM = np.random.default_rng(0)
FEATURES, LABELS = RANDOM.standard_normal((9, 12, 3)), RANDOM.standard_normal((9, 12))


def problem(n):
    """The first n of nine agents, who draw two of their twelve samples a step."""
    return jd.problems.Minibatch(jd.problems.least_squares(FEATURES[:n], LABELS[:n], l2=0.1), 2)


def network(n):
    return jd.networks.RandomLinks(jd.networks.metropolis(jd.graphs.ring(n)), 0.7)


def methods():
    top = jd.compressors.Dither(bits=4)
    return {"DSGD": jd.DSGD(0.1), "CHOCO": jd.CHOCOSGD(0.1, top, consensus_stepsize=0.2)}


def last(method, n=6, key=KEY):
    return jd.run(method, problem(n), network(n), problem(n).start(), key, steps=20).state.x


@pytest.mark.slow
def test_the_order_of_calls_and_the_programs_that_are_kept_change_no_bit():
    first = {name: np.asarray(last(method, n=4)) for name, method in methods().items()}
    jax.clear_caches()
    for name, method in reversed(methods().items()):
        np.testing.assert_array_equal(last(method, n=4), first[name])


@pytest.mark.slow
def test_members_of_batches_of_any_size_are_the_same_runs():
    keys = jax.random.split(KEY, 7)
    swept = jd.sweep(jd.run, over="key")
    for method in methods().values():
        setting = method, problem(6), network(6), problem(6).start()
        alone = last(method, key=keys[1])
        for batch in (keys, keys[:2], keys[1:2]):
            x = swept(*setting, batch, steps=20).state.x[1 if len(batch) > 1 else 0]
            np.testing.assert_allclose(x, alone, rtol=1e-9, atol=1e-12)


def noisy(n):
    """An oracle whose agents add noise to what they answer."""
    data = FEATURES[:n, 1]
    add = jax.random.normal
    return jd.problems.Oracle(lambda x, a, key: x - a + add(key, x.shape), data, jnp.zeros(3))


DRAWS = {
    "Minibatch": lambda n, x: problem(n).grad(x, KEY),
    "GaussianNoise": lambda n, x: jd.problems.GaussianNoise(problem(n).problem, 1.0).grad(x, KEY),
    "Oracle": lambda n, x: noisy(n).grad(x, KEY),
    "Dither": lambda n, x: jd.compressors.Dither(bits=4)(KEY, x),
}


@pytest.mark.parametrize(
    "name", ["Minibatch", *(pytest.param(n, marks=pytest.mark.slow) for n in [*DRAWS][1:])]
)
def test_what_an_agent_draws_does_not_depend_on_how_many_there_are(name):
    few, many = (DRAWS[name](n, jnp.asarray(FEATURES[:n, 0])) for n in (5, 9))
    np.testing.assert_allclose(few, many[:5], rtol=1e-12)


@pytest.mark.slow
def test_another_process_finds_the_same_bits():
    code = (
        "import jax, sys; jax.config.update('jax_enable_x64', True); "
        "sys.path.insert(0, 'tests'); import test_reproducibility as t; "
        "print(t.np.asarray(t.last(t.methods()['CHOCO'])).tobytes().hex())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(found) == 1
    assert len(found.pop()) == 2 * 8 * 6 * 3 + 1


@pytest.mark.slow
def test_a_saved_comparison_says_what_it_is_of_and_can_be_asked_again(tmp_path):
    def asked(steps, seeds, stepsizes=(0.1, 0.2), shift=0.0):
        moved = jd.problems.least_squares(FEATURES + shift, LABELS, l2=0.1)
        return jd.compare(
            {"DGD": jd.DGD(0.1)},
            moved,
            jd.networks.metropolis(jd.graphs.ring(9)),
            over={"stepsize": list(stepsizes)},
            seeds=seeds,
            steps=steps,
            every=2,
            progress=False,
        )

    first = asked(4, [3, 1])
    first.to_netcdf(tmp_path / "saved.nc")
    with xr.open_dataset(tmp_path / "saved.nc") as file:
        saved = file.load()
    assert saved.attrs["jax"] == jax.__version__
    assert saved.attrs["numpy"] == np.__version__
    assert saved.attrs["float64"] == 1
    assert saved.attrs["every"] == 2
    again = asked(int(saved.attrs["steps"]), saved["seed"].values, saved["stepsize"].values)
    assert again.attrs["fingerprint"] != ""
    assert len(saved.attrs["fingerprint"]) == 16
    xr.testing.assert_equal(again, saved)
    others = [asked(6, [3, 1]), asked(4, [3]), asked(4, [3, 1], (0.1, 0.3)),
              asked(4, [3, 1], shift=1e-9)]  # fmt: skip
    same = asked(4, [3, 1])
    assert same.attrs["fingerprint"] == saved.attrs["fingerprint"]
    assert saved.attrs["fingerprint"] not in {other.attrs["fingerprint"] for other in others}


def test_a_labelled_result_says_with_which_keys_and_versions_it_was_made(tmp_path):
    keys = jax.random.split(KEY, 3)
    setting = jd.DSGD(0.1), problem(6), network(6), problem(6).start()
    result = jd.sweep(jd.run, over={"key": "seed"})(*setting, keys, steps=4)
    jd.label(result, seed=3).to_netcdf(tmp_path / "saved.nc")
    with xr.open_dataset(tmp_path / "saved.nc") as file:
        saved = file.load()
    made = jax.random.wrap_key_data(
        jnp.array(json.loads(saved.attrs["keys"]), jnp.uint32), impl=saved.attrs["key_kind"]
    )
    assert {tuple(k) for k in jax.random.key_data(made).tolist()} == {
        tuple(k) for k in jax.random.key_data(keys).tolist()
    }
    assert saved.attrs["jaxdopt"] == jd.__version__
    assert saved.attrs["device"] == jax.devices()[0].device_kind
    many = jd.sweep(jd.run, over="key")(*setting, jax.random.split(KEY, 1001), steps=1)
    assert "keys" not in jd.label(many, seed=1001).attrs
