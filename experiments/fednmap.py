"""FedNMap: composite federated learning by the normal map (arXiv 2602.03357).

Sparse logistic regression of the digits 3 against 8, sorted by label over the clients, with l1 and
with MCP, which is not convex (and is less convex than the loss is convex). F is the same for any
number of clients. Four questions:

* *rounds*: with full gradients, does FedNMap reach a stationary point for 4, 16 and 64 clients and
  1 to 20 local steps, and in how many rounds?
* *methods*: 16 clients, 10 local steps; FedNMap against FedMid with and without the clients' prox,
  FedDualAvg (l1 only), the method of Zhang, Hu and Johansson, and FedNMap without its corrections,
  each at its own best stepsize of one grid: stationarity, sparsity, distance to the point at which
  centralized proximal gradient descent ends.
* *speedup*: with noisy gradients (of a smaller problem, with MCP and data made up), is E|F(z)|² nQ
  the same for all n and Q at the same total step ηQ, and do the rounds to an accuracy that noise
  costs fall as 1 / (nQ)?
* *support*: a sparse truth, heterogeneous clients: does FedNMap find centralized descent's support,
  and the true one?

Everything in float64. Stepsizes are compared as total steps ηQ of a round, λ is 1 throughout, and
residuals are |x − prox(x − λ∇f(x))|² / λ² of the estimate, |F(z)|² of FedNMap's z. FedNMap's
listing is derived from the abstract; the paper's own experiments are not known to us.

What the numbers do not say by themselves: with full gradients local steps save no rounds at the
same total step; what they save is noise. (A total step of 3 is unstable as one step, as
z − η(z − x)/λ alone asks for η < 2λ, and stable as five.) Rounds to an accuracy, in the mean over
rounds as theorems for nonconvex functions have it, are those without noise and a part that falls
as 1 / (nQ): at the best total step they have the form a/ε + b/(nQε²).
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from tqdm import tqdm

import jaxdopt as jd
from experiments import results
from experiments.tables import number
from jaxdopt.problems import prox

PAPER = "arXiv 2602.03357"
L2 = 0.01
LAM = 1.0
NOISY = prox.MCP(0.05, 15.0)
REGULARIZERS = {"l1": prox.L1(0.02), "MCP": prox.MCP(0.02, 20.0)}
GRID = tuple(1.5 * 2.0**j for j in range(-7, 2))  # total steps ηQ; 2λ is unstable
SHARED = 1.5  # the total step at which rounds are compared
TARGET = 1e-16  # of squared residuals
CLIENTS, LOCAL_STEPS = (4, 16, 64), (1, 5, 10, 20)
COMMON = (16, 10)  # n and Q of the comparison of methods
PATIENCE = 10_000  # proximal gradient steps of the yardstick

SIGMA = 0.5  # of every client's noise, E|noise|² = σ²
NOISY_LOCAL_STEPS = (1, 4, 16)
NOISY_GRID = tuple(2.0**j for j in range(-7, 1))
NOISY_TOTAL = 0.125  # where floors are compared
NOISELESS = "no noise"
BURN_IN = 0.5  # the share of the rounds that floors leave out
ACCURACY = 5e-3  # of the mean over rounds of E|F(z)|²

TRUTH, DIMENSION, SAMPLES = 8, 40, 60  # nonzeros, d and a client's samples of the sparse truth
SUPPORT = {"l1": prox.L1(0.02), "MCP": prox.MCP(0.04, 15.0)}
COLORS = {
    "FedNMap": 0,
    "Zhang, Hu, Johansson": 2,
    "FedNMap, no correction": 4,
    "FedDualAvg": 5,
    "FedMid": 1,
    "FedMid, server prox alone": 3,
}


@jd.pytree
class Uncorrected(jd.FedNMap):
    """FedNMap whose corrections stay zero."""

    def step(self, state: Any, problem: Any, network: Any, key: jax.Array) -> Any:
        """Take one round of Q local steps."""
        after = super().step(state, problem, network, key)
        return jd.replace(after, d=jnp.zeros_like(after.d))


def methods(local_steps: int, convex: bool) -> dict[str, Any]:
    """Return the methods by name, with the same number of local steps."""
    q: dict[str, Any] = {"local_steps": local_steps}
    made: dict[str, Any] = {
        "FedNMap": jd.FedNMap(0.1, LAM, **q),
        "Zhang, Hu, Johansson": jd.ZhangHuJohansson(0.1, **q),
        "FedNMap, no correction": Uncorrected(0.1, LAM, **q),
        "FedDualAvg": jd.FedDualAvg(0.1, **q),
        "FedMid": jd.FedMid(0.1, **q),
        "FedMid, server prox alone": jd.FedMid(0.1, client_prox=False, **q),
    }
    if not convex:
        del made["FedDualAvg"]
    return made


@functools.cache
def smooth(n: int) -> Any:
    """Return the smooth part, the same function for every n, its data sorted over n clients."""
    data = jd.data.digits().only(3, 8)
    return jd.problems.logistic_regression(
        data.features,
        data.labels == 8,
        agents=n,
        partition="by_label",
        l2=L2,
        weights="samples",
    )


def problem(n: int, kind: str) -> Any:
    """Return the composite problem of n clients with the regularizer of this name."""
    return jd.problems.Composite(smooth(n), REGULARIZERS[kind])


def residual(state: Any, problem: Any) -> jax.Array:
    """Return |x − prox(x − λ∇f(x))|² / λ² at the estimate; λ and so the scale are the same for all.

    The recorded ``prox_gradient_residual`` takes a step that depends on how data are divided.
    """
    x = state.estimate
    after = problem.prox(x - LAM * jax.grad(problem.smooth_objective)(x), LAM)
    return jnp.sum((x - after) ** 2) / LAM**2


def estimate(state: Any, problem: Any) -> jax.Array:  # noqa: ARG001
    """Return the estimate [d]."""
    return state.estimate


def normal(state: Any, problem: Any) -> jax.Array:
    """Return |F(z)|², NaN for methods without z."""
    known = hasattr(state, "z")
    return jd.metrics.normal_map_residual(LAM)(state, problem) if known else jnp.array(jnp.nan)


METRICS = {"residual": residual, "normal": normal, "zeros": jd.metrics.sparsity, "x": estimate}
"""The same for all, so that what is run twice is compiled once."""


def histories(
    entries: Mapping[str, tuple[Any, Any]],
    grid: tuple[float, ...],
    *,
    progress: bool = True,
    **options: Any,
) -> xr.Dataset:
    """Return histories of {name: (method, problem)} over total steps ηQ instead of stepsizes."""
    parts: list[Any] = []
    for name, (method, world) in tqdm(entries.items(), unit="method", disable=not progress):
        part = results.compare(
            {name: (method, world, jd.networks.Server(world.n))},
            progress=False,
            over={"stepsize": np.asarray(grid) / method.local_steps},
            **options,
        )
        parts.append(part.rename(stepsize="total").assign_coords(total=list(grid)))
    whole: Any = xr.concat(parts, "algorithm", data_vars="all")
    return whole


@functools.cache
def centralized(kind: str) -> jax.Array:
    """Return where proximal gradient descent on all data ends, started as the methods are."""
    return descent(problem(COMMON[0], kind))


def descent(world: Any) -> jax.Array:
    """Return x after many steps x ← prox(x − t∇f(x)), t = 1 / L."""
    t = 1 / world.smoothness

    def step(_: Any, x: jax.Array) -> jax.Array:
        return world.prox(x - t * jax.grad(world.smooth_objective)(x), t)

    x = world.start().mean(axis=0)
    return jax.jit(lambda x: jax.lax.fori_loop(0, PATIENCE, step, x))(x)


def rounds(dataset: xr.Dataset, level: float = TARGET) -> xr.DataArray:
    """Return the rounds after which a residual is at most the level, NaN where it is not so."""
    there = jd.reach(dataset, "residual", level)
    return there.where(dataset.residual.isel(step=-1, drop=True) <= level)


def own_best(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset at every member's own total step: the first to `TARGET`.

    Those that do not reach it are shown where their last residual is smallest.
    """
    last = dataset.residual.isel(step=-1, drop=True).where(~dataset.diverged)
    late = 1e9 * (1 + last / (1 + last))  # later than all that reach it
    best: Any = rounds(dataset).fillna(late).fillna(np.inf).argmin("total")
    return dataset.isel(total=best)


