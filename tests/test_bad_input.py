"""One table of what users do wrong: each is one sentence with the value and the remedy."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import xarray as xr
from matplotlib.figure import Figure

import jaxdopt as jd
from jaxdopt._arguments import require_gradient, require_schedules
from jaxdopt.problems.oracles import finite_sum as samples_of

N, D = 4, 2
KEY = jax.random.key(0)
FEATURES = np.random.default_rng(0).standard_normal((12, D))
SPLIT = FEATURES.reshape(3, 4, D)
LABELS = np.tile([0, 1, 0, 1, 1, 0], 2)
DIRECTED = np.roll(np.eye(N), 1, axis=1) / 2 + np.eye(N) / 2
# As Any: pyright would refuse what these cases are about.
logistic: Any = jd.problems.logistic_regression
softmax: Any = jd.problems.softmax_regression
least_squares: Any = jd.problems.least_squares
dataset: Any = jd.data.Dataset
given: Any = jd.problems.Given
split: Any = jd.partition.split
accuracy: Any = jd.metrics.accuracy
minibatch: Any = jd.problems.Minibatch
noise: Any = jd.problems.GaussianNoise
heterogeneity: Any = jd.problems.heterogeneity
stack: Any = jd.stack
mixing: Any = jd.networks.mixing
ring_graph: Any = jd.graphs.ring


@dataclasses.dataclass(frozen=True)
class Case:
    """What a user does, and what the message has to say; ``says`` is a regex."""

    name: str
    does: Callable[[], Any]
    says: str
    error: type[Exception] = ValueError


@functools.cache
def problem(n=N):
    return jd.problems.quadratic(n, D)


@functools.cache
def ring(n=N):
    return jd.networks.metropolis(jd.graphs.ring(n))


@functools.cache
def compared():
    return jd.compare(
        {"DGD": jd.DGD(0.1)}, problem(), ring(), over={"stepsize": [0.1, 0.2]},
        steps=2, progress=False,
    )  # fmt: skip


def twice(dataset, dim):
    return xr.concat([dataset, dataset], dim)


def run(**changes):
    """Run with everything right but the changes."""
    given: dict[str, Any] = {
        "algorithm": jd.DGD(0.1),
        "problem": problem(),
        "network": ring(),
        "x0": problem().start(),
        "key": KEY,
        "steps": 4,
    }
    return jd.run(**(given | changes))


def compare(**changes):
    given: dict[str, Any] = {
        "algorithms": {"DGD": jd.DGD(0.1)},
        "problem": problem(),
        "networks": {"ring": ring()},
        "over": {"stepsize": [0.1]},
        "steps": 2,
        "progress": False,
    }
    return jd.compare(**(given | changes))


def finite_sum(loss: Any = lambda w, z: w @ z, data: Any = SPLIT, params: Any = None, **options):
    params = jnp.zeros(D) if params is None else params
    return jd.problems.FiniteSum(loss, data, params, **options)


def huber(**options):
    return jd.problems.huber_regression(FEATURES, LABELS, agents=2, **options)


def nonconvex(**options):
    return jd.problems.nonconvex_logistic_regression(FEATURES, LABELS, agents=2, **options)


def mlp(labels: Any = LABELS, agents: Any = 2, **options):
    return jd.problems.mlp(FEATURES, labels, agents=agents, **options)


def flipped(liars: Any, problem: Any = None, **options):
    return jd.problems.flip_labels(
        problem or logistic(FEATURES, LABELS, agents=2), liars, **options
    )


def factorize(**changes):
    given: dict[str, Any] = {"rows": LABELS, "columns": LABELS, "values": LABELS, "rank": 1}
    given |= {"agents": 2} | changes
    return jd.problems.matrix_factorization(**given)


def one_class_an_agent():
    """The same features have both labels, so that 0 is the solution; alone no agent has one."""
    features = np.array([[[1.0], [2.0]], [[1.0], [2.0]]])
    return logistic(features, np.array([[1, 1], [0, 0]]))


def matrix(**changes):
    """Return the ring's matrix with entries "ij" changed."""
    weights = np.array(ring().matrix())
    for place, value in changes.items():
        weights[int(place[1]), int(place[2])] = value
    return weights


@jd.pytree
class Plain:
    x: Any


def own(step):
    """Return a method of a user's own whose step does what ``step`` says."""

    @jd.pytree
    class Own:
        def init(self, x0, problem, network, key):
            return Plain(x0)

        def step(self, state, problem, network, key):
            return step(state, network)

    return Own()


def directed_path():
    import networkx as nx

    return nx.DiGraph([(0, 1), (1, 2), (2, 0), (0, 2)])


def sweep_unstacked():
    return jd.sweep(jd.run, over=("algorithm",))(
        jd.DGD(0.1), problem(), ring(), problem().start(), KEY, steps=2
    )


def label(**names):
    methods = jax.vmap(jd.DGD)(jnp.array([0.1, 0.2]))
    result = jd.sweep(jd.run, over=("algorithm",))(
        methods, problem(), ring(), problem().start(), KEY, steps=2
    )
    return jd.label(result, **names)


def draw(function, *args, **options):
    return function(*args, ax=Figure().subplots(), **options)


def cube():
    return compared().isel(seed=0).expand_dims(depth=2, height=2)


ring_1_3 = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]])
bare_numbers = jnp.full(N, 0.1)
X = problem().start()
STATE: Any = Plain(X)

