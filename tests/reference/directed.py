"""Methods on directed graphs as loops over agents and neighbors, from their published recursions.

Every method is called as name(gradient, row, column, x0, stepsize, steps, **numbers), where row is
a row-stochastic [n, n] array R and column a column-stochastic one C; entry [i][j] of either is the
weight agent i puts on what it receives from j. It returns the agents' estimates at every step, an
array [steps + 1, n, d] whose row 0 is x0. With push-sum weights w_k, w_0 = 1, the estimates are the
ratios of agent i's row to its w_k,i. As in methods.py, gradient(i, x, k) and stepsize(k) are asked
for the steps k = 0 .. steps - 1 only, and the gradient once for each agent and step.

Where a method has compress, compress(k, channel, i, v) is the [d] vector which the others receive
of the [d] vector v that agent i sends at step k, on channel 0 (iterates) or 1 (trackers). It is
asked exactly once for each agent that sends, step and channel.
"""

import math

import numpy as np

from .compressed import known
from .methods import agent_stepsizes, all_gradients, neighbor_sum, start


def push_sum(gradient, row, column, x0, stepsize, steps):
    """Run push-sum averaging (Kempe et al. 2003): u+ = C u, w+ = C w, estimate u / w, w_0 = 1."""
    del gradient, row, stepsize  # averaging only
    z = start(x0, steps)
    u, w = z[0].copy(), np.ones((z.shape[1], 1))
    for k in range(steps):
        u, w = _mixed(column, u), _mixed(column, w)
        z[k + 1] = _ratios(u, w)
    return z


def sgp(gradient, row, column, x0, stepsize, steps):
    """Run (stochastic) gradient push: u+ = C (u - a_k G(z)), w+ = C w, z = u / w, w_0 = 1."""
    del row  # the column-stochastic weights alone
    z = start(x0, steps)
    n = z.shape[1]
    u, w = z[0].copy(), np.ones((n, 1))
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        g = all_gradients(gradient, z[k], k)
        u, w = _mixed(column, _moved(u, a, g)), _mixed(column, w)
        z[k + 1] = _ratios(u, w)
    return z


def push_diging(gradient, row, column, x0, stepsize, steps):
    """Run Push-DIGing (Nedic, Olshevsky, Shi 2017): u+ = C (u - a_k Y), w+ = C w, z = u / w.

    Y_k = C Y_{k-1} + G_k - G_{k-1}, Y_0 = G_0, on the gradients G_k at z_k.
    """
    del row  # the column-stochastic weights alone
    z = start(x0, steps)
    n = z.shape[1]
    u, w = z[0].copy(), np.ones((n, 1))
    y, g_previous = np.zeros_like(u), np.zeros_like(u)
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        g = all_gradients(gradient, z[k], k)
        y = _tracked(column, y, g, g_previous, k)
        u, w = _mixed(column, _moved(u, a, y)), _mixed(column, w)
        z[k + 1] = _ratios(u, w)
        g_previous = g
    return z


def push_pull(gradient, row, column, x0, stepsize, steps):
    """Run Push-Pull (Pu, Shi, Xu, Nedic 2021): X+ = R (X - a_k Y), Y+ = C Y + G+ - G, Y_0 = G_0."""
    x = start(x0, steps)
    n = x.shape[1]
    y, g_previous = np.zeros_like(x[0]), np.zeros_like(x[0])
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        g = all_gradients(gradient, x[k], k)
        y = _tracked(column, y, g, g_previous, k)
        x[k + 1] = _mixed(row, _moved(x[k], a, y))
        g_previous = g
    return x


def ab(gradient, row, column, x0, stepsize, steps):
    """Run AB (Xin & Khan 2018): X+ = R X - a_k Y, Y+ = C Y + G+ - G, Y_0 = G_0."""
    x = start(x0, steps)
    n = x.shape[1]
    y, g_previous = np.zeros_like(x[0]), np.zeros_like(x[0])
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        g = all_gradients(gradient, x[k], k)
        y = _tracked(column, y, g, g_previous, k)
        x[k + 1] = _moved(_mixed(row, x[k]), a, y)
        g_previous = g
    return x


