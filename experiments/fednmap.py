"""FedNMap: composite federated learning by the normal map (arXiv 2602.03357).

Sparse logistic regression of the digits 3 against 8, sorted by label over the clients, with l1 and
with MCP, which is not convex; F is the same for any number n of clients. With full gradients:
FedNMap for several n and numbers Q of local steps, and other methods, each at its own best stepsize
of one grid. With noisy gradients, a smaller problem, and MCP: is E|F(z)|² nQ the same for all n and
Q, and do the rounds that noise costs fall as 1 / (nQ)? (At the best total step they are of the form
a/ε + b/(nQε²).) With a sparse truth and heterogeneous clients: is it found?

Stepsizes are compared as total steps ηQ of a round, λ is 1, and residuals are |x − prox(x −
λ∇f(x))|² / λ² of the estimate, |F(z)|² of FedNMap's z, in float64. FedNMap's listing is derived
from the abstract; the paper's own experiments are not known to us.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, below, claims, near, within_factor
from experiments.measures import among, attained, exponent, over, quickest, spread
from experiments.panels import REFERENCE, Figure, Heat, Lines, LogLog, level, slope
from experiments.study import Axis, Part, Program, Results, Study, comparison, derived
from jaxdopt.problems import Composite, prox

PAPER = "arXiv 2602.03357"
LAM = 1.0  # λ
REGULARIZERS = {"l1": prox.L1(0.02), "MCP": prox.MCP(0.02, 20.0)}
SUPPORT = {"l1": prox.L1(0.02), "MCP": prox.MCP(0.04, 15.0)}  # with the sparse truth
GRID = tuple(1.5 * 2.0**j for j in range(-7, 2))  # total steps ηQ; 2λ is unstable
SHARED = 1.5  # the total step at which rounds are compared
TARGET = 1e-16  # of squared residuals
N, Q = 16, 10  # of the comparison of methods
TOTALS, TOTAL = tuple(2.0**j for j in range(-7, 1)), 0.125  # with noise; of stationary errors
ACCURACY = 5e-3  # of the mean over rounds of E|F(z)|²
MEMBER = ("regularizer", "algorithm")
TRUTH, DIMENSION, SAMPLES = 8, 40, 60  # nonzeros, d and a client's samples of the sparse truth


@jd.pytree
class Uncorrected(jd.FedNMap):
    """FedNMap whose corrections stay zero."""

    def step(self, state: Any, problem: Any, network: Any, key: jax.Array) -> Any:
        """Take one round of Q local steps."""
        after = super().step(state, problem, network, key)
        return jd.replace(after, d=jnp.zeros_like(after.d))


FedNMap = functools.partial(jd.FedNMap, 0.1, LAM)
METHODS = {
    "FedNMap": FedNMap(local_steps=Q),
    "Zhang, Hu, Johansson": jd.ZhangHuJohansson(0.1, local_steps=Q),
    "FedNMap, no correction": Uncorrected(0.1, LAM, local_steps=Q),
    "FedDualAvg": jd.FedDualAvg(0.1, local_steps=Q),
    "FedMid": jd.FedMid(0.1, local_steps=Q),
    "FedMid, server prox alone": jd.FedMid(0.1, client_prox=False, local_steps=Q),
}
EXACT, OTHERS = list(METHODS)[:2], list(METHODS)[2:]
MEMBERS = [(kind, name) for kind in REGULARIZERS for name in METHODS]
MEMBERS.remove(("MCP", "FedDualAvg"))  # which is for convex regularizers
PAIRS, CASES = ([(n, q) for n in (4, 16, 64) for q in qs] for qs in ((1, 5, 10, 20), (1, 4, 16)))
SCALES = {
    "quick": dict(kinds=["MCP"], members=[("MCP", "FedNMap"), ("MCP", OTHERS[0])],
        grid=(0.375, SHARED), full=dict(steps=1000, every=10), pairs=[(N, Q)],
        cases=[(4, 1), (16, 4)], totals=[TOTAL], noisy=dict(steps=800, every=4),
        support=dict(steps=2000, every=2000), seeds=4),
    "default": dict(kinds=list(REGULARIZERS), members=MEMBERS, grid=GRID, pairs=PAIRS, cases=CASES,
        full=dict(steps=1500, every=10), totals=TOTALS, noisy=dict(steps=1200, every=4),
        support=dict(steps=8000, every=8000), seeds=4),
}  # fmt: skip
SCALES["full"] = SCALES["default"] | {"full": {"steps": 3000, "every": 10}, "seeds": 16}
"""``pairs`` are n and Q without noise, ``cases`` those with noise."""


@functools.cache
def problem(kind: str, n: int = N) -> Any:
    """Return the problem of n clients, which have the digits by label; F is the same for all n."""
    data = jd.data.digits().only(3, 8)
    options: dict[str, Any] = {"partition": "by_label", "l2": 0.01, "weights": "samples"}
    smooth = jd.problems.logistic_regression(data.features, data.labels == 8, agents=n, **options)
    return Composite(smooth, REGULARIZERS[kind])


@functools.cache
def small(n: int) -> Any:
    """Return a small logistic regression with a sparse truth, the same function for every n."""
    random = np.random.default_rng(0)
    truth = np.where(np.arange(12) < 4, 2.0, 0.0)
    features = random.standard_normal((256, 12))
    data = features, random.random(256) < 1 / (1 + np.exp(-features @ truth))
    return jd.problems.logistic_regression(*data, agents=n, partition="by_label", l2=0.05)


@functools.cache
def sparse_truth(seed: int = 0) -> tuple[np.ndarray, Any]:
    """Return a sparse x [d] and logistic regression on labels drawn from it.

    Clients are heterogeneous: each one's features are shifted and scaled, and its labels sorted.
    """
    random = np.random.default_rng(seed)
    truth = np.zeros(DIMENSION)
    chosen = random.choice(DIMENSION, TRUTH, replace=False)
    truth[chosen] = random.choice([-1, 1], TRUTH) * random.uniform(1.0, 2.0, TRUTH)
    scale = random.uniform(0.5, 1.5, (N, 1, 1))
    shift = 0.3 * random.standard_normal((N, 1, DIMENSION))
    features = scale * random.standard_normal((N, SAMPLES, DIMENSION)) + shift
    chance = 1 / (1 + np.exp(-features @ truth))
    labels = random.random(chance.shape) < chance
    data = features.reshape(-1, DIMENSION), labels.ravel()
    return truth, jd.problems.logistic_regression(*data, agents=N, partition="by_label", l2=1e-3)


def descent(problem: Any, steps: int = 10_000) -> dict[str, jax.Array]:
    """Return x after many steps x ← prox(x − t∇f(x)), t = 1 / L, from where the methods start."""
    t, grad = 1 / problem.smoothness, jax.grad(problem.smooth_objective)
    descend = functools.partial(
        jax.lax.fori_loop, 0, steps, lambda _, x: problem.prox(x - t * grad(x), t)
    )
    return {"x": jax.jit(descend)(problem.start().mean(axis=0))}


def residual(state: Any, problem: Any) -> jax.Array:
    """Return |x − prox(x − λ∇f(x))|² / λ² at the estimate; λ and so the scale are the same for all.

    The recorded ``prox_gradient_residual`` takes a step that depends on how data are divided.
    """
    x = state.estimate
    after = problem.prox(x - LAM * jax.grad(problem.smooth_objective)(x), LAM)
    return jnp.sum((x - after) ** 2) / LAM**2


METRICS = {"residual": residual, "zeros": jd.metrics.sparsity, "x": lambda state, _: state.estimate}
NORMAL = jd.metrics.normal_map_residual(LAM)


def history(
    method: Any, problem: Any, totals: Sequence[float], metrics: Any = METRICS, **options: Any
) -> Program:
    """Return the program of a method's histories over total steps ηQ instead of stepsizes."""
    return comparison(
        method,
        (*METRICS, "normal", "rounds", "vectors", "diverged"),
        axes={"stepsize": Axis("total", totals)},
        problem=problem,
        networks=jd.networks.Server(problem.n),
        over={"stepsize": np.asarray(totals) / method.local_steps},
        metrics=metrics,
        **options,
    )