RUN = [
    Case("x0 of another d", lambda: run(x0=jnp.zeros((N, 3))), r"\(4, 3\).*\(4, 2\).*start\(\)"),
    Case("x0 of one row", lambda: run(x0=jnp.zeros(D)), r"\(2,\).*\(4, 2\).*start\(\)"),
    Case("x0 for another n", lambda: run(x0=jnp.zeros((5, D))), r"\(5, 2\).*\(4, 2\).*start\(\)"),
    Case("integer x0", lambda: run(x0=jnp.zeros((N, D), int)), r"int64.*floating.*start\(\)"),
    Case("complex x0", lambda: run(x0=jnp.zeros((N, D), complex)), r"complex128.*floating"),
    Case("other network", lambda: run(network=ring(5)), "problem has 4 .*network 5; give.*same"),
    Case("x0 None", lambda: run(x0=None), r"x0 is None.*state; give problem\.start\(\)"),
    Case("x0 and state", lambda: run(state=Plain(X)), "x0 and a state.*give x0=None"),
    Case(
        "state for another n",
        lambda: run(x0=None, state=Plain(jnp.zeros((3, D)))),
        r"\(3, 2\).*\(4, 2\)",
    ),
    Case("key an int", lambda: run(key=0), r"key is 0, .*jax\.random\.key\(0\)"),
    Case("key None", lambda: run(key=None), r"key is None, .*jax\.random\.key\(0\)"),
    Case("key old", lambda: run(key=jax.random.PRNGKey(0)), r"uint32\[2\].*jax\.random\.key\(0\)"),
    Case("key NumPy", lambda: run(key=np.zeros(2)), r"float64\[2\].*jax\.random\.key\(0\)"),
    Case("keys", lambda: run(key=jax.random.split(KEY, 3)), r"\(3,\).*one key.*jd\.sweep"),
    Case("no steps", lambda: run(steps=0), "steps is 0; give an integer of at least 1"),
    Case("negative steps", lambda: run(steps=-3), "steps is -3; give an integer"),
    Case("float steps", lambda: run(steps=4.0), r"steps is 4\.0; give an integer"),
    Case("boolean steps", lambda: run(steps=True), "steps is True; give an integer"),
    Case("every 0", lambda: run(every=0), "every is 0; give an integer of at least 1"),
    Case("every does not divide", lambda: run(steps=10, every=4), "10 .*4; take 8 steps"),
    Case("every above steps", lambda: run(steps=3, every=4), "3 .*4; take 4 steps"),
    Case(
        "metric named as another",
        lambda: run(metrics={"gap": lambda s, p: 0.0}),
        "metric gap is recorded already; give yours another name",
    ),
    Case(
        "metric named as an axis",
        lambda: run(metrics={"rounds": lambda s, p: 0.0}),
        "metric rounds .*another name",
    ),
    Case("metrics a list", lambda: run(metrics=[jd.metrics.loss]), r"metrics is .*give \{name"),
    Case("metric not callable", lambda: run(metrics={"mine": 3}), "mine.*3.*give"),
    Case("start a float", lambda: run(start=1.5), r"start is 1\.5; give"),
    Case("start negative", lambda: run(start=-1), "start is -1; give"),
    Case(
        "numbers [n]",
        lambda: run(algorithm=jax.vmap(jd.DGD)(bare_numbers)),
        r"stepsize has shape \(4,\); give a scalar or \[n, 1\] = \(4, 1\).*jd\.sweep",
    ),
    Case(
        "numbers [m, 1]",
        lambda: run(algorithm=jd.DGD(jnp.full((3, 1), 0.1))),
        r"stepsize has shape \(3, 1\); give .*\(4, 1\)",
    ),
    Case(
        "class not object",
        lambda: run(algorithm=jd.DGD),
        r"algorithm is the class DGD; give an instance",
    ),
    Case("graph as network", lambda: run(network=jd.graphs.ring(N)), "Graph.*jd.networks"),
    Case(
        "stacked networks",
        lambda: run(network=jd.networks.stack([ring(), ring()])),
        r"(network|weights).*jd\.sweep",
    ),
    Case(
        "EXTRA directed",
        lambda: run(algorithm=jd.EXTRA(0.1), network=mixing(DIRECTED)),
        "EXTRA needs a symmetric W.*of an undirected graph",
    ),
    Case(
        "diffusion directed",
        lambda: run(algorithm=jd.ExactDiffusion(0.1), network=mixing(DIRECTED)),
        "ExactDiffusion needs a symmetric W.*of an undirected graph",
    ),
    Case(
        "step changes shape",
        lambda: run(algorithm=own(lambda s, w: Plain(s.x[:, :1]))),
        r"state\.x from float64\[4, 2\] to float64\[4, 1\]; give x0",
    ),
    Case(
        "step changes dtype",
        lambda: run(algorithm=own(lambda s, w: Plain(s.x.astype(jnp.float32)))),
        r"state\.x from float64\[4, 2\] to float32\[4, 2\]; give x0",
    ),
    Case(
        "step changes structure",
        lambda: run(algorithm=own(lambda s, w: Plain((s.x, s.x)))),
        "step turns.*return the same fields",
    ),
    Case(
        "time without at",
        lambda: own(lambda s, w: Plain(s.x + w.time)).step(STATE, problem(), ring(), KEY),
        r"network has none; pass network\.at\(k, key\)",
    ),
    Case(
        "schedule in step",
        lambda: jd.DGD(jd.schedules.InverseTime(1)).step(STATE, problem(), ring(), KEY),
        r"schedule.*call step on jd\.at\(method, k\)",
    ),
    Case(
        "given gradients of another shape",
        lambda: jd.DGD(0.1).step(STATE, jd.problems.Given(X[:3]), ring(), KEY),
        r"\(3, 2\).*\(4, 2\); give one gradient row",
    ),
]

NUMBERS = [
    Case(
        "negative stepsize", lambda: jd.DGD(-0.1), r"stepsize is -0\.1; (it has|give).* at least 0"
    ),
    Case("boolean stepsize", lambda: jd.DGD(True), "stepsize is True, a boolean; give a number"),
    Case("NaN stepsize", lambda: jd.DGD(np.nan), "stepsize is nan; give (a )?finite number"),
    Case("NaN array", lambda: jd.DGD(jnp.array(np.nan)), "stepsize is nan; give (a )?finite"),
    Case("infinite stepsize", lambda: jd.DGD(np.inf), "stepsize is inf; give (a )?finite number"),
    Case("infinite array", lambda: jd.DGD(np.full((N, 1), np.inf)), "stepsize.* inf.*finite"),
    Case("stepsize a string", lambda: jd.DGD("0.1"), r"stepsize is '0\.1'; give a number"),
    Case("stepsize None", lambda: jd.DGD(None), "stepsize is None; give a number"),
    Case("stepsize a list", lambda: jd.DGD([0.1, 0.2]), r"\[0\.1, 0\.2\]; give a number"),
    Case("stepsize complex", lambda: jd.DGD(jnp.array(1j)), "stepsize.*complex.*give"),
    Case("boolean array", lambda: jd.DGD(np.array([[True]])), "boolean array; give numbers"),
    Case(
        "numbers [n] at once", lambda: jd.DGD(bare_numbers), r"\(4,\); give .*\[n, 1\].*jax\.vmap"
    ),
    Case(
        "piecewise lengths",
        lambda: jd.schedules.PiecewiseConstant([1.0, 0.1], [10, 20]),
        r"\(2,\).*\(2,\); give one more value",
    ),
    Case(
        "piecewise order",
        lambda: jd.schedules.PiecewiseConstant([1.0, 0.1, 0], [20, 10]),
        r"\[20, 10\]; give increasing",
    ),
    Case("piecewise NaN", lambda: jd.schedules.PiecewiseConstant([1.0, np.nan], [2]), "nan.*give"),
    Case(
        "epoch of 0 steps",
        lambda: jd.schedules.PerEpoch(jd.schedules.Constant(1), 0),
        "steps is 0; give",
    ),
    Case(
        "epoch's schedule a number",
        lambda: jd.schedules.PerEpoch(0.1, 2),
        r"schedule is 0\.1; give a schedule",
    ),
]