def apd(gradient, row, column, x0, stepsize, steps, growth=0.05):
    """Run accelerated Push-DIGing, convex: _accelerated with beta = 0 and growing alpha_k.

    alpha_k = 1 + growth k and tau_k = 1 / (4 alpha_k).
    """
    del row  # the column-stochastic weights alone

    def numbers(k, a):
        alpha, alpha_next = 1 + growth * k, 1 + growth * (k + 1)
        return [(alpha, 0.0, 1 / (4 * alpha_next)) for _ in a]

    return _accelerated(gradient, column, x0, stepsize, steps, numbers)


def apd_sc(gradient, row, column, x0, stepsize, steps, *, mu):
    """Run accelerated Push-DIGing, strongly convex: _accelerated on each agent's own stepsize a.

    alpha = sqrt(1 / (a mu)), beta = sqrt(a mu) and tau = 1 / (4 alpha), all from a = a_k,i.
    """
    del row  # the column-stochastic weights alone

    def numbers(k, a):
        del k
        triples = []
        for i in range(len(a)):
            alpha, beta = math.sqrt(1 / (a[i] * mu)), math.sqrt(a[i] * mu)
            triples.append((alpha, beta, 1 / (4 * alpha)))
        return triples

    return _accelerated(gradient, column, x0, stepsize, steps, numbers)


def cpp(
    gradient, row, column, x0, stepsize, steps, *, compress, form="atc", consensus_stepsize, alpha
):
    """Run compressed Push-Pull with references U, U_0 as known, and compressed trackers P = Q(Y).

    Y_k = Y_{k-1} - gamma (I - C) P_{k-1} + G_k - G_{k-1}, from Y_0 = G_0.
    "atc": Xt = X - a_k Y, q = Q(Xt - U), X+ = Xt - gamma (I - R) (U + q), U+ = U + alpha q.
    "cta": q = Q(X - U), X+ = X - gamma (I - R) (U + q) - a_k Y, U+ = U + alpha q.
    """
    gamma = consensus_stepsize
    if form not in ("atc", "cta"):
        raise ValueError(f"form is {form!r}, expected 'atc' or 'cta'")
    x = start(x0, steps)
    n = x.shape[1]
    references = known(x[0])
    y_mixed, g_previous = np.zeros_like(x[0]), np.zeros_like(x[0])
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        g = all_gradients(gradient, x[k], k)
        y = np.zeros_like(g)
        for i in range(n):
            y[i] = y_mixed[i] + g[i] - g_previous[i]
        sent = _moved(x[k], a, y) if form == "atc" else x[k].copy()
        received, p = np.zeros_like(sent), np.zeros_like(y)
        for i in range(n):
            q = _compressed(compress, k, 0, i, sent[i] - references[i])
            received[i] = references[i] + q
            references[i] = references[i] + alpha * q
            p[i] = _compressed(compress, k, 1, i, y[i])
        for i in range(n):
            x[k + 1, i] = sent[i] - gamma * (received[i] - neighbor_sum(row, received, i))
            if form == "cta":
                x[k + 1, i] = x[k + 1, i] - a[i] * y[i]
            y_mixed[i] = y[i] - gamma * (p[i] - neighbor_sum(column, p, i))
        g_previous = g
    return x


