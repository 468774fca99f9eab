"""Pictures of networks: links, weights, arrows and eigenvalues are those of W."""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib as mpl
import networkx as nx
import numpy as np
import pytest
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.bezier import BezierSegment
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import same_color, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

import jaxdopt as jd

mpl.use("Agg")
import matplotlib.pyplot as plt

pytestmark = pytest.mark.slow

METROPOLIS = jd.networks.metropolis
ANTI = np.roll(np.eye(5), 1, axis=1)  # agent i hears agent i + 1
BOTH_WAYS = 0.5 * np.eye(5) + 0.3 * ANTI + 0.2 * ANTI.T
NEGATIVE = jd.networks.mixing(
    np.array([[0.6, 0.5, -0.1], [0.5, 0.1, 0.4], [-0.1, 0.4, 0.7]])
)  # wᵢⱼ < 0 for the link 0 - 2
STACK = jd.networks.stack([METROPOLIS(jd.graphs.ring(6)), METROPOLIS(jd.graphs.star(6))])
RINGS = jd.networks.stack([METROPOLIS(jd.graphs.ring(6))] * 2)
TABLES = jd.networks.stack([METROPOLIS(jd.graphs.path(64))] * 2)


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def only(ax: Any, kind: type) -> Any:
    (found,) = (drawn for drawn in ax.collections if isinstance(drawn, kind))
    return found


class Link(NamedTuple):
    """A link as it is drawn: points from its sender to its receiver, its look, its arrowhead."""

    line: np.ndarray
    width: float
    opacity: float
    dashed: bool
    head: np.ndarray | None  # its tip lies between the other corners


def drawn(ax: Any) -> list[Link]:
    ax.figure.canvas.draw()
    found = []
    collections: list[Any] = [each for each in ax.collections if isinstance(each, LineCollection)]
    for lines in collections:
        widths, dashes = lines.get_linewidths(), lines.get_linestyles()
        looks = zip(lines.get_segments(), widths, lines.get_colors(), dashes, strict=True)
        found += [Link(line, w, c[3], dash[1] is not None, None) for line, w, c, dash in looks]
    arrows: list[Any] = [each for each in ax.patches if isinstance(each, FancyArrowPatch)]
    for arrow in arrows:
        path = np.asarray(arrow.get_path().vertices)  # a quadratic curve, and the arrowhead
        curve = np.asarray(BezierSegment(path[:3])(np.linspace(0, 1, 26)))
        head = path[3:6] if len(path) > 3 else None
        dashed = arrow.get_linestyle() not in ("-", "solid")
        found.append(Link(curve, arrow.get_linewidth(), arrow.get_edgecolor()[3], dashed, head))
    return found


def drawn_links(ax: Any) -> list[np.ndarray]:
    return [link.line for link in drawn(ax)]


def ends(ax: Any) -> list[tuple[int, int]]:
    """Return the sender and the receiver of every link that is drawn."""
    return [(nearest(ax, line[0]), nearest(ax, line[-1])) for line in drawn_links(ax)]


def nodes(ax: Any) -> Any:
    return only(ax, PathCollection)


def places(ax: Any) -> np.ndarray:
    return np.asarray(nodes(ax).get_offsets())


def radius(ax: Any) -> float:
    """Return the agents' radius in the units of their positions."""
    ax.figure.canvas.draw()
    points = np.sqrt(nodes(ax).get_sizes()[0]) / 2
    corners = ax.transData.inverted().transform([(0, 0), (points * ax.figure.dpi / 72, 0)])
    return float(corners[1, 0] - corners[0, 0])


def nearest(ax: Any, point: Any) -> int:
    return int(np.argmin(np.linalg.norm(places(ax) - point, axis=1)))


def distance(line: np.ndarray, point: np.ndarray) -> float:
    """Return how near a drawn line comes to a point."""
    share = np.linspace(0, 1, 101)[:, None]
    fine = [(1 - share) * a + share * b for a, b in itertools.pairwise(line)]
    return float(np.linalg.norm(np.concatenate(fine) - point, axis=1).min())


