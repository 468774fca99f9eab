"""Pictures of W itself: its spectrum, and the matrix as a heat map."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdopt._checks import require
from jaxdopt.plot.style import MARKERS, cycle, pyplot

LEGIBLE = 6  # points: the smallest text in agents and cells
ROUNDING = 1e-6  # an own weight, 1 minus the others, is zero in float32 below this

LINK, OWN = "w_{ij}", "w_{ii}"


def spectrum(networks: Any, *, ax: Any = None) -> Any:
    """Draw the eigenvalues of W, with the spectral gap 1 − |λ₂| in the legend.

    Eigenvalues of symmetric networks are drawn in decreasing order over the index scaled to [0, 1].
    If some network is directed, all are drawn in the complex plane with the unit circle, and with a
    dashed circle of radius |λ₂| for each network.

    Args:
        networks: a network, or a dict of networks by name, for the legend.
        ax: the Axes to draw in, ideally of a figure with layout="constrained"; default: new ones.

    Returns:
        The Axes.

    Raises:
        ValueError: not a network, a stack of networks, or one that `graph` refuses for its
            matrices.
    """
    plt = pyplot()
    from matplotlib.patches import Circle

    members = dict(networks) if isinstance(networks, Mapping) else {"": networks}
    require(members, "networks is an empty dict; give at least one network.")
    also = ", or a dict of networks by name"
    values = {name: one(network, also).eigenvalues for name, network in members.items()}
    plane = not all(getattr(network, "symmetric", True) for network in members.values())
    plane |= any(np.iscomplexobj(these) for these in values.values())
    ax = plt.subplots(layout="constrained")[1] if ax is None else ax
    thin = {"linewidth": max(plt.rcParams["axes.linewidth"], 0.8), "zorder": 1}
    if plane:
        ax.add_patch(Circle((0, 0), 1, fill=False, color="0.5", **thin))
    else:
        for bound in (-1, 1):
            ax.axhline(bound, color="0.5", **thin)
    colors = cycle(plt)
    for member, (name, these) in enumerate(values.items()):
        gap, color = members[name].spectral_gap, colors[member % len(colors)]
        if plane:
            x, y = np.real(these), np.imag(these)
            ax.add_patch(Circle((0, 0), 1 - gap, fill=False, color=color, linestyle="--", **thin))
        else:
            x, y = np.arange(len(these)) / max(len(these) - 1, 1), np.sort(these)[::-1]
        ax.plot(
            x,
            y,
            color=color,
            marker=MARKERS[member % len(MARKERS)],
            markerfacecolor="none" if member < len(MARKERS) else color,
            markersize=plt.rcParams["lines.markersize"] * (1 if len(these) <= 64 else 0.6),
            linestyle="none",
            label=f"{name}, gap {gap:.3g}".removeprefix(", "),
        )
    if plane:
        ax.set(
            aspect="equal", xlabel="real part of $\\lambda$", ylabel="imaginary part of $\\lambda$"
        )
        ax.locator_params(nbins=5)
        below = {"bbox_to_anchor": (0.5, 0), "borderaxespad": 4}
        ax.legend(loc="upper center", ncols=1 if len(members) <= 3 else 2, **below)
    else:
        ax.set(xlabel="scaled index  $(k - 1) / (n - 1)$", ylabel="eigenvalue  $\\lambda_k$")
        ax.legend(loc="lower left", bbox_to_anchor=(0, 0.05))  # W has no negative trace
    return ax


def matrix(network: Any, *, ax: Any = None) -> Any:
    """Draw W as a heat map whose row i has the weights of what agent i receives; zeros are blank.

    Up to ten agents, the weights are written into the cells. If some weights are negative, the
    colors diverge from zero.

    Args:
        network: a network, as `jd.networks.metropolis` returns it.
        ax: the Axes to draw in, ideally of a figure with layout="constrained"; default: new ones.

    Returns:
        The Axes.

    Raises:
        ValueError: not a network, a stack of networks, or one that `graph` refuses for its
            matrices.
    """
    plt = pyplot()
    weights = weights_of(network)
    n, most = len(weights), np.abs(weights).max()
    diverging = weights.min() < 0
    ax = plt.subplots(layout="constrained")[1] if ax is None else ax
    image = ax.imshow(
        np.ma.masked_equal(weights, 0),
        cmap="RdBu" if diverging else "cividis_r",
        vmin=-most if diverging else 0,
        vmax=most,
        origin="upper",
        interpolation="nearest",
    )
    ax.locator_params(nbins=10 if n <= 100 else 5, integer=True, min_n_ticks=1)
    ax.grid(False)
    if n <= 32:
        borders = np.arange(n + 1) - 0.5
        ax.set_xticks(borders, minor=True)
        ax.set_yticks(borders, minor=True)
        ax.tick_params(which="minor", length=0)
        ax.grid(which="minor", color=ax.get_facecolor(), linestyle="-", linewidth=0.8)
    ax.set(xlabel="sender $j$", ylabel="receiver $i$")
    colorbar(ax, image, f"weight  ${LINK}$")
    if n <= 10:
        rows, columns = np.nonzero(weights)
        values = weights[rows, columns]
        texts = [f"{value:.3g}".replace("-", "\N{MINUS SIGN}") for value in values]
        cell = sides(ax).min() / n
        write(ax, np.stack([columns, rows], 1), texts, image.to_rgba(values), cell, forced=True)
    return ax


def one(network: Any, also: str = "") -> Any:
    """Return the network if it is one with one matrix."""
    require(
        getattr(network, "kind", None) != "directed",
        f"a {type(network).__name__} network has two matrices; draw network.row or network.column.",
    )
    require(
        not getattr(network, "varies", False),
        f"a {type(network).__name__} network changes with time; take one round's, "
        "network.at(k, key).",
    )
    require(
        hasattr(network, "matrix") and hasattr(network, "n"),
        f"the network is of type {type(network).__name__}; give a network, as "
        f"jd.networks.metropolis(graph) returns it{also}.",
    )
    require(
        not getattr(network, "_stacked", False),
        "this is a stack of networks and a picture shows one; take one with "
        "jax.tree.map(lambda leaf: leaf[0], networks).",
    )
    return network


def weights_of(network: Any) -> np.ndarray:
    """Return W as a NumPy array, with own weights that are rounding errors set to zero."""
    weights = np.array(one(network).matrix(), float)
    require(
        weights.ndim == 2,
        f"the weights of this network have shape {weights.shape} and a picture shows [n, n]; take "
        "one network of the stack.",
    )
    own = np.diag(weights)
    np.fill_diagonal(weights, np.where(np.abs(own) > ROUNDING, own, 0))
    return weights


def sides(ax: Any) -> np.ndarray:
    """Return the width and height of the Axes in points, before a layout engine moves them."""
    return 72 / ax.figure.dpi * np.array([ax.bbox.width, ax.bbox.height])


def colorbar(ax: Any, drawn: Any, label: str) -> None:
    """Draw a colorbar as high as the Axes."""
    ax.figure.colorbar(drawn, cax=ax.inset_axes((1.04, 0.0, 0.05, 1.0)), label=label)


def write(
    ax: Any, places: np.ndarray, texts: list[str], colors: np.ndarray, room: float, *, forced: bool
) -> None:
    """Write texts that fit into ``room`` points, or none where they would be illegible."""
    import matplotlib

    longest = max((len(text) for text in texts), default=1)
    size = min(matplotlib.rcParams["font.size"], 0.6 * room, 1.3 * room / longest)
    if size < LEGIBLE and not forced:
        return
    dark = np.asarray(colors)[:, :3] @ [0.299, 0.587, 0.114] < 0.5
    for (x, y), text, on_dark in zip(places, texts, dark, strict=True):
        ax.text(
            *(x, y, text),
            color="white" if on_dark else "black",
            fontsize=max(size, LEGIBLE),
            ha="center",
            va="center_baseline",
        )
