"""Attacks: what liars tell, who know all honest messages and the rule.

``attack(honest, liars=f, key=None, heard=None)`` returns the vector [d] that all f liars tell one
receiver. ``honest`` [m, d] are the honest messages that reach it; those that are not ``heard`` [m]
do not exist. On a graph honest[0] is the receiver's own. μ is the mean of the honest messages, σ
their standard deviation a coordinate, with m − 1.

Strengths (``scale``, ``factor``, ``sigma``) and the number of liars are traced: they can be swept
and differentiated. Attacks have no memory. `strongest` finds the strength that hurts a rule most;
an attack of your own says in ``strength`` which of its fields that is. Labels are
flipped in the problem.

A network asks an attack that has ``at(k, receiver, messages)`` for what it is on one receiver in
step k; ``messages`` [n, d] are the true messages of all agents. An attack that ``broadcasts`` tells
the same to receivers who hear the same honest messages, whichever of these is their own: it depends
on nothing else, not on the key either. One that does not say so counts as one that does not.

    >>> import jax.numpy as jnp, jaxdopt as jd
    >>> honest = jnp.array([[1.0, 2.0], [3.0, 4.0], [2.0, 3.0]])
    >>> print(jd.attacks.SignFlip(2.0)(honest, liars=1))
    [-4. -6.]
"""

from jaxdopt.attacks.given import Constant, Gaussian, Scripted
from jaxdopt.attacks.honest import ALIE, Dissensus, InnerProduct, Mimic, SignFlip
from jaxdopt.attacks.messages import Attack
from jaxdopt.attacks.search import Strongest, strongest

__all__ = [
    "ALIE",
    "Attack",
    "Constant",
    "Dissensus",
    "Gaussian",
    "InnerProduct",
    "Mimic",
    "Scripted",
    "SignFlip",
    "Strongest",
    "strongest",
]
