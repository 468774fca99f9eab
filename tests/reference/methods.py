"""Decentralized methods as loops over agents and neighbors, in the papers' two-step recursions.

Every method is called as name(gradient, weights, x0, stepsize, steps, **numbers) and returns an
array [steps + 1, n, d] whose row 0 is x0. Here gradient(i, x, k) is the [d] gradient of agent i at
its point x at step k; row i of weights, an [n, n] array W, holds the weights agent i puts on what
it receives; stepsize(k) is one float, or an [n] array with one float an agent. Both are asked for
the steps k = 0 .. steps - 1 only, and the gradient once for each agent and step.

The recursions of extra and exact_diffusion keep mean_i (x_{k+1} - x_k + a_k g_k) at 0 only up to
rounding, which adds up over the steps: long runs can drift from the solution (1e-12 to 1e-11 over
thousands of steps), so compare at tight tolerances over hundreds of steps.
"""

import numpy as np


def agent_stepsizes(stepsize, k, n):
    """Return [a_k,1, ..., a_k,n]: the float stepsize(k) repeated, or its one float an agent."""
    value = np.asarray(stepsize(k), dtype=np.float64)
    if value.ndim == 0:
        return [float(value) for _ in range(n)]
    if value.shape != (n,):
        raise ValueError(f"stepsize({k}) has shape {value.shape}, expected () or ({n},)")
    return [float(value[i]) for i in range(n)]


def all_gradients(gradient, x, k):
    """Return G_k [n, d], whose row i is agent i's gradient at its own point x[i] at step k."""
    g = np.zeros_like(x)
    for i in range(len(x)):
        g[i] = gradient(i, x[i].copy(), k)
    return g


def neighbor_sum(weights, x, i):
    """Return what agent i receives: sum over its neighbors j (itself included) of w[i][j] x[j]."""
    total = np.zeros(x.shape[1])
    for j in range(len(x)):
        if weights[i][j] != 0:
            total = total + weights[i][j] * x[j]
    return total


def average(x):
    """Return the mean of the agents' rows, (1/n) sum_i x[i]."""
    total = np.zeros(x.shape[1])
    for i in range(len(x)):
        total = total + x[i]
    return total / len(x)


def start(x0, steps):
    """Return a float64 array of iterates [steps + 1, n, d] with row 0 set to x0."""
    x0 = np.asarray(x0, dtype=np.float64)
    n, d = x0.shape
    x = np.zeros((steps + 1, n, d))
    x[0] = x0
    return x


def gradient_descent(gradient, weights, x0, stepsize, steps):
    """Run centralized descent: xbar+ = xbar - (1/n) sum_i a_k,i grad_i(xbar), xbar_0 = mean x0."""
    del weights  # centralized: nothing is mixed
    x = start(x0, steps)
    n = x.shape[1]
    xbar = average(x[0])
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        direction = np.zeros_like(xbar)
        for i in range(n):
            direction = direction + a[i] * np.asarray(gradient(i, xbar.copy(), k), np.float64)
        xbar = xbar - direction / n
        for i in range(n):
            x[k + 1, i] = xbar
    return x


def dgd(gradient, weights, x0, stepsize, steps):
    """Run DGD (Nedic & Ozdaglar 2009), combine then adapt: X+ = W X - a_k G(X)."""
    x = start(x0, steps)
    n = x.shape[1]
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        g = all_gradients(gradient, x[k], k)
        for i in range(n):
            x[k + 1, i] = neighbor_sum(weights, x[k], i) - a[i] * g[i]
    return x


def dsgd(gradient, weights, x0, stepsize, steps):
    """Run DSGD, adapt then combine: X+ = W (X - a_k G(X))."""
    x = start(x0, steps)
    n = x.shape[1]
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        g = all_gradients(gradient, x[k], k)
        adapted = np.zeros_like(x[k])
        for i in range(n):
            adapted[i] = x[k, i] - a[i] * g[i]
        for i in range(n):
            x[k + 1, i] = neighbor_sum(weights, adapted, i)
    return x


