"""Baseline methods as loops over agents and neighbors, from their published recursions.

The conventions are those of methods.py: a method is called as name(gradient, weights, x0, stepsize,
steps, **numbers) and returns an array [steps + 1, n, d] whose row 0 is x0; gradient(i, x, k) and
stepsize(k) are asked for the steps k = 0 .. steps - 1 only. Stepsize a_k always goes with its own
gradient G_k, and with one stepsize an agent a_k G_k has the rows a_k,i g_k,i.

The finite-sum methods take component(i, j, x) in place of gradient: the [d] gradient at x of agent
i's j-th sample loss, its regularizer included. drawn(k) is an int array, [n] or [n, b], of the
samples that the agents draw at step k; samples may repeat.

Where a method has prox, prox(z, t) is a function of one agent's [d] row z and its stepsize t, and
None stands for the identity.
"""

import numpy as np

from .methods import agent_stepsizes, all_gradients, average, neighbor_sum, start


def diging(gradient, weights, x0, stepsize, steps):
    """Run DIGing (Nedic, Olshevsky, Shi 2017): X+ = W X - a_k Y, Y+ = W Y + G+ - G, Y_0 = G_0."""
    return _diging(lambda x, k: all_gradients(gradient, x, k), weights, x0, stepsize, steps)


def atc_gradient_tracking(gradient, weights, x0, stepsize, steps):
    """Run gradient tracking with both updates adapt then combine, from Y_0 = W G_0.

    X_{k+1} = W (X_k - a_k Y_k); Y_k = W (Y_{k-1} + G_k - G_{k-1}), where Y_{-1} = G_{-1} = 0.
    """
    return _adapt_then_combine(
        lambda x, k: all_gradients(gradient, x, k), weights, x0, stepsize, steps
    )


def _adapt_then_combine(estimate, weights, x0, stepsize, steps):
    """Run both updates adapt then combine, on G_k = estimate(X_k, k), from Y_{-1} = G_{-1} = 0."""
    x = start(x0, steps)
    n = x.shape[1]
    y, g_previous = np.zeros_like(x[0]), np.zeros_like(x[0])
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        g = estimate(x[k], k)
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


def nids(gradient, weights, x0, stepsize, steps, prox=None):
    """Run NIDS (Li, Shi, Yan 2019, Algorithm 1) in its Z form, with X_k = prox(Z_k) for k >= 1.

    Z_1 = X_0 - a_0 G_0; then with Wt_k = I - c_k D(a_k) (I - W), c_k = 1 / (2 max_i a_k,i),
    Z_{k+1} = Z_k - X_k + Wt_k (2 X_k - X_{k-1} - a_k G_k + a_{k-1} G_{k-1}).
    """
    x = start(x0, steps)
    n = x.shape[1]
    z = np.zeros_like(x[0])
    a_previous, g_previous = np.zeros(n), np.zeros_like(x[0])
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        g = all_gradients(gradient, x[k], k)
        if k == 0:
            for i in range(n):
                z[i] = x[0, i] - a[i] * g[i]
        else:
            c = 1 / (2 * max(a))
            sent = np.zeros_like(x[k])
            for i in range(n):
                corrected = 2 * x[k, i] - x[k - 1, i]
                sent[i] = corrected - a[i] * g[i] + a_previous[i] * g_previous[i]
            for i in range(n):
                disagreement = sent[i] - neighbor_sum(weights, sent, i)
                z[i] = z[i] - x[k, i] + sent[i] - c * a[i] * disagreement
        for i in range(n):
            x[k + 1, i] = _proximal(prox, z[i], a[i])
        a_previous, g_previous = a, g
    return x


def pg_extra(gradient, weights, x0, stepsize, steps, prox=None):
    """Run PG-EXTRA (Shi, Ling, Wu, Yin 2015), Wt = (I + W)/2: X_{k+1} = prox(Z_k).

    Z_0 = W X_0 - a_0 G_0; Z_k = W X_k + Z_{k-1} - Wt X_{k-1} - (a_k G_k - a_{k-1} G_{k-1}).
    """
    x = start(x0, steps)
    n = x.shape[1]
    z = np.zeros_like(x[0])
    a_previous, g_previous = np.zeros(n), np.zeros_like(x[0])
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        g = all_gradients(gradient, x[k], k)
        for i in range(n):
            if k == 0:
                z[i] = neighbor_sum(weights, x[0], i) - a[i] * g[i]
            else:
                current = neighbor_sum(weights, x[k], i) + z[i]
                previous = (x[k - 1, i] + neighbor_sum(weights, x[k - 1], i)) / 2
                correction = a[i] * g[i] - a_previous[i] * g_previous[i]
                z[i] = current - previous - correction
            x[k + 1, i] = _proximal(prox, z[i], a[i])
        a_previous, g_previous = a, g
    return x