def exact(
    clients: tuple[int, ...],
    local_steps: tuple[int, ...],
    kinds: tuple[str, ...],
    grid: tuple[float, ...],
    **options: Any,
) -> xr.Dataset:
    """Return FedNMap's histories with full gradients; members are "l1, n = 4, Q = 5"."""
    entries = {
        f"{kind}, n = {n}, Q = {q}": (jd.FedNMap(0.1, LAM, local_steps=q), problem(n, kind))
        for kind in kinds
        for n in clients
        for q in local_steps
    }
    full = histories(entries, grid, metrics=METRICS, **options)
    return full[["residual", "normal", "rounds", "diverged"]].isel(seed=0, drop=True)


def compared(kind: str, names: Mapping[str, Any], grid: tuple[float, ...], **options: Any) -> Any:
    """Return all methods' histories with one regularizer, and their distance to the yardstick."""
    world = problem(COMMON[0], kind)
    entries = {name: (method, world) for name, method in names.items()}
    dataset = histories(entries, grid, metrics=METRICS, **options).isel(seed=0, drop=True)
    (d,) = set(dataset.x.dims) - set(dataset.residual.dims)
    point = xr.DataArray(np.asarray(centralized(kind)), dims=[d])
    away = np.sqrt(((dataset.x - point) ** 2).sum(d))
    same = ((dataset.x == 0) == (point == 0)).all(d)
    kept = dataset[["residual", "zeros", "rounds", "vectors", "diverged"]]
    return kept.assign(away=away, same_support=same)


