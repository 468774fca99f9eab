"""Patterns of participation: networks whose rounds are a server's, with some of its clients.

``pattern.at(k, key)`` is a `Server` with ``active`` [n], None where all clients take part, and with
``clients`` [s] where at most s of the n clients take part and s ≤ n/2, so that only their work is
done; ``pattern.bound`` is then that s.
Patterns are pure functions of the round and the key. Each folds a constant of its own into the key
before the round, so that who takes part is independent of which samples are drawn. A pattern with a
memory is a table of its rounds (`Trace`). It does not repeat: `run` refuses to go on where it ends
(``horizon``).

A pattern is also what `Asleep(network, pattern)` and `Disconnected(network, pattern)` take.
"""

from jaxdopt.networks.participation.measures import Delays, active, delay_metrics
from jaxdopt.networks.participation.patterns import (
    Bernoulli,
    Groups,
    Pattern,
    Rare,
    Uniform,
    bernoulli,
    cyclic,
    full,
    rare,
    reshuffled_cyclic,
    uniform,
)
from jaxdopt.networks.participation.traces import Trace, markov, trace

__all__ = [
    "Bernoulli",
    "Delays",
    "Groups",
    "Pattern",
    "Rare",
    "Trace",
    "Uniform",
    "active",
    "bernoulli",
    "cyclic",
    "delay_metrics",
    "full",
    "markov",
    "rare",
    "reshuffled_cyclic",
    "trace",
    "uniform",
]
