"""What all pictures share: colors, dashes, markers, names of axes, and importing matplotlib."""

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

# Okabe, Ito (2008): distinct for all common types of color vision; without yellow, with black.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
BLUE, VERMILION, GREEN, PINK, SKY, ORANGE, BLACK = PALETTE
WINE, BROWN = "#882255", "#7B4A12"  # told apart from those, too

DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

# Methods that papers compare have different colors and markers; no two have both in common.
METHODS = {
    # baselines that know all data
    "GradientDescent": (BLACK, "P"),
    "SGD": (BLACK, "X"),
    "CentralizedRR": (BROWN, "h"),
    # gossip
    "DGD": (VERMILION, "o"),
    "DSGD": (ORANGE, "o"),
    "LocalDSGD": (BROWN, "^"),
    "OLDSGD": (BLUE, "s"),
    # among liars
    "MoNNA": (ORANGE, "D"),
    "SybilWall": (WINE, "s"),
    # primal-dual
    "ExactDiffusion": (GREEN, "s"),
    "EXTRA": (PINK, "D"),
    "PGEXTRA": (PINK, "s"),
    "NIDS": (BROWN, "D"),
    "LinearizedADMM": (WINE, "h"),
    # gradient tracking
    "GradientTracking": (BLUE, "^"),
    "DIGing": (BLUE, "v"),
    "ATCGT": (BLUE, "P"),
    "GTSAGA": (SKY, "<"),
    "GTSVRG": (BROWN, ">"),
    "GTVR": (VERMILION, "h"),
    # random reshuffling
    "DRR": (VERMILION, "D"),
    "EDRR": (WINE, "P"),
    "GTRR": (SKY, "v"),
    # compressed
    "CHOCOSGD": (BROWN, "v"),
    "DeepSqueeze": (PINK, "<"),
    "LEAD": (WINE, "D"),
    "CEDAS": (VERMILION, "P"),
    "BEER": (SKY, ">"),
    "CGT": (PINK, "p"),
    "CPP": (PINK, "^"),
    "BCPP": (BROWN, "o"),
    # directed
    "PushSum": (WINE, "8"),
    "SGP": (PINK, "o"),
    "OSGP": (PINK, "v"),
    "PushDIGing": (BLUE, "D"),
    "APD": (VERMILION, "<"),
    "APDSC": (VERMILION, "p"),
    "PushPull": (WINE, "v"),
    "AB": (BROWN, "<"),
    # trees
    "STPP": (VERMILION, ">"),
    "BTPP": (VERMILION, "8"),
    "RelaySGD": (PINK, "P"),
    # federated
    "FedAvg": (ORANGE, "s"),
    "FedAvgMomentum": (WINE, "^"),
    "FedAdam": (BLUE, "X"),
    "FedAdagrad": (GREEN, "o"),
    "FedYogi": (PINK, "h"),
    "FedProx": (BROWN, "X"),
    "SCAFFOLD": (GREEN, "D"),
    "SCAFFOLDMomentum": (GREEN, "v"),
    "MIFA": (PINK, "X"),
    "FedVARP": (BROWN, "p"),
    "FedSUM": (BLUE, "o"),
    "FedSUMB": (SKY, "^"),
    "FedSUMCR": (VERMILION, "v"),
    "FOCUS": (WINE, ">"),
    "SketchedSGD": (SKY, "X"),
    # federated, composite
    "FedNMap": (BLUE, "<"),
    "ZhangHuJohansson": (WINE, "p"),
    "FedDualAvg": (GREEN, "^"),
    "FedMid": (VERMILION, "X"),
    # black boxes
    "FedZO": (GREEN, "8"),
    "JustOneByte": (VERMILION, "*"),
    "FZooS": (BLUE, "d"),
    "CBO": (BLUE, "*"),
    "ConsensusHopping": (ORANGE, "*"),
    # low communication
    "DiLoCo": (BLUE, "8"),
    "StreamingDiLoCo": (SKY, "D"),
    "NoLoCo": (GREEN, ">"),
    "CO2": (VERMILION, "s"),
    "EDiT": (ORANGE, "^"),
    "AEDiT": (ORANGE, "v"),
    "SparseLoCo": (PINK, ">"),
    "AsyncDiLoCo": (WINE, "X"),
    "DecoupledDiLoCo": (GREEN, "X"),
    # error feedback
    "CompressedSGD": (BLACK, "v"),
    "EF14": (ORANGE, "P"),
    "EF21": (GREEN, "p"),
    "EF21SGDM": (SKY, "s"),
    "EControl": (BLUE, "h"),
    "DGC": (VERMILION, "^"),
    # games
    "ExtraGradient": (BLACK, "s"),
    "MASHA1": (GREEN, "<"),
    "MASHA2": (ORANGE, ">"),
    # asynchronous
    "ADSGD": (BLUE, ">"),
    "ADPSGD": (WINE, "<"),
    "RFAST": (GREEN, "P"),
    "ASBCD": (PINK, "8"),
    "FedFix": (BLUE, "p"),
    "FedBuff": (GREEN, "h"),
    "AsyncFedAvg": (WINE, "o"),
    "AFACD": (SKY, "o"),
    "AFACS": (BROWN, "s"),
}
ALIASES = {
    "ExactDiffusion": ("ED", "EDAS", "D2", "D²"),
    "GradientTracking": ("GT", "DSGT"),
    "CentralizedRR": ("CRR",),
    "SGD": ("parallel SGD", "centralized SGD"),
    "GradientDescent": ("GD", "centralized GD"),
    "CHOCOSGD": ("CHOCO",),
    "ExtraGradient": ("EG",),
    "LinearizedADMM": ("DLM",),
    "FedAvgMomentum": ("FedAvgM",),
    "SCAFFOLDMomentum": ("SCAFFOLD-M",),
}