@functools.cache
def small(n: int) -> Any:
    """Return a small logistic regression with a sparse truth, the same function for every n."""
    random = np.random.default_rng(0)
    truth = np.where(np.arange(12) < 4, 2.0, 0.0)
    features = random.standard_normal((256, 12))
    labels = random.random(256) < 1 / (1 + np.exp(-features @ truth))
    return jd.problems.logistic_regression(
        features, labels, agents=n, partition="by_label", l2=0.05
    )


def noisy(pairs: list[tuple[int, int]], grid: tuple[float, ...], **options: Any) -> xr.Dataset:
    """Return FedNMap's |F(z)|² with noisy gradients, over n and Q, total steps and seeds."""
    metrics = {"residual": jd.metrics.normal_map_residual(LAM)}
    entries = {}
    for n, q, sigma in [(*pairs[0], 0.0), *((*pair, SIGMA) for pair in pairs)]:
        world = jd.problems.Composite(jd.problems.GaussianNoise(small(n), sigma), NOISY)
        name = f"n = {n}, Q = {q}" if sigma else NOISELESS
        entries[name] = (jd.FedNMap(0.1, LAM, local_steps=q), world)
    dataset = histories(entries, grid, metrics=metrics, **options)
    products = [0, *(n * q for n, q in pairs)]
    dataset = dataset[["residual", "rounds", "gradients", "diverged"]]
    return dataset.assign_coords(product=("algorithm", products))


def floors(dataset: xr.Dataset) -> xr.DataArray:
    """Return E|F(z)|² after the burn-in, over members and total steps."""
    first = int(BURN_IN * dataset.sizes["step"])
    return dataset.residual.isel(step=slice(first, None)).mean(["seed", "step"])