def exact(world: Any, _: Any) -> dict[tuple[str, int, int], Program]:
    """Return FedNMap's histories with full gradients: regularizer, n, Q, total, step."""
    options = world.full | {"metrics": {"residual": residual, "normal": NORMAL}}
    return {
        (kind, n, q): history(FedNMap(local_steps=q), problem(kind, n), world.grid, **options)
        for kind in world.kinds
        for n, q in world.pairs
    }


def noisy(world: Any, n: int, q: int, sigma: float = 0.5) -> Program:
    """Return FedNMap's |F(z)|² with noise, E|noise|² = σ² a client: total, seed, step."""
    training = Composite(jd.problems.GaussianNoise(small(n), sigma), prox.MCP(0.05, 15.0))
    seeds = range(world.seed, world.seed + world.seeds)
    options = world.noisy | {"metrics": {"residual": NORMAL}, "seeds": seeds}
    return history(FedNMap(local_steps=q), training, world.totals, **options)


def recovered(world: Any, _: Any) -> dict[tuple[str, str], Program]:
    """Return what methods find of a sparse truth, and centralized descent: regularizer, method."""
    truth, options = sparse_truth(world.seed)[1], world.support | {"seeds": [world.seed]}
    made = {kind: Composite(truth, SUPPORT[kind]) for kind in world.kinds}
    found = {(kind, "centralized"): Program({"problem": made[kind]}, {}, descent) for kind in made}
    for kind, name in world.members:
        found[kind, name] = history(METHODS[name], made[kind], (0.5,), **options)
    return found