NETWORKS = [
    Case(
        "disconnected graph",
        lambda: jd.networks.metropolis(ring_1_3),
        "disconnected: 2 components, and agent 2 and agent 0.*add links",
    ),
    Case(
        "disconnected W",
        lambda: mixing(np.kron(np.eye(2), np.full((2, 2), 0.5))),
        "disconnected: 2 components.*add links",
    ),
    Case(
        "row sum",
        lambda: mixing(matrix(_31=0.2)),
        r"row 3 of W sums to 1\.2; .*metropolis",
    ),
    Case(
        "column sum",
        lambda: mixing(np.array([[0.5, 0.5], [0.4, 0.6]])),
        r"column [01] of W sums to (0\.9|1\.1); .*metropolis",
    ),
    Case("W not square", lambda: mixing(np.ones((2, 3)) / 3), r"\(2, 3\); give a square"),
    Case("W a vector", lambda: mixing(np.ones(3) / 3), r"\(3,\); give a square"),
    Case("NaN in W", lambda: mixing(matrix(_01=np.nan)), "1 entries .*not finite; give"),
    Case(
        "W swaps",
        lambda: mixing([[0.0, 1.0], [1.0, 0.0]]),
        r"does not average: .*modulus 1; use \(I \+ W\) / 2",
    ),
    Case(
        "W of directed ring swaps",
        lambda: mixing(np.roll(np.eye(3), 1, axis=0)),
        r"does not average: .*modulus 1; use \(I \+ W\) / 2",
    ),
    Case("unknown form", lambda: mixing(matrix(), form="dense"), "'dense'; give Dense"),
    Case(
        "not complete",
        lambda: mixing(matrix(), form=jd.networks.Complete),
        "not all 1 / n; use another form",
    ),
    Case(
        "not circulant",
        lambda: mixing(
            jd.networks.metropolis(jd.graphs.path(N)).matrix(), form=jd.networks.Circulant
        ),
        "not circulant; use another form",
    ),
    Case(
        "directed graph",
        lambda: jd.networks.metropolis(directed_path()),
        "directed and not regular.*give jd.networks.mixing",
    ),
    Case(
        "directed Laplacian",
        lambda: jd.networks.laplacian(jd.graphs.directed_ring(N)),
        "directed; .*undirected",
    ),
    Case(
        "Laplacian step",
        lambda: jd.networks.laplacian(jd.graphs.ring(N), -0.1),
        r"step is -0\.1; give a positive",
    ),
    Case(
        "large Laplacian step",
        lambda: jd.networks.laplacian(jd.graphs.ring(N), 1.0),
        "does not average.*modulus 3; use.*smaller",
    ),
    Case(
        "Dense not square", lambda: jd.networks.Dense(np.ones((2, 3))), r"\(2, 3\); give a square"
    ),
    Case("graph not square", lambda: jd.networks.metropolis(np.ones((2, 3))), r"\(2, 3\); give"),
    Case("graph with NaN", lambda: jd.networks.metropolis(matrix(_01=np.nan)), "NaN"),
    Case("graph a number", lambda: jd.networks.metropolis(16), r"16|\(\)"),
    Case("stack of other n", lambda: jd.networks.stack([ring(4), ring(5)]), "4 and 5.*same number"),
    Case("empty stack", lambda: jd.networks.stack([]), "no networks to stack; give at least one"),
    Case("ring of 0", lambda: jd.graphs.ring(0), "n is 0; give an integer of at least 1"),
    Case("ring of 4.0", lambda: ring_graph(4.0), r"n is 4\.0; give an integer"),
    Case("star of 0", lambda: jd.graphs.star(0), "n is 0; give an integer"),
    Case("exponential of 0", lambda: jd.graphs.exponential(0), "n is 0; give an integer"),
    Case("grid of 0 rows", lambda: jd.graphs.grid(0, 3), "rows is 0; give an integer"),
    Case("odd regular", lambda: jd.graphs.regular(5, 3), "degree is 3 for n = 5; .*even"),
    Case("no links", lambda: jd.graphs.erdos_renyi(4, 0.0), r"disconnected; raise probability"),
    Case("probability 2", lambda: jd.graphs.erdos_renyi(4, 2.0), r"probability is 2\.0; give one"),
    Case(
        "radius 0", lambda: jd.graphs.random_geometric(4, 0.0), r"radius is 0\.0; give a positive"
    ),
]

