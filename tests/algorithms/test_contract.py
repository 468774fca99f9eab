"""What every method of the catalogue promises, asked of a few compiled programs a row.

Nearly all of the time is XLA's: `noisy` and `settled` are one program a row each, whatever the
numbers, and most tests look at what these two leave behind.
"""

import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import ROWS
from small import clocked

import jaxdopt as jd
from jaxdopt.networks.events import durations
from jaxdopt.problems.layout import Layout

N, D = 6, 3
SIZES = (5, 7, 4, 6, 5, 8)
KEY = jax.random.key(7)
STEPS, EVERY = 100, 2  # of `noisy`
SETTLED = 6000  # steps of `settled`
ACTIVE = 4  # clients of N in a round
ORDER = np.array([3, 1, 5, 0, 4, 2])


@pytest.fixture(scope="module", params=ROWS, ids=lambda row: row.name)
def row(request):
    """All that is asked of one method comes before the next, so that tests share its programs."""
    yield request.param
    noisy.cache_clear()


@functools.cache
def problems():
    """Three noisy, uneven, heterogeneous logistic regressions of one structure."""
    made = []
    for seed in range(3):
        random = np.random.default_rng(seed)
        features = [random.standard_normal((m, D)) for m in SIZES]
        labels = [np.where(f[:, 0] + i / 3 + random.standard_normal(len(f)) > 1, 1, -1)
                  for i, f in enumerate(features)]  # fmt: skip
        solved = jd.problems.logistic_regression(features, labels, l2=0.1)
        made.append(jd.problems.Minibatch(solved, 3))
    return made


def smooth(row, n=N, m=1, equal=False, order: Any = ...):
    """A quadratic; for methods that draw samples a sum of m squares an agent, whose facts agree."""
    if not row.samples:
        spread = 0.0 if equal else 0.3
        made = jd.problems.quadratic(n, D, heterogeneity=float(not equal), curvature_spread=spread)
        return jd.replace(made, hessians=made.hessians[order], tilts=made.tilts[order])
    random = np.random.default_rng(2)
    features = np.resize(np.eye(D), (m, D)) + random.standard_normal((1 if equal else n, m, D)) / 2
    labels = random.standard_normal((len(features), m)) + 1
    features, labels = (np.broadcast_to(a, (n, *a.shape[1:]))[order] for a in (features, labels))
    return jd.problems.least_squares(features, labels, l2=0.3)


@functools.cache
def parts(row, which=0):
    """What a network of the row's kind is made of: irregular weights W, or R and C, or parents.

    Of clocks also the times of gradients [m, n] and of messages [m, n, n].
    """
    random = np.random.default_rng(which)
    if row.events:
        shape = (SETTLED + STEPS, N)
        work = np.linspace(1, 2, N) * np.exp(random.standard_normal(shape) / 2)
        travel = 0.3 * np.exp(random.standard_normal((*shape, N)))
        kind = {"timeline": "undirected", "directed timeline": "directed", "pairs": "undirected"}
        wires = [dataclasses.replace(row, network=kind[row.network])] if row.network in kind else []
        return [*(part for wire in wires for part in parts(wire, which)), work, travel]
    if row.network in ("tree", "trees"):
        trees = [np.array([0, 0, 0, 1, 1, 4]), np.array([0, 3, 1, 0, 2, 0])]
        chosen = trees if row.network == "trees" else trees[:1]
        return [moved(tree, ORDER) if which else tree for tree in chosen]
    if row.network == "full":
        return [np.ones((1, N), bool)]
    if row.network == "server":
        return [np.stack([random.permutation(N) < ACTIVE for _ in range(N)])]
    if row.network == "directed":
        links = np.eye(N) + np.roll(np.eye(N), 1, axis=0)
        links[[0, 1, 3, 2], [2, 4, 0, 5]] = 1
        pull, push = (links * random.uniform(0.5, 1.5, (N, N)) for _ in range(2))
        return [pull / pull.sum(axis=1, keepdims=True), push / push.sum(axis=0)]
    if row.needs:
        weights = (jd.networks.metropolis, jd.networks.lazy_metropolis)[which]
        return [np.asarray(weights(jd.graphs.erdos_renyi(N, 0.5, seed=3)).matrix())]
    shuffles = [np.eye(N)[random.permutation(N)] for _ in range(3)]
    return [0.4 * np.eye(N) + np.tensordot([0.1, 0.2, 0.3], shuffles, axes=1)]


