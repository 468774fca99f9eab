"""Fingerprints: equal where results have to be, different where they may be."""

import dataclasses
import functools
import linecache
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd
from jaxdopt.fingerprint import fingerprint

FACTOR = 2.0


def scaled(x):
    return FACTOR * x


def closure(power):
    return lambda x: x**power


def problem(**options):
    return jd.problems.quadratic(4, 2, **options)


ALIKE = {
    "a method": lambda: jd.GradientTracking(0.1),
    "a schedule": lambda: jd.DGD(jd.schedules.InverseTime(0.1, 8.0)),
    "a compressor": lambda: jd.LEAD(0.1, jd.compressors.Dither(bits=2)),
    "a problem": problem,
    "a network": lambda: jd.networks.metropolis(jd.graphs.ring(4)),
    "a key": lambda: jax.random.key(3),
    "an array": lambda: np.arange(6.0).reshape(2, 3),
    "containers": lambda: {"b": [1, (2.0, None)], "a": {"x", "y"}},
    "a function": lambda: scaled,
    "a closure": lambda: closure(2),
    "a partial": lambda: functools.partial(scaled, x=1),
    "a sweep": lambda: jd.sweep(scaled, over=("x",)),
    "a jitted function": lambda: jax.jit(closure(2)),
    "a model": lambda: jd.problems.FiniteSum(closure_loss(), data(), np.zeros(2)),
}


def closure_loss():
    return lambda x, sample: jnp.sum((x - sample) ** 2)


def data():
    return np.arange(24.0).reshape(3, 4, 2)


@pytest.mark.parametrize("name", ALIKE)
def test_what_is_made_twice_is_the_same(name):
    assert fingerprint(ALIKE[name]()) == fingerprint(ALIKE[name]())


def test_whatever_can_change_a_result_changes_it():
    different = [
        jd.DGD(0.1),
        jd.DGD(0.2),
        jd.DSGD(0.1),
        jd.DGD(jd.schedules.InverseTime(0.1, 8.0)),
        problem(),
        problem(seed=1),
        jd.problems.Minibatch(jd.problems.FiniteSum(closure_loss(), data(), np.zeros(2)), 1),
        jd.problems.Minibatch(jd.problems.FiniteSum(closure_loss(), data(), np.zeros(2)), 2),
        jd.networks.metropolis(jd.graphs.ring(4)),
        jd.networks.metropolis(jd.graphs.path(4)),
        jax.random.key(0),
        jax.random.key(1),
        jax.random.key(0, impl="rbg"),
        np.zeros(2),
        np.zeros(3),
        np.zeros(2, int),
        np.zeros((2, 1)),
        0,
        0.0,
        False,
        None,
        "0",
        (0,),
        [0],
        {"a": 0},
        {"b": 0},
        closure(2),
        closure(3),
        functools.partial(scaled, x=1),
        functools.partial(scaled, x=2),
        lambda x: x + 1,
        lambda x: x + 2,
        lambda x: x - 1,
        jd.sweep(scaled, over=("x",)),
        jd.sweep(scaled, over={"x": "share"}),
    ]
    found = [fingerprint(each) for each in different]
    assert len(set(found)) == len(different)


def test_constants_that_a_function_names_are_a_part_of_it(monkeypatch):
    before = fingerprint(scaled)
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert fingerprint(scaled) != before


def test_so_are_those_named_within_it_in_classes_and_in_other_modules(monkeypatch, tmp_path):
    def maker():
        return lambda x: FACTOR * x

    before = fingerprint(maker)
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert fingerprint(maker) != before

    def rated(rate):
        return type("Rated", (), {"RATE": rate, "step": lambda self, x: self.RATE * x})

    assert fingerprint(rated(2)()) == fingerprint(rated(2)()) != fingerprint(rated(3)())

    found = []
    for value in (1, 2, 1):
        (tmp_path / "apart.py").write_text(f"VALUE = {value}\n")
        monkeypatch.delitem(sys.modules, "apart", raising=False)
        apart = types.ModuleType("apart")
        apart.__file__ = str(tmp_path / "apart.py")
        monkeypatch.setitem(sys.modules, "apart", apart)
        linecache.clearcache()
        found.append(fingerprint(lambda x, apart=apart: apart.VALUE * x))
    assert found[0] == found[2] != found[1]


def test_functions_that_share_functions_are_read_once():
    def level(depth):
        if depth == 0:
            return lambda x: x
        below = level(depth - 1)
        return lambda x: below(x) + below(below(x))

    function = level(60)
    assert fingerprint(function) == fingerprint(level(60)) != fingerprint(level(59))


def test_classes_of_ones_own_are_read_and_methods_too():
    def made(by):
        @dataclasses.dataclass
        class Own:
            size: int = 1

            def step(self, x):
                return by * x

        return Own

    assert fingerprint(made(2)()) == fingerprint(made(2)()) != fingerprint(made(3)())
    assert fingerprint(made(2)(1)) != fingerprint(made(2)(2))


def test_what_holds_itself_ends():
    ring: list = [1]
    ring.append(ring)
    assert fingerprint(ring) == fingerprint(ring)

    def recursive(n):
        return n and recursive(n - 1)

    assert fingerprint(recursive) == fingerprint(recursive)


def test_another_process_finds_the_same():
    program = (
        "import jax, jaxdopt as jd; from jaxdopt.fingerprint import fingerprint;"
        "jax.config.update('jax_enable_x64', True);"
        "two_bits = jd.compressors.Dither(bits=2);"
        "print(fingerprint(jd.LEAD(0.1, two_bits), jd.problems.quadratic(4, 2), {'b', 'a', 'c'}))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    here = fingerprint(
        jd.LEAD(0.1, jd.compressors.Dither(bits=2)), jd.problems.quadratic(4, 2), {"c", "b", "a"}
    )
    assert printed.strip() == here


def test_what_cannot_be_read_is_refused():
    with pytest.raises(ValueError, match="outside of jit"):
        jax.jit(lambda x: fingerprint(x) and x)(1.0)
    with pytest.raises(ValueError, match="a generator does not show its values"):
        fingerprint(i for i in range(3))