PROBLEMS = [
    Case(
        "integer parameters",
        lambda: finite_sum(params={"w": jnp.zeros(D), "k": jnp.arange(2)}),
        r"\['k'\] has dtype int64; .*floating",
    ),
    Case("no parameters", lambda: finite_sum(params={}), "no leaves; give at least one floating"),
    Case("loss a vector", lambda: finite_sum(lambda w, z: w * z), r"\(2,\); return a scalar"),
    Case("loss a pair", lambda: finite_sum(lambda w, z: (w @ z, 1)), "loss.*; return a scalar"),
    Case("loss not callable", lambda: finite_sum(3), "loss is 3; give a function"),
    Case(
        "NaN data", lambda: finite_sum(data=np.array([[[1.0, np.nan]]])), "1 values .*; remove or"
    ),
    Case(
        "ragged leaves",
        lambda: finite_sum(data=([np.ones((2, 2)), np.ones((3, 2))], [np.ones(2), np.ones(2)])),
        r"\[2, 3\] and with \[2, 2\] samples; give all",
    ),
    Case(
        "leaves of other n",
        lambda: finite_sum(data=(np.ones((3, 2, 2)), np.ones((4, 2)))),
        r"\[2, 2, 2\] and with \[2, 2, 2, 2\] samples; give",
    ),
    Case(
        "empty agent",
        lambda: finite_sum(data=[np.ones((2, 2)), np.ones((0, 2))]),
        "agent 1 has no samples; give",
    ),
    Case("no data", lambda: finite_sum(data=()), "no leaves; give arrays"),
    Case("flat data", lambda: finite_sum(data=np.ones(3)), r"\(3,\); give \[n, m"),
    Case("negative l2", lambda: finite_sum(l2=-1.0), r"l2 is -1; give"),
    Case("NaN l2", lambda: finite_sum(l2=np.nan), "l2 is nan; give"),
    Case("l2 a list", lambda: finite_sum(l2=np.ones(3)), r"l2 has shape \(3,\); give one number"),
    Case("l2 a string", lambda: finite_sum(l2="0.1"), r"l2 is '0\.1'; give"),
    Case("unknown weighting", lambda: finite_sum(weights="sample"), "'sample'; give 'agents'"),
    Case("start of other shape", lambda: finite_sum().start(jnp.zeros(3)), r"\(3,\).*\(2,\)"),
    Case(
        "start for other n",
        lambda: finite_sum().start(jnp.zeros((5, D))),
        "5 rows for 3 agents; give",
    ),
    Case("no minimizer", lambda: finite_sum().solved(), "no minimizer was found.*add l2 > 0"),
    Case(
        "separable",
        lambda: logistic(FEATURES, FEATURES[:, 0] > 0, agents=2).solved(),
        "no minimizer was found.*add l2 > 0",
    ),
    Case(
        "three classes",
        lambda: logistic(FEATURES, np.arange(12) % 3, agents=2),
        r"0, 1, 2; give 0/1 or -1/\+1, or use softmax_regression",
    ),
    Case(
        "fractional classes",
        lambda: softmax(FEATURES, LABELS + 0.5, agents=2),
        r"0\.5, 1\.5; give integer classes",
    ),
    Case(
        "negative classes",
        lambda: softmax(FEATURES, LABELS - 1, agents=2),
        "-1, 0; give integer classes",
    ),
    Case(
        "class NaN",
        lambda: softmax(FEATURES, np.where(LABELS, np.nan, 0), agents=2),
        "labels has 6 values that are NaN; drop those samples",
    ),
    Case(
        "too few labels",
        lambda: logistic(FEATURES, LABELS[:-1], agents=2),
        "12 rows .*11 labels; give one label a row",
    ),
    Case(
        "too few split labels", lambda: logistic(SPLIT, LABELS.reshape(4, 3)), "samples; give all"
    ),
    Case("pooled", lambda: logistic(FEATURES, LABELS), "pooled; say .*agents="),
    Case(
        "features a vector",
        lambda: logistic(FEATURES[:, 0], LABELS, agents=2),
        r"features has shape \(12,\); give \[m, p\] pooled",
    ),
    Case("no features", lambda: logistic([], [], agents=2), "give"),
    Case(
        "agents above samples",
        lambda: logistic(FEATURES, LABELS, agents=13),
        "12 samples .* 13 agents; take at most 12",
    ),
    Case("agents 0", lambda: logistic(FEATURES, LABELS, agents=0), "agents is 0; give"),
    Case("agents 2.0", lambda: logistic(FEATURES, LABELS, agents=2.0), r"agents is 2\.0; give"),
    Case(
        "agents of split data",
        lambda: logistic(SPLIT, LABELS.reshape(3, 4), agents=4),
        "agents is 4 and the data is for 3; drop agents",
    ),
    Case(
        "partition of split data",
        lambda: logistic(SPLIT, LABELS.reshape(3, 4), partition="iid"),
        "drop partition",
    ),
    Case(
        "unknown partition",
        lambda: logistic(FEATURES, LABELS, agents=2, partition="bylabel"),
        "'bylabel'; give 'iid', 'by_label'",
    ),
    Case(
        "indices beyond",
        lambda: logistic(FEATURES, LABELS, partition=[[0, 1], [12]]),
        "sample 12; samples have numbers 0 to 11",
    ),
    Case(
        "indices below",
        lambda: logistic(FEATURES, LABELS, partition=[[0, 1], [-1]]),
        "sample -1; samples have numbers 0 to 11",
    ),
    Case(
        "indices twice",
        lambda: logistic(FEATURES, LABELS, partition=[[0, 1], [2, 1]]),
        "sample 1 away twice; give it once",
    ),
    Case(
        "indices missing",
        lambda: logistic(FEATURES, LABELS, partition=[np.array([0, 1]), np.array([], int)]),
        "agent 1 has no samples; give",
    ),
    Case(
        "an empty list of indices",
        lambda: logistic(FEATURES, LABELS, partition=[[0, 1], []]),
        "agent 1 has no samples; give",
    ),
    Case(
        "indices and agents",
        lambda: logistic(FEATURES, LABELS, partition=[[0], [1]], agents=3),
        "agents is 3 .*2 index arrays; give one an agent",
    ),
    Case("dirichlet 0", lambda: jd.partition.dirichlet(0.0), r"alpha is 0\.0; give a positive"),
    Case("dirichlet -1", lambda: jd.partition.dirichlet(-1), "alpha is -1; give a positive"),
    Case("gamma 2", lambda: jd.partition.gamma_similarity(2), "gamma is 2; give a share in"),
    Case("gamma NaN", lambda: jd.partition.gamma_similarity(np.nan), "gamma is nan; give a share"),
    Case("flip 3", lambda: flipped(3), "liars is 3 and there are 2 agents; give at most 2"),
    Case("flip -1", lambda: flipped(-1), "liars is -1; give how many lie, or who, as"),
    Case("flip floats", lambda: flipped([0.0, 1.0]), r"array of float64\[2\]; give how many"),
    Case("flip a long mask", lambda: flipped([True] * 3), r"array of bool\[3\]; give how many"),
    Case("flip a quadratic", lambda: jd.problems.flip_labels(problem(), 1), "give a FiniteSum"),
    Case("flip no key", lambda: flipped(1, labels="b"), "labels is 'b', which a sample .*; give"),
    Case("flip a matrix", lambda: jd.problems.flip_labels(finite_sum(), 1), "labels is 1, which"),
    Case("flip features", lambda: flipped(1, labels=0), r"the labels have shape \(2, .*; give one"),
    Case(
        "flip targets",
        lambda: jd.problems.flip_labels(
            jd.problems.least_squares(FEATURES, FEATURES[:, 0] + 0.1, agents=2), 1
        ),
        "the labels are from .*; give classes 0, 1, ..., or labels −1 and 1",
    ),
    Case(
        "flip 2 of 3", lambda: flipped(1, mlp(np.arange(len(LABELS)) % 3), classes=2), "to 2; give"
    ),
    Case("flip 1 class", lambda: flipped(1, mlp(), classes=1), "classes is 1; give an integer of"),
    Case("shards 0", lambda: jd.partition.by_label(0), "shards is 0; give"),
    Case("batch 0", lambda: minibatch(finite_sum(), 0), "batch is 0; give"),
    Case("batch 1.5", lambda: minibatch(finite_sum(), 1.5), r"batch is 1\.5; give"),
    Case(
        "batch of a quadratic",
        lambda: minibatch(problem(), 1),
        "Quadratic has no samples .*; Minibatch needs .*FiniteSum",
    ),
    Case(
        "oracle without agents",
        lambda: jd.problems.Oracle(lambda w, z, k: w, None, X[0]),
        "agents= where there is no data",
    ),
    Case(
        "oracle with other agents",
        lambda: jd.problems.Oracle(lambda w, z, k: w, X, X[0], agents=3),
        "3.* 4; drop agents",
    ),
    Case(
        "oracle of leaves that disagree",
        lambda: jd.problems.Oracle(lambda w, z, k: w, (X, X[:3]), X[0]),
        r"\(4, 2\).*\(3, 2\).*give every leaf",
    ),
    Case(
        "condition number",
        lambda: jd.problems.quadratic(4, 2, condition_number=0.5),
        r"condition_number is 0\.5; give at least 1",
    ),
    Case("no agents", lambda: jd.problems.quadratic(0, 2), "agents is 0; give an integer"),
    Case(
        "smoothness 0", lambda: jd.problems.quadratic(4, 2, smoothness=0), "smoothness is 0; give"
    ),
    Case(
        "heterogeneity",
        lambda: jd.problems.quadratic(4, 2, heterogeneity=-1.0),
        r"heterogeneity is -1; give",
    ),
    Case(
        "spread 1",
        lambda: jd.problems.quadratic(4, 2, curvature_spread=1.0),
        r"curvature_spread is 1\.0; give \[0, 1\)",
    ),
    Case(
        "solution", lambda: jd.problems.quadratic(4, 2, solution=np.ones(3)), r"\(3,\); give \(2,\)"
    ),
    Case(
        "infinite condition number",
        lambda: jd.problems.quadratic(4, 2, condition_number=np.inf),
        "condition_number is inf; give",
    ),
    Case(
        "held-out labels",
        lambda: jd.metrics.accuracy(FEATURES, LABELS[:-1]),
        r"\(12, 2\).*\(11,\); give one label a row",
    ),
]

