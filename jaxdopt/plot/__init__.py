"""Pictures of results and networks: functions that return Axes, following rcParams (`plot`)."""

from jaxdopt.plot.curves import curves, heatmap, slope
from jaxdopt.plot.matrices import matrix, spectrum
from jaxdopt.plot.networks import graph
from jaxdopt.plot.style import NAMES, PALETTE, styles
from jaxdopt.plot.timeline import timeline

__all__ = [
    "NAMES",
    "PALETTE",
    "curves",
    "graph",
    "heatmap",
    "matrix",
    "slope",
    "spectrum",
    "styles",
    "timeline",
]