NAMES = {
    "residual": "squared residual  $|F(\\bar z)|^2$",
    "saddle_gap": "gap  $\\max_y f(\\bar x, y) - \\min_x f(x, \\bar y)$",
    "gap": "gap  $F(\\bar x) - F^\\star$",
    "loss": "loss  $F(\\bar x)$",
    "consensus_error": "consensus error  $\\frac{1}{n}\\sum_i |x_i - \\bar x|^2$",
    "distance_squared": "squared distance  $|\\bar x - x^\\star|^2$",
    "gradient_norm_squared": "squared gradient norm  $|\\nabla F(\\bar x)|^2$",
    "prox_gradient_residual": "squared prox-gradient residual  $|G(\\bar x)|^2$",
    "sparsity": "share of zero coordinates",
    "step": "steps",
    "rounds": "rounds of communication",
    "epochs": "epochs (passes over an agent's data)",
    "gradients": "component gradients per agent",
    "queries": "queries per agent",
    "vectors": "vectors sent per link",
    "bits": "bits sent per link",
    "bits_up": "bits sent to the server, per client",
    "bits_down": "bits sent by the server, per client",
    "peak_bits": "most bits of a step, per link",
    "traffic": "bits sent over all links",
    "tokens": "tokens of all agents",
    "utilization": "share of the time in which agents compute",
    "seconds": "simulated seconds",
    "stepsize": "stepsize  $\\alpha$",
}


def pyplot() -> Any:
    """Return matplotlib's pyplot, or raise an error that says what to install."""
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "plots need matplotlib; install it with pip install 'jaxdopt[plot]'."
        ) from None
    return plt


def cycle(plt: Any) -> Sequence[str]:
    """Return the user's color cycle, or a color-blind safe one in place of matplotlib's default."""
    import matplotlib

    own = plt.rcParams["axes.prop_cycle"].by_key().get("color", [])
    default = matplotlib.rcParamsDefault["axes.prop_cycle"].by_key()["color"]
    return PALETTE if not own or own == default else own


def styles(labels: Iterable[str], *, dashes: bool = True) -> dict[str, dict[str, Any]]:
    """Return how to draw each of a figure's members: {label: {color, marker, linestyle}}.

    A method has the same color and marker in every figure. It is known by the name that papers
    give it ("GT", "D-RR", "FedSUM-CR") or by its class, alone or followed by what it is run with
    ("GT-RR, restart", "FedFix 0.5"); several members of one method differ in their dashes. All
    others have, in order, the colors that are left. So do the members of a figure of one method
    alone, and all members where ``axes.prop_cycle`` of matplotlib's rcParams is the user's own.

    Args:
        labels: the names of all members of the figure.
        dashes: whether they may tell members of one method apart; if they are to show something
            else, the members after the first have colors that are left.

    Example:
        >>> styles(["GT", "mine"])["GT"]
        {'color': '#0072B2', 'marker': '^', 'linestyle': '-'}
    """
    plt = pyplot()
    labels = list(dict.fromkeys(map(str, labels)))
    colors = cycle(plt)
    known = {label: _method(label) for label in labels}
    alike = len(labels) > 1 and len(set(known.values())) == 1
    if alike or colors is not PALETTE:
        known = dict.fromkeys(labels)
    if not dashes:
        first = {method: label for label, method in reversed(known.items())}
        known = {
            label: method if first[method] == label else None for label, method in known.items()
        }
    taken = {METHODS[method][0] for method in known.values() if method is not None}
    if colors is PALETTE:
        colors = [color for color in (*PALETTE, BROWN, WINE) if color not in taken] or PALETTE
    others = itertools.count()
    members: dict[str, int] = {}
    found = {}
    for label, method in known.items():
        turn = 0
        if method is None:
            place = next(others)
            color = colors[place % len(colors)]
            again = place // math.lcm(len(colors), len(MARKERS))
            marker = MARKERS[(place + again) % len(MARKERS)]
        else:
            color, marker = METHODS[method]
            turn = members[method] = members.get(method, -1) + 1
        found[label] = {"color": color, "marker": marker, "linestyle": DASHES[turn % len(DASHES)]}
    return found


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name)).casefold()


KNOWN = {_plain(name): name for name in METHODS}
KNOWN |= {_plain(alias): name for name, aliases in ALIASES.items() for alias in aliases}


def _method(label: str) -> str | None:
    """Return the class of the method that a label begins with, the longest name that is known."""
    ends = [len(label), *(found.start() for found in re.finditer(r"[\s,;:/(=]", label))]
    names = (KNOWN.get(_plain(label[:end])) for end in sorted(ends, reverse=True))
    return next((name for name in names if name is not None), None)