RESULTS = [
    Case(
        "sweep over unknown",
        lambda: jd.sweep(jd.run, over=("stepsize",)),
        "'stepsize'.*name each of some of algorithm, problem",
    ),
    Case("sweep over nothing", lambda: jd.sweep(jd.run, over=()), r"over is \(\); name"),
    Case("sweep twice", lambda: jd.sweep(jd.run, over=("key", "key")), "'key', 'key'.*once"),
    Case("sweep unstacked", sweep_unstacked, r"algorithm .*; stack the members"),
    Case(
        "sweep not given",
        lambda: jd.sweep(jd.run, over=("state",))(jd.DGD(0.1), problem(), ring(), X, KEY, steps=2),
        "state is swept .*not given; give",
    ),
    Case("label without names", lambda: label(), "1 swept axes and 0 names .*; name each"),
    Case("label with two names", lambda: label(a=2, b=2), "1 swept axes and 2 names"),
    Case(
        "label of other length",
        lambda: label(stepsize=[1, 2, 3]),
        "stepsize has 3 values and the axis 2 members; give one",
    ),
    Case("compare nothing", lambda: compare(algorithms={}), "algorithms is empty; give"),
    Case("compare nowhere", lambda: compare(networks={}), "networks is empty; give"),
    Case("compare over nothing", lambda: compare(over={}), "over is empty; give"),
    Case(
        "compare unknown field",
        lambda: compare(over={"relaxation": [0.5]}),
        "DGD has no field 'relaxation' to sweep; it has stepsize",
    ),
    Case("compare empty grid", lambda: compare(over={"stepsize": []}), r"stepsize.*\(0,\); give"),
    Case(
        "compare NaN", lambda: compare(over={"stepsize": [0.1, np.nan]}), "stepsize.*give.*finite"
    ),
    Case(
        "compare negative",
        lambda: compare(over={"stepsize": [0.1, -1]}),
        "stepsize is -1; .*least 0",
    ),
    Case("compare no seeds", lambda: compare(seeds=0), "seeds is 0; give at least one"),
    Case("compare empty seeds", lambda: compare(seeds=[]), r"seeds is \[\]; give at least one"),
    Case("compare other n", lambda: compare(networks={"a": ring(4), "b": ring(5)}), "'b' is for 5"),
    Case("compare a list", lambda: compare(algorithms=[jd.DGD(0.1)]), r"algorithms .*give \{name"),
    Case(
        "best of unknown", lambda: jd.best(compared(), "gasp"), "no variable 'gasp'; it has .*gap"
    ),
    Case("best over unknown", lambda: jd.best(compared(), over=["rate"]), "'rate'.*name some"),
    Case(
        "reach unknown", lambda: jd.reach(compared(), "gasp", 1), "no variable 'gasp'; it has .*gap"
    ),
    Case(
        "reach at unknown x",
        lambda: jd.reach(compared(), "gap", 1, x="time"),
        r"no (variable )?'time'; it has .*step",
    ),
    Case(
        "curves of unknown", lambda: draw(jd.plot.curves, compared(), "gasp"), "no 'gasp'; it has"
    ),
    Case(
        "curves over unknown",
        lambda: draw(jd.plot.curves, compared(), x="time"),
        "no 'time'; it has",
    ),
    Case(
        "curves of three",
        lambda: draw(jd.plot.curves, twice(twice(compared(), "algorithm"), "network")),
        "algorithm, network, stepsize .*lines can show two; select",
    ),
    Case(
        "curves without steps",
        lambda: draw(jd.plot.curves, compared(), "diverged"),
        "diverged.*(no curve|select with)",
    ),
    Case(
        "heatmap of unknown", lambda: draw(jd.plot.heatmap, compared(), "gasp"), "no 'gasp'; it has"
    ),
    Case(
        "heatmap of three",
        lambda: draw(jd.plot.heatmap, twice(twice(compared(), "algorithm"), "network")),
        "algorithm, network, stepsize .*stepsize and network; name two with x= and by=, and select",
    ),
    Case(
        "heatmap of other",
        lambda: draw(jd.plot.heatmap, cube(), x="depth", by="width"),
        "depth and width; name two with x= and by=",
    ),
]