@jd.pytree
class Taking:
    """A server whose clients take part by turns."""

    pattern: Any  # [T, n] bool
    link_count = None
    offers = frozenset({"server", "sum"})

    @property
    def n(self):
        return self.pattern.shape[1]

    def at(self, k, key):
        return jd.networks.Server(self.n, k=k, active=self.pattern[k % len(self.pattern)])


def moved(part, order):
    """A matrix, parents, who takes part when, or times, with the agents in another order."""
    if part.ndim == 3:
        return part[:, order][:, :, order]
    if part.dtype == bool or len(part) > N:
        return part[:, order]
    return part[np.ix_(order, order)] if part.ndim == 2 else np.argsort(order)[part[order]]


def average(part, n=N):
    """The exact average of n agents in place of a matrix, or of parents a tree of n.

    In place of who takes part when, everybody always; of times those of the first n.
    """
    if part.dtype == bool:
        return np.ones((len(part), n), bool)
    if part.ndim == 3 or len(part) > N:
        return part[:, *(slice(n) for _ in part.shape[1:])]
    return np.full((n, n), 1 / n) if part.ndim == 2 else np.zeros(n, int)


def assembled(row, made_of):
    """A network of the row's kind, which it knows as symmetric only if it needs that."""
    if row.events:
        *weights, work, travel = made_of
        times: dict[str, Any] = {"compute": durations.Table(work)}
        if not weights:
            return clocked(row.network, work.shape[1], SETTLED, **times)
        kind = "undirected" if len(weights) == 1 else "directed"
        wires = assembled(dataclasses.replace(row, network=kind), weights)
        times["delay"] = durations.Table(travel)
        return clocked(row.network, wires, SETTLED, **times)
    if row.network in ("tree", "trees"):
        return jd.networks.Tree(*made_of)
    if row.network == "full":
        return jd.networks.Server(made_of[0].shape[1])
    if row.network == "server":
        return Taking(jnp.asarray(made_of[0]))
    if row.network == "directed":
        pull, push = made_of
        return jd.networks.Directed(
            jd.networks.Dense(pull, symmetric=False, kind="row"),
            jd.networks.Dense(push, symmetric=False, kind="column"),
        )
    return jd.networks.Dense(*made_of, symmetric=bool(row.needs))


def x_start():
    return jax.device_put(np.random.default_rng(5).standard_normal((N, D)))


def stacked(members):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


@functools.cache
def members(row) -> list[Any]:
    """Three of everything that may change without another program."""
    methods = [row.build(8.0), row.build(6.0), row.build(5.0)]
    networks = [assembled(row, parts(row, i)) for i in (0, 1, 0)]
    if row.events:  # in tables of one size
        together = jd.networks.stack(networks)
        networks = [
            jax.tree.map(lambda leaf, i=i: jnp.asarray(np.asarray(leaf)[i]), together)
            for i in range(3)
        ]
    return list(zip(methods, problems(), networks, jax.random.split(KEY, 3), strict=True))


TRACES = []


def estimates(state, problem):
    TRACES.append(state)  # while a program is traced, and at no other time
    return state.x


