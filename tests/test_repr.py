"""What methods, networks, problems and results say of themselves."""

import functools
import html
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdopt as jd
from experiments.catalogue import roles
from jaxdopt.networks import spectra

KEY = jax.random.key(0)
LONGEST = 600  # characters
A = np.random.default_rng(0).standard_normal((24, 3))
B = np.arange(24) % 2


@functools.cache
def problems() -> list[Any]:
    plain = jd.problems.logistic_regression(A, B, agents=4, l2=0.1)
    samples = [A[:5], A[5:12], A[12:]]
    uneven = jd.problems.FiniteSum(lambda x, a: 0.5 * (a @ x - 1) ** 2, samples, jnp.zeros(3))
    return [
        plain,
        uneven,
        jd.problems.quadratic(4, 2),
        jd.problems.mlp(A, B, agents=4),
        jd.problems.Minibatch(plain, 2),
        jd.problems.GaussianNoise(plain, 0.1),
        jd.problems.Composite(plain, jd.problems.prox.L1(0.1)),
        jd.problems.Oracle(lambda x, data, key: x - data, np.ones((4, 2)), jnp.zeros(2)),
        jd.problems.Given(jnp.ones((4, 2))),
    ]


@functools.cache
def results() -> tuple[Any, Any]:
    problem, network = jd.problems.quadratic(8, 2), jd.networks.metropolis(jd.graphs.ring(8))
    setting, start = (problem, network), problem.start()
    metrics = {"x": lambda state, problem: state.x}
    alone = jd.run(jd.DGD(0.1), *setting, start, KEY, steps=20, every=10, metrics=metrics)
    methods = jax.vmap(jd.DGD)(jnp.array([0.1, 1e200]))
    swept = jd.sweep(jd.run, over={"algorithm": "stepsize", "key": "seed"})(
        methods, *setting, start, jax.random.split(KEY, 3), steps=20, every=10, metrics=metrics
    )
    return alone, swept


EVERYTHING = {
    "methods": lambda: [roles.built(name) for name in roles.METHODS],
    "networks": lambda: [make() for make in roles.KINDS.values()],
    "problems": problems,
    "results": results,
}


def says(value: Any) -> str:
    """Return an object's text, checked as that of any object."""
    shown = repr(value)
    name = type(value).__name__
    assert shown.startswith(f"{name}(")
    assert shown.endswith(")")
    assert len(shown) <= LONGEST
    assert max(map(len, shown.splitlines())) <= 120
    assert not re.search(r"Traced|Tracer|Array\(| at 0x|\n\s*\n", shown), shown
    table = value._repr_html_()
    assert table.startswith("<table>")
    assert table.count("<tr>") == table.count("</tr>") >= 1
    for cell in re.findall(r"<td[^>]*>(.*?)</td>", table):
        assert html.unescape(cell).replace(" ", "_") in shown.replace(" ", "_")
    return shown


@pytest.mark.parametrize("kind", EVERYTHING)
def test_all_say_something_in_a_few_lines_traced_and_swept_too(kind):
    for value in EVERYTHING[kind]():
        says(value)
        leaves = jax.tree.leaves(value)
        jax.eval_shape(says_nothing, value)
        stacked = jax.tree.map(twice, value)
        says(stacked)
        if leaves:
            jax.eval_shape(jax.vmap(says_nothing), stacked)
        for filler in (None, 0, object()):  # as JAX rebuilds objects
            repr(jax.tree.map(lambda _, filler=filler: filler, value))


def twice(leaf: Any) -> Any:
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jnp.stack([leaf, leaf]) if is_key else jnp.asarray(np.stack([leaf, leaf]))


def says_nothing(value: Any) -> int:
    says(value)
    return 0


def test_a_method_is_its_numbers():
    top = jd.compressors.TopK(2)
    for method, shown in (
        (jd.DGD(0.1), "DGD(stepsize=0.1)"),
        (jd.DGD(jd.schedules.InverseTime(1.0, 2.0)),
         "DGD(stepsize=InverseTime(numerator=1.0, offset=2.0))"),
        (jd.DGD(lambda k: 0.1), "DGD(stepsize=lambda)"),
        (jax.vmap(jd.DGD)(jnp.array([0.1, 0.25])), "DGD(stepsize=[0.1, 0.25])"),
        (jd.DGD(np.full((8, 1), 0.1)), "DGD(stepsize=float64[8, 1])"),
        (jd.CHOCOSGD(0.1, top), "CHOCOSGD(stepsize=0.1, compressor=TopK(k=2), order='before')"),
        (jd.FedAvg(0.1, server=optax.scale_by_adam()),
         "FedAvg(stepsize=0.1, server_stepsize=1.0, local_steps=1, normalized=False, "
         "server=scale_by_adam)"),
    ):  # fmt: skip
        assert says(method) == shown


