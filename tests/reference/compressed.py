"""Decentralized methods with compressed messages, as loops over agents and neighbors.

The conventions are those of methods.py: a method is called as name(gradient, weights, x0, stepsize,
steps, *, compress, **numbers) and returns an array [steps + 1, n, d] whose row 0 is x0;
gradient(i, x, k) and stepsize(k) are asked for the steps k = 0 .. steps - 1 only, the gradient once
for each agent and step, at x_k.

compress(k, channel, i, v) is the compressed [d] vector C(v) of agent i's vector v at step k, asked
for at most once for each agent, step and channel: everyone who uses the message, its sender
included, uses that one realization. A method with two messages a step sends them on channels 0
and 1.

(I - W) V is summed over the neighbors as sum_j w_ij (v_i - v_j), which takes for granted that the
rows of W sum to 1.
"""

import numpy as np

from .methods import agent_stepsizes, all_gradients, start


def cedas(gradient, weights, x0, stepsize, steps, *, compress, consensus_stepsize, alpha):
    """Run CEDAS (Huang & Pu 2023), D_0 = 0, H_0 as known: X_{k+1} = X_k - a_k G_k - D_{k+1}.

    Y = X_k - a_k G_k - D_k; q = C(Y - H_k); Yh = H_k + q; H_{k+1} = H_k + alpha q;
    D_{k+1} = D_k + (gamma / 2) (I - W) Yh.
    """
    gamma = consensus_stepsize
    x = start(x0, steps)
    n = x.shape[1]
    dual, h = np.zeros_like(x[0]), known(x[0])
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        g = all_gradients(gradient, x[k], k)
        difference = np.zeros_like(x[k])
        for i in range(n):
            difference[i] = x[k, i] - a[i] * g[i] - dual[i] - h[i]
        q = _messages(compress, difference, k, 0)
        estimate = np.zeros_like(x[k])
        for i in range(n):
            estimate[i] = h[i] + q[i]
            h[i] = h[i] + alpha * q[i]
        for i in range(n):
            dual[i] = dual[i] + gamma / 2 * _disagreement(weights, estimate, i)
            x[k + 1, i] = x[k, i] - a[i] * g[i] - dual[i]
    return x


def lead(gradient, weights, x0, stepsize, steps, *, compress, consensus_stepsize, alpha):
    """Run LEAD (Liu et al. 2021), D_1 = 0, H_1 as known: X_{k+1} = X_k - a_k G_k - a_k D_{k+1}.

    X_1 = X_0 - a_0 G_0, without a message. For k >= 1, Y = X_k - a_k G_k - a_k D_k;
    q = C(Y - H_k); Yh = H_k + q; H_{k+1} = (1 - alpha) H_k + alpha Yh;
    D_{k+1} = D_k + gamma / (2 a_k) (I - W) Yh, whose row i divides by agent i's own stepsize.
    """
    gamma = consensus_stepsize
    x = start(x0, steps)
    n = x.shape[1]
    dual, h = np.zeros_like(x[0]), known(x[0])
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        g = all_gradients(gradient, x[k], k)
        if k == 0:
            for i in range(n):
                x[1, i] = x[0, i] - a[i] * g[i]
            continue
        difference = np.zeros_like(x[k])
        for i in range(n):
            difference[i] = x[k, i] - a[i] * g[i] - a[i] * dual[i] - h[i]
        q = _messages(compress, difference, k, 0)
        estimate = np.zeros_like(x[k])
        for i in range(n):
            estimate[i] = h[i] + q[i]
            h[i] = (1 - alpha) * h[i] + alpha * estimate[i]
        for i in range(n):
            dual[i] = dual[i] + gamma / (2 * a[i]) * _disagreement(weights, estimate, i)
            x[k + 1, i] = x[k, i] - a[i] * g[i] - a[i] * dual[i]
    return x


def choco_sgd(gradient, weights, x0, stepsize, steps, *, compress, consensus_stepsize, order):
    """Run CHOCO-SGD (Koloskova et al. 2019): X+ = Z - gamma (I - W) Xh, Z = X_k - a_k G_k.

    order "before" (the paper) sends first, Xh = Xh_- + C(Z - Xh_-) from Xh_- = 0; order "after"
    (the authors' code) mixes with the old Xh, then sets Xh+ = Xh + C(X+ - Xh), from Xh_0 = X_0.
    """
    gamma = consensus_stepsize
    if order not in ("before", "after"):
        raise ValueError(f'order is {order!r}, expected "before" or "after"')
    x = start(x0, steps)
    n = x.shape[1]
    xh = np.zeros_like(x[0]) if order == "before" else x[0].copy()
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        g = all_gradients(gradient, x[k], k)
        half = np.zeros_like(x[k])
        for i in range(n):
            half[i] = x[k, i] - a[i] * g[i]
        if order == "before":
            xh = _updated_copies(compress, half, xh, k, 0)
        for i in range(n):
            x[k + 1, i] = half[i] - gamma * _disagreement(weights, xh, i)
        if order == "after":
            xh = _updated_copies(compress, x[k + 1], xh, k, 0)
    return x