def rounds_to_accuracy(dataset: xr.Dataset) -> xr.DataArray:
    """Return T with (1/T) Σ_{t<T} E|F(zₜ)|² at most `ACCURACY`, at the best total step."""
    sums = dataset[["residual"]].mean("seed").cumsum("step")
    means = sums / xr.DataArray(np.arange(1, dataset.sizes["step"] + 1), dims="step")
    means = means.assign_coords(step=dataset.step)
    there = jd.reach(means, "residual", ACCURACY)
    return there.min("total")


def excess(dataset: xr.Dataset) -> xr.DataArray:
    """Return how many of these rounds noise costs, over the members with noise."""
    needed = rounds_to_accuracy(dataset)
    beyond = needed - needed.sel(algorithm=NOISELESS, drop=True)
    return beyond.isel(algorithm=slice(1, None))


@functools.cache
def sparse_truth(seed: int = 0) -> tuple[np.ndarray, Any]:
    """Return a sparse x [d] and logistic regression on labels drawn from it.

    Clients are heterogeneous: each one's features are shifted and scaled, and its labels sorted.
    """
    random = np.random.default_rng(seed)
    n, truth = COMMON[0], np.zeros(DIMENSION)
    chosen = random.choice(DIMENSION, TRUTH, replace=False)
    truth[chosen] = random.choice([-1, 1], TRUTH) * random.uniform(1.0, 2.0, TRUTH)
    scale = random.uniform(0.5, 1.5, (n, 1, 1))
    shift = 0.3 * random.standard_normal((n, 1, DIMENSION))
    features = scale * random.standard_normal((n, SAMPLES, DIMENSION)) + shift
    chance = 1 / (1 + np.exp(-features @ truth))
    labels = random.random(chance.shape) < chance
    pooled = features.reshape(-1, DIMENSION), labels.ravel()
    return truth, jd.problems.logistic_regression(*pooled, agents=n, partition="by_label", l2=1e-3)


def support_table(
    names: Mapping[str, Any], kinds: tuple[str, ...], total: float, steps: int, seed: int
) -> pd.DataFrame:
    """Return what methods find of a sparse truth, beside centralized proximal gradient descent."""
    truth, world = sparse_truth(seed)
    rows = []
    for kind in kinds:
        composite = jd.problems.Composite(world, SUPPORT[kind])
        central = np.asarray(descent(composite))
        found = {"centralized": central}
        for name, method in names.items():
            if name == "FedDualAvg" and kind == "MCP":
                continue
            made = jd.replace(method, stepsize=total / method.local_steps)
            server, key = jd.networks.Server(world.n), jax.random.key(seed)
            run = jd.run(made, composite, server, world.start(), key, steps=steps, every=steps)
            found[name] = np.asarray(run.state.estimate)
        for name, x in found.items():
            error = np.linalg.norm(x - truth) / np.linalg.norm(truth)
            rows.append(
                (
                    kind,
                    name,
                    str(int(np.sum(x != 0))),
                    f"{int(np.sum((x != 0) & (truth != 0)))} of {TRUTH}",
                    str(int(np.sum((x != 0) & (truth == 0)))),
                    number(float(error), ".2f"),
                    number(float(np.linalg.norm(x - central)), ".0e"),
                    "yes" if np.array_equal(x == 0, central == 0) else "no",
                )
            )
    header = ("regularizer", "method", "nonzeros", "true ones", "false ones", "relative error")
    return pd.DataFrame(rows, columns=(*header, "to centralized", "its support"))


def rounds_table(dataset: xr.Dataset) -> pd.DataFrame:
    """Return FedNMap's rounds to `TARGET` over n and Q, at the best total step."""
    best = own_best(dataset)
    rows = []
    for name in map(str, dataset.algorithm.values):
        here = best.sel(algorithm=name)
        kind, n, q = name.split(", ")
        rows.append(
            (
                kind,
                n.removeprefix("n = "),
                q.removeprefix("Q = "),
                number(float(here.total), ".3g"),
                number(float(rounds(here)), ".0f"),
                number(float(here.residual.isel(step=-1)), ".0e"),
                number(float(here.normal.isel(step=-1)), ".0e"),
            )
        )
    header = ("regularizer", "n", "Q", "best total step", f"rounds to {TARGET:g}")
    return pd.DataFrame(rows, columns=(*header, "last residual", "last |F(z)|^2"))