def linearized_admm(gradient, weights, x0, stepsize, steps, penalty=1.0):
    """Run linearized decentralized ADMM with one dual lam_ij a directed link, all zero at first.

    x_i+ = x_i - a_k,i / (1 + 2 a_k,i c_k deg_i) (g_i + sum_j (lam_ij + 2 c_k (x_i - x_j))) and
    lam_ij+ = lam_ij + c_k (x_i - x_j), over the neighbors j of i, whose number is deg_i. Here
    c_k = penalty / (2 max_i a_k,i max_i deg_i); of the weights only their zeros are used.
    """
    x = start(x0, steps)
    n, d = x.shape[1:]
    neighbors = []
    for i in range(n):
        neighbors.append([j for j in range(n) if j != i and weights[i][j] != 0])
    most = max(len(neighbors[i]) for i in range(n))
    duals = {}
    for i in range(n):
        for j in neighbors[i]:
            duals[i, j] = np.zeros(d)
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        g = all_gradients(gradient, x[k], k)
        c = 0.0 if most == 0 else penalty / (2 * max(a) * most)
        for i in range(n):
            direction = g[i].copy()
            for j in neighbors[i]:
                direction = direction + duals[i, j] + 2 * c * (x[k, i] - x[k, j])
            step = a[i] / (1 + 2 * a[i] * c * len(neighbors[i]))
            x[k + 1, i] = x[k, i] - step * direction
        for i in range(n):
            for j in neighbors[i]:
                duals[i, j] = duals[i, j] + c * (x[k, i] - x[k, j])
    return x


def gt_saga(component, weights, x0, stepsize, steps, *, sizes, drawn, order="cta"):
    """Run GT-SAGA (Xin, Khan, Kar 2020); agent i's table T_i starts at zero.

    v_i = mean over the drawn s of (grad_i,s(x_i) - T_i[s]) + mean_j T_i[j], and only then
    T_i[s] = grad_i,s(x_i). Order "cta": X+ = W X - a_k Y, Y+ = W Y + V+ - V, Y_0 = V_0; "atc":
    X+ = W (X - a_k Y), Y+ = W (Y + V+ - V), Y_0 = W V_0.
    """
    d = np.asarray(x0).shape[1]
    tables = [np.zeros((sizes[i], d)) for i in range(len(sizes))]

    def estimate(x, k):
        v = np.zeros_like(x)
        samples = _samples(drawn(k), len(x))
        for i in range(len(x)):
            fresh = [_component(component, i, s, x[i]) for s in samples[i]]
            change = np.zeros(d)
            for s, at_point in zip(samples[i], fresh, strict=True):
                change = change + at_point - tables[i][s]
            v[i] = change / len(samples[i]) + average(tables[i])
            for s, at_point in zip(samples[i], fresh, strict=True):
                tables[i][s] = at_point
        return v

    if order == "cta":
        return _diging(estimate, weights, x0, stepsize, steps)
    return _adapt_then_combine(estimate, weights, x0, stepsize, steps)


def gt_svrg(component, weights, x0, stepsize, steps, *, sizes, drawn, period):
    """Run GT-SVRG (Xin, Khan, Kar 2020) in the DIGing form, with a snapshot every period steps.

    At k = 0, period, 2 period, .. agent i sets tau_i = x_i and mu_i = mean_j grad_i,j(tau_i);
    v_i = mean over the drawn s of (grad_i,s(x_i) - grad_i,s(tau_i)) + mu_i at every step.
    X+ = W X - a_k Y, Y+ = W Y + V+ - V, Y_0 = V_0.
    """
    n, d = np.asarray(x0).shape
    snapshots, means = np.zeros((n, d)), np.zeros((n, d))

    def estimate(x, k):
        if k % period == 0:
            for i in range(n):
                snapshots[i] = x[i]
                means[i] = _mean_component(component, i, range(sizes[i]), x[i])
        v = np.zeros_like(x)
        samples = _samples(drawn(k), n)
        for i in range(n):
            at_point = _mean_component(component, i, samples[i], x[i])
            at_snapshot = _mean_component(component, i, samples[i], snapshots[i])
            v[i] = at_point - at_snapshot + means[i]
        return v

    return _diging(estimate, weights, x0, stepsize, steps)