MODELS = [
    Case("delta 0", lambda: huber(delta=0), "delta is 0; give more than 0"),
    Case(
        "delta a list", lambda: huber(delta=np.ones(2)), r"delta has shape \(2,\); give one number"
    ),
    Case("penalty", lambda: nonconvex(weight=-1), "weight is -1; give at least 0"),
    Case("penalty a string", lambda: nonconvex(weight="1"), "weight is '1'; give a number"),
    Case("one hidden layer", lambda: mlp(hidden=32), r"hidden is 32; give .* such as \(32,\)"),
    Case("width 0", lambda: mlp(hidden=(8, 0)), "hidden width is 0; give an integer of at least 1"),
    Case("network's labels", lambda: mlp(labels=LABELS - 1), "-1, 0; give integer classes"),
    Case("network's agents", lambda: mlp(agents=None), "pooled; say .*agents="),
    Case("rank 0", lambda: factorize(rank=0), "rank is 0; give an integer of at least 1"),
    Case("negative rows", lambda: factorize(rows=-LABELS), "rows has the index -1; count from 0"),
    Case("floating columns", lambda: factorize(columns=0.5 * LABELS), "float64; give .*integers"),
    Case(
        "entries",
        lambda: factorize(values=np.ones(3)),
        r"\(12,\), \(12,\) and \(3,\); give one of each",
    ),
    Case("entries of nobody", lambda: factorize(agents=None), "agents is None; give an integer"),
    Case("sigma -1", lambda: noise(problem(), -1), "sigma is -1; give at least 0"),
    Case("sigma a list", lambda: noise(problem(), np.ones(N)), r"\(4,\); give one number"),
    Case("sigma a schedule", lambda: noise(problem(), lambda k: 1 / k), "sigma is .*give a number"),
    Case("noise on nothing", lambda: noise(FEATURES, 1), "ndarray without grad; give an object"),
    Case(
        "samples of noise",
        lambda: minibatch(noise(finite_sum(), 1), 2),
        "GaussianNoise has no samples to draw from; .* such as FiniteSum",
    ),
    Case(
        "own samples of a quadratic",
        lambda: samples_of(problem()),
        "Quadratic has no samples .*; a method that draws its own .* such as FiniteSum",
    ),
    Case(
        "heterogeneity of an oracle",
        lambda: heterogeneity(jd.problems.Oracle(lambda w, z, k: w, X, X[0])),
        "which Oracle does not know; give a FiniteSum or a Quadratic",
    ),
    Case(
        "heterogeneity unsolved",
        lambda: heterogeneity(finite_sum()),
        r"solution of the FiniteSum is not known; give .*problem\.solved\(\)",
    ),
    Case(
        "heterogeneity of one class an agent",
        lambda: heterogeneity(one_class_an_agent()),
        "agent 0's own objective has no minimizer .*; add l2 > 0",
    ),
    Case("stack nothing", lambda: jd.stack([]), "members is an empty list; give a list"),
    Case("stack one", lambda: stack(problem()), "is a Quadratic; give a list of at least one"),
    Case("stack other n", lambda: stack([problem(4), problem(5)]), "n = 4, 5; give all the same n"),
    Case(
        "stack other d",
        lambda: stack([problem(), jd.problems.quadratic(N, 3)]),
        "d = 2, 3; give all the same d",
    ),
    Case(
        "stack other losses",
        lambda: stack([finite_sum(), finite_sum(lambda w, z: w @ z)]),
        "members 0 and 1 differ in loss; stack members of one structure",
    ),
    Case(
        "stack other batches",
        lambda: stack([minibatch(finite_sum(), 1), minibatch(finite_sum(), 2)]),
        "members 0 and 1 differ in batch; stack",
    ),
    Case(
        "stack other losses in batches",
        lambda: stack([minibatch(finite_sum(lambda w, z: w @ z), 1) for _ in range(2)]),
        r"members 0 and 1 differ in problem\.loss; stack",
    ),
    Case(
        "stack methods",
        lambda: stack([jd.DGD(0.1), jd.EXTRA(0.1)]),
        "members 0 and 1 differ in type, DGD and EXTRA; stack",
    ),
    Case(
        "stack other shapes",
        lambda: stack([jd.DGD(0.1), jd.DGD(np.ones((N, 1)))]),
        r"stepsize have shapes \(\), \(4, 1\); give all the same",
    ),
]

SPARSE = scipy.sparse.csr_matrix(FEATURES)
NAMES = np.array(["cat", "dog"])[LABELS]


def oracle(gradient: Any, params: Any = X[0]):
    return jd.problems.Oracle(gradient, X, params)


def dealt(partition: Any, labels: Any = LABELS):
    return least_squares(FEATURES, labels, agents=2, partition=partition)