def methods_table(datasets: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Return where each method ends at its own best total step."""
    rows = []
    for kind, dataset in datasets.items():
        best = own_best(dataset)
        for name in map(str, dataset.algorithm.values):
            here = best.sel(algorithm=name)
            last = here.isel(step=-1)
            rows.append(
                (
                    kind,
                    name,
                    number(float(here.total), ".3g"),
                    number(float(rounds(here)), ".0f"),
                    number(float(last.residual), ".0e"),
                    number(float(last.zeros), ".2f"),
                    number(float(last.away), ".0e"),
                    "yes" if bool(last.same_support) else "no",
                )
            )
    header = ("regularizer", "method", "best total step", f"rounds to {TARGET:g}")
    return pd.DataFrame(
        rows, columns=(*header, "last residual", "zeros", "to centralized", "its support")
    )


def speedup_table(dataset: xr.Dataset) -> pd.DataFrame:
    """Return E|F|² and the rounds that noise costs, the same times nQ, for every n and Q."""
    at = floors(dataset).sel(total=NOISY_TOTAL)
    needed, beyond = rounds_to_accuracy(dataset), excess(dataset)
    rows = []
    for name in map(str, dataset.algorithm.values):
        floor, product = float(at.sel(algorithm=name)), int(at.sel(algorithm=name)["product"])
        more = float(beyond.sel(algorithm=name)) if product else np.nan
        rows.append(
            (
                name,
                number(floor),
                number(floor * product if product else np.nan, ".4f"),
                number(float(needed.sel(algorithm=name)), ".0f"),
                number(more, ".0f"),
                number(more * product, ".0f"),
            )
        )
    header = ("clients and local steps", f"E|F|^2 at {NOISY_TOTAL:g}", "times nQ")
    return pd.DataFrame(
        rows, columns=(*header, f"rounds to {ACCURACY:g}", "beyond no noise", "times nQ")
    )


def claims_table(
    exactly: xr.Dataset, datasets: Mapping[str, xr.Dataset], noise: xr.Dataset, found: pd.DataFrame
) -> pd.DataFrame:
    """Return the claims of the paper and of theory beside the measurements."""
    rows = []
    abstract, ours = f"{PAPER}, abstract", "what each method is"

    def row(
        claim: str, source: str, claimed: str, measured: str, met: bool, note: str = "-"
    ) -> None:
        rows.append((claim, source, claimed, measured, *(("yes", "-") if met else ("no", note))))

    best = own_best(exactly)
    for kind in datasets:
        mine = [str(name) for name in exactly.algorithm.values if str(name).startswith(kind)]
        if not mine:
            continue
        worst = float(best.normal.sel(algorithm=mine).isel(step=-1).max())
        row(
            f"{kind}: FedNMap is exact whatever the heterogeneity, all {len(mine)} pairs n, Q",
            abstract,
            f"|F|^2 below {TARGET:g}",
            f"at most {worst:.0e}",
            worst <= TARGET,
            "slower at the best total step of the grid than the rounds allow",
        )
        counts = rounds(exactly.sel(algorithm=mine, total=SHARED))
        ratio = float(counts.max() / counts.min()) if bool(counts.notnull().all()) else np.nan
        row(
            f"{kind}: without noise rounds do not depend on n and Q at a total step of {SHARED}",
            "the total step decides",
            "ratio 1",
            f"at most {ratio:.2f}",
            ratio <= 1.25,
            "drift within a round is of second order in the total step",
        )
    loud = noise.sel(algorithm=noise["product"] > 0)
    at = floors(loud).sel(total=NOISY_TOTAL)
    scaled = at * at["product"]
    spread = float(scaled.max() / scaled.min())
    extent = f"nQ from {int(at['product'].min())} to {int(at['product'].max())}"
    row(
        f"E|F|^2 nQ is the same for all n and Q at a total step of {NOISY_TOTAL:g}",
        f"{abstract}: linear speedup",
        "ratio 1",
        f"at most {spread:.2f} for {extent}",
        spread <= 1.25,
        "with few clients noise is not small against the kinks; and seeds",
    )
    beyond = excess(noise)
    fitted = beyond[beyond >= 4 * float(noise.step[1] - noise.step[0])]
    if fitted.size > 2:
        slope = np.polyfit(np.log(fitted["product"]), np.log(fitted), 1)[0]
        row(
            f"rounds to {ACCURACY:g} beyond those without noise over nQ, best total step each",
            f"{abstract}: linear speedup",
            "slope -1",
            f"{slope:.2f}, nQ from {int(fitted['product'].min())} to "
            f"{int(fitted['product'].max())}",
            abs(slope + 1) <= 0.2,
            "the grid of total steps, and seeds",
        )
    for kind, dataset in datasets.items():
        end = own_best(dataset).isel(step=-1)
        names = list(map(str, dataset.algorithm.values))

        def of(name: str, variable: str, end: xr.Dataset = end) -> float:
            return float(end[variable].sel(algorithm=name))

        row(
            f"{kind}: FedNMap ends at centralized descent's point, with its support",
            "convex: one minimizer" if kind == "l1" else "no claim: stationary points may differ",
            "distance 0",
            f"{of('FedNMap', 'away'):.0e}",
            of("FedNMap", "away") <= 1e-6 and bool(of("FedNMap", "same_support")),
            "another stationary point",
        )
        for name in names:
            if name in ("FedNMap", "Zhang, Hu, Johansson"):
                row(
                    f"{kind}: {name} is exact with heterogeneous data",
                    abstract if name == "FedNMap" else "arXiv 2309.01795, 2502.03958",
                    f"below {TARGET:g}",
                    f"{of(name, 'residual'):.0e}",
                    of(name, "residual") <= TARGET,
                )
            else:
                row(
                    f"{kind}: {name} is not",
                    ours,
                    f"above {TARGET:g}",
                    f"{of(name, 'residual'):.0e}",
                    of(name, "residual") > TARGET,
                )
        if "FedMid, server prox alone" in names:
            twice, once = of("FedMid", "away"), of("FedMid, server prox alone", "away")
            row(
                f"{kind}: FedMid ends nearer where the server alone shrinks, and not clients too",
                ours,
                f"distance below {twice:.1g}",
                f"{once:.1g}",
                once < twice,
                "drift outweighs the second shrinkage",
            )
    recovered = list(found.itertuples(index=False, name=None))
    for kind in dict.fromkeys(r[0] for r in recovered):
        mine = next(r for r in recovered if r[:2] == (kind, "FedNMap"))
        row(
            f"sparse truth, {kind}: FedNMap finds centralized descent's support",
            "convex: one minimizer" if kind == "l1" else "no claim: stationary points may differ",
            "yes",
            mine[-1],
            mine[-1] == "yes",
            "another stationary point",
        )
    errors = {r[0]: float(r[5]) for r in recovered if r[1] == "FedNMap"}
    if len(errors) > 1:
        row(
            "sparse truth: MCP shrinks large coordinates less than l1",
            "Zhang 2010, arXiv 1002.4734",
            f"error below {errors['l1']:.2f}",
            f"{errors['MCP']:.2f}",
            errors["MCP"] < errors["l1"],
        )
    return pd.DataFrame(
        rows, columns=("claim", "source", "claimed", "measured", "met", "if not, why")
    )


def methods_panel(dataset: xr.Dataset, kind: str, ax: Any) -> None:
    """Draw residuals over rounds, each method at its own best total step."""
    best = own_best(dataset)
    for name in map(str, dataset.algorithm.values):
        here = best.sel(algorithm=name)
        values = here.residual.clip(min=1e-32)
        ax.plot(
            here.step,
            values,
            color=jd.plot.PALETTE[COLORS[name]],
            linewidth=4 if name == "FedNMap" else 1.5,
            linestyle="--" if name == "Zhang, Hu, Johansson" else "-",
            label=name,
        )
    n, q = COMMON
    ax.set(
        yscale="log",
        xlabel="rounds",
        ylabel=r"$|x - \mathrm{prox}_{\lambda r}(x - \lambda\nabla f(x))|^2/\lambda^2$",
        title=f"{kind}, n = {n}, Q = {q}, full gradients",
    )
    ax.set_ylim(1e-26, None)


def sparsity_panel(dataset: xr.Dataset, kind: str, ax: Any) -> None:
    """Draw the share of zeros over rounds, each method at its own best total step."""
    best = own_best(dataset)
    for name in map(str, dataset.algorithm.values):
        here = best.sel(algorithm=name)
        style = {"linewidth": 4 if name == "FedNMap" else 1.5}
        style |= {"linestyle": "--"} if name == "Zhang, Hu, Johansson" else {}
        color = jd.plot.PALETTE[COLORS[name]]
        ax.plot(here.step[1:], here.zeros[1:], color=color, label=name, **style)
    solution = float(np.mean(np.asarray(centralized(kind)) == 0))
    ax.axhline(solution, color="0.6", linewidth=1, linestyle=":")
    ax.set(xscale="log", xlabel="rounds", ylabel="share of zero coordinates", ylim=(-0.02, 1))
    ax.set_title(f"{kind}; dotted: centralized")


def noise_panel(dataset: xr.Dataset, ax: Any) -> None:
    """Draw E|F|² over rounds at one total step; a color a number of clients, a dash a Q."""
    clients = []
    for name in map(str, dataset.algorithm.values):
        here = dataset.sel(algorithm=name, total=NOISY_TOTAL).residual.mean("seed")
        if name == NOISELESS:
            ax.plot(here.step, here, color="0.6", linewidth=1, label=name)
            continue
        n, q = (int(part.split(" = ")[1]) for part in name.split(", "))
        clients += [n] if n not in clients else []
        color = jd.plot.PALETTE[clients.index(n)]
        dash = (":", "--", "-")[NOISY_LOCAL_STEPS.index(q)]
        ax.plot(here.step, here, color=color, linestyle=dash, linewidth=1.2, label=name)
    ax.set(yscale="log", xlabel="rounds", ylabel=r"$\mathbb{E}|F(z)|^2$")
    floor = floors(dataset).sel(total=NOISY_TOTAL)[dataset["product"].values > 0]
    ax.set_ylim(float(floor.min()) / 5, 3)
    ax.set_title(f"MCP, noise, total step ηQ = {NOISY_TOTAL:g} for all")
    ax.legend(fontsize="x-small", ncols=3, loc="upper right")


def speedup_panel(dataset: xr.Dataset, ax: Any) -> None:
    """Draw floors at one total step and rounds that noise costs, over nQ, on axes of one span."""
    loud = dataset.sel(algorithm=dataset["product"] > 0)
    at, beyond = floors(loud).sel(total=NOISY_TOTAL), excess(dataset)
    x, blue, orange = at["product"], *jd.plot.PALETTE[:2]
    line = np.array([float(x.min()), float(x.max())])
    right = ax.twinx()
    for here, values, color, marker in ((ax, at, blue, "o"), (right, beyond, orange, "s")):
        some = values[values > 0]
        level = float(np.exp(np.log(some * some["product"]).mean())) if some.size else np.nan
        here.plot(line, level / line, ":", color=color, linewidth=1)
        here.plot(x, values.where(values > 0), marker, color=color, markerfacecolor="none")
        here.set(xscale="log", yscale="log")
        here.tick_params(axis="y", which="both", colors=color)
    ax.set_xlabel("nQ")
    ax.set_ylabel(rf"floor of $\mathbb{{E}}|F(z)|^2$ at ηQ = {NOISY_TOTAL:g}", color=blue)
    least = float(rounds_to_accuracy(dataset).sel(algorithm=NOISELESS))
    right.set_ylabel(f"rounds beyond the {least:.0f} without noise", color=orange)
    ends = [np.log10(axis.get_ylim()) for axis in (ax, right)]
    span = max(high - low for low, high in ends) + 0.3
    for axis, (low, high), away in zip((ax, right), ends, (0.15, -0.15), strict=True):
        middle = (low + high) / 2 + away  # so that the two lines lie apart
        axis.set_ylim(10 ** (middle - span / 2), 10 ** (middle + span / 2))
    ax.set_title("linear speedup; dotted: 1/(nQ)")


def figure(datasets: Mapping[str, xr.Dataset], noise: xr.Dataset) -> Any:
    """Return the methods with each regularizer, their sparsity, and the linear speedup."""
    import matplotlib.pyplot as plt

    rows = len(datasets)
    fig, axes = plt.subplots(rows, 3, figsize=(14, 3.9 * rows), layout="constrained", squeeze=False)
    for row, (kind, dataset) in zip(axes, datasets.items(), strict=True):
        methods_panel(dataset, kind, row[0])
        sparsity_panel(dataset, kind, row[1])
    if rows > 1:
        noise_panel(noise, axes[0, 2])
    speedup_panel(noise, axes[-1, 2])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(handles))
    return fig


def run(
    quick: bool, out: Path, seed: int, scale: str = "small", progress: bool = True
) -> list[Path]:
    """Run everything, print the tables and return the files written into ``out``."""
    full = scale == "full" and not quick
    kinds = ("MCP",) if quick else tuple(REGULARIZERS)
    grid = (0.375, 1.5) if quick else GRID
    steps = {"steps": 1000 if quick else 3000 if full else 1500, "every": 10, "progress": progress}
    exactly = exact(
        (16,) if quick else CLIENTS,
        (10,) if quick else LOCAL_STEPS,
        kinds,
        grid,
        **steps,
    )
    datasets = {}
    for kind in kinds:
        chosen = methods(COMMON[1], convex=kind == "l1")
        if quick:
            chosen = {name: chosen[name] for name in ("FedNMap", "FedNMap, no correction")}
        datasets[kind] = compared(kind, chosen, grid, **steps)
    pairs = [(n, q) for n in CLIENTS for q in NOISY_LOCAL_STEPS]
    noise = noisy(
        [(4, 1), (16, 4)] if quick else pairs,
        NOISY_GRID[4:5] if quick else NOISY_GRID,
        seeds=range(seed, seed + (4 if quick else 16 if full else 4)),
        steps=800 if quick else 1200,
        every=4,
        progress=progress,
    )
    chosen = methods(COMMON[1], convex=True)
    chosen = {"FedNMap": chosen["FedNMap"]} if quick else chosen
    count = 2000 if quick else 8000
    found = support_table(chosen, kinds, total=0.5, steps=count, seed=seed)
    tables = {
        "rounds": (f"FedNMap with full gradients: rounds to {TARGET:g}", rounds_table(exactly)),
        "methods": (
            "n = {}, Q = {}, full gradients, each at its own best total step".format(*COMMON),
            methods_table(datasets),
        ),
        "speedup": ("noisy gradients, MCP: linear speedup in n and Q", speedup_table(noise)),
        "support": (f"a sparse truth with {TRUTH} of {DIMENSION} nonzeros", found),
        "claims": (
            "what is claimed and what was measured",
            claims_table(exactly, datasets, noise, found),
        ),
    }
    return results.write(
        "fednmap",
        out,
        command=f"python -m experiments fednmap --seed {seed} --scale {scale}"
        + (" --quick" if quick else ""),
        tables=tables,
        datasets={"rounds": exactly, **datasets, "speedup": noise},
        figures={"fednmap": figure(datasets, noise)},
    )
