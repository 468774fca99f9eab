"""Pictures of networks: the graph with its weights.

Row i of W holds the weights that agent i puts on what it receives: an arrow j -> i carries wᵢⱼ.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import networkx as nx
import numpy as np
from scipy.spatial import KDTree

from jaxdopt._checks import require
from jaxdopt.networks.connectivity import adjacency
from jaxdopt.plot.matrices import LINK, OWN, ROUNDING, colorbar, one, sides, weights_of, write
from jaxdopt.plot.style import cycle, pyplot

LIMIT = 1000  # agents that a drawing of the graph can hold
ARROWS = 3000  # links up to which arrowheads can be told apart, and are drawn in seconds
KAMADA_KAWAI = 500  # agents up to which that layout takes about a second
CROWDED = 0.3  # the share of links with agents in their way above which none bends around them
APART = 0.28  # matplotlib's ``rad`` of a link whose opposite is drawn too
BEND = 0.2  # the ``rad`` of a link that bends around others


def graph(
    network: Any,
    *,
    ax: Any = None,
    positions: Any = None,
    weights: bool = True,
    labels: bool | Sequence[Any] | None = None,
) -> Any:
    """Draw the agents and links of a network, with their weights.

    A link's width and opacity show its weight, an agent's color the weight it puts on itself;
    negative weights are dashed. If W is not symmetric, an arrow j -> i shows wᵢⱼ, the weight that i
    puts on what it receives from j; above 3000 links, arrowheads are left out.

    Args:
        network: a network as `jd.networks.metropolis` returns it, or a networkx graph, which is
            drawn without weights.
        ax: the Axes to draw in, ideally of a figure with layout="constrained"; default: new ones.
        positions: of the agents, [n, 2] or a dict by agent (by node, for a networkx graph).
            Default: a networkx graph's ``pos`` attributes; otherwise a circle if all agents have
            the same offsets to their neighbors, and else a layout that imitates graph distances.
            ``nx.get_node_attributes(graph, "pos")`` returns those of `jd.graphs.grid`,
            `jd.graphs.torus` and `jd.graphs.random_geometric`.
        weights: show the weights; without them all links look the same, and all agents.
        labels: write the agents' numbers (or the n given texts) into them; default: if they fit.

    Returns:
        The Axes.

    Raises:
        ValueError: not a network, a stack of networks, a network of two matrices (draw its ``row``
            and ``column``), one that changes with time (draw one round, ``network.at(k, key)``),
            more than 1000 agents, or positions or labels that do not fit the network.
    """
    plt = pyplot()
    plain = isinstance(network, nx.Graph)
    n = len(network) if plain else one(network, ", or a networkx graph").n
    require(n > 0, "the graph has no nodes; give one with at least one agent.")
    require(
        n <= LIMIT,
        f"the network has {n} agents and a drawing holds {LIMIT}; draw a smaller one of its kind, "
        "or its eigenvalues with jd.plot.spectrum.",
    )
    matrix = adjacency(network).toarray().astype(float) if plain else weights_of(network)
    weights = weights and not plain
    own, away = np.diag(matrix), matrix * (1 - np.eye(n))
    places, texts = _places(network, positions, away != 0), _texts(labels, n)
    directed = not np.allclose(matrix, matrix.T)
    receiver, sender = np.nonzero(away if directed else np.triu(away))
    carried = away[receiver, sender] if weights else np.ones(len(sender))
    order = np.argsort(np.abs(carried), kind="stable")  # the heaviest are drawn last
    links, carried = np.stack([sender, receiver], axis=1)[order], carried[order]

    ax = plt.subplots(layout="constrained")[1] if ax is None else ax
    ax.set(aspect="equal", adjustable="datalim", xmargin=0.06, ymargin=0.06)
    ax.set_axis_off()
    room = sides(ax).min()
    scale = 0.88 * (sides(ax) / np.maximum(np.ptp(places, axis=0), 1e-9)).min()  # points per unit
    near = np.sort(KDTree(places).query(places, k=[2])[0], axis=None)[n // 20]  # another agent
    diameter = np.clip(0.75 * scale * near, min(0.04, 0.26 / np.sqrt(n)) * room, 0.1 * room)
    ink = plt.rcParams["text.color"]
    faint = np.clip((2 * n / max(len(links), 1)) ** 0.4, 0.25, 1)  # denser graphs, fainter links
    share = np.abs(carried) / np.abs(carried).max(initial=0)
    thick = faint * min(1.5 * plt.rcParams["lines.linewidth"], 0.3 * diameter)
    look = {
        "width": thick * (0.3 + 0.7 * share),
        "edge_color": [(ink, alpha) for alpha in 0.85 * faint * (0.35 + 0.65 * share)],
        "style": ["--" if weight < 0 else "-" for weight in carried],
    }
    arrows = directed and len(links) <= ARROWS
    some = 0 < len(links) <= ARROWS
    rads = _rads(places, links, 0.5 * diameter / scale) if some else np.zeros(len(links))
    drawn, at = nx.empty_graph(n, nx.DiGraph), dict(enumerate(places))
    for rad in np.unique(rads):
        (chosen,) = np.nonzero(rads == rad)
        arc = {
            "connectionstyle": f"arc3,rad={rad}",
            "arrowstyle": "-|>" if arrows else "-",
            "arrowsize": np.clip(1.6 * diameter, 6, 20),
            "node_size": diameter**2,
        }
        nx.draw_networkx_edges(
            drawn,
            at,
            links[chosen].tolist(),
            ax=ax,
            arrows=bool(arrows or rad),
            **{name: [values[link] for link in chosen] for name, values in look.items()},
            **arc if arrows or rad else {},
        )
    nodes = nx.draw_networkx_nodes(
        drawn,
        at,
        ax=ax,
        node_size=diameter**2,
        node_color=cycle(plt)[0],
        edgecolors=ink,
        linewidths=min(plt.rcParams["patch.linewidth"], 0.05 * diameter),
    )
    if weights and np.ptp(own) > ROUNDING:
        nodes.set(array=own, cmap="cividis")
        nodes.update_scalarmappable()
    ends = places[links]
    bows = ends.mean(axis=1) + rads[:, None] / 2 * (ends[:, 1] - ends[:, 0])[:, ::-1] * [1, -1]
    ax.update_datalim(bows)
    ax.autoscale_view()
    colors = np.broadcast_to(nodes.get_facecolor(), (n, 4))
    if texts:
        write(ax, places, texts, colors, diameter, forced=labels is not None)
    if weights:
        _legend(ax, carried, look, nodes, own)
    return ax


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
    agents = np.arange(n)
    links = nx.from_numpy_array(linked | linked.T)
    offsets = linked[agents[:, None], (agents[:, None] + agents) % n]
    if n > 2 and np.all(offsets == offsets[0]):
        around = nx.circular_layout(links)
        return np.array([around[i][::-1] for i in agents])  # clockwise from the top
    if n <= KAMADA_KAWAI and nx.is_connected(links):
        jitter = 0.05 * np.random.default_rng(0).normal(size=(n, 2))  # some coincide
        start = {i: at + jitter[i] for i, at in nx.spectral_layout(links, weight=None).items()}
        found = nx.kamada_kawai_layout(links, pos=start, weight=None)
    else:
        found = nx.spring_layout(links, weight=None, seed=0)
    places = np.array([found[i] for i in agents])
    places = places - places.mean(axis=0)
    places = places @ np.linalg.svd(places)[2].T  # longest from left to right
    return places * np.where(places[0] * [-1, 1] < 0, -1, 1)  # agent 0 to the top left


def _rads(places: np.ndarray, links: np.ndarray, radius: float) -> np.ndarray:
    """Return matplotlib's ``rad`` of links: apart from opposites, away from agents in their way."""
    n = len(places)
    start, end = places[links].swapaxes(0, 1)
    share = np.linspace(0, 1, 33)[:, None, None]
    distance, agent = KDTree(places).query(start + share * (end - start), k=3)
    distance[(agent[..., None] == links[:, None]).any(axis=-1)] = np.inf  # its own two agents
    flat = distance.swapaxes(0, 1).reshape(len(links), -1)
    nearest = agent.swapaxes(0, 1).reshape(flat.shape)[np.arange(len(links)), flat.argmin(axis=1)]
    touching = flat.min(axis=1) < 1.2 * radius
    aside = places[nearest % n] - start + 1e-3 * (places.mean(axis=0) - start)  # or the center
    (across, up), (x, y) = (end - start).T, aside.T
    right = np.where(across * y >= up * x, 1, -1)  # of travel, if the agent is to the left
    around = BEND * right * touching * (touching.sum() <= CROWDED * len(links))
    opposite = np.isin(links @ [n, 1], links @ [1, n])
    return np.where(opposite, APART, around)


def _legend(
    ax: Any, carried: np.ndarray, look: dict[str, Any], nodes: Any, own: np.ndarray
) -> None:
    """Explain widths by up to three samples, and colors by a colorbar unless all are the same."""
    from matplotlib.lines import Line2D

    samples = {}
    if len(carried):
        middle = np.abs(carried - (carried.min() + carried.max()) / 2)
        for link in (carried.argmin(), middle.argmin(), carried.argmax()):
            style = dict(zip(("linewidth", "color", "linestyle"), look.values(), strict=True))
            shown = {name: values[link] for name, values in style.items()}
            samples[f"${LINK} = {carried[link]:.3g}$"] = shown
    if nodes.get_array() is None:
        point = {"linestyle": "none", "marker": "o", "color": nodes.get_facecolor()[0]}
        samples[f"${OWN} = {own[0]:.3g}$"] = point
    else:
        colorbar(ax, nodes, f"own weight  ${OWN}$")
    ax.legend(
        handles=[Line2D([], [], label=text, **style) for text, style in samples.items()],
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        ncols=max(len(samples), 1),
        frameon=False,
        columnspacing=1,
        handlelength=1.5,
        handletextpad=0.5,
    )