DATA = [
    Case(
        "sparse", lambda: logistic(SPARSE, LABELS, agents=2), r"sparse csr_matrix .*\.toarray\(\)"
    ),
    Case("sparse agents", lambda: finite_sum(data=[SPARSE, SPARSE]), r"agent 0 is a sparse.*give"),
    Case("names", lambda: logistic(FEATURES, NAMES, agents=2), r"'(cat|dog)'; give .*np\.unique"),
    Case("names in features", lambda: logistic(NAMES[:, None], LABELS, agents=2), "give numbers"),
    Case(
        "no labels",
        lambda: softmax(FEATURES, [None, *LABELS[1:]], agents=2),
        "labels has 1 values that are NaN; drop",
    ),
    Case(
        "labels NA",
        lambda: logistic(FEATURES, pd.Series([pd.NA, *LABELS[1:]]), agents=2),
        "labels has missing values .*; drop",
    ),
    Case(
        "one-hot labels",
        lambda: softmax(FEATURES, np.eye(2)[LABELS], agents=2),
        r"\(12, 2\); give one label a sample.*argmax",
    ),
    Case("a label", lambda: logistic(FEATURES, 1, agents=2), r"\(\); give one label a sample"),
    Case(
        "images",
        lambda: softmax(np.ones((12, 2, 2)), LABELS, agents=2),
        r"\(12, 2, 2\).*\(12,\); give .*features\.reshape",
    ),
    Case("complex features", lambda: logistic(FEATURES + 1j, LABELS, agents=2), "complex128; give"),
    Case("complex labels", lambda: least_squares(FEATURES, LABELS * 1j, agents=2), "complex.*give"),
    Case(
        "complex entries", lambda: factorize(values=LABELS * 1j), "values has dtype complex.*give"
    ),
    Case("ragged rows", lambda: logistic([[1.0], [1.0, 2.0]], [0, 1], agents=2), "one length"),
    Case(
        "masked", lambda: logistic(np.ma.masked_less(FEATURES, 0), LABELS), "masked values; remove"
    ),
    Case(
        "dates", lambda: logistic(FEATURES, LABELS.astype("M8[s]")), r"datetime64\[s\]; give real"
    ),
    Case(
        "agents' features alone",
        lambda: logistic({"a": FEATURES}, LABELS),
        "dict of agents .*give both as dicts with the same keys",
    ),
    Case("columns", lambda: logistic({"a": LABELS}, {"a": LABELS}), r"1 dimensions; give \{agent"),
    Case(
        "agents of other widths",
        lambda: logistic([FEATURES, FEATURES[:, :1]], [LABELS, LABELS]),
        r"shapes \(2,\), \(1,\); give all the same",
    ),
    Case("traced", lambda: jax.jit(lambda a: logistic(a, LABELS).d)(FEATURES), "traced; build"),
    Case(
        "uncalled dirichlet", lambda: dealt(jd.partition.dirichlet), "dirichlet, not called; give"
    ),
    Case("uncalled iid", lambda: dealt(jd.partition.iid), "iid, not called; give what it returns"),
    Case("partition a number", lambda: dealt(0.3), r"partition is 0\.3; give 'iid'"),
    Case("owners", lambda: dealt([0, 1]), r"agent 0 have shape \(\); give each .*np\.flatnonzero"),
    Case(
        "labels of two types",
        lambda: split(FEATURES[:2], np.array([1, "a"], object), agents=2),
        "int, str.*give all",
    ),
    Case("labels missing", lambda: split(FEATURES, [None, 1], agents=2), "1 values missing; drop"),
    Case(
        "data of other length",
        lambda: split(FEATURES[1:], LABELS, agents=2),
        r"\(11, 2\) and there are 12 labels; give",
    ),
    Case(
        "minimum",
        lambda: dealt(jd.partition.dirichlet(0.1, minimum=7)),
        "12 samples are too few for 7 an agent and 2 agents; take fewer",
    ),
    Case("balanced 0", lambda: jd.partition.balanced_dirichlet(0), "alpha is 0; give a positive"),
    Case(
        "integer loss", lambda: finite_sum(lambda w, z: jnp.sum(w @ z > 0)), "int64; return a float"
    ),
    Case("complex loss", lambda: finite_sum(lambda w, z: w @ z * 1j), "complex128; return a float"),
    Case(
        "flat loss", lambda: finite_sum(lambda w, z: 1.0 * (w @ z > 0)), "does not depend on param"
    ),
    Case(
        "loss of other d",
        lambda: finite_sum(params=jnp.zeros(3)),
        r"loss of one sample fails \(TypeError.*params of shapes \(3,\) and data of shapes \(2,\)",
    ),
    Case(
        "numbers in a list", lambda: finite_sum(data=[1.0, 2.0]), "list of numbers.*give an array"
    ),
    Case(
        "agents of other trees",
        lambda: finite_sum(data=[(SPLIT[0],), {"a": SPLIT[1]}]),
        "structures .*; give all the same",
    ),
    Case(
        "oracle's sum", lambda: oracle(lambda w, z, k: w.sum()), r"\(2,\) a gradient of shapes \(\)"
    ),
    Case(
        "oracle's rows", lambda: oracle(lambda w, z, k: X), r"gradient of shapes \(4, 2\); return"
    ),
    Case(
        "oracle's tree", lambda: oracle(lambda w, z, k: {"w": w}), "return the parameters' own tree"
    ),
    Case(
        "oracle's integers", lambda: oracle(lambda w, z, k: w.astype(int)), "int64; return floating"
    ),
    Case(
        "oracle fails", lambda: oracle(lambda w, z, k: w @ X), "oracle's gradient fails .*params of"
    ),
    Case("given a vector", lambda: given(np.ones(3)), r"\(3,\) and dtype .*; give .*\[n, d\]"),
    Case("given integers", lambda: given(np.ones((3, 2), int)), "int64; give floating"),
    Case("given complex", lambda: given(np.ones((3, 2)) * 1j), "complex128; give real"),
    Case("accuracy of names", lambda: accuracy(FEATURES, NAMES), r"give numbers.*np\.unique"),
    Case("classes in a list", lambda: dataset(FEATURES, LABELS).only([0, 1]), r"only\(3, 8\)"),
    Case("split's seed", lambda: dataset(FEATURES, LABELS).split(seed=-1), "seed is -1; give"),
]