def gt_vr(component, weights, x0, stepsize, steps, *, sizes, drawn, toss, probability):
    """Run GT-VR (Jiang, Zeng, Sun, Chen 2022), adapt then combine, from Y_0 = W V_0.

    Agent i tosses toss(k)[i], uniform on [0, 1): below the probability, and at k = 0 anyhow, it
    sets tau_i = x_i and mu_i = mean_j grad_i,j(tau_i). Then v_i = mean over the drawn s of
    (grad_i,s(x_i) - grad_i,s(tau_i)) + mu_i; X+ = W (X - a_k Y), Y+ = W (Y + V+ - V).
    """
    n, d = np.asarray(x0).shape
    snapshots, means = np.zeros((n, d)), np.zeros((n, d))

    def estimate(x, k):
        v = np.zeros_like(x)
        samples, tossed = _samples(drawn(k), n), toss(k)
        for i in range(n):
            if k == 0 or tossed[i] < probability:
                snapshots[i] = x[i]
                means[i] = _mean_component(component, i, range(sizes[i]), x[i])
            at_point = _mean_component(component, i, samples[i], x[i])
            at_snapshot = _mean_component(component, i, samples[i], snapshots[i])
            v[i] = at_point - at_snapshot + means[i]
        return v

    return _adapt_then_combine(estimate, weights, x0, stepsize, steps)


def sgd(component, weights, x0, stepsize, steps, *, drawn):
    """Run centralized SGD from xbar_0 = mean x0; every row of x[k + 1] is xbar_{k+1}.

    xbar+ = xbar - (1/n) sum_i a_k,i (mean over i's drawn s of grad_i,s(xbar)).
    """
    del weights  # centralized: nothing is mixed
    x = start(x0, steps)
    n = x.shape[1]
    xbar = average(x[0])
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        samples = _samples(drawn(k), n)
        direction = np.zeros_like(xbar)
        for i in range(n):
            direction = direction + a[i] * _mean_component(component, i, samples[i], xbar)
        xbar = xbar - direction / n
        for i in range(n):
            x[k + 1, i] = xbar
    return x


def proximal_gradient(full_gradient, prox, x0, stepsize, steps):
    """Run centralized proximal gradient on one point x0 [d]: x+ = prox(x - a_k grad(x), a_k).

    full_gradient(x) is [d] and stepsize(k) one float; returns an array [steps + 1, d].
    """
    x0 = np.asarray(x0, dtype=np.float64)
    x = np.zeros((steps + 1, len(x0)))
    x[0] = x0
    for k in range(steps):
        a = float(stepsize(k))
        z = x[k] - a * np.asarray(full_gradient(x[k].copy()), np.float64)
        x[k + 1] = _proximal(prox, z, a)
    return x


def _diging(estimate, weights, x0, stepsize, steps):
    """Run X+ = W X - a_k Y, Y+ = W Y + V+ - V, Y_0 = V_0, on V_k = estimate(X_k, k), [n, d].

    Y_k is formed at the top of step k, so that V at the last iterate is never asked for.
    """
    x = start(x0, steps)
    n = x.shape[1]
    y, v_previous = np.zeros_like(x[0]), np.zeros_like(x[0])
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        v = estimate(x[k], k)
        if k == 0:
            y = v.copy()
        else:
            y_previous = y
            y = np.zeros_like(y_previous)
            for i in range(n):
                y[i] = neighbor_sum(weights, y_previous, i) + v[i] - v_previous[i]
        for i in range(n):
            x[k + 1, i] = neighbor_sum(weights, x[k], i) - a[i] * y[i]
        v_previous = v
    return x


def _proximal(prox, z, t):
    """Return prox(z, t), or z itself where prox is None."""
    return z.copy() if prox is None else np.asarray(prox(z.copy(), t), np.float64)


def _samples(indices, n):
    """Return one list of sample indices an agent from an int array [n] or [n, b]."""
    indices = np.asarray(indices)
    if indices.ndim not in (1, 2) or len(indices) != n:
        raise ValueError(f"drawn indices have shape {indices.shape}, expected ({n},) or ({n}, b)")
    return [[int(s) for s in np.atleast_1d(indices[i])] for i in range(n)]


def _component(component, i, s, x):
    """Return the gradient of agent i's sample loss s at x, [d] in float64."""
    return np.asarray(component(i, s, x.copy()), np.float64)


def _mean_component(component, i, samples, x):
    """Return the mean of agent i's sample gradients at x over the samples, which may repeat."""
    total = np.zeros(len(x))
    for s in samples:
        total = total + _component(component, i, s, x)
    return total / len(samples)