def bcpp(
    gradient, row, column, x0, stepsize, steps, *, compress, consensus_stepsize, alpha, broadcaster
):
    """Run broadcast compressed Push-Pull: at tick k only the agent s = broadcaster(k) sends.

    First every agent i whose x changed in the last tick, at k = 0 all, sets y_i += grad_i(x_i) -
    g_i and g_i = grad_i(x_i), from y = g = 0, u as known. Then with q = Q(x_s - u_s), xh = u_s + q
    and p = Q(y_s): u_s += alpha q; x_i += gamma r_is (xh - x_i) and y_i += gamma c_is p for i != s;
    y_s -= gamma (1 - c_ss) p; and last x_s -= a_k,s y_s. The sums of y and of g stay equal.
    """
    gamma = consensus_stepsize
    x = start(x0, steps)
    n = x.shape[1]
    references = known(x[0])
    y, g = np.zeros_like(x[0]), np.zeros_like(x[0])
    changed = set(range(n))
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        fresh = all_gradients(gradient, x[k], k)  # those of unchanged agents go unused
        for i in changed:
            y[i] = y[i] + fresh[i] - g[i]
            g[i] = fresh[i]
        s = int(broadcaster(k))
        q = _compressed(compress, k, 0, s, x[k, s] - references[s])
        p = _compressed(compress, k, 1, s, y[s])
        received = references[s] + q
        references[s] = references[s] + alpha * q
        changed = {s}
        x[k + 1] = x[k]
        for i in range(n):
            if i != s and row[i][s] > 0:
                x[k + 1, i] = x[k, i] + gamma * row[i][s] * (received - x[k, i])
                changed.add(i)
            if i != s and column[i][s] > 0:
                y[i] = y[i] + gamma * column[i][s] * p
        y[s] = y[s] - gamma * (1 - column[s][s]) * p
        x[k + 1, s] = x[k, s] - a[s] * y[s]
    return x


def _accelerated(gradient, column, x0, stepsize, steps, numbers):
    """Run accelerated Push-DIGing from x = y = z = x0, w = 1 and S_0 = G_0; the estimate is x / w.

    w+ = C w, y+ = C (x - a_k S), z+ = C ((1 - beta) z + beta x - alpha a_k S), x+ = (1 - tau) y+ +
    tau z+, S+ = C S + G+ - G with the gradients at x / w. numbers(k, a) holds one triple an agent,
    of its alpha and beta at step k and its tau at step k + 1.
    """
    estimates = start(x0, steps)
    n = estimates.shape[1]
    x, z, w = estimates[0].copy(), estimates[0].copy(), np.ones((n, 1))
    s, g_previous = np.zeros_like(x), np.zeros_like(x)
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        triples = numbers(k, a)
        g = all_gradients(gradient, estimates[k], k)
        s = _tracked(column, s, g, g_previous, k)
        z_adapted = np.zeros_like(z)
        for i in range(n):
            alpha, beta, _ = triples[i]
            z_adapted[i] = (1 - beta) * z[i] + beta * x[i] - alpha * a[i] * s[i]
        y = _mixed(column, _moved(x, a, s))
        z, w = _mixed(column, z_adapted), _mixed(column, w)
        x = np.zeros_like(y)
        for i in range(n):
            tau = triples[i][2]
            x[i] = (1 - tau) * y[i] + tau * z[i]
        estimates[k + 1] = _ratios(x, w)
        g_previous = g
    return estimates


def _mixed(weights, x):
    """Return W x, whose row i is what agent i receives: sum_j w[i][j] x[j]."""
    mixed = np.zeros_like(x)
    for i in range(len(x)):
        mixed[i] = neighbor_sum(weights, x, i)
    return mixed


def _moved(x, a, direction):
    """Return x - a_k direction, whose row i is x[i] - a[i] direction[i]."""
    moved = np.zeros_like(x)
    for i in range(len(x)):
        moved[i] = x[i] - a[i] * direction[i]
    return moved


def _ratios(u, w):
    """Return the push-sum estimates u / w, whose row i is u[i] / w[i]."""
    z = np.zeros_like(u)
    for i in range(len(u)):
        z[i] = u[i] / w[i]
    return z


def _tracked(column, y, g, g_previous, k):
    """Return the tracker Y_k = C Y_{k-1} + G_k - G_{k-1}, Y_0 = G_0."""
    if k == 0:
        return g.copy()
    tracked = np.zeros_like(y)
    for i in range(len(y)):
        tracked[i] = neighbor_sum(column, y, i) + g[i] - g_previous[i]
    return tracked


def _compressed(compress, k, channel, i, v):
    """Return compress(k, channel, i, v), which has the shape of v, in float64."""
    received = np.asarray(compress(k, channel, i, v.copy()), np.float64)
    if received.shape != v.shape:
        raise ValueError(f"compressed vector has shape {received.shape}, expected {v.shape}")
    return received