def everything(state, problem):
    """All numbers of the agents, a row an agent."""
    leaves = [state.x, *jax.tree.leaves(state)]  # a server's x is no leaf
    rows = [leaf for leaf in leaves if leaf.shape[:1] == (problem.n,)]
    floats = [leaf for leaf in rows if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.concatenate([leaf.reshape(problem.n, -1) for leaf in floats], axis=1)


@functools.cache
def noisy(row, member=0, part=0):
    """The part-th hundred of noisy steps, from the state that the part before has left."""
    method, problem, network, key = members(row)[member]
    if part:
        state = noisy(row, member, part - 1).state
    else:
        state = method.init(x_start(), problem, network.at(0, key), key)
    options = {"steps": STEPS, "every": EVERY, "metrics": {"x": estimates}}
    return jd.run(method, problem, network, None, key, state=state, start=part * STEPS, **options)


def settled(method, problem, network, x0):
    """Many steps without noise."""
    metrics = {"x": estimates, "everything": everything}
    return jd.run(method, problem, network, x0, KEY, steps=SETTLED, every=10, metrics=metrics)


@functools.cache
def descent(samples, n):
    """Equal agents, a common start, a stepsize, and where thirty steps of gradient descent lead."""
    row = next(row for row in ROWS if row.samples == samples)
    problem = smooth(row, n=n, equal=True)
    x0, stepsize = problem.start(jnp.arange(1.0, D + 1)), 0.4 / problem.smoothness
    network = jd.networks.metropolis(jd.graphs.complete(n))
    result = jd.run(jd.GradientDescent(stepsize), problem, network, x0, KEY, steps=30)
    return problem, x0, stepsize, np.asarray(result.state.x)


def wrapped(network, wrap):
    """The network with every operator in it wrapped."""
    if "row" in vars(network):
        return jd.replace(network, row=wrap(network.row), column=wrap(network.column))
    return wrap(network)


class Wrapped:
    """An operator whose products are somebody else's."""

    row = column = property(lambda self: self)

    def __init__(self, operator):
        self.operator = operator

    def __getattr__(self, name):
        return getattr(self.operator, name)


@pytest.mark.kinds
def test_one_program_serves_every_number(row):
    singles = [noisy(row, 0)]
    TRACES.clear()
    singles += [noisy(row, 1), noisy(row, 2)]
    assert not TRACES
    for i, single in enumerate(singles):
        assert not np.allclose(single.history["loss"][-1], singles[i - 1].history["loss"][-1])


@pytest.mark.kinds
def test_a_batch_of_runs_is_the_runs(row):
    singles = [noisy(row, i) for i in range(3)]

    def from_start(method, problem, network, key):
        options = {"steps": STEPS, "every": EVERY, "metrics": {"x": estimates}}
        return jd.run(method, problem, network, x_start(), key, **options)

    together = (stacked(part) for part in zip(*members(row), strict=True))
    batch = jax.jit(jax.vmap(from_start))(*together)
    for i, single in enumerate(singles):
        for name, values in single.history.items():
            upto = reach(row) // EVERY + 1
            ours, theirs = values[:upto], batch.history[name][i][:upto]
            rtol = 1e-6 if ours.dtype != theirs.dtype else 1e-9  # costs add up in float32
            np.testing.assert_allclose(ours, theirs, rtol, atol=1e-12, err_msg=name)


@pytest.mark.kinds
@pytest.mark.slow
def test_padding_of_stacked_tables_changes_nothing(row):
    if not row.events:
        pytest.skip("networks that have one size by themselves")
    method, problem, _, key = members(row)[0]
    alone = assembled(row, parts(row))
    state = method.init(x_start(), problem, alone.at(0, key), key)
    x = jd.run(method, problem, alone, None, key, state=state, steps=STEPS).state.x
    np.testing.assert_allclose(x, noisy(row).state.x, rtol=1e-12, atol=1e-13)


def test_init_sends_nothing_takes_no_gradient_and_keeps_x0(row):
    def refuse(*_):
        raise AssertionError("init must not communicate, and not take gradients")

    class Mute(Wrapped):
        __matmul__ = laplacian = refuse

        @property
        def links(self):
            links = self.operator.links
            object.__setattr__(links, "hear", refuse)
            object.__setattr__(links, "swap", refuse)
            return links

    class Silent:
        n, d, most, strong_convexity = N, D, 8, 1.0
        leaves = Layout.of(jnp.zeros(D))
        grad = grad_at = draw = value = value_at = refuse

    network = assembled(row, parts(row))
    network = network.at(0, KEY) if row.events else wrapped(network, Mute)
    state = row.build(1.0).init(x_start(), Silent(), network, KEY)
    served = hasattr(state, "server")  # which has one x for all
    start = centered(x_start()) if served else x_start()
    np.testing.assert_allclose(state.x, start, rtol=0, atol=1e-15 if served else 0)


def test_the_method_is_a_pytree(row):
    method = row.build(2.0)
    leaves, treedef = jax.tree.flatten(method)
    again = jax.tree.unflatten(treedef, leaves)
    assert type(again) is row.method
    assert jax.tree.leaves(again) == leaves
    odd = jax.tree.map(lambda _: "anything", method)
    assert jax.tree.leaves(odd) == ["anything"] * len(leaves)
    if row.stepsize is not None:
        assert isinstance(row.make(1).stepsize, float)


def reach(row):
    """Return for how many steps runs with other rounding errors stay together."""
    return 20 if row.chaotic else STEPS


@functools.cache
def gradient():
    """The gradients of the noisy problem, compiled for all rows."""
    problem = problems()[0]
    return jax.jit(type(problem).grad).lower(problem, x_start(), KEY).compile()


@pytest.mark.kinds
def test_a_loop_with_gradients_of_your_own_is_the_run_and_its_continuation(row):
    method, problem, network, key = members(row)[0]
    if row.samples:
        given = jd.problems.Given(x_start())
        with pytest.raises(ValueError, match="no samples to draw from"):
            method.init(x_start(), given, network, key)

    @jax.jit
    def step(state, given, k, key):
        return method.step(state, given, network.at(k, key), jax.random.fold_in(key, k))

    first, second = noisy(row), noisy(row, part=1)
    close = functools.partial(chex.assert_trees_all_close, rtol=1e-11, atol=1e-12)
    state = method.init(x_start(), problem, network.at(0, key), key)
    for k in range(STEPS + 10):
        part = first if k < STEPS else second
        if k == STEPS and row.chaotic:
            state = first.state
        if k % EVERY == 0 and k % STEPS <= reach(row):
            close(state.x, jnp.asarray(part.history["x"][k % STEPS // EVERY]))
        if k == STEPS:
            close(state, first.state)
        given = problem
        if not (row.samples or row.local or row.values):
            x = state.x if row.method is not jd.GradientDescent else centered(state.x)
            given = jd.problems.Given(gradient()(problem, x, jax.random.fold_in(key, k)))
        state = step(state, given, k, key)
    assert second.history["step"].tolist() == list(range(STEPS, 2 * STEPS + 1, EVERY))
    assert second.history["loss"][0] == first.history["loss"][-1]


def centered(x):
    return jnp.broadcast_to(x.mean(axis=0), x.shape)


@pytest.mark.kinds
def test_invariants_hold_with_noise_and_any_start(row):
    state = noisy(row, part=4).state
    scale = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(state))
    for invariant in row.invariants:
        np.testing.assert_allclose(invariant(state), 0, atol=1e-11 * N * scale)


@pytest.mark.kinds
def test_costs_are_what_a_step_really_does(row):
    """Count the calls, and the numbers in everything that is mixed, differenced or heard.

    Not those of rows that a method takes by the table of its in-neighbors.
    """
    _, problem, network, key = members(row)[0]
    calls = {"gradients": 0.0, "numbers": 0, "tables": 0}

    def count(x):
        calls["numbers"] += sum(int(np.prod(leaf.shape[1:])) for leaf in jax.tree.leaves(x))

    class Counting:
        def grad(self, x, key):
            calls["gradients"] += np.mean(SIZES)
            return problem.problem.grad(x, key)

        def grad_at(self, x, indices):
            batched = type(indices).__name__ == "BatchTracer"  # under vmap, with all the batches
            calls["gradients"] += np.size(indices.val if batched else indices) // N
            return problem.grad_at(x, indices)

        def value_at(self, x, indices):
            calls["gradients"] += np.size(indices) // N * (x.shape[1] if x.ndim == 3 else 1)
            return problem.value_at(x, indices)

        def __getattr__(self, name):
            return getattr(problem.problem, name)

    class Wire(Wrapped):
        def __matmul__(self, x):
            count(x)
            return self.operator @ x

        def laplacian(self, x):
            count(x)
            return self.operator.laplacian(x)

        @property
        def links(self):
            return Overheard(*jax.tree.leaves(self.operator.links))

        @property
        def in_neighbors(self):
            calls["tables"] += 1
            return self.operator.in_neighbors

    class Overheard(jd.networks.Links):
        def hear(self, x):
            count(x)
            return super().hear(x)

        def swap(self, edges):
            count(edges[:, 0])
            return super().swap(edges)

    history, share = noisy(row).history, np.full(STEPS, 1.0)
    if row.network == "server":
        share = share * ACTIVE / N
    if row.events:  # of those who are done in a step
        share = np.sum(np.asarray(network.agents)[:STEPS] < N, axis=1) / N
    taken = np.concatenate([[0], np.cumsum(share)])[::EVERY]
    sent = taken / row.turns
    bits = row.vectors * row.bits(D) + 32 * row.scalars + row.told * (1 + N) / 2
    increments = {"vectors": sent * row.vectors, "bits": sent * bits}
    rounds = taken if row.events and row.gossips else EVERY / row.turns * np.arange(len(taken))
    increments["rounds"] = row.exchanges * rounds
    if row.events:
        local_steps = getattr(row.build(8.0), "local_steps", 1)
        increments["gradients"] = taken * problem.batch * local_steps
    else:
        links = history["traffic"][1] / history["bits"][1]
        increments["traffic"] = increments["bits"] * links
    if row.vectors % 0.5 == 0 and not row.events:  # it is not one agent at a time that sends
        method, counted = row.build(8.0), jd.problems.Minibatch(Counting(), problem.batch)

        upto = []  # after every step

        def two_steps(x, key):
            state = method.init(x, counted, network.at(0, key), key)
            for k in range(2):
                now = wrapped(network.at(k, key), Wire)
                state = method.step(state, counted, now, jax.random.fold_in(key, k))
                upto.append(calls["gradients"] * share[0])

        # of branches only the one that is taken, and every local step
        with jax.disable_jit(row.samples or row.local):
            if row.samples or row.varies:  # numbers of keys, or a count, may decide which
                two_steps(x_start(), key)
            else:
                jax.eval_shape(two_steps, x_start(), key)
        np.testing.assert_allclose(history["gradients"][1], upto[1], rtol=1e-6)
        sent = (row.vectors * D + row.scalars) * links / network.link_count if row.gossips else 0
        assert calls["numbers"] == 2 * sent * (
            not calls["tables"]
        )  # the centralized yardsticks count as one exchange
        if not row.samples:
            later = upto[1] + (upto[1] - upto[0]) * np.arange(0, STEPS - 1, EVERY)
            increments["gradients"] = [0, *later]  # a first step may do more
    for name, expected in increments.items():
        np.testing.assert_allclose(history[name], expected, rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(history["epochs"], history["gradients"] / np.mean(SIZES), rtol=1e-6)


@pytest.mark.optimized
@pytest.mark.kinds
def test_exact_methods_reach_the_solution_and_stay_and_others_leave_it(row):
    """An average, of a method without stepsize, is the solution that it is to reach."""
    problem = smooth(row, m=4)
    network = assembled(row, parts(row))
    method = row.build(problem.smoothness)
    if row.exact is None:
        pytest.skip("agents of different functions have no goal")
    for x0 in (problem.start(problem.solution), x_start()):
        x = settled(method, problem, network, x0).state.x
        goal = problem.solution if row.stepsize is not None else x0.mean(axis=0)
        error = float(np.mean(np.sum((np.asarray(x) - np.asarray(goal)) ** 2, axis=1)))
        assert error < 1e-22 if row.exact else error > 1e-4


@pytest.mark.kinds
@pytest.mark.slow
def test_where_all_agents_agree_it_is_gradient_descent(row):
    """With equal data and a common start, on the complete graph."""
    if row.stepsize is None or not row.descends or row.delays:
        pytest.skip("not a form of gradient descent, or a later one")
    problem, x0, stepsize, expected = descent(row.samples, N)
    network = assembled(row, [average(part) for part in parts(row)])
    method = row.make(stepsize / row.shrinks, row.parent)
    got = settled(method, problem, network, x0).history["x"][3]
    np.testing.assert_allclose(got, expected, atol=1e-13)


@pytest.mark.kinds
@pytest.mark.slow
def test_relabelling_the_agents_commutes_with_a_run(row):
    if not row.alike:
        pytest.skip("who does what depends on the agents' numbers")
    runs = []
    for order in (np.arange(N), ORDER):
        problem = smooth(row, order=order)
        network = assembled(row, [moved(part, order) for part in parts(row)])
        method = row.build(problem.smoothness, row.quiet)
        runs.append(settled(method, problem, network, x_start()[order]).history)
    here, there = runs
    ordered = row.weighs and not row.events  # or what an agent has of others is in another order
    for name in ("x", "everything") if ordered else ("x",):
        np.testing.assert_allclose(
            here[name][:6, ORDER], there[name][:6], rtol=1e-11, atol=1e-12, err_msg=name
        )


@pytest.mark.kinds
@pytest.mark.slow
def test_gradients_through_twenty_steps_match_finite_differences(row):
    """With respect to every number of the method and every weight, in a random direction."""
    problem = smooth(row, m=4)
    method = row.build(problem.smoothness * 2, row.quiet)
    network = assembled(row, parts(row))
    leaves, treedef = jax.tree.flatten(network)
    floats = [
        i for i, leaf in enumerate(leaves) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
    ]

    @jax.jit
    @jax.value_and_grad
    def final_error(at):
        method, weights = at
        there = list(leaves)
        for i, leaf in zip(floats, weights, strict=True):
            there[i] = leaf
        there = jax.tree.unflatten(treedef, there)
        result = jd.run(method, problem, there, x_start(), KEY, steps=20, every=20)
        return result.history["distance_squared"][-1] + result.history["consensus_error"][-1]

    random = np.random.default_rng(0)
    at = jax.tree.map(np.asarray, (method, [leaves[i] for i in floats]))
    direction = jax.tree.map(  # no new links
        lambda leaf: np.where(leaf == 0, 0, random.standard_normal(leaf.shape)), at
    )
    if row.network == "directed":  # and sums that stay 1
        pull, push = direction[1]
        pull -= np.diag(pull.sum(axis=1))
        push -= np.diag(push.sum(axis=0))

    def ahead(length):
        return float(final_error(jax.tree.map(lambda a, b: a + length * b, at, direction))[0])

    small = 1e-5
    slopes = final_error(at)[1]
    analytic = sum(jax.tree.leaves(jax.tree.map(np.vdot, slopes, direction)))
    np.testing.assert_allclose(
        analytic, (ahead(small) - ahead(-small)) / (2 * small), rtol=1e-6, atol=1e-10
    )
    chex.assert_tree_all_finite(slopes)
    steepest = max([float(np.abs(slope).max()) for slope in slopes[1]], default=0.0)
    if not row.events:  # the weights of some are those of times, too
        assert (steepest > 0) == (row.gossips and row.weighs)


def test_a_network_that_the_theory_does_not_cover_is_refused(row):
    """Those that take a directed W are asked for the solution on one, above."""
    if not row.needs:
        pytest.skip("takes any network of its kind")
    problem = smooth(row)
    directed = jd.networks.metropolis(jd.graphs.directed_ring(N))
    with pytest.raises(ValueError, match=row.needs):
        row.build(1.0).init(problem.start(), problem, directed, KEY)


@pytest.mark.kinds
@pytest.mark.slow
def test_one_agent_alone_runs_gradient_descent(row):
    if row.stepsize is None or not row.descends:
        pytest.skip("not a form of gradient descent")
    problem, x0, stepsize, expected = descent(row.samples, 1)
    alone = assembled(row, [average(part, 1) for part in parts(row)])
    got = jd.run(row.make(stepsize, row.parent), problem, alone, x0, KEY, steps=30).state.x
    np.testing.assert_allclose(got, expected, atol=1e-13)


@pytest.mark.kinds
def test_float32_stays_float32(row, float32):
    network = assembled(row, parts(row))

    def go(problem, x0):
        result = jd.run(row.build(1.0), problem, network, x0, KEY, steps=4)
        return result, result.state.x

    problem = smooth(row)
    result, x = jax.eval_shape(go, problem, problem.start())
    leaves = jax.tree.leaves((result.state, result.metrics, result.costs, x))
    floats = {leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)}
    assert floats == {np.dtype(np.float32)}