def test_a_network_says_its_agents_weights_and_gap():
    ring = jd.networks.metropolis(jd.graphs.ring(8))
    gap = 1 - (1 + 2 * np.cos(2 * np.pi / 8)) / 3
    assert says(ring) == (
        f"Circulant(agents=8, weights=symmetric, links=16, spectral_gap={gap:.3g}, memory=16 B)"
    )
    columns = says(jd.networks.column_stochastic(jd.graphs.directed_ring(5)))
    assert "weights=column-stochastic, links=5, spectral_gap=" in columns
    stacked = jd.networks.stack([ring, jd.networks.metropolis(jd.graphs.path(8))])
    assert says(stacked).startswith("Neighbors(networks=2, agents=8, weights=symmetric, memory=")
    assert "round=3" in says(ring.at(3, KEY))


def test_no_gap_is_computed_of_many_agents(monkeypatch):
    monkeypatch.setattr(spectra, "eigenvalues", None)
    monkeypatch.setattr(spectra, "sparse_gap", None)
    network = jd.networks.metropolis(jd.graphs.grid(70, 50))
    shown = says(network)
    assert re.fullmatch(r"Neighbors\(agents=3500, weights=symmetric, memory=[\d.]+ kB\)", shown)


def test_a_problem_says_its_agents_dimension_and_constants():
    plain, uneven = problems()[:2]
    shown = says(plain)
    for fact in ("agents=4", "dimension=3", "samples=6 an agent", "loss=logistic_loss", "l2=0.1"):
        assert f"    {fact},\n" in shown
    assert f"smoothness={float(plain.smoothness):.6g}," in shown
    assert f"optimum={float(plain.optimum):.6g}," in shown
    assert "samples=5 to 12 an agent" in says(uneven)
    assert "optimum" not in says(uneven)


def test_a_result_says_what_was_run_and_where_it_ended():
    alone, swept = results()
    shown = says(alone)
    assert "steps=20,\n    records=3,\n    diverged=no," in shown
    assert f"gap={alone.history['gap'][-1]:.4g}," in shown
    assert "x=float64[3, 8, 2]," in shown
    many = says(swept)
    assert "swept=stepsize[2] x seed[3],\n    diverged=3 of 6," in many
    assert says(jd.run(jd.DGD(0.1), *FOUR, steps=4, after=four())).count("steps=8") == 1


FOUR = (jd.problems.quadratic(4, 2), jd.networks.Complete(4))


def four() -> Any:
    return jd.run(jd.DGD(0.1), *FOUR, FOUR[0].start(), KEY, steps=4)


def test_facts_cost_a_traced_program_nothing():
    ring = jd.networks.metropolis(jd.graphs.ring(8))

    def function(x):
        repr(ring)
        return x

    assert not jax.make_jaxpr(function)(1.0).eqns


def test_classes_of_users_speak_in_the_same_way():
    @jd.pytree
    class Mine:
        """A pytree of a user's."""

        stepsize: jd.Nonnegative
        name: str = jd.static(default="<b>")

    mine: Any = Mine(1)
    assert says(mine) == "Mine(stepsize=1.0, name='<b>')"
    assert "<b>" not in mine._repr_html_()
    assert "&lt;b&gt;" in mine._repr_html_()

    @jd.pytree
    class Quiet(Mine):
        """One with a text of its own."""

        def __repr__(self) -> str:
            return "quiet"

    assert repr(Quiet(1.0)) == "quiet"
    quiet: Any = Quiet(1.0)
    assert quiet._repr_html_() is None


def test_data_and_settings_are_not_printed_whole():
    assert says(jd.data.Dataset(A, B)) == "Dataset(features=float64[24, 3], labels=int64[24])"
    shown = says(jd.Setting(jd.DGD(0.1), network={"ring": jd.networks.Complete(4)}))
    assert shown.startswith(
        "Setting(\n    method=DGD(stepsize=0.1),\n    network={'ring': Complete("
    )