def beer(gradient, weights, x0, stepsize, steps, *, compress, consensus_stepsize):
    """Run BEER (Zhao et al. 2022): X_{k+1} = X_k - gamma (I - W) H_k - a_k V_k.

    V_k = V_{k-1} - gamma (I - W) Gc_{k-1} + G_k - G_{k-1}; Gc_k = Gc_{k-1} + C(V_k - Gc_{k-1}) on
    channel 1; H_k = H_{k-1} + C(X_k - H_{k-1}) on channel 0. All are 0 at k = -1.
    """
    gamma = consensus_stepsize
    x = start(x0, steps)
    n = x.shape[1]
    v, g_previous = np.zeros_like(x[0]), np.zeros_like(x[0])
    h, gc = np.zeros_like(x[0]), np.zeros_like(x[0])
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        g = all_gradients(gradient, x[k], k)
        for i in range(n):
            v[i] = v[i] - gamma * _disagreement(weights, gc, i) + g[i] - g_previous[i]
        gc = _updated_copies(compress, v, gc, k, 1)
        h = _updated_copies(compress, x[k], h, k, 0)
        for i in range(n):
            x[k + 1, i] = x[k, i] - gamma * _disagreement(weights, h, i) - a[i] * v[i]
        g_previous = g
    return x


def cgt(gradient, weights, x0, stepsize, steps, *, compress, consensus_stepsize, alpha):
    """Run compressed gradient tracking: X_{k+1} = X_k - gamma (I - W) Xh_k - a_k Y_k.

    qx = C(X_k - Hx) on channel 0, Xh_k = Hx + qx, Hx+ = Hx + alpha qx;
    Y_k = Y_{k-1} - gamma (I - W) Yh_{k-1} + G_k - G_{k-1}, all 0 at k = -1;
    qy = C(Y_k - Hy) on channel 1, Yh_k = Hy + qy, Hy+ = Hy + alpha qy. Hx starts as known, Hy at 0.
    """
    gamma = consensus_stepsize
    x = start(x0, steps)
    n = x.shape[1]
    y, g_previous = np.zeros_like(x[0]), np.zeros_like(x[0])
    hx, hy = known(x[0]), np.zeros_like(x[0])
    xh, yh = np.zeros_like(x[0]), np.zeros_like(x[0])
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        g = all_gradients(gradient, x[k], k)
        for i in range(n):
            y[i] = y[i] - gamma * _disagreement(weights, yh, i) + g[i] - g_previous[i]
        difference_x, difference_y = np.zeros_like(x[k]), np.zeros_like(y)
        for i in range(n):
            difference_x[i] = x[k, i] - hx[i]
            difference_y[i] = y[i] - hy[i]
        qx = _messages(compress, difference_x, k, 0)
        qy = _messages(compress, difference_y, k, 1)
        for i in range(n):
            xh[i] = hx[i] + qx[i]
            hx[i] = hx[i] + alpha * qx[i]
            yh[i] = hy[i] + qy[i]
            hy[i] = hy[i] + alpha * qy[i]
        for i in range(n):
            x[k + 1, i] = x[k, i] - gamma * _disagreement(weights, xh, i) - a[i] * y[i]
        g_previous = g
    return x


def deep_squeeze(gradient, weights, x0, stepsize, steps, *, compress, consensus_stepsize):
    """Run DeepSqueeze (Tang et al. 2019), E_0 = 0: X_{k+1} = P - gamma (I - W) q.

    P = X_k - a_k G_k; q = C(P + E_k); E_{k+1} = P + E_k - q.
    """
    gamma = consensus_stepsize
    x = start(x0, steps)
    n = x.shape[1]
    error = np.zeros_like(x[0])
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        g = all_gradients(gradient, x[k], k)
        adapted, compensated = np.zeros_like(x[k]), np.zeros_like(x[k])
        for i in range(n):
            adapted[i] = x[k, i] - a[i] * g[i]
            compensated[i] = adapted[i] + error[i]
        q = _messages(compress, compensated, k, 0)
        for i in range(n):
            error[i] = compensated[i] - q[i]
        for i in range(n):
            x[k + 1, i] = adapted[i] - gamma * _disagreement(weights, q, i)
    return x


def _disagreement(weights, v, i):
    """Return row i of (I - W) V as the sum over i's neighbors j of w[i][j] (v[i] - v[j])."""
    total = np.zeros(v.shape[1])
    for j in range(len(v)):
        if j != i and weights[i][j] != 0:
            total = total + weights[i][j] * (v[i] - v[j])
    return total


def known(x0):
    """Return x0 if all its rows are equal, which neighbors then know, and zeros otherwise."""
    for i in range(len(x0)):
        if not np.array_equal(x0[i], x0[0]):
            return np.zeros_like(x0)
    return x0.copy()


def _messages(compress, v, k, channel):
    """Return Q [n, d], whose row i is C(v[i]), asked for once an agent at step k on channel."""
    q = np.zeros_like(v)
    for i in range(len(v)):
        q[i] = compress(k, channel, i, v[i].copy())
    return q


def _updated_copies(compress, v, copies, k, channel):
    """Return the public copies moved to v by compressed differences: copies + C(v - copies)."""
    difference = np.zeros_like(v)
    for i in range(len(v)):
        difference[i] = v[i] - copies[i]
    q = _messages(compress, difference, k, channel)
    updated = np.zeros_like(v)
    for i in range(len(v)):
        updated[i] = copies[i] + q[i]
    return updated