def beside(dataset: xr.Dataset, point: xr.DataArray) -> xr.Dataset:
    """Replace x by its distance to a point, and the coordinates of which only one is zero."""
    run = dataset.x.notnull().all("x_0")
    away = ((dataset.x - point) ** 2).sum("x_0").where(run) ** 0.5
    differ = ((dataset.x == 0) != (point == 0)).sum("x_0").where(run)
    return dataset.drop_vars("x").assign(away=away, differ=differ)


def beside_truth(dataset: xr.Dataset, world: Any, _: Any) -> xr.Dataset:
    """Return what is found of the truth, and the distances to centralized descent."""
    dataset = dataset[["x"]].isel(total=0, seed=0, step=-1, drop=True)
    found, true = dataset.x != 0, xr.DataArray(sparse_truth(world.seed)[0], dims="x_0")
    counts = {
        "true ones": (found & (true != 0)).sum("x_0"),
        "false ones": (found & (true == 0)).sum("x_0"),
        "relative error": beside(dataset, true).away / np.linalg.norm(true),
    }
    dataset = beside(dataset, dataset.x.sel(algorithm="centralized", drop=True)).assign(counts)
    return dataset.where(dataset.away.notnull())


def with_means(dataset: xr.Dataset, *_: Any) -> xr.Dataset:
    """Add (1/T) Σ_{t<T} E|F(zₜ)|², and T where this is `ACCURACY`, at the best total step."""
    mean = dataset.residual.mean("seed").cumsum("step", skipna=False) / (1 + dataset.step / 4)
    dataset = dataset.assign(mean=mean.assign_coords(step=dataset.step))
    return dataset.assign(needed=jd.reach(dataset, "mean", ACCURACY).min("total"))


def with_costs(dataset: xr.Dataset, _: Any, done: Results) -> xr.Dataset:
    """Add stationary errors, means over the second half, and the rounds that noise costs."""
    dataset, half = with_means(dataset), dataset.sizes["step"] // 2
    late = dataset.residual.sel(total=TOTAL, drop=True).isel(step=slice(half, None)).mean("step")
    dataset = dataset.assign(stationary=late, beyond=dataset.needed - done["noiseless"].needed)
    return dataset.assign_coords(nQ=dataset.n * dataset.Q)


