"""A call in a file is the same call: its objects, its result, and what they were made with."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr
from catalogue import ROWS
from small import KEY, network_of, uneven

import jaxdopt as jd
from experiments.catalogue import roles
from jaxdopt import call as module
from jaxdopt.fingerprint import fingerprint

PROBLEM = jd.problems.logistic_regression(
    np.random.default_rng(0).standard_normal((24, 3)), np.arange(24) % 2, agents=4, l2=0.1
)
RING = jd.networks.metropolis(jd.graphs.ring(4))


def same(value):
    """Whatever is asked for, in a call's place."""
    return value


def objects(every):
    kinds = list(roles.KINDS.values())
    yield from (row.build(3.0) for row in ROWS if every or row.first)
    yield from (make() for make in (kinds if every else kinds[:3]))
    yield from (uneven(float), PROBLEM, jd.problems.quadratic(4, 2), network_of("pairs"))
    if every:
        yield jd.problems.mlp(np.ones((8, 3)), np.arange(8) % 2, agents=4)
        yield jd.problems.Composite(PROBLEM, jd.problems.prox.L1(0.1))
    yield jd.Averaged(jd.DGD(jd.schedules.InverseTime(0.1)), start=3)
    yield jd.metrics.accuracy(np.ones((3, 2)), np.ones(3))
    yield {"a": (1, None, {2, 3}, frozenset("b")), 4: [np.float32(1), np.int64(2), True, np.inf]}
    yield jnp.ones(3, jnp.bfloat16), jax.random.key(0), jax.random.key(1, impl="rbg"), jnp.zeros(0)
    yield optax.exponential_decay  # a function by its name


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_objects_come_back_as_they_were(every, tmp_path):
    everything = list(objects(every))
    path = jd.Call(same, everything).save(tmp_path / "all")
    assert path == tmp_path / "all.npz"
    call, result, _ = jd.Call.load(path)
    assert result is None
    for before, after in zip(everything, call.arguments[0], strict=True):
        assert type(after) is type(before)
        assert fingerprint(after) == fingerprint(before)
    assert repr(call).startswith("Call(same, [")


def test_a_run_is_made_again_from_its_file(tmp_path):
    problem = jd.problems.Minibatch(PROBLEM, 2)
    method = jd.CHOCOSGD(0.1, jd.compressors.Dither(bits=4), consensus_stepsize=0.2)
    call = jd.Call(jd.run, method, problem, RING, problem.start(), KEY, steps=6, every=2)
    result = call()
    again, kept, made = jd.Call.load(call.save(tmp_path / "run.npz", result))
    for one in (kept, again()):
        for a, b in zip(jax.tree.leaves(one.state), jax.tree.leaves(result.state), strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(one.history["gap"], result.history["gap"])
    assert made["jax"] == jax.__version__
    assert made["float64"] == 1
    on = jd.run(method, problem, RING, after=kept, steps=2, every=2)
    assert on.history["step"][-1] == 8


@pytest.mark.slow
def test_a_comparison_is_made_again_in_another_process(tmp_path):
    call = jd.Call(
        jd.compare, {"DSGD": jd.DSGD(0.1)}, jd.problems.Minibatch(PROBLEM, 2), RING,
        over={"stepsize": [0.1, 0.2]}, seeds=2, steps=4, progress=False,
    )  # fmt: skip
    path = call.save(tmp_path / "comparison.npz", call())
    code = (
        "import sys, jax; jax.config.update('jax_enable_x64', True); import jaxdopt as jd; "
        "call, result, made = jd.Call.load(sys.argv[1]); call.save(sys.argv[2], call())"
    )
    other = str(tmp_path / "other.npz")
    env = os.environ | {"PYTHONHASHSEED": "5"}
    subprocess.run([sys.executable, "-W", "error", "-c", code, path, other], check=True, env=env)
    first, second = (jd.Call.load(one)[1] for one in (path, other))
    xr.testing.assert_allclose(first, second, rtol=1e-12)
    assert first.attrs["fingerprint"] == second.attrs["fingerprint"]


def test_other_versions_are_warned_of(tmp_path, monkeypatch):
    path = jd.Call(same, 1).save(tmp_path / "one.npz", 1)
    known = module.about()
    monkeypatch.setattr(module, "about", lambda: known | {"jax": "0.99", "device": "abacus"})
    says = rf"made with jax {jax.__version__} \(now 0.99\), device .* \(now abacus\)"
    with pytest.warns(UserWarning, match=says):
        jd.Call.load(path)


def test_what_has_no_name_is_refused_and_leaves_no_file(tmp_path):
    for bad in (lambda x: x, jd.DGD(lambda k: 0.1), optax.sgd(0.1), iter([1])):
        with pytest.raises(ValueError, match=r"no file can hold it"):
            jd.Call(same, bad).save(tmp_path / "bad.npz")
    with pytest.raises(ValueError, match="does not take: missing a required argument"):
        jd.Call(jd.run, jd.DGD(0.1))
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_refused(tmp_path, monkeypatch):
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    with pytest.raises(ValueError, match=r"is no file of a call; give one of jd\.Call\.save"):
        jd.Call.load(tmp_path / "other.npz")
    path = jd.Call(same, 1).save(tmp_path / "one.npz")
    monkeypatch.delattr(sys.modules[__name__], "same")
    with pytest.raises(ValueError, match=r"same of .* is not there any more"):
        jd.Call.load(path)
