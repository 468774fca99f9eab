"""What a step costs: the axes against which papers draw their curves.

A method says what it sends in class variables, and `cost_of` knows the rest from its fields and
from what it needs:

==============  =================================================================================
``vectors``     vectors that an agent sends over one of its links in a step, 1 by default,
                compressed if the method has a ``compressor``; for a client of a server, half of
                those that go down and up
``numbers``     single numbers sent beside them, 0 by default
``exchanges``   rounds of communication, 1 by default
``gradients``   calls for a gradient, 1 by default; times ``local_steps`` if the method has them
``downlink``    the compressor of what comes back from a server, None if it is whole; by default
                the same as ``compressor``
``overlap``     steps under whose gradients the messages travel, 0 (they are waited for) by default
==============  =================================================================================

One call is the problem's ``samples`` component gradients, or its ``batch`` if the method draws its
samples itself. Where only some clients or agents take part in a step, all is the average agent's;
where some lie (`jaxdopt.networks.robust`), the average honest agent's. A method whose costs vary in
other ways has a method ``cost(state, problem, network)`` that returns a `Cost`.

**Axes are open.** An `Axis` is what a step adds to it, whether steps add up or the largest counts,
and how the total is read. A method, a problem, a network or a wrapper of one adds its own as an
attribute ``axes``, {name: `Axis`}; `jd.run` records them beside those of this module.

Example:
    >>> import jax, jaxdopt as jd
    >>> class Asking(jd.DGD):
    ...     axes = {"queries": jd.Axis(lambda step: 2 * step.problem.d)}
    >>> problem = jd.problems.quadratic(4, 3)
    >>> setting = problem, jd.networks.metropolis(jd.graphs.ring(4)), problem.start()
    >>> jd.run(Asking(0.1), *setting, jax.random.key(0), steps=2).history["queries"].tolist()
    [0.0, 6.0, 12.0]
"""

from jaxdopt.costs.axes import AXES, LINK_AXES, QUERY_AXES, Axis, Step, axes_of, increments
from jaxdopt.costs.counts import Cost, cost_of, counted, samples, told_to_all, vector_bits

__all__ = [
    "AXES",
    "LINK_AXES",
    "QUERY_AXES",
    "Axis",
    "Cost",
    "Step",
    "axes_of",
    "cost_of",
    "counted",
    "increments",
    "samples",
    "told_to_all",
    "vector_bits",
]