def ends(values: xr.DataArray, *names: str) -> xr.DataArray:
    """Return where methods end, by regularizer and method."""
    values = values.isel({"seed": 0, "step": -1}, drop=True, missing_dims="ignore")
    return among(values, names).stack(member=MEMBER).dropna("member")


ABSTRACT, LINEAR = f"{PAPER}, abstract", f"{PAPER}, abstract: linear speedup"
BOTH = f"{ABSTRACT}; arXiv 2309.01795, 2502.03958"
DRIFT = "derived: drift within a round is of second order in the total step"
POINT = "derived for l1, which has one minimizer; no claim for MCP"
MCP, TWICE = "Zhang 2010, arXiv 1002.4734", "derived: clients shrink twice"
CLOSE, LATER = within_factor(1, 1.25), ("default", "full")
ROUNDS = f"rounds to {ACCURACY:g} beyond those without noise ~ (nQ)^p"
ME = "FedNMap"
CLAIMS = claims(
    ("FedNMap is exact whatever the heterogeneity, for all n and Q: |F(z)|²", ABSTRACT, "0",
     lambda r: quickest(r["rounds"], "residual", TARGET, "total").normal.isel(
         seed=0, step=-1, drop=True), below(TARGET)),
    (f"no noise, ηQ = {SHARED}: spread of rounds over n, Q", DRIFT, "1", lambda r: spread(
        r["rounds"].needed.sel(total=SHARED).fillna(np.inf), ("n", "Q", "seed")), CLOSE, LATER),
    (f"noise, ηQ = {TOTAL}: spread of E|F(z)|² nQ over n, Q", LINEAR, "1",
     lambda r: spread(r["speedup"].stationary.mean("seed") * r["speedup"].nQ), CLOSE),
    (f"{ROUNDS}, best ηQ each", LINEAR, "-1", lambda r: exponent(
        r["speedup"].nQ, r["speedup"].beyond.where(lambda b: b >= 16), ("n", "Q")),
     near(-1, 0.2), LATER),
    ("FedNMap ends at centralized descent's point: distance", POINT, "0",
     lambda r: ends(r["best"].away, ME), below(1e-6)),
    ("with its support: coordinates that differ", POINT, "0",
     lambda r: ends(r["best"].differ, ME), below(0)),
    ("FedNMap and the method of Zhang, Hu and Johansson are exact with heterogeneous data", BOTH,
     "0", lambda r: ends(r["best"].residual, *EXACT), below(TARGET)),
    ("the others are not", "derived: drift", "> 0",
     lambda r: ends(r["best"].residual, *OTHERS), above(TARGET)),
    ("FedMid ends nearer where the server alone shrinks: ratio", TWICE, "< 1", lambda r: over(
        r["best"].away.isel(seed=0, step=-1, drop=True), "FedMid, server prox alone", "FedMid"),
     below(1)),
    ("sparse truth: FedNMap finds centralized descent's support: coordinates that differ", POINT,
     "0", lambda r: ends(r["support"].differ, ME), below(0)),
    ("sparse truth: FedNMap's relative error with MCP over that with l1", MCP, "< 1",
     lambda r: over(r["support"]["relative error"].sel(algorithm=ME), "MCP", "l1", "regularizer"),
     below(1)),
)  # fmt: skip
CHANGE = r"$|x - \mathrm{prox}_{\lambda r}(x - \lambda\nabla f(x))|^2/\lambda^2$"