def mixed_momentum(gradient, mix, x0, stepsize, steps, beta):
    """Run M+ = b M + (1 - b) G, X+ = mix(X - a_k M+, k), mix being what agents make of rows."""
    x = start(x0, steps)
    n = x.shape[1]
    m = np.zeros_like(x[0])
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        g = all_gradients(gradient, x[k], k)
        sent = np.zeros_like(x[k])
        for i in range(n):
            m[i] = beta * m[i] + (1 - beta) * g[i]
            sent[i] = x[k, i] - a[i] * m[i]
        x[k + 1] = mix(sent, k)
    return x


def monna(gradient, weights, x0, stepsize, steps, beta=0.99):
    """Run MoNNA (Farhadkhani et al. 2023) with weights: M+ = b M + (1 - b) G, X+ = W (X - a M+).

    With a robust rule in W's place it is robust.monna.
    """

    def mix(z, k):
        return np.stack([neighbor_sum(weights, z, i) for i in range(len(z))])

    return mixed_momentum(gradient, mix, x0, stepsize, steps, beta)


def gradient_tracking(gradient, weights, x0, stepsize, steps):
    """Run gradient tracking (Pu & Nedic 2018): X+ = W (X - a_k Y), Y+ = W Y + G+ - G, Y_0 = G_0.

    Y_k is formed at the top of step k, so that G at the last iterate is never asked for.
    """
    x = start(x0, steps)
    n = x.shape[1]
    y = np.zeros_like(x[0])
    g_previous = np.zeros_like(x[0])
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        g = all_gradients(gradient, x[k], k)
        if k == 0:
            y = g.copy()
        else:
            y_previous = y
            y = np.zeros_like(y_previous)
            for i in range(n):
                y[i] = neighbor_sum(weights, y_previous, i) + g[i] - g_previous[i]
        adapted = np.zeros_like(x[k])
        for i in range(n):
            adapted[i] = x[k, i] - a[i] * y[i]
        for i in range(n):
            x[k + 1, i] = neighbor_sum(weights, adapted, i)
        g_previous = g
    return x


def extra(gradient, weights, x0, stepsize, steps):
    """Run EXTRA (Shi, Ling, Wu, Yin 2015), Wt = (I + W)/2, from X_1 = W X_0 - a_0 G_0.

    X_{k+1} = (I + W) X_k - Wt X_{k-1} - (a_k G_k - a_{k-1} G_{k-1}).
    """
    x = start(x0, steps)
    n = x.shape[1]
    a_previous, g_previous = np.zeros(n), np.zeros_like(x[0])
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        g = all_gradients(gradient, x[k], k)
        for i in range(n):
            if k == 0:
                x[1, i] = neighbor_sum(weights, x[0], i) - a[i] * g[i]
            else:
                current = x[k, i] + neighbor_sum(weights, x[k], i)
                previous = (x[k - 1, i] + neighbor_sum(weights, x[k - 1], i)) / 2
                correction = a[i] * g[i] - a_previous[i] * g_previous[i]
                x[k + 1, i] = current - previous - correction
        a_previous, g_previous = a, g
    return x


def exact_diffusion(gradient, weights, x0, stepsize, steps, theta=0.5):
    """Run exact diffusion (Yuan et al. 2018) on V = (1 - theta) I + theta W; theta = 1 is D2.

    X_1 = V (X_0 - a_0 G_0); X_{k+1} = V (2 X_k - X_{k-1} - a_k G_k + a_{k-1} G_{k-1}).
    """
    x = start(x0, steps)
    n = x.shape[1]
    a_previous, g_previous = np.zeros(n), np.zeros_like(x[0])
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        g = all_gradients(gradient, x[k], k)
        adapted = np.zeros_like(x[k])
        for i in range(n):
            if k == 0:
                adapted[i] = x[0, i] - a[i] * g[i]
            else:
                corrected = 2 * x[k, i] - x[k - 1, i]
                adapted[i] = corrected - a[i] * g[i] + a_previous[i] * g_previous[i]
        for i in range(n):
            x[k + 1, i] = (1 - theta) * adapted[i] + theta * neighbor_sum(weights, adapted, i)
        a_previous, g_previous = a, g
    return x
