"""Where outer loops are stable: CO2 and NoLoCo beside their laws, in phase diagrams.

CO2 applies every pseudo-gradient a round late. On a quadratic, of which K local steps take the
share r = 1 − (1 − η λ)^K away, it is stable iff β + α r / Λ < 1: its gap penalty Λ is what the
delay costs. NoLoCo's disagreement, with random pairs of many agents, vanishes iff
0 < γ < 2 (1 − α²). Each cell of a diagram is a run, whose errors grow or fall; the laws are drawn
on top, and the measured factor per round is held beside the theoretical one. Beyond the edge the
clip of CO2 leaves a cycle, whose size is proportional to it; and NoLoCo's disagreement under noise
is proportional to η², which is why it vanishes under a schedule.

Both laws are derived here (`jaxdopt.theory.outer_loops`). The paper's own Λ, of which no source was
at hand, is not; nor are its language models. Everything in float64.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, below, claims, near
from experiments.measures import exponent, flat
from experiments.panels import REFERENCE, Figure, Lines, LogLog
from experiments.study import Part, Program, Results, Study
from jaxdopt.theory import co2_factor, noloco_factor

LOCAL, RATE = 8, 0.3  # K, and η λ where it is not swept
MOMENTUM = 0.5  # where it is not swept
WAVE = 12  # rounds, more than a period
BAND, WIDE = 0.02, 0.05  # around an edge of 1, where finite runs, or finitely many agents, differ
SCALES: dict[str, dict[str, Any]] = {
    "quick": {"side": 24, "rounds": 160, "agents": 256, "matched": 40},
    "default": {"side": 100, "rounds": 240, "agents": 1024, "matched": 48},
    "full": {"side": 200, "rounds": 480, "agents": 4096, "matched": 48},
}
BETAS, GAPS, RATES = (0.0, 0.98), (0.2, 40.0), (0.003, 1.9)
ALPHAS, GAMMAS = (0.0, 0.95), (0.02, 2.5)
CLIPS, SHARES = (0.01, 0.1, 1.0), (0.5, 0.8, 0.95, 1.05)  # c; Λ over that of the edge
ETAS, PULLS = (0.0001, 0.0003, 0.001, 0.003), (0.35, 0.7, 1.05)  # η λ, γ


def gain(rate: Any) -> Any:
    """Return r, the share that K local steps take away where η λ is ``rate``."""
    return 1 - (1 - rate) ** LOCAL


def quadratic(agents: int, d: int) -> Any:
    """Return equal quadratics of curvature 1, at 0, where distances are exact however small."""
    options: Any = {"heterogeneity": 0.0, "condition_number": 1.0, "curvature_spread": 0.0}
    made = jd.problems.quadratic(agents, d, **options)
    return jd.replace(made, solution=jnp.zeros(d), center=jnp.zeros(d))


def growth(errors: np.ndarray) -> np.ndarray:
    """Return the factor a round of squared errors [..., T + 1], by two windows of a quarter."""
    quarter = (errors.shape[-1] - 1) // 4
    first, last = errors[..., quarter : 2 * quarter], errors[..., 3 * quarter : 4 * quarter]
    return (last.max(axis=-1) / first.max(axis=-1)) ** (1 / (2 * quarter))


def plane(make: Callable[..., Any], x: np.ndarray, y: np.ndarray, *given: Any, steps: int) -> Any:
    """Return the histories of a method over all pairs of x and y, [y, x, T + 1] each."""
    across, up = map(np.ravel, np.meshgrid(x, y))
    methods = jax.vmap(make)(jnp.asarray(across), jnp.asarray(up))
    sweep = jd.sweep(jd.run, over="algorithm", memory="1 GiB", progress=False)
    defaults = ("distance_squared", "consensus_error")
    result = sweep(methods, *given, jax.random.key(0), steps=steps, defaults=defaults)
    return {name: result.history[name].reshape(len(y), len(x), -1) for name in defaults}


def late(x: str, side: int, rounds: int) -> xr.Dataset:
    """Return CO2's measured and theoretical factors over Λ and momentum, or local stepsizes."""
    alone = quadratic(1, 1)
    gaps, start = np.geomspace(*GAPS, side), jnp.ones((1, 1))
    along = np.linspace(*BETAS, side) if x == "momentum" else np.geomspace(*RATES, side)
    fixed = {"momentum": MOMENTUM} if x == "rate" else {"stepsize": RATE}
    name = {"momentum": "momentum", "rate": "stepsize"}[x]

    def make(value: Any, gap: Any) -> Any:
        return jd.CO2(**{name: value, "gap": gap, "local_steps": LOCAL, **fixed})

    found = plane(make, along, gaps, alone, jd.networks.Server(1), start, steps=rounds)
    factor = np.sqrt(growth(found["distance_squared"]))
    beta = along if x == "momentum" else MOMENTUM
    r = gain(along if x == "rate" else RATE)
    theory = co2_factor(r, momentum=beta, server_stepsize=1.0, gap=gaps[:, None])
    edge = (beta + r / gaps[:, None]) + np.zeros((side, side))
    return over(x, along, "gap", gaps, factor, theory, edge)


