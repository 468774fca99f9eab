"""Random reshuffling methods as loops over agents, samples and neighbors.

The conventions are those of baselines.py: a method is called as name(component, weights, x0,
stepsize, steps, *, orders, random, batch, **numbers) and returns an array [steps + 1, n, d] whose
row 0 is x0; component(i, j, x) is the [d] gradient at x of agent i's j-th sample loss, its
regularizer included.

orders[i] is a list of agent i's own samples, as many as it has. random(k) is an int array
[n, batch] of random numbers from 0 to 2^32 - 1, or random is None and the orders stay as they are;
`passes` says which samples follow from these. Row i of G_k is the mean of agent i's sample
gradients at its own point x_k,i over the samples that it takes at step k. Steps k = 0 .. steps - 1
only; a component is asked for once for each agent, step and sample of the batch.
"""

import numpy as np

from .baselines import sgd
from .methods import agent_stepsizes, neighbor_sum, start


def passes(orders, random, batch, steps):
    """Return the samples that agents take, nested lists [steps][n][batch].

    An agent takes its samples one after the other, and from the start again when it has seen all.
    With random numbers it first lets one of the samples that this pass has not seen yet change
    places with the next: of those left, r left // 2^32 places further, r the random number.
    """
    orders = [[int(sample) for sample in order] for order in orders]
    seen = [0 for _ in orders]
    taken = []
    for k in range(steps):
        numbers = None if random is None else np.asarray(random(k))
        taken.append([])
        for i, order in enumerate(orders):
            own = []
            for b in range(batch):
                here = seen[i]
                if numbers is not None:
                    there = here + int(numbers[i, b]) * (len(order) - here) // 2**32
                    order[here], order[there] = order[there], order[here]
                own.append(order[here])
                seen[i] = here + 1 if here + 1 < len(order) else 0
            taken[k].append(own)
    return taken


def centralized_rr(component, weights, x0, stepsize, steps, *, orders, random, batch=1):
    """Run centralized random reshuffling, sgd on the samples that come next."""
    taken = passes(orders, random, batch, steps)
    return sgd(component, weights, x0, stepsize, steps, drawn=taken.__getitem__)


def d_rr(component, weights, x0, stepsize, steps, *, orders, random, batch=1):
    """Run D-RR, DSGD on reshuffled batches: X_{k+1} = W (X_k - a_k G_k)."""
    x = start(x0, steps)
    n = x.shape[1]
    taken = passes(orders, random, batch, steps)
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        g = _batch_gradients(component, x[k], taken[k])
        adapted = np.zeros_like(x[k])
        for i in range(n):
            adapted[i] = x[k, i] - a[i] * g[i]
        for i in range(n):
            x[k + 1, i] = neighbor_sum(weights, adapted, i)
    return x


def gt_rr(component, weights, x0, stepsize, steps, *, orders, random, batch=1, carry=True):
    """Run GT-RR: Y_k = W (Y_{k-1} + G_k - G_{k-1}), X_{k+1} = W (X_k - a_k Y_k).

    Y_{-1} = G_{-1} = 0; without carry Y_{k-1} = G_{k-1} = 0 again at each epoch's first step, where
    all agents begin a pass: they have equally many samples, a multiple of the batch.
    """
    x = start(x0, steps)
    n = x.shape[1]
    taken = passes(orders, random, batch, steps)
    y, g_previous = np.zeros_like(x[0]), np.zeros_like(x[0])
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        if not carry and k % (len(orders[0]) // batch) == 0:
            y, g_previous = np.zeros_like(x[0]), np.zeros_like(x[0])
        g = _batch_gradients(component, x[k], taken[k])
        corrected = np.zeros_like(y)
        for i in range(n):
            corrected[i] = y[i] + g[i] - g_previous[i]
        y = np.zeros_like(corrected)
        for i in range(n):
            y[i] = neighbor_sum(weights, corrected, i)
        adapted = np.zeros_like(x[k])
        for i in range(n):
            adapted[i] = x[k, i] - a[i] * y[i]
        for i in range(n):
            x[k + 1, i] = neighbor_sum(weights, adapted, i)
        g_previous = g
    return x


def ed_rr(
    component,
    weights,
    x0,
    stepsize,
    steps,
    *,
    orders,
    random,
    batch=1,
    carry=True,
    theta=0.5,
):
    """Run ED-RR, V = (1 - theta) I + theta W: X_{k+1} = V (2 X_k - X_{k-1} - a_k G_k + a_- G_-).

    a_- G_- = a_{k-1} G_{k-1}. X_1 = V (X_0 - a_0 G_0), and without carry each epoch's first step
    is again X_{k+1} = V (X_k - a_k G_k).
    """
    x = start(x0, steps)
    n = x.shape[1]
    taken = passes(orders, random, batch, steps)
    a_previous, g_previous = np.zeros(n), np.zeros_like(x[0])
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        memoryless = k == 0 or (not carry and k % (len(orders[0]) // batch) == 0)
        g = _batch_gradients(component, x[k], taken[k])
        adapted = np.zeros_like(x[k])
        for i in range(n):
            if memoryless:
                adapted[i] = x[k, i] - a[i] * g[i]
            else:
                corrected = 2 * x[k, i] - x[k - 1, i]
                adapted[i] = corrected - a[i] * g[i] + a_previous[i] * g_previous[i]
        for i in range(n):
            x[k + 1, i] = (1 - theta) * adapted[i] + theta * neighbor_sum(weights, adapted, i)
        a_previous, g_previous = a, g
    return x


def _batch_gradients(component, x, samples):
    """Return G [n, d]: row i is agent i's mean gradient at x[i] over its samples[i]."""
    g = np.zeros_like(x)
    for i in range(len(x)):
        for sample in samples[i]:
            g[i] = g[i] + np.asarray(component(i, sample, x[i].copy()), np.float64)
        g[i] = g[i] / len(samples[i])
    return g