SCHEDULES = [
    Case(
        "schedule [n]",
        lambda: jd.DGD(lambda k: bare_numbers),
        r"schedule's stepsize .*\(4,\); give",
    ),
    Case(
        "schedule [d]", lambda: jd.DGD(lambda k: jnp.ones(D)), r"schedule's stepsize .*\(2,\); give"
    ),
    Case(
        "schedule [n] under jit",
        lambda: jax.jit(lambda a: jd.DGD(lambda k: a * bare_numbers))(1.0),
        r"schedule's stepsize .*\(4,\); give",
    ),
    Case("negative schedule", lambda: jd.DGD(lambda k: -0.1), "step 0 is -0.1; give at least 0"),
    Case(
        "negative numerator",
        lambda: jd.DGD(jd.schedules.InverseTime(-1)),
        "schedule's stepsize at step 0 is -1; give at least 0",
    ),
    Case(
        "negative piece",
        lambda: jd.DGD(jd.schedules.PiecewiseConstant([0.1, -0.2, 0.1], [5, 6])),
        "stepsize at step 5 is -0.2; give at least 0",
    ),
    Case(
        "negative end",
        lambda: jd.DGD(jd.schedules.Cosine(0.1, 10, final=-0.1)),
        "stepsize at step 10 is -0.1; give at least 0",
    ),
    Case(
        "negative epoch",
        lambda: jd.DGD(jd.schedules.PerEpoch(jd.schedules.PiecewiseConstant([0.1, -0.2], [5]), 3)),
        "stepsize at step 15 is -0.2; give at least 0",
    ),
    Case(
        "schedule's class",
        lambda: jd.DGD(jd.schedules.InverseTime),
        "schedule's stepsize is InverseTime.*; give a function of the step that returns a number",
    ),
    Case(
        "schedule of two", lambda: jd.DGD(lambda k, j: 0.1), "fails .*; give a function of the step"
    ),
    Case("schedule of words", lambda: jd.DGD(lambda k: "0.1"), r"step 0 is '0\.1'; give a number"),
    Case("complex schedule", lambda: jd.DGD(lambda k: jnp.array(1j)), "complex array; give real"),
    Case(
        "schedule that falls below 0",
        lambda: jd.at(jd.DGD(lambda k: 0.1 - 0.01 * k), 12),
        "schedule's stepsize is -0.02; give at least 0",
    ),
    Case(
        "schedule that falls below 0 in a run",
        lambda: require_schedules(jd.DGD(lambda k: 0.1 - 0.01 * k), 0, 13),
        "stepsize at step 12 is -0.02; give at least 0",
    ),
    Case(
        "schedule infinite in a run",
        lambda: require_schedules(jd.DGD(lambda k: 1 / k), 0, 13),
        "stepsize at step 0 is inf; give a finite number",
    ),
    Case(
        "schedule with an if",
        lambda: require_schedules(jd.DGD(lambda k: 0.1 if k < 3 else 0.0), 0, 13),
        "stepsize fails .*that JAX can trace",
    ),
]


class Own:
    """A problem of a user's own."""

    n, d = N, D

    def __init__(self, grad):
        self.grad = lambda x, key: grad(x)


GRADIENTS = [
    Case(
        "own gradient [d]", lambda: require_gradient(Own(lambda x: x[0]), X, KEY), r"\(2,\) for x"
    ),
    Case(
        "own gradient a sum", lambda: require_gradient(Own(jnp.sum), X, KEY), r"\(\) for x .*return"
    ),
    Case(
        "own gradient [n, 1]",
        lambda: require_gradient(Own(lambda x: x[:, :1]), X, KEY),
        r"\(4, 1\) for x of shape \(4, 2\); return one gradient row an agent",
    ),
    Case(
        "own integers",
        lambda: require_gradient(Own(lambda x: x.astype(int)), X, KEY),
        "int64; return floating numbers",
    ),
    Case("own pair", lambda: require_gradient(Own(lambda x: (x, x)), X, KEY), "a tuple; return"),
]


def served(method):
    return jd.run(method, problem(), jd.networks.Server(N), problem().start(), KEY, steps=1)


TOP, DITHER = jd.compressors.TopK(1), jd.compressors.Dither(bits=2)
FEEDBACK = [
    Case(
        "unbiased, EF14",
        lambda: served(jd.EF14(0.1, DITHER)),
        r"EF14 needs a contractive compressor and a Dither has no delta; give Contractive of",
    ),
    Case(
        "unbiased blocks, EF21",
        lambda: served(jd.EF21(0.1, jd.compressors.Blocks(DITHER, 1))),
        r"EF21 needs a contractive compressor and a Dither has no delta; give Contractive of",
    ),
    Case(
        "random coordinates, EControl",
        lambda: served(jd.EControl(0.1, jd.compressors.RandomK(1))),
        r"RandomK is unbiased and has no delta; give .*Contractive\(RandomK\(k\)\)",
    ),
    Case(
        "signs, DGC",
        lambda: served(jd.DGC(0.1, jd.compressors.Sign())),
        "DGC needs a contractive compressor and a Sign has no delta; give",
    ),
    Case(
        "unbiased downlink",
        lambda: served(jd.CompressedSGD(0.1, DITHER, downlink=DITHER)),
        "CompressedSGD needs a contractive downlink and a Dither has no delta",
    ),
    Case(
        "more coordinates than there are",
        lambda: served(jd.EF21SGDM(0.1, jd.compressors.TopK(3))),
        "k is 3 and vectors have 2 coordinates; give at most 2",
    ),
    Case(
        "more of them down",
        lambda: served(jd.CompressedSGD(0.1, TOP, downlink=jd.compressors.TopK(3))),
        "k is 3 and vectors have 2 coordinates; give at most 2",
    ),
    Case("beta above 1", lambda: jd.EF21SGDM(0.1, TOP, beta=1.5), r"beta is 1\.5; give at most 1"),
    Case("eta below 0", lambda: jd.EControl(0.1, TOP, eta=-0.1), r"eta is -0\.1; give at least 0"),
    Case("eta above 1", lambda: jd.EControl(0.1, TOP, eta=2), "eta is 2; give at most 1"),
    Case("clip 0", lambda: jd.DGC(0.1, TOP, clip=0), "clip is 0; give more than 0"),
    Case(
        "error feedback among liars",
        lambda: jd.run(
            jd.EF21(0.1, TOP),
            problem(),
            jd.networks.robust(
                jd.networks.Server(N),
                rule=jd.aggregators.Median(),
                attack=jd.attacks.ALIE(1.0),
                liars=1,
            ),
            problem().start(),
            KEY,
            steps=1,
        ),
        "EF21 needs the plain sum of what clients send",
    ),
]
CASES = (
    DATA + SCHEDULES + GRADIENTS + RUN + NUMBERS + NETWORKS + PROBLEMS + RESULTS + MODELS + FEEDBACK
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_mistake_is_told_in_one_sentence(case):
    with pytest.raises(case.error, match=case.says) as caught:
        case.does()
    message = str(caught.value)
    assert message.endswith("."), message
    assert len(message.splitlines()) == 1, message
    assert len(message) <= 240, message


def test_the_table_names_every_case_once():
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))