def pairs(side: int, agents: int, matched: int, seed: int) -> xr.Dataset:
    """Return NoLoCo's factors over momentum α and γ, in random pairs without local steps."""
    alphas, gammas = np.linspace(*ALPHAS, side), np.linspace(*GAMMAS, side)
    network = jd.networks.RandomMatching(jd.graphs.complete(agents))
    start = jax.random.normal(jax.random.key(seed), (agents, 2))

    def make(alpha: Any, gamma: Any) -> Any:
        return jd.NoLoCo(0.0, momentum=alpha, gamma=gamma, local_steps=1)

    found = plane(make, alphas, gammas, quadratic(agents, 2), network, start, steps=matched)
    factor = growth(found["consensus_error"])
    theory = noloco_factor(momentum=alphas, gamma=gammas[:, None])
    edge = gammas[:, None] / (2 * (1 - alphas**2))
    return over("alpha", alphas, "gamma", gammas, factor, theory, edge)


def over(x: str, along: Any, y: str, up: Any, *values: Any) -> xr.Dataset:
    """Return factors, and ``edge``, which the law says is below 1 where it is stable."""
    named = dict(zip(("factor", "theory", "edge"), values, strict=True))
    return xr.Dataset({name: ((y, x), array) for name, array in named.items()}, {x: along, y: up})


