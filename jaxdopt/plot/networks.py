"""Pictures of networks: the graph with its weights, the spectrum of W, and W itself.

Row i of W is what agent i puts on what it hears, so an arrow j -> i carries the weight wᵢⱼ.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import networkx as nx
import numpy as np

from jaxdopt._checks import require
from jaxdopt.networks.graphs import adjacency
from jaxdopt.plot.style import MARKERS, cycle, pyplot

LIMIT = 1000  # agents that a drawing of the graph can hold
KAMADA_KAWAI = 500  # agents up to which that layout takes about a second
BENDING = 100  # agents up to which links bend around agents that they would touch
CROWDED = 0.3  # the share of touching links above which none bends, as it would not help
LEGIBLE = 6  # points: the smallest numbers written into agents and cells
ROUNDING = 1e-6  # own weights are 1 less the others, and below this they are zero in float32
APART = 0.14  # how far the two directions of a link bend apart, as a share of its length
BENDS = (0.04, 0.06, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25)  # tried until a link touches nobody

LINK, OWN = "w_{ij}", "w_{ii}"


def graph(
    network: Any,
    *,
    ax: Any = None,
    positions: Any = None,
    weights: bool = True,
    labels: bool | Sequence[Any] | None = None,
) -> Any:
    """Draw the agents and the links of a network, with their weights.

    A link's width and opacity show its weight, an agent's color the weight it puts on itself;
    negative weights are dashed. If W is not symmetric, an arrow j -> i shows wᵢⱼ, what i puts on
    what it hears from j.

    Args:
        network: a network as `jd.networks.metropolis` returns it, or a networkx graph, which is
            drawn without weights.
        ax: the Axes to draw in, best of a figure with layout="constrained"; a new one's by default.
        positions: where the agents are, [n, 2], or a dict of points by agent (by node, for a
            networkx graph). By default a networkx graph's ``pos`` attributes; without them a
            circle where all agents have the same offsets to their neighbors, and else a layout
            with distances as on the graph. ``nx.get_node_attributes(graph, "pos")`` has those of
            `jd.graphs.grid`, `jd.graphs.torus` and `jd.graphs.random_geometric`.
        weights: show them; links and agents look the same otherwise.
        labels: write the agents' numbers (or the n texts given) into them; by default where the
            numbers fit.

    Returns:
        The Axes.

    Raises:
        ValueError: no network, a stack of networks, a network of two matrices (draw its ``row``
            and ``column``) or one that changes with time (draw a round's, ``network.at(k, key)``),
            more than 1000 agents, or positions or labels that do not fit the network.
    """
    plt = pyplot()
    from matplotlib.collections import EllipseCollection, LineCollection, PolyCollection

    plain = isinstance(network, nx.Graph)
    if plain:
        _require_drawable(len(network))
        matrix = adjacency(network).toarray().astype(float)
    else:
        _require_drawable(_one(network, ", or a networkx graph").n)
        matrix = _matrix(network)
    weights = weights and not plain
    n = len(matrix)
    own, away = np.diag(matrix), matrix * (1 - np.eye(n))
    places = _places(network, positions, away != 0)
    texts = _texts(labels, n)
    directed = not np.allclose(matrix, matrix.T)
    receiver, sender = np.nonzero(away if directed else np.triu(away))
    carried = away[receiver, sender]
    order = np.argsort(np.abs(carried), kind="stable")  # the heaviest are drawn last
    receiver, sender, carried = receiver[order], sender[order], carried[order]

    radius, size = _radius(places)
    routes = _routes(places, sender, receiver, radius)
    head = max(0.8 * radius, 0.012 * size) if directed else 0.0
    lines, tips = _drawn(routes, places[receiver], radius, head)

    ax = plt.subplots(layout="constrained")[1] if ax is None else ax
    extent = _frame(ax, [places, *lines], size, 1.3 * radius)
    diameter = 2 * radius * float((_sides(ax) / extent).min())  # in points
    ink = plt.rcParams["text.color"]
    density = max(len(carried) / n, (away != 0).sum(axis=1).max() / 12)  # a hub's links are many
    share = np.abs(carried) / np.abs(carried).max(initial=0) if weights else np.ones(len(carried))
    look = _look(plt, share, carried if weights else share, diameter, density)
    ax.add_collection(LineCollection(lines, capstyle="butt", zorder=1, **look), autolim=False)
    if directed:
        heads = PolyCollection(list(tips), facecolors=look["colors"], linewidths=0, zorder=1.5)
        ax.add_collection(heads, autolim=False)
    uniform = not weights or np.ptp(own) <= ROUNDING
    nodes = EllipseCollection(
        *(np.full(n, 2 * radius), np.full(n, 2 * radius), np.zeros(n)),
        units="xy",
        offsets=places,
        offset_transform=ax.transData,
        facecolors=cycle(plt)[0],
        edgecolors=ink,
        linewidths=min(plt.rcParams["patch.linewidth"], 0.05 * diameter),
        zorder=2,
    )
    if not uniform:
        nodes.set(array=own, cmap="cividis")
    ax.add_collection(nodes, autolim=False)
    if texts:
        nodes.update_scalarmappable()
        colors = np.broadcast_to(nodes.get_facecolor(), (n, 4))
        _write(ax, places, texts, colors, diameter, forced=labels is not None)
    if weights:
        _legend(ax, carried, look, nodes, own)
    return ax


def spectrum(networks: Any, *, ax: Any = None) -> Any:
    """Draw the eigenvalues of W, with the spectral gap 1 − |λ₂| in the legend.

    Those of symmetric networks are drawn in decreasing order over the index scaled to [0, 1]. If
    some network is directed, all are drawn in the complex plane, with the unit circle, and a dashed
    circle of radius |λ₂| a network.

    Args:
        networks: a network, or a dict of networks by the names that the legend has.
        ax: the Axes to draw in, best of a figure with layout="constrained"; a new one's by default.

    Returns:
        The Axes.

    Raises:
        ValueError: no network, a stack of networks, or one that `graph` refuses for its matrices.
    """
    plt = pyplot()
    from matplotlib.patches import Circle
    from matplotlib.ticker import MultipleLocator

    members = dict(networks) if isinstance(networks, Mapping) else {"": networks}
    require(members, "networks is an empty dict; give at least one network.")
    also = ", or a dict of networks by name"
    values = {name: _one(network, also).eigenvalues for name, network in members.items()}
    gaps = {name: network.spectral_gap for name, network in members.items()}
    texts = {name: f"{name}, gap {gap:.3g}".removeprefix(", ") for name, gap in gaps.items()}
    plane = not all(getattr(network, "symmetric", True) for network in members.values())
    plane |= any(np.iscomplexobj(these) for these in values.values())
    ax = plt.subplots(layout="constrained")[1] if ax is None else ax
    colors = cycle(plt)
    thin = {"color": "0.5", "linewidth": max(plt.rcParams["axes.linewidth"], 0.8), "zorder": 1}
    if plane:
        ax.add_patch(Circle((0, 0), 1, fill=False, **thin))
    else:
        for bound in (-1, 1):
            ax.axhline(bound, **thin)
    for member, (name, these) in enumerate(values.items()):
        color = colors[member % len(colors)]
        if plane:
            x, y = np.real(these), np.imag(these)
            inner = Circle((0, 0), 1 - gaps[name], fill=False, **thin | {"color": color})
            inner.set_linestyle("--")
            ax.add_patch(inner)
        else:
            x, y = np.arange(len(these)) / max(len(these) - 1, 1), np.sort(these)[::-1]
        ax.plot(
            x,
            y,
            color=color,
            marker=MARKERS[member % len(MARKERS)],
            markerfacecolor="none" if member < len(MARKERS) else color,
            markeredgewidth=max(plt.rcParams["lines.markeredgewidth"], 1),
            markersize=plt.rcParams["lines.markersize"] * (1 if len(these) <= 64 else 0.6),
            linestyle="none",
            label=texts[name],
        )
    if plane:
        ax.set_aspect("equal")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MultipleLocator(0.5))
        ax.set_xlabel("real part of $\\lambda$")
        ax.set_ylabel("imaginary part of $\\lambda$")
        columns = 1 if len(members) <= 3 else 2
        below = {"bbox_to_anchor": (0.5, 0), "borderaxespad": 4, "ncols": columns}
        ax.legend(loc="upper center", **below)
    else:
        ax.set_xlabel("scaled index  $(k - 1) / (n - 1)$")
        ax.set_ylabel("eigenvalue  $\\lambda_k$")
        ax.legend(loc="lower left", bbox_to_anchor=(0, 0.05))  # W has no negative trace
    return ax


def matrix(network: Any, *, ax: Any = None) -> Any:
    """Draw W as a heat map, row i what agent i puts on what it hears; zeros are left blank.

    Up to ten agents, the weights are written into the cells. If some weights are negative, the
    colors diverge from zero.

    Args:
        network: a network, as `jd.networks.metropolis` returns it.
        ax: the Axes to draw in, best of a figure with layout="constrained"; a new one's by default.

    Returns:
        The Axes.

    Raises:
        ValueError: no network, a stack of networks, or one that `graph` refuses for its matrices.
    """
    plt = pyplot()
    from matplotlib.ticker import MaxNLocator

    weights = _matrix(network)
    n = len(weights)
    most = np.abs(weights).max()
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
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(10 if n <= 100 else 5, integer=True, min_n_ticks=1))
    ax.grid(False)
    if n <= 32:
        borders = np.arange(n + 1) - 0.5
        ax.set_xticks(borders, minor=True)
        ax.set_yticks(borders, minor=True)
        ax.tick_params(which="minor", length=0)
        ax.grid(which="minor", color=ax.get_facecolor(), linestyle="-", linewidth=0.8)
    ax.set_xlabel("agent $j$ (is heard)")
    ax.set_ylabel("agent $i$ (hears)")
    _colorbar(ax, image, f"weight  ${LINK}$")
    if n <= 10:
        cell = _sides(ax).min() / n
        rows, columns = np.nonzero(weights)
        places, values = np.stack([columns, rows], axis=1), weights[rows, columns]
        texts = [f"{value:.3g}".replace("-", "\N{MINUS SIGN}") for value in values]
        _write(ax, places, texts, image.to_rgba(values), cell, forced=True)
    return ax


def _one(network: Any, also: str = "") -> Any:
    """Return what is one network with one matrix, or raise what to give."""
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


def _matrix(network: Any) -> np.ndarray:
    """Return W as a NumPy array, with own weights that are rounding errors set to zero."""
    weights = np.array(_one(network).matrix(), float)
    require(
        weights.ndim == 2,
        f"the weights of this network have shape {weights.shape} and a picture shows [n, n]; take "
        "one network of the stack.",
    )
    own = np.diag(weights)
    np.fill_diagonal(weights, np.where(np.abs(own) > ROUNDING, own, 0))
    return weights


def _require_drawable(n: int) -> None:
    require(n > 0, "the graph has no nodes; give one with at least one agent.")
    require(
        n <= LIMIT,
        f"the network has {n} agents and a drawing holds {LIMIT}; draw a smaller one of its kind, "
        "or its eigenvalues with jd.plot.spectrum.",
    )


def _texts(labels: Any, n: int) -> list[str]:
    """Return the agents' labels, none where there shall be none."""
    if labels is None or isinstance(labels, bool | np.bool_):
        return [str(i) for i in range(n)] if labels is None or labels else []
    listed = isinstance(labels, Sequence | np.ndarray)
    require(listed, f"labels is {labels!r}; give True, False or a list of one text an agent.")
    texts = [str(label) for label in labels]
    require(len(texts) == n, f"labels has {len(texts)} texts for {n} agents; give one an agent.")
    return texts


def _places(network: Any, positions: Any, linked: np.ndarray) -> np.ndarray:
    """Return the agents' positions [n, 2]: those given, the graph's own, or a layout's."""
    n = len(linked)
    names = list(network) if isinstance(network, nx.Graph) else list(range(n))
    if positions is None and isinstance(network, nx.Graph):
        own = nx.get_node_attributes(network, "pos")
        positions = own if len(own) == n else None
    if positions is None:
        return _layout(linked)
    if isinstance(positions, Mapping):
        missing = [name for name in names if name not in positions]
        require(
            not missing,
            f"positions has no point for {', '.join(map(repr, missing[:3]))}; give one for each "
            f"of the {n} agents.",
        )
        positions = [positions[name] for name in names]
    try:
        places = np.asarray(positions, float)
    except (TypeError, ValueError):
        raise ValueError("positions are not all pairs of numbers; give an [n, 2] array.") from None
    require(
        places.shape == (n, 2),
        f"positions has shape {places.shape}; give a point in the plane for each agent, ({n}, 2).",
    )
    require(
        np.all(np.isfinite(places)), "positions has entries that are not finite; give finite ones."
    )
    return places


def _layout(linked: np.ndarray) -> np.ndarray:
    """Return positions from the links alone: a circle, or distances as on the graph."""
    n = len(linked)
    if _alike(linked):
        return _circle(n)
    hubs = np.flatnonzero((linked & linked.T).sum(axis=1) == n - 1)
    rest = np.delete(np.arange(n), hubs)
    if len(hubs) == 1 and _alike(linked[np.ix_(rest, rest)]):
        return np.insert(_circle(n - 1), hubs[0], 0, axis=0)
    links = nx.from_numpy_array(linked | linked.T)
    if n <= KAMADA_KAWAI and nx.is_connected(links):
        found = nx.kamada_kawai_layout(links, weight=None)
    else:
        found = nx.spring_layout(links, weight=None, seed=0)
    return _upright(np.array([found[i] for i in range(n)]))


def _alike(linked: np.ndarray) -> bool:
    """Return whether all agents have the same offsets to their neighbors, around a circle."""
    agents = np.arange(len(linked))
    offsets = linked[agents[:, None], (agents[:, None] + agents) % len(linked)]
    return bool(np.all(offsets == offsets[0]))


def _circle(n: int) -> np.ndarray:
    """Return n points clockwise from the top; two from the left, and one in the center."""
    angles = np.pi * (1 if n == 2 else 0.5) - 2 * np.pi * np.arange(n) / n
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * (n > 1)


def _upright(places: np.ndarray) -> np.ndarray:
    """Turn the points: their bounding box smallest, on its longer side, agent 0 to the top left."""

    def turned(angle: float) -> np.ndarray:
        cos, sin = np.cos(angle), np.sin(angle)
        return places @ np.array([[cos, -sin], [sin, cos]])

    angles = np.linspace(0, np.pi / 2, 360, endpoint=False)
    best = turned(min(angles, key=lambda angle: np.prod(np.ptp(turned(angle), axis=0))))
    best = best if np.ptp(best[:, 0]) >= np.ptp(best[:, 1]) else best[:, ::-1]
    away = best[0] - best.mean(axis=0)
    return best * np.where(away * [-1, 1] < 0, -1, 1)


def _radius(places: np.ndarray) -> tuple[float, float]:
    """Return the agents' radius, for which nearly none overlap, and the size of the picture."""
    size = float(np.ptp(places, axis=0).max()) or 2.0
    distance = np.linalg.norm(places[:, None] - places, axis=-1)
    np.fill_diagonal(distance, size)
    near = float(np.quantile(distance.min(axis=1), 0.05))
    least = min(0.02, 0.13 / np.sqrt(len(places)))
    return float(np.clip(0.38 * near, least * size, 0.05 * size)), size


def _routes(
    places: np.ndarray, sender: np.ndarray, receiver: np.ndarray, radius: float
) -> np.ndarray:
    """Return the links as quadratic Bezier curves [links, 3, 2] from the sender to the receiver.

    Links are straight; those with an opposite bend to their left, and those that would touch a
    third agent bend around it.
    """
    n = len(places)
    start, end = places[sender], places[receiver]
    bend = np.zeros(len(start))
    opposite = np.isin(sender * n + receiver, receiver * n + sender)
    bend[opposite] = APART
    if n <= BENDING:
        touching = ~opposite & (_clearance(places, sender, receiver, bend) < 1.2 * radius)
        if touching.sum() <= CROWDED * len(touching):
            for link in np.flatnonzero(touching):
                bend[link] = _bend(places, sender[link], receiver[link], radius)
    return _bezier(start, end, bend)


def _bezier(start: np.ndarray, end: np.ndarray, bend: Any) -> np.ndarray:
    left = (end - start)[..., ::-1] * [-1, 1]
    return np.stack([start, (start + end) / 2 + 2 * np.asarray(bend)[..., None] * left, end], -2)


def _bend(places: np.ndarray, sender: int, receiver: int, radius: float) -> float:
    """Return the smallest bend that is clear of other agents, or the clearest; outward first."""
    middle = (places[sender] + places[receiver]) / 2 - places.mean(axis=0)
    along = places[receiver] - places[sender]
    outward = 1.0 if along[0] * middle[1] - along[1] * middle[0] >= 0 else -1.0
    bends = np.array([side * bend for bend in BENDS for side in (outward, -outward)])
    tried = np.full(len(bends), sender), np.full(len(bends), receiver)
    clear = _clearance(places, *tried, bends)
    enough = np.flatnonzero(clear >= 1.5 * radius)
    return float(bends[enough[0] if len(enough) else np.argmax(clear)])


def _clearance(
    places: np.ndarray, sender: np.ndarray, receiver: np.ndarray, bend: np.ndarray
) -> np.ndarray:
    """Return how far each link stays from the agents that it does not belong to."""
    routes = _bezier(places[sender], places[receiver], bend)
    nearest = np.full((len(routes), len(places)), np.inf)
    at = _along(routes, np.linspace(0, 1, 17))
    for first, last in zip(at[:, :-1].swapaxes(0, 1), at[:, 1:].swapaxes(0, 1), strict=True):
        step = (last - first)[:, None]
        away = places - first[:, None]
        length = np.maximum((step**2).sum(-1), np.finfo(float).tiny)
        share = np.clip((away * step).sum(-1) / length, 0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(away - share[..., None] * step, axis=-1))
    links = np.arange(len(routes))
    nearest[links, sender] = nearest[links, receiver] = np.inf
    return nearest.min(axis=1)


def _along(routes: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return the points of the curves at the parameters t, [points] or [links, points]."""
    t = np.broadcast_to(t, (len(routes), np.shape(t)[-1]))[..., None]
    start, control, end = (routes[:, None, i] for i in range(3))
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end


def _drawn(
    routes: np.ndarray, end: np.ndarray, radius: float, head: float
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the lines, and the arrowheads that end at the receivers' borders if ``head`` > 0."""
    last = np.ones((len(routes), 1))
    tips = np.zeros((0, 3, 2))
    if head:
        tip = _along(routes, _before(routes, end, radius))[:, 0]
        last = _before(routes, end, radius + head)
        along = tip - _along(routes, last)[:, 0]
        along = along / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-12 * radius)
        side = 0.38 * head * along[:, ::-1] * [-1, 1]
        back = tip - head * along
        tips = np.stack([tip, back + side, back - side], axis=1)
    bent = np.abs(routes[:, 1] - (routes[:, 0] + routes[:, 2]) / 2).max(axis=1) > 1e-9 * radius
    lines = list(_along(routes, last * [0, 1]))
    curves = _along(routes[bent], last[bent] * np.linspace(0, 1, 25))
    for link, curve in zip(np.flatnonzero(bent), curves, strict=True):
        lines[link] = curve
    return lines, tips


def _before(routes: np.ndarray, end: np.ndarray, distance: float) -> np.ndarray:
    """Return the parameters [links, 1] at which curves are at a distance from their ends."""
    low, high = np.full((len(routes), 1), 0.5), np.ones((len(routes), 1))
    for _ in range(30):
        middle = (low + high) / 2
        far = np.linalg.norm(_along(routes, middle) - end[:, None], axis=-1) > distance
        low, high = np.where(far, middle, low), np.where(far, high, middle)
    return low


def _frame(ax: Any, drawn: Sequence[np.ndarray], size: float, margin: float) -> np.ndarray:
    """Set limits around everything drawn, not much flatter than wide; return width and height."""
    points = np.concatenate(drawn)
    low, high = points.min(axis=0), points.max(axis=0)
    half = np.maximum((high - low) / 2 + margin, 0.25 * size)
    (left, bottom), (right, top) = (low + high) / 2 - half, (low + high) / 2 + half
    ax.set(xlim=(left, right), ylim=(bottom, top))
    ax.set_aspect("equal")
    ax.set_axis_off()
    return 2 * half


def _sides(ax: Any) -> np.ndarray:
    """Return the width and height of the Axes in points, before a layout engine moves them."""
    return 72 / ax.figure.dpi * np.array([ax.bbox.width, ax.bbox.height])


def _look(
    plt: Any, share: np.ndarray, carried: np.ndarray, diameter: float, density: float
) -> dict[str, Any]:
    """Return the lines' widths, colors and dashes; denser graphs have fainter links."""
    from matplotlib.colors import to_rgba_array

    faint = np.clip((2 / max(density, 1e-9)) ** 0.4, 0.25, 1)
    thick = faint * min(1.5 * plt.rcParams["lines.linewidth"], 0.3 * diameter)
    colors = to_rgba_array([plt.rcParams["text.color"]]).repeat(len(share), axis=0)
    colors[:, 3] = 0.85 * faint * (0.35 + 0.65 * share)
    return {
        "linewidths": thick * (0.3 + 0.7 * share),
        "colors": colors,
        "linestyles": ["--" if weight < 0 else "-" for weight in carried],
    }


def _legend(
    ax: Any, carried: np.ndarray, look: dict[str, Any], nodes: Any, own: np.ndarray
) -> None:
    """Say how much a width and a color is: a colorbar for own weights, unless all are the same."""
    from matplotlib.lines import Line2D

    samples = {}
    if len(carried):
        middle = np.argmin(np.abs(carried - (carried.min() + carried.max()) / 2))
        picks = (np.argmin(carried), middle, np.argmax(carried))
        samples = {f"${LINK} = {carried[pick]:.3g}$": pick for pick in picks}
    handles = [
        Line2D([], [], label=text, **{name[:-1]: of[pick] for name, of in look.items()})
        for text, pick in samples.items()
    ]
    if nodes.get_array() is None:
        point = {"linestyle": "none", "marker": "o", "color": nodes.get_facecolor()[0]}
        handles.append(Line2D([], [], label=f"${OWN} = {own[0]:.3g}$", **point))
    else:
        _colorbar(ax, nodes, f"own weight  ${OWN}$")
    if handles:
        ax.legend(
            handles=handles,
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            ncols=len(handles),
            frameon=False,
            columnspacing=1,
            handlelength=1.5,
            handletextpad=0.5,
        )


def _colorbar(ax: Any, drawn: Any, label: str) -> None:
    """Draw a colorbar that is as high as the Axes, whose sides have the data's aspect."""
    ax.figure.colorbar(drawn, cax=ax.inset_axes((1.04, 0.0, 0.05, 1.0)), label=label)


def _write(
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
