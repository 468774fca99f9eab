"""`Result`: what a run leaves behind."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from jaxdopt import _processes, _repr
from jaxdopt import costs as _costs
from jaxdopt._leaves import is_traced
from jaxdopt._mesh import first_axis
from jaxdopt._pytree import pytree, replace, static


@pytree
class Result:
    """What a run leaves behind; under vmap every leaf has the sweep's axes in front.

    Attributes:
        state: the last state; ``state.x`` is [n, d]. Of a run over several processes, it is in
            parts, while all else is in each of them.
        metrics: recorded values by name, [records + 1, ...].
        costs: what was spent between records, by axis; ``history`` has the totals.
        diverged: whether the last x has values that are not finite, or the state is not ``valid``.
        key: the run's, with which ``after`` goes on.
        axes: names of the innermost swept axes.
        own_axes: the axes of costs that the run's parts have declared.
        stopped: why the run ended before its last step: "until" where its targets are reached,
            "diverged" where it was to stop then, "interrupt" after Ctrl-C; None if it did not.
    """

    state: Any
    metrics: Any
    costs: Any
    diverged: Any
    key: Any
    axes: tuple[str | None, ...] = static(default=())
    own_axes: tuple[tuple[str, _costs.Axis, int], ...] = static(default=())
    stopped: str | None = static(default=None)

    def _facts(self) -> dict[str, str]:
        batch = np.ndim(self.diverged)
        rows = next(iter(self.costs.values())).shape[batch]
        facts = {"steps": _repr.span(self.next_step), "records": str(rows)}
        if batch:
            unnamed = (None,) * (batch - len(self.axes))
            named = zip((*unnamed, *self.axes), np.shape(self.diverged), strict=True)
            facts["swept"] = " x ".join(f"{name or 'members'}[{size}]" for name, size in named)
        facts["diverged"] = _repr.share(self.diverged)
        if self.stopped is not None:
            facts["stopped"] = self.stopped
        for name, rows in self.metrics.items():
            scalar = np.ndim(rows) == batch + 1 and not is_traced(rows)
            facts[name] = _repr.span(np.asarray(rows)[..., -1]) if scalar else _repr.brief(rows)
        return facts | {"memory": _repr.memory(self)}

    @property
    def next_step(self) -> Any:
        """The number of the step that comes next, of all members if they agree."""
        steps = self.costs["step"]
        return jnp.sum(steps, axis=-1) if is_traced(steps) else np.sum(np.asarray(steps), axis=-1)

    @property
    def history(self) -> dict[str, Any]:
        """All records by name, row 0 being x0: the metrics, and the axes to draw them against.

        Axes: ``step``; ``epochs`` (passes over an agent's data), ``gradients`` (component
        gradients an agent), ``rounds`` of communication, ``vectors`` and ``bits`` (over one link
        of an agent), ``traffic`` (bits over all links together), ``seconds`` (simulated: a gradient
        takes one and messages none, unless the network is a `jd.networks.timed` or a
        `jd.networks.timeline`). NumPy arrays, the axes summed in float64; inside a transformation,
        traced ones.
        """
        own = {name: (axis, -1 - ndim) for name, axis, ndim in self.own_axes}
        plain = _costs.Axis(lambda _: None), -1

        def on_host(metric: Any) -> Any:
            return metric if is_traced(metric) else np.asarray(metric)

        totals = {}
        for name, cost in self.costs.items():
            axis, records = own.get(name, plain)
            totals[name] = axis.total(cost, records)
        totals["step"] = totals["step"].astype(int)
        return {**totals, **jax.tree.map(on_host, self.metrics)}


def readable(result: Result) -> Result:
    """Return a result whose records each process has for itself, while its state stays in parts."""
    if not _processes.spans(result):
        return result
    records = {name: getattr(result, name) for name in ("metrics", "costs", "diverged", "key")}
    return replace(result, **_processes.local(records))


def specs(result: Any, along: tuple[Any, ...], x: Any) -> Any:
    """Return how results are to be spread over a mesh: their states as x is, all else on each.

    Args:
        result: a tree of arrays, such as `Result`s, each with as many axes in front as are swept.
        along: the mesh's axes of these.
        x: an array [n, ...], or a tree of some, or None.
    """
    agents = first_axis(x)
    agents = None if agents in along else agents
    n = [len(leaf) for leaf in jax.tree.leaves(x)[:1]]

    def of_state(leaf: Any) -> PartitionSpec:
        return PartitionSpec(*along, *([agents] * (list(leaf.shape[len(along) :][:1]) == n)))

    def node(value: Any) -> Any:
        everywhere = jax.tree.map(lambda _: PartitionSpec(*along), value)
        if not isinstance(value, Result):
            return everywhere
        return replace(everywhere, state=jax.tree.map(of_state, value.state))

    return jax.tree.map(node, result, is_leaf=lambda value: isinstance(value, Result))


def joined(before: Result, after: Result) -> Result:
    """Return one result of two runs; the second one's row 0 is the first one's last."""

    def join(a: Any, b: Any) -> Any:  # on the host, as every length would be another program
        if is_traced((a, b)):
            return jnp.concatenate([a, b[1:]])
        return np.concatenate([np.asarray(a), np.asarray(b)[1:]])

    metrics, costs = (
        jax.tree.map(join, getattr(before, name), getattr(after, name))
        for name in ("metrics", "costs")
    )
    return replace(after, metrics=metrics, costs=costs)