def legend(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def written(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.texts]


GRAPHS = {
    "one": jd.graphs.complete(1),
    "two": jd.graphs.path(2),
    "ring": jd.graphs.ring(8),
    "star": jd.graphs.star(8),
    "torus": jd.graphs.torus(4, 4),
    "exponential": jd.graphs.exponential(16),
    "directed exponential": jd.graphs.exponential(16, directed=True),
    "random": jd.graphs.erdos_renyi(16, 0.3),
    "geometric": jd.graphs.random_geometric(64),
    "large": jd.graphs.exponential(300),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_line_a_link_between_its_two_agents(name):
    network = METROPOLIS(GRAPHS[name])
    ax = jd.plot.graph(network)
    assert isinstance(ax, Axes)
    found = ends(ax)
    linked = np.asarray(network.matrix()) * (1 - np.eye(network.n)) != 0
    if network.symmetric:
        assert len(set(found)) == len(found) == int(network.link_count) // 2
        assert {frozenset(pair) for pair in found} == {frozenset(e) for e in np.argwhere(linked)}
    else:
        assert len(set(found)) == len(found) == int(network.link_count)
        assert set(found) == {(j, i) for i, j in np.argwhere(linked)}
    assert len(places(ax)) == network.n
    assert len(written(ax)) == (0 if network.n > 16 else network.n)


@pytest.mark.parametrize("name", ["one", "two", "star", "torus", "random"])
def test_agents_do_not_overlap_and_all_is_inside(name):
    graph = GRAPHS[name]
    ax = jd.plot.graph(METROPOLIS(graph), positions=nx.get_node_attributes(graph, "pos") or None)
    apart = np.linalg.norm(places(ax)[:, None] - places(ax), axis=-1) + np.eye(len(graph)) * 1e9
    assert apart.min() > 2 * radius(ax)
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    for line in [*drawn_links(ax), places(ax) - radius(ax), places(ax) + radius(ax)]:
        assert np.all((line > (left, bottom)) & (line < (right, top)))
    assert ax.get_aspect() == 1


def test_width_and_opacity_grow_with_the_weight():
    network = METROPOLIS(jd.graphs.erdos_renyi(16, 0.3))
    weights = np.asarray(network.matrix())
    ax = jd.plot.graph(network)
    links = sorted(drawn(ax), key=lambda link: link.width)
    of = [weights[nearest(ax, link.line[0]), nearest(ax, link.line[-1])] for link in links]
    assert len(set(of)) > 2
    for shown in ([link.width for link in links], [link.opacity for link in links]):
        assert np.all((np.diff(shown) > 0) == (np.diff(of) > 0))  # they are sorted
        assert np.all((np.diff(shown) == 0) == (np.diff(of) == 0))
    assert legend(ax)[0] == f"$w_{{ij}} = {min(of):.3g}$"
    assert legend(ax)[-1] == f"$w_{{ij}} = {max(of):.3g}$"
    samples = ax.get_legend().get_lines()
    assert samples[0].get_linewidth() == links[0].width
    assert samples[-1].get_linewidth() == links[-1].width


def test_colors_show_the_own_weights():
    network = METROPOLIS(jd.graphs.star(8))
    ax = jd.plot.graph(network)
    np.testing.assert_allclose(nodes(ax).get_array(), np.diag(network.matrix()))
    (bar,) = ax.child_axes
    assert bar.get_ylabel() == "own weight  $w_{ii}$"
    np.testing.assert_allclose(bar.get_ylim(), (1 / 8, 7 / 8))
    hub, *others = places(ax)
    np.testing.assert_allclose(hub, np.mean(others, axis=0), atol=1e-5)  # it is in the center


def test_equal_weights_are_told_in_the_legend():
    ax = jd.plot.graph(METROPOLIS(jd.graphs.ring(8)))
    assert legend(ax) == ["$w_{ij} = 0.333$", "$w_{ii} = 0.333$"]
    assert not ax.child_axes
    alone = jd.plot.graph(METROPOLIS(jd.graphs.complete(1)))
    assert legend(alone) == ["$w_{ii} = 1$"]


def test_without_weights_all_links_look_the_same():
    ax = jd.plot.graph(METROPOLIS(jd.graphs.star(8)), weights=False)
    plain = jd.plot.graph(jd.graphs.erdos_renyi(16, 0.3))
    for picture in (ax, plain):
        assert len({link.width for link in drawn(picture)}) == 1
        assert nodes(picture).get_array() is None
        assert picture.get_legend() is None
        assert not picture.child_axes


def test_negative_weights_are_dashed():
    ax = jd.plot.graph(NEGATIVE)
    assert [link.dashed for link in drawn(ax)] == [True, False, False]  # by increasing modulus
    assert legend(ax)[0] == "$w_{ij} = -0.1$"


@pytest.mark.parametrize("weighted", [False, True])
def test_arrows_go_to_who_hears(weighted):
    graph = jd.graphs.directed_ring(6)
    ax = jd.plot.graph(METROPOLIS(graph) if weighted else graph)
    links = drawn(ax)
    for link, (_, receiver) in zip(links, ends(ax), strict=True):
        assert link.head is not None
        left, tip, right = np.linalg.norm(link.head - places(ax)[receiver], axis=1)
        assert radius(ax) <= tip <= 1.2 * radius(ax)  # it touches, but for the width of lines
        assert min(left, right) > 1.2 * tip  # the head points at the receiver
    assert len(links) == 6
    assert set(ends(ax)) == {(i, (i + 1) % 6) for i in range(6)} == set(graph.edges)


def test_two_directions_bend_apart_with_their_own_weights():
    ax = jd.plot.graph(jd.networks.mixing(BOTH_WAYS))
    links = drawn(ax)
    widest = max(link.width for link in links)
    middles = {}
    for link, (sender, receiver) in zip(links, ends(ax), strict=True):
        assert (link.width == widest) == (BOTH_WAYS[receiver, sender] == 0.3)
        middles[sender, receiver] = link.line[len(link.line) // 2]
    assert len(middles) == 10
    for (j, i), middle in middles.items():
        length = np.linalg.norm(places(ax)[i] - places(ax)[j])
        assert np.linalg.norm(middle - middles[i, j]) > 0.15 * length


def test_symmetric_weights_have_no_arrows():
    ax = jd.plot.graph(METROPOLIS(jd.graphs.ring(6)))
    assert all(link.head is None for link in drawn(ax))


def test_links_bend_around_agents_between():
    graph = jd.graphs.torus(4, 4)
    ax = jd.plot.graph(graph)
    np.testing.assert_array_equal(places(ax), [graph.nodes[i]["pos"] for i in range(16)])
    bent = 0
    for line in drawn_links(ax):
        others = np.delete(np.arange(16), [nearest(ax, line[0]), nearest(ax, line[-1])])
        assert min(distance(line, places(ax)[i]) for i in others) > radius(ax)
        bent += len(line) > 2
    assert bent == 8  # those that close the rows and the columns


def test_positions_and_labels():
    network = METROPOLIS(jd.graphs.path(3))
    own = np.array([[0, 0], [2, 1], [5, 0.0]])
    np.testing.assert_array_equal(places(jd.plot.graph(network, positions=own)), own)
    by_agent = {i: own[i] for i in (2, 0, 1)}
    np.testing.assert_array_equal(places(jd.plot.graph(network, positions=by_agent)), own)
    named = nx.relabel_nodes(jd.graphs.path(3), dict(enumerate("abc")))
    by_node = dict(zip("cab", own[[2, 0, 1]], strict=True))
    np.testing.assert_array_equal(places(jd.plot.graph(named, positions=by_node)), own)
    assert written(jd.plot.graph(network)) == ["0", "1", "2"]
    assert written(jd.plot.graph(network, labels=False)) == []
    assert written(jd.plot.graph(network, labels=["x", "y", "z"])) == ["x", "y", "z"]
    assert len(written(jd.plot.graph(METROPOLIS(GRAPHS["geometric"]), labels=True))) == 64


def test_layouts_are_the_same_every_time_and_put_the_path_on_a_line():
    first, second = (places(jd.plot.graph(METROPOLIS(jd.graphs.path(10)))) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.all(np.diff(first[:, 0]) > 0)
    assert np.ptp(first[:, 1]) < 0.02 * np.ptp(first[:, 0])


def test_the_two_parts_of_directed_networks_are_drawn():
    digraph = nx.DiGraph([(0, 1), (1, 2), (2, 0), (0, 2)])
    pair = jd.networks.push_pull(digraph)
    tree = jd.networks.spanning_tree(jd.graphs.tree(7), root=0)
    down = {(0, 1), (0, 2), (1, 3), (1, 4), (2, 5), (2, 6)}
    up = {(child, parent) for parent, child in down}
    links = set(digraph.edges)
    for part, expected in ((pair.row, links), (pair.column, links), (tree.row, down)):
        ax = jd.plot.graph(part)
        assert set(ends(ax)) == expected
        assert all(link.head is not None for link in drawn(ax))
    image: Any = jd.plot.matrix(tree.column).images[0]
    away = image.get_array().filled(0) * (1 - np.eye(7))
    assert {(j, i) for i, j in np.argwhere(away)} == up
    assert legend(jd.plot.spectrum(tree.row)) == ["gap 1"]


def test_a_disconnected_graph_and_a_directed_one_of_names_are_drawn():
    apart = nx.disjoint_union(nx.path_graph(3), nx.path_graph(4))
    ax = jd.plot.graph(apart)
    assert len(drawn_links(ax)) == 5
    assert len(np.unique(places(ax), axis=0)) == 7
    named = nx.DiGraph([("server", "client"), ("server", "other")])
    assert [link.head is not None for link in drawn(jd.plot.graph(named))] == [True, True]


def test_eigenvalues_in_decreasing_order_with_the_gap_in_the_legend():
    members = {"ring": METROPOLIS(jd.graphs.ring(16)), "star": METROPOLIS(jd.graphs.star(8))}
    ax = jd.plot.spectrum(members)
    assert isinstance(ax, Axes)
    assert legend(ax) == [f"{k}, gap {w.spectral_gap:.3g}" for k, w in members.items()]
    assert legend(ax)[0] == "ring, gap 0.0507"
    bounds, points = ax.lines[:2], ax.lines[2:]
    assert [np.unique(line.get_ydata()).item() for line in bounds] == [-1, 1]
    assert points[0].get_marker() != points[1].get_marker()
    assert [line.get_color() for line in points] == list(jd.plot.PALETTE[:2])
    for line, network in zip(points, members.values(), strict=True):
        exact = np.linalg.eigvalsh(np.asarray(network.matrix()))[::-1]
        np.testing.assert_allclose(np.asarray(line.get_ydata()), exact, atol=1e-12)
        np.testing.assert_allclose(np.asarray(line.get_xdata()), np.linspace(0, 1, network.n))
        assert line.get_linestyle() == "None"
    assert ax.get_xlabel() == "scaled index  $(k - 1) / (n - 1)$"
    assert ax.get_ylabel() == "eigenvalue  $\\lambda_k$"


def test_one_network_has_its_gap_alone_in_the_legend():
    assert legend(jd.plot.spectrum(METROPOLIS(jd.graphs.ring(16)))) == ["gap 0.0507"]
    alone = jd.plot.spectrum(METROPOLIS(jd.graphs.complete(1)))
    assert legend(alone) == ["gap 1"]


def test_directed_networks_have_their_spectrum_in_the_complex_plane():
    members = {
        "ring": METROPOLIS(jd.graphs.ring(6)),
        "directed": METROPOLIS(jd.graphs.directed_ring(6)),
    }
    ax = jd.plot.spectrum(members)
    assert ax.get_aspect() == 1
    assert legend(ax) == ["ring, gap 0.333", "directed, gap 0.134"]
    unit, *inner = ax.patches
    assert unit.get_radius() == 1
    radii = [1 - network.spectral_gap for network in members.values()]
    np.testing.assert_allclose([circle.get_radius() for circle in inner], radii)
    assert [circle.get_edgecolor() for circle in inner] == [
        to_rgba(line.get_color()) for line in ax.lines
    ]
    drawn = ax.lines[1].get_xdata() + 1j * ax.lines[1].get_ydata()
    exact = (1 + np.exp(2j * np.pi * np.arange(6) / 6)) / 2
    assert np.abs(drawn[:, None] - exact).min(axis=0).max() < 1e-12
    assert len(drawn) == 6


def test_the_matrix_is_drawn_as_it_is_with_blank_zeros():
    network = METROPOLIS(jd.graphs.directed_ring(6))
    ax = jd.plot.matrix(network)
    assert isinstance(ax, Axes)
    image: Any = ax.images[0]
    shown = image.get_array()
    weights = np.asarray(network.matrix())
    np.testing.assert_array_equal(np.ma.getmaskarray(shown), weights == 0)
    np.testing.assert_array_equal(shown.filled(0), weights)
    assert image.get_clim() == (0, 0.5)
    assert ax.get_ylim() == (5.5, -0.5)  # row 0 on top
    assert ax.get_xlabel() == "sender $j$"
    assert ax.get_ylabel() == "receiver $i$"
    assert ax.child_axes[0].get_ylabel() == "weight  $w_{ij}$"
    found = {text.get_position()[::-1]: text.get_text() for text in ax.texts}
    assert found == {(i, j): "0.5" for i, j in np.argwhere(weights)}


def test_rounding_errors_of_own_weights_are_blank(float32):
    others = jd.networks.Circulant(jnp.full(10, 0.1), tuple(range(1, 11)), 11)
    assert np.all(np.diag(others.matrix()) != 0)
    image: Any = jd.plot.matrix(others).images[0]
    np.testing.assert_array_equal(np.ma.getmaskarray(image.get_array()), np.eye(11, dtype=bool))
    assert image.get_clim()[0] == 0
    assert legend(jd.plot.graph(others))[-1] == "$w_{ii} = 0$"


def test_negative_weights_have_colors_around_zero():
    ax = jd.plot.matrix(NEGATIVE)
    (image,) = ax.images
    assert image.get_clim() == (-0.7, 0.7)
    assert "\N{MINUS SIGN}0.1" in written(ax)


def test_numbers_in_the_cells_up_to_ten_agents():
    assert len(written(jd.plot.matrix(METROPOLIS(jd.graphs.ring(10))))) == 30
    assert written(jd.plot.matrix(METROPOLIS(jd.graphs.ring(11)))) == []


def test_own_axes_and_own_style():
    ring = METROPOLIS(jd.graphs.ring(6))
    style: Any = {
        "axes.prop_cycle": cycler(color=["red", "lime"]),
        "lines.linewidth": 0.5,
        "lines.markersize": 11.0,
        "text.color": "blue",
        "axes.grid": True,
    }
    before = plt.get_fignums()
    for draw in (jd.plot.graph, jd.plot.spectrum, jd.plot.matrix):
        with mpl.rc_context(style):
            own = Figure().subplots()
            assert draw(ring, ax=own) is own
        assert plt.get_fignums() == before
        if draw is jd.plot.graph:
            links = only(own, LineCollection)
            assert links.get_linewidths().max() <= 0.75
            np.testing.assert_array_equal(links.get_colors()[0, :3], (0, 0, 1))
            assert same_color(nodes(own).get_facecolor()[0], "red")
        elif draw is jd.plot.spectrum:
            assert own.lines[-1].get_color() == "red"
            assert own.lines[-1].get_markersize() == 11
        else:
            assert not any(line.get_visible() for line in own.get_xgridlines())
    default = nodes(jd.plot.graph(ring)).get_facecolor()[0]
    assert same_color(default, jd.plot.PALETTE[0])


RING = METROPOLIS(jd.graphs.ring(4))
CHANGING = jd.networks.one_peer_exponential(8)
NUMBER: Any = 3.5  # pyright would refuse it
REFUSED = {
    "an array": (lambda: jd.plot.graph(np.eye(4)), "type ndarray; give .*or a networkx graph"),
    "an array's spectrum": (lambda: jd.plot.spectrum(np.eye(4)), "type ndarray; give .*dict"),
    "a list": (lambda: jd.plot.spectrum([RING]), "type list; give .*dict of networks by name"),
    "no networks": (lambda: jd.plot.spectrum({}), "empty dict; give at least one"),
    "a graph's matrix": (lambda: jd.plot.matrix(jd.graphs.ring(4)), "type Graph; give a network"),
    "an empty graph": (lambda: jd.plot.graph(nx.Graph()), "no nodes; give"),
    "many agents": (
        lambda: jd.plot.graph(jd.networks.Complete(1001)),
        "1001 agents .*1000; draw a smaller one",
    ),
    "many nodes": (lambda: jd.plot.graph(nx.path_graph(1001)), "1001 agents .*1000; draw"),
    "a stack": (lambda: jd.plot.graph(STACK), "stack of networks .*; take one"),
    "a stack of tables": (lambda: jd.plot.graph(TABLES), "stack of networks .*; take one"),
    "a stack's matrix": (lambda: jd.plot.matrix(STACK), "stack of networks .*; take one"),
    "a stack's spectrum": (lambda: jd.plot.spectrum(STACK), "stack of networks .*; take one"),
    "a stack's rings": (
        lambda: jd.plot.spectrum({"rings": RINGS}),
        "stack of networks .*; take one",
    ),
    "two matrices": (
        lambda: jd.plot.graph(jd.networks.push_pull(jd.graphs.ring(4))),
        "Directed network has two matrices; draw network.row",
    ),
    "two spectra": (
        lambda: jd.plot.spectrum(jd.networks.spanning_tree(jd.graphs.ring(4))),
        "Tree network has two matrices; draw network.row",
    ),
    "changes with time": (lambda: jd.plot.graph(CHANGING), "changes with time; take one"),
    "a spectrum that changes": (lambda: jd.plot.spectrum(CHANGING), "changes with time; take one"),
    "one position": (
        lambda: jd.plot.graph(RING, positions=np.ones(2)),
        r"shape \(2,\); give .*\(4, 2\)",
    ),
    "missing positions": (
        lambda: jd.plot.graph(RING, positions={0: (0, 0), 2: (1, 1)}),
        "no point for 1, 3; give",
    ),
    "words": (lambda: jd.plot.graph(RING, positions="circle"), "not all pairs of numbers; give"),
    "infinite": (lambda: jd.plot.graph(RING, positions=np.full((4, 2), np.inf)), "not finite; giv"),
    "few labels": (lambda: jd.plot.graph(RING, labels=["a"]), "1 texts for 4 agents; give"),
    "no labels": (lambda: jd.plot.graph(RING, labels=NUMBER), "labels is 3.5; give"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_picture_is_told_in_one_sentence(case):
    does, says = REFUSED[case]
    before = plt.get_fignums()
    with pytest.raises(ValueError, match=says) as caught:
        does()
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert plt.get_fignums() == before


def test_a_member_of_a_stack_is_drawn_as_the_message_says():
    first = jax.tree.map(lambda leaf: leaf[0], STACK)
    assert len(drawn_links(jd.plot.graph(first))) == 6
