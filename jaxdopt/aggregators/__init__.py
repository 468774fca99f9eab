"""Robust rules: what one makes of several messages, some of which are lies.

``rule(x, heard=None, own=0, key=None)`` aggregates the messages x [n, d] to one vector [d]. Those
of them that are not ``heard`` [n] do not exist; m are. ``own`` is the row of one's own message,
which rules with a pivot need (`NNA`, `SelfCenteredClipping`, and one of your own that says ``pivot
= True``); others ignore it. ``key`` is for what draws (`Bucketing`). Of f liars only their number
is known; it is traced and can be swept. A rule runs under jit, vmap and grad, and takes its sums in
float32 at least.

``breakdown(n)`` is how many of n messages can be anything while the result stays bounded: f, for a
rule that has it. ``kappa(n, f)`` is the known bound κ, for a rule whose own f is this f, in

    |R(x) − x̄_S|² ≤ κ (1/|S|) Σᵢ |xᵢ − x̄_S|²,  i in S,   for every set S of n − f messages

with the mean x̄_S; None where no bound is known. No rule has less than f / (n − 2f).

A message that is not finite counts as received, and is farther than all others; a rule that rejects
it never adds up its numbers. A message whose square overflows is one. `NNM`, `Bucketing`, `Clip`
and `ARC` prepare messages; `chain` puts them before a rule:

    >>> import jax.numpy as jnp, jaxdopt as jd
    >>> x = jnp.array([[1.0, 0.0], [1.2, 0.1], [0.9, -0.1], [jnp.nan, 9.0]])
    >>> rule = jd.aggregators.chain(jd.aggregators.NNM(1), jd.aggregators.Median())
    >>> print(rule(x).round(3), rule.breakdown(4))
    [1.033 0.   ] 1
"""

from jaxdopt.aggregators.before import ARC, NNM, Bucketing, Chain, Clip, chain
from jaxdopt.aggregators.centers import CenteredClipping, GeometricMedian, SelfCenteredClipping
from jaxdopt.aggregators.coordinates import MeaMed, Mean, Median, TrimmedMean
from jaxdopt.aggregators.distances import CGE, MDA, NNA, Krum, MultiKrum
from jaxdopt.aggregators.messages import Aggregator
from jaxdopt.aggregators.spectra import CAF, Flag, FoolsGold

__all__ = [
    "ARC",
    "CAF",
    "CGE",
    "MDA",
    "NNA",
    "NNM",
    "Aggregator",
    "Bucketing",
    "CenteredClipping",
    "Chain",
    "Clip",
    "Flag",
    "FoolsGold",
    "GeometricMedian",
    "Krum",
    "MeaMed",
    "Mean",
    "Median",
    "MultiKrum",
    "SelfCenteredClipping",
    "TrimmedMean",
    "chain",
]
