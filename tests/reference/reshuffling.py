"""Decentralized random reshuffling methods as loops over agents, samples and neighbors.

The conventions are those of baselines.py: a method is called as name(component, weights, x0,
stepsize, steps, *, permutation, epoch_length, batch, **numbers) and returns an array
[steps + 1, n, d] whose row 0 is x0; component(i, j, x) is the [d] gradient at x of agent i's j-th
sample loss, its regularizer included.

permutation(e) is an int array [n, >= epoch_length * batch] for epoch e, the steps e * epoch_length
.. (e + 1) * epoch_length - 1, and is asked for once an epoch. At step k, l = k mod epoch_length,
row i of G_k is the mean of agent i's sample gradients at its own point x_k,i over the columns
l * batch .. (l + 1) * batch - 1 of row i. Steps k = 0 .. steps - 1 only; a component is asked for
once for each agent, step and sample of the batch.
"""

import numpy as np

from .methods import agent_stepsizes, neighbor_sum, start


def d_rr(component, weights, x0, stepsize, steps, *, permutation, epoch_length, batch=1):
    """Run D-RR, DSGD on reshuffled batches: X_{k+1} = W (X_k - a_k G_k)."""
    x = start(x0, steps)
    n = x.shape[1]
    order = np.zeros((n, 0), dtype=int)
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        if k % epoch_length == 0:
            order = _epoch_order(permutation, k // epoch_length, n, epoch_length * batch)
        g = _batch_gradients(component, x[k], order, k % epoch_length, batch)
        adapted = np.zeros_like(x[k])
        for i in range(n):
            adapted[i] = x[k, i] - a[i] * g[i]
        for i in range(n):
            x[k + 1, i] = neighbor_sum(weights, adapted, i)
    return x


def gt_rr(
    component, weights, x0, stepsize, steps, *, permutation, epoch_length, batch=1, carry=True
):
    """Run GT-RR: Y_k = W (Y_{k-1} + G_k - G_{k-1}), X_{k+1} = W (X_k - a_k Y_k).

    Y_{-1} = G_{-1} = 0; without carry Y_{k-1} = G_{k-1} = 0 again at each epoch's first step.
    """
    x = start(x0, steps)
    n = x.shape[1]
    order = np.zeros((n, 0), dtype=int)
    y, g_previous = np.zeros_like(x[0]), np.zeros_like(x[0])
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        if k % epoch_length == 0:
            order = _epoch_order(permutation, k // epoch_length, n, epoch_length * batch)
            if not carry:
                y, g_previous = np.zeros_like(x[0]), np.zeros_like(x[0])
        g = _batch_gradients(component, x[k], order, k % epoch_length, batch)
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
    permutation,
    epoch_length,
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
    order = np.zeros((n, 0), dtype=int)
    a_previous, g_previous = np.zeros(n), np.zeros_like(x[0])
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        if k % epoch_length == 0:
            order = _epoch_order(permutation, k // epoch_length, n, epoch_length * batch)
        memoryless = k == 0 or (not carry and k % epoch_length == 0)
        g = _batch_gradients(component, x[k], order, k % epoch_length, batch)
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


def _epoch_order(permutation, epoch, n, length):
    """Return the orders of one epoch, an int array [n, >= length]."""
    order = np.asarray(permutation(epoch))
    if order.ndim != 2 or len(order) != n or order.shape[1] < length:
        raise ValueError(f"permutation({epoch}) has shape {order.shape}, not ({n}, >= {length})")
    return order


def _batch_gradients(component, x, order, within, batch):
    """Return G [n, d]: row i is agent i's mean gradient at x[i] over its within-th batch."""
    g = np.zeros_like(x)
    for i in range(len(x)):
        for column in range(within * batch, (within + 1) * batch):
            sample = int(order[i, column])
            g[i] = g[i] + np.asarray(component(i, sample, x[i].copy()), np.float64)
        g[i] = g[i] / batch
    return g