def panels(kind: str) -> list[Any]:
    """Return the panels of one regularizer: residuals, zeros, and FedNMap's rounds."""
    at = {"regularizer": kind}
    shared: Any = {"data": "best", "at": at, "x": "rounds", "xlabel": "rounds"}
    solution = level(lambda r: float((r["centralized"].x.sel(at) == 0).mean()), "centralized")
    return [
        Lines(y="residual", ylim=(1e-26, 10), ylabel=CHANGE, title=f"{kind}, best ηQ each",
              **shared),
        Lines(y="zeros", ylabel="share of zero coordinates", title=kind, ylim=(0, 1), logy=False,
              also=[solution], **shared),
        Heat(data=lambda r: r["rounds"].needed, at=at | {"total": SHARED, "seed": 0}, x="Q", y="n",
             xlabel="Q", ylabel="n", form=".0f", log=False, limits=(0, 1500),
             title=f"{kind}, rounds to {TARGET:g}"),
    ]  # fmt: skip


GRAY = REFERENCE | {"linestyle": "-", "label": "no noise"}
OVER_NQ = {"x": "nQ", "by": "n", "joined": False, "also": [slope(-1, r"$\propto 1/(nQ)$")]}
SPEEDUP = [
    Lines(data="speedup", at={"Q": 1, "total": TOTAL}, y="mean", x="step", xlabel="rounds  T",
          ylabel=r"$\frac{1}{T}\sum_{t<T}\, E|F(z_t)|^2$", title=f"Q = 1, ηQ = {TOTAL:g}",
          also=[
              lambda ax, r: ax.plot("step", "mean", data=r["noiseless"].sel(total=TOTAL), **GRAY)]),
    LogLog(data=lambda r: r["speedup"].stationary, ylabel=r"stationary  $E|F(z)|^2$",
           title=f"ηQ = {TOTAL:g}", **OVER_NQ),
    LogLog(data=lambda r: r["speedup"].beyond, ylabel="rounds beyond those without noise",
           title="best ηQ each", **OVER_NQ),
]  # fmt: skip
PARTS = {
    "rounds": Part(
        ("regularizer", "n", "Q"),
        exact,
        lambda dataset, *_: dataset.assign(needed=attained(dataset, "residual", TARGET)),
    ),
    "centralized": Part(
        "regularizer",
        lambda w, _: {kind: Program({"problem": problem(kind)}, {}, descent) for kind in w.kinds},
    ),
    "methods": Part(
        MEMBER,
        lambda w, _: {
            (kind, name): history(METHODS[name], problem(kind), w.grid, **w.full)
            for kind, name in w.members
        },
        lambda dataset, _, done: beside(dataset, done["centralized"].x),
    ),
    "best": derived(lambda done: quickest(done["methods"], "residual", TARGET, "total")),
    "noiseless": Part(None, lambda w, _: {"": noisy(w, *w.cases[0], sigma=0.0)}, with_means),
    "speedup": Part(("n", "Q"), lambda w, _: {at: noisy(w, *at) for at in w.cases}, with_costs),
    "support": Part(MEMBER, recovered, beside_truth),
}
REACHED = f"n = {N}, Q = {Q}, full gradients, each at its own best total step"
LAST = ["residual", "zeros", "away", "differ"]
STUDY = Study(
    name="fednmap",
    paper="Huang, Pu and Johansson (2026), FedNMap, arXiv 2602.03357",
    question="Is FedNMap exact with heterogeneous data, and does noise average over nQ?",
    scales=SCALES,
    parts=PARTS,
    claims=CLAIMS,
    figures={
        "fednmap": Figure([panels(kind) for kind in REGULARIZERS], height=2.3),
        "speedup": Figure([SPEEDUP], height=2.3),
    },
    tables={
        "methods": (REACHED, lambda r: r["best"].isel(seed=0, step=-1)[LAST]),
        "support": (f"a sparse truth with {TRUTH} of {DIMENSION} nonzeros", lambda r: r["support"]),
    },
    minutes={"quick": 0.4, "default": 3, "full": 8},
    data=lambda _: (
        "digits 3 against 8 of scikit-learn, 357 images of 64 features by label; "
        f"made up: 256 samples of 12 features, and {N} clients with {SAMPLES} of {DIMENSION}"
    ),
)
