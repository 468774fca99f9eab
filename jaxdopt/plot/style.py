"""What all pictures share: colors, dashes, markers, names of axes, and importing matplotlib."""

from collections.abc import Sequence
from typing import Any

# Okabe, Ito (2008): distinct for all common types of color vision; without yellow, with black.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

NAMES = {
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
    "vectors": "vectors sent per link",
    "bits": "bits sent per link",
    "traffic": "bits sent over all links",
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