def cycles(rounds: int) -> xr.Dataset:
    """Return what is left of |x − x*| in the end, over clips and Λ in units of the edge.

    ``size`` is the largest of the last quarter, ``before`` that of the one before; ``path`` the
    largest of some rounds, of a few runs, with the middle clip.
    """
    alone, middle = quadratic(1, 1), CLIPS[len(CLIPS) // 2]
    server, start = jd.networks.Server(1), jnp.ones((1, 1))
    edge = gain(RATE) / (1 - MOMENTUM)

    def make(clip: Any, share: Any) -> Any:
        gap = share * edge
        return jd.CO2(RATE, momentum=MOMENTUM, local_steps=LOCAL, gap=gap, clip=clip)

    clips = np.append(CLIPS, 1e99)
    shares, given = np.asarray(SHARES), (alone, server, start)
    rounds = 4 * rounds
    away = np.sqrt(plane(make, clips, shares, *given, steps=rounds)["distance_squared"])
    quarter = rounds // 4
    size, before = away[..., -quarter:].max(-1), away[..., -2 * quarter : -quarter].max(-1)
    found = {"size": size[:, :-1], "before": before[:, :-1]}
    paths = {
        "Λ + 5 %": away[SHARES.index(1.05), -1],
        "Λ − 5 %": away[SHARES.index(0.95), -1],
        "clipped": away[SHARES.index(0.95), CLIPS.index(middle)],
    }
    waves = [path[: len(path) // WAVE * WAVE].reshape(-1, WAVE).max(-1) for path in paths.values()]
    return xr.Dataset(
        {name: (("share", "clip"), values) for name, values in found.items()}
        | {"path": (("member", "step"), np.array(waves))},
        {"share": list(SHARES), "clip": list(CLIPS), "member": list(paths),
         "step": WAVE * np.arange(len(waves[0]))},
    )  # fmt: skip


def replicas(agents: int, matched: int) -> xr.Dataset:
    """Return NoLoCo's disagreement under noise, over η λ and γ, the mean of the last half."""
    noisy, (etas, gammas) = jd.problems.GaussianNoise(quadratic(agents, 2), 1.0), (ETAS, PULLS)
    network = jd.networks.RandomMatching(jd.graphs.complete(agents))

    def make(eta: Any, gamma: Any) -> Any:
        return jd.NoLoCo(eta, momentum=MOMENTUM, gamma=gamma, local_steps=LOCAL)

    start = noisy.start()
    found = plane(make, np.array(etas), np.array(gammas), noisy, network, start, steps=matched)
    apart = found["consensus_error"][..., matched // 2 :].mean(axis=-1)
    return xr.Dataset(
        {"apart": (("gamma", "eta"), apart)}, {"eta": list(etas), "gamma": list(gammas)}
    )


def alone(function: Any, *names: str) -> Part:
    """Return the part of one program, a function of some of the world's numbers."""
    return Part(
        None,
        lambda world, _: {
            "": Program({name: getattr(world, name) for name in names}, function=function)
        },
    )


def right(part: str, band: float, results: Results) -> float:
    """Return the share of cells on the right side of a law, but for a band around its edge."""
    cells = results[part]
    told = abs(cells.edge - 1) > band
    agree = (cells.factor < 1) == (cells.edge < 1)
    return float(agree.where(told).mean())


def off(part: str, results: Results) -> float:
    """Return the median relative error of the factors measured."""
    cells = results[part]
    return float(abs(cells.factor / cells.theory - 1).median())


def unstable(results: Results, name: str) -> xr.DataArray:
    """Return a variable of cycles beyond the edge."""
    cells = results["cycles"][name]
    return cells.sel(share=[share for share in SHARES if share < 1])


LAW, PAPER = "derived", "2506.10911"
SIDE = "share of runs on the law's side, {:.0%} around its edge left out"
CLAIMS = claims(
    (f"CO2 is stable iff β + α r / Λ < 1, over β and Λ: {SIDE.format(BAND)}", LAW, "1",
     lambda r: right("late, β", BAND, r), above(0.99)),
    (f"and over η and Λ: {SIDE.format(BAND)}", LAW, "1",
     lambda r: right("late, η", BAND, r), above(0.99)),
    ("its errors grow and fall with the larger root: median relative error of the factor", LAW,
     "0", lambda r: off("late, β", r), below(0.01)),
    (f"NoLoCo contracts iff 0 < γ < 2 (1 − α²): {SIDE.format(WIDE)}", LAW, "1",
     lambda r: right("pairs", WIDE, r), above(0.99)),
    ("its disagreement follows the second moments: median relative error of the factor", LAW, "0",
     lambda r: off("pairs", r), below(0.03)),
    ("a clip turns divergence into a bounded cycle: |x − x*| in the last quarter over the one "
     "before", LAW, "1", lambda r: flat(unstable(r, "size") / unstable(r, "before")),
     near(1, 0.05)),
    ("whose size is proportional to the clip: exponent", LAW, "1",
     lambda r: exponent(unstable(r, "size").clip, unstable(r, "size"), "clip"), near(1, 0.01)),
    ("the replicas' variance goes with the square of the inner stepsize: exponent", PAPER, "2",
     lambda r: exponent(r["replicas"].eta, r["replicas"].apart, "eta"), near(2, 0.1)),
)  # fmt: skip


def phases(part: str, x: str, y: str, line: Any, **labels: Any) -> Callable[[Any, Results], None]:
    """Return a panel of factors over x and y, with the law as a line, y or x of the other."""

    def draw(ax: Any, results: Results) -> None:
        cells = results[part]
        logs = np.log10(cells.factor.transpose(y, x))
        mesh = ax.pcolormesh(cells[x], cells[y], logs.clip(-0.3, 0.3), cmap="RdBu_r", vmin=-0.3,
                             vmax=0.3, shading="nearest", rasterized=True)  # fmt: skip
        low, high = cells[x].values[[0, -1]]
        along = np.linspace(low, high, 400)
        ax.plot(along, line(along), label="law", **REFERENCE | {"color": "k", "linewidth": 1.4})
        ax.set(ylim=cells[y].values[[0, -1]], **labels)
        ax.grid(False)
        if part == "pairs":  # the last
            bar = ax.figure.colorbar(mesh, ax=ax, ticks=[-0.3, 0, 0.3])
            bar.set_label("$\\log_{10}$ factor a round")

    return draw


GAP = "gap penalty  $\\Lambda / \\alpha$"
FIGURES = {
    "outer_laws": Figure([
        [
            phases("late, β", "momentum", "gap", lambda b: gain(RATE) / (1 - b), yscale="log",
                   xlabel="momentum  $\\beta$", ylabel=GAP, title="CO2"),
            phases("late, η", "rate", "gap", lambda h: gain(h) / (1 - MOMENTUM), xscale="log",
                   yscale="log", xlabel="local stepsize  $\\eta\\lambda$", ylabel=GAP,
                   title=f"CO2, $\\beta$ = {MOMENTUM:g}"),
            phases("pairs", "alpha", "gamma", lambda a: 2 * (1 - a**2),
                   xlabel="momentum  $\\alpha$", ylabel="$\\gamma$", title="NoLoCo, pairs"),
        ],
        [
            Lines(data="cycles", y="path", x="step", xlabel="rounds",
 ylabel="$|x - x^\\star|$", legend="panel",
                  ylim=(1e-4, 1e3), title="CO2 at its edge"),
            LogLog(data=lambda r: unstable(r, "size"), x="clip", by="share", xlabel="clip  $c$",
                   ylabel="cycle, largest $|x - x^\\star|$", title="beyond the edge",
                   legend="panel",
                   labels={str(s): f"{s:g} $\\Lambda$" for s in SHARES}),
            LogLog(data=lambda r: r["replicas"].apart, x="eta", by="gamma",
                   xlabel="local stepsize  $\\eta\\lambda$", ylabel="disagreement",
                   title="NoLoCo under noise", legend="panel",
                   labels={str(g): f"$\\gamma$ = {g:g}" for g in PULLS}),
        ],
    ], height=2.2),
}  # fmt: skip
STUDY = Study(
    name="outer_laws",
    paper="CO2: Sun et al. (2024), arXiv 2401.16265; NoLoCo: Kolehmainen et al. (2025), arXiv "
    "2506.10911",
    question="Where are outer loops stable that are a round late, or average in random pairs?",
    scales=SCALES,
    parts={
        "late, β": alone(functools.partial(late, "momentum"), "side", "rounds"),
        "late, η": alone(functools.partial(late, "rate"), "side", "rounds"),
        "pairs": alone(pairs, "side", "agents", "matched", "seed"),
        "cycles": alone(cycles, "rounds"),
        "replicas": alone(replicas, "agents", "matched"),
    },
    claims=CLAIMS,
    figures=FIGURES,
    minutes={"quick": 0.5, "default": 2, "full": 30},
)
