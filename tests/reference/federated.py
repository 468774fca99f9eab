"""Federated methods as loops over rounds, clients and local steps, from their published recursions.

Every method is called as name(gradient, active, x0, stepsize, steps, **numbers) and returns the
server's model after every round, an array [steps + 1, d] whose row 0 is x0. Here active is a bool
array [steps, n] of who takes part in which round; gradient(i, x, k, l) is the [d] gradient of
client i at x in round k at local step l, asked for the active clients only and once for each local
step; stepsize(k) is the clients' local stepsize of round k, one float or an [n] array a_k,i; K is
local_steps and eta_g is server_stepsize. S is the set of a round's active clients.

The objective is sum_i p_i f_i, p [n] summing to 1 or None for 1/n each; gradients are of the f_i
themselves. mean_S(u_i) is sum_S p_i u_i / sum_S p_i, the plain mean where all p_i are equal.

Where the server needs a local stepsize itself, it takes a_k = (1/n) sum_i a_k,i over all clients:
the papers have a single one. Every docstring says what a round does in which nobody is active.
"""

import numpy as np

from .methods import agent_stepsizes


def start(x0, steps):
    """Return a float64 array of the server's iterates [steps + 1, d] with row 0 set to x0."""
    x0 = np.asarray(x0, dtype=np.float64)
    x = np.zeros((steps + 1, len(x0)))
    x[0] = x0
    return x


def participants(active, k):
    """Return the indices of the clients that are active in round k, in increasing order."""
    return [i for i in range(len(active[k])) if active[k][i]]


def sum_of(vectors, d):
    """Return the sum of a list of [d] vectors, the zero vector if the list is empty."""
    total = np.zeros(d)
    for vector in vectors:
        total = total + vector
    return total


def weights(p, n):
    """Return p as floats, 1/n each if it is None."""
    return np.full(n, 1.0 / n) if p is None else np.asarray(p, dtype=np.float64)


def mean_over(who, vectors, p, d):
    """Return sum p_i u_i / sum p_i for the clients of a list and their vectors, in one order."""
    total, mass = np.zeros(d), 0.0
    for i, vector in zip(who, vectors, strict=True):
        total, mass = total + p[i] * vector, mass + p[i]
    return total / mass


def mean_of_all(rows, p):
    """Return sum_j p_j rows_j over all clients."""
    total = np.zeros(rows.shape[1])
    for weight, row in zip(p, rows, strict=True):
        total = total + weight * row
    return total


def ask(gradient, i, x, k, local):
    """Return client i's gradient at x in round k at a local step, as a float64 array [d]."""
    return np.asarray(gradient(i, x.copy(), k, local), dtype=np.float64)


def fed_adam(b1=0.9, b2=0.99, tau=1e-3):
    """Return the server of FedAdam (Reddi et al. 2021) for fed_avg: no bias correction.

    m+ = b1 m + (1 - b1) delta, v+ = b2 v + (1 - b2) delta^2, update = m+ / (sqrt(v+) + tau), with
    m = 0 and v = tau^2 before the first round. The paper adds what moves along -delta: the same.
    """

    def server(delta, memory):
        m, v = (np.zeros_like(delta), np.full_like(delta, tau**2)) if memory is None else memory
        m = b1 * m + (1 - b1) * delta
        v = b2 * v + (1 - b2) * delta**2
        return m / (np.sqrt(v) + tau), (m, v)

    return server


def adam(b1=0.9, b2=0.999, eps=1e-8):
    """Return a server for fed_avg that is Adam (Kingma & Ba 2015), bias-corrected as in optax.

    m+ = b1 m + (1 - b1) delta, v+ = b2 v + (1 - b2) delta^2, both 0 before the first round; in the
    t-th call, t = 1, 2, ..., update = (m+ / (1 - b1^t)) / (sqrt(v+ / (1 - b2^t)) + eps).
    """

    def server(delta, memory):
        m, v, t = (np.zeros_like(delta), np.zeros_like(delta), 0) if memory is None else memory
        m = b1 * m + (1 - b1) * delta
        v = b2 * v + (1 - b2) * delta**2
        t = t + 1
        return (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps), (m, v, t)

    return server


def fed_avg(
    gradient,
    active,
    x0,
    stepsize,
    steps,
    local_steps=1,
    server_stepsize=1.0,
    own_steps=None,
    normalized=False,
    local_momentum=0.0,
    server=None,
    p=None,
):
    """Run FedAvg (McMahan et al. 2017): x+ = x - eta_g update, by default delta = mean_S (x - y_i).

    Locally y = x, m = 0, then K_i times m <- b m + g_i(y), y <- y - a_k,i m, with b =
    local_momentum and K_i = own_steps[i], K for all if None; m is not kept between rounds. With
    normalized, x - y_i is divided by K_i and multiplied by the largest K_j of all clients j. The
    function server(delta, memory) -> (update, memory), memory None at first, replaces the update.
    Nobody active: neither x nor the server's memory changes, and server is not called.
    """
    x = start(x0, steps)
    d = x.shape[1]
    n = np.shape(active)[1]
    p = weights(p, n)
    counts = [local_steps] * n if own_steps is None else [int(count) for count in own_steps]
    memory = None
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        who = participants(active, k)
        if not who:
            x[k + 1] = x[k]
            continue
        moves = []
        for i in who:
            y, m = x[k].copy(), np.zeros(d)
            for local in range(counts[i]):
                m = local_momentum * m + ask(gradient, i, y, k, local)
                y = y - a[i] * m
            move = x[k] - y
            if normalized:
                move = move / counts[i] * max(counts)
            moves.append(move)
        update = mean_over(who, moves, p, d)
        if server is not None:
            update, memory = server(update, memory)
        x[k + 1] = x[k] - server_stepsize * update
    return x


def fed_prox(
    gradient, active, x0, stepsize, steps, local_steps=1, server_stepsize=1.0, proximal=0.0, p=None
):
    """Run FedProx (Li et al. 2020): FedAvg with y <- y - a_k,i (g_i(y) + mu (y - x)).

    Here mu = proximal, and the local problem is solved by K gradient steps. Nobody active: x stays.
    """
    x = start(x0, steps)
    d = x.shape[1]
    n = np.shape(active)[1]
    p = weights(p, n)
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        who = participants(active, k)
        if not who:
            x[k + 1] = x[k]
            continue
        moves = []
        for i in who:
            y = x[k].copy()
            for local in range(local_steps):
                y = y - a[i] * (ask(gradient, i, y, k, local) + proximal * (y - x[k]))
            moves.append(x[k] - y)
        x[k + 1] = x[k] - server_stepsize * mean_over(who, moves, p, d)
    return x


def scaffold(gradient, active, x0, stepsize, steps, local_steps=1, server_stepsize=1.0, p=None):
    """Run SCAFFOLD, option II (Karimireddy et al. 2020), with c_i = c = 0 at first.

    In S: K times y <- y - a_k,i (g_i(y) - c_i + c) from y = x, then c_i+ = c_i - c + (x - y_i) /
    (K a_k,i). Server: x+ = x - eta_g mean_S (x - y_i), c+ = c + sum_S p_i (c_i+ - c_i), with all n
    clients in the denominator of p_i = 1/n. Nobody active: neither x nor c changes.
    """
    x = start(x0, steps)
    d = x.shape[1]
    n = np.shape(active)[1]
    p = weights(p, n)
    c_client, c = np.zeros((n, d)), np.zeros(d)
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        who = participants(active, k)
        if not who:
            x[k + 1] = x[k]
            continue
        moves, changes = [], []
        for i in who:
            y = x[k].copy()
            for local in range(local_steps):
                y = y - a[i] * (ask(gradient, i, y, k, local) - c_client[i] + c)
            c_next = c_client[i] - c + (x[k] - y) / (local_steps * a[i])
            moves.append(x[k] - y)
            changes.append(p[i] * (c_next - c_client[i]))
            c_client[i] = c_next
        x[k + 1] = x[k] - server_stepsize * mean_over(who, moves, p, d)
        c = c + sum_of(changes, d)
    return x


def mifa(
    gradient, active, x0, stepsize, steps, local_steps=1, server_stepsize=1.0, p=None, waits=False
):
    """Run MIFA (Gu et al. 2021) from a table of zeros: x+ = x - eta_g a_k sum_j p_j G_j.

    In S: y <- y - a_k,i g_i(y), K times from y = x, and G_i <- (x - y_i) / a_k,i, the sum of the K
    gradients; the rest of the table keeps its rows. Nobody active: the table stays and x moves
    along it. With waits, x stays at x0 until every client has been active once.
    """
    x = start(x0, steps)
    d = x.shape[1]
    n = np.shape(active)[1]
    p = weights(p, n)
    table = np.zeros((n, d))
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        for i in participants(active, k):
            y = x[k].copy()
            for local in range(local_steps):
                y = y - a[i] * ask(gradient, i, y, k, local)
            table[i] = (x[k] - y) / a[i]
        if waits and not np.any(active[: k + 1], axis=0).all():
            x[k + 1] = x[k]
            continue
        x[k + 1] = x[k] - server_stepsize * (sum(a) / n) * mean_of_all(table, p)
    return x


def fed_varp(
    gradient,
    active,
    x0,
    stepsize,
    steps,
    local_steps=1,
    server_stepsize=1.0,
    moves_when_empty=False,
    p=None,
):
    """Run FedVARP (Jhunjhunwala et al. 2022) from a table of zeros: x+ = x - eta_g a_k v.

    With D_i = (x - y_i) / a_k,i after K local steps and the table's rows t_i before the round, v =
    mean_S (D_i - t_i) + sum_j p_j t_j; then t_i <- D_i for i in S. Nobody active, which the paper
    rules out: x stays; with moves_when_empty the mean over S counts as 0 and v = sum_j p_j t_j.
    """
    x = start(x0, steps)
    d = x.shape[1]
    n = np.shape(active)[1]
    p = weights(p, n)
    table = np.zeros((n, d))
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        who = participants(active, k)
        if not who and not moves_when_empty:
            x[k + 1] = x[k]
            continue
        v = mean_of_all(table, p)
        new_rows = {}
        for i in who:
            y = x[k].copy()
            for local in range(local_steps):
                y = y - a[i] * ask(gradient, i, y, k, local)
            new_rows[i] = (x[k] - y) / a[i]
            v = v + p[i] * (new_rows[i] - table[i]) / sum(p[j] for j in who)
        for i, row in new_rows.items():
            table[i] = row
        x[k + 1] = x[k] - server_stepsize * (sum(a) / n) * v
    return x


def focus(gradient, active, x0, stepsize, steps, local_steps=1, server_stepsize=1.0, p=None):
    """Run FOCUS (2025): y+ = y + sum_S n p_i y_i, a sum and no mean, and x+ = x - eta_g a_k y+.

    In S, from z = x and y_i = 0, K times y_i <- y_i + g_i(z) - h_i, h_i <- g_i(z), and but for the
    last time z <- z - a_k,i y_i. h_i, the last gradient of client i, is kept between rounds; h_i =
    y = 0 at first. So y is the sum of all n p_i h_i. Nobody active: y stays and x moves along it.
    """
    x = start(x0, steps)
    d = x.shape[1]
    n = np.shape(active)[1]
    p = weights(p, n)
    previous, y = np.zeros((n, d)), np.zeros(d)
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        pushed = []
        for i in participants(active, k):
            z, y_client = x[k].copy(), np.zeros(d)
            for local in range(local_steps):
                g = ask(gradient, i, z, k, local)
                y_client = y_client + g - previous[i]
                previous[i] = g
                if local < local_steps - 1:
                    z = z - a[i] * y_client
            pushed.append(n * p[i] * y_client)
        y = y + sum_of(pushed, d)
        x[k + 1] = x[k] - server_stepsize * (sum(a) / n) * y
    return x


def fed_sum_b(gradient, active, x0, stepsize, steps, local_steps=1, server_stepsize=1.0, p=None):
    """Run FedSUM-B: y+ = y + sum_S p_i (g_i - h_i), x+ = x - eta_g a_k y+, no local movement.

    g_i is client i's gradient at x, the mean of K of them there; then h_i <- g_i. Cold start: h_i =
    y = 0. Nobody active: y stays and x moves along it.
    """
    x = start(x0, steps)
    d = x.shape[1]
    n = np.shape(active)[1]
    p = weights(p, n)
    h, y = np.zeros((n, d)), np.zeros(d)
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        sent = []
        for i in participants(active, k):
            g = np.zeros(d)
            for local in range(local_steps):
                g = g + ask(gradient, i, x[k], k, local) / local_steps
            sent.append(p[i] * (g - h[i]))
            h[i] = g
        y = y + sum_of(sent, d)
        x[k + 1] = x[k] - server_stepsize * (sum(a) / n) * y
    return x


def fed_sum(gradient, active, x0, stepsize, steps, local_steps=1, server_stepsize=1.0, p=None):
    """Run FedSUM: y+ = y + sum_S p_i (gbar_i - h_i), x+ = x - eta_g a_k K y+.

    In S, from z = x, K times z <- z - a_k,i (g_i(z) - h_i + y); gbar_i is the mean of these K
    gradients g_i(z); then h_i <- gbar_i. Cold start: h_i = y = 0. Nobody active: y stays and x
    moves along it.
    """
    x = start(x0, steps)
    d = x.shape[1]
    n = np.shape(active)[1]
    p = weights(p, n)
    h, y = np.zeros((n, d)), np.zeros(d)
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        sent = []
        for i in participants(active, k):
            z, gbar = x[k].copy(), np.zeros(d)
            for local in range(local_steps):
                g = ask(gradient, i, z, k, local)
                gbar = gbar + g / local_steps
                z = z - a[i] * (g - h[i] + y)
            sent.append(p[i] * (gbar - h[i]))
            h[i] = gbar
        y = y + sum_of(sent, d)
        x[k + 1] = x[k] - server_stepsize * (sum(a) / n) * local_steps * y
    return x


def fed_sum_cr(gradient, active, x0, stepsize, steps, local_steps=1, server_stepsize=1.0, p=None):
    """Run FedSUM-CR: FedSUM whose clients, who are sent x alone, estimate y from how far x moved.

    yhat_i = (x_t' - x_t) / (s_t' + ... + s_{t-1}), where t' is the last round before t in which i
    took part and s_q = eta_g a_q K is the server's step of round q: the mean of y_{t'+1} .. y_t by
    their steps. Every client knows x_0: t' = 0 before its first round, and yhat_i = y_0 if t = t'.
    Cold start: h_i = y_0 = 0. Nobody active: y stays and x moves along it.
    """
    x = start(x0, steps)
    d = x.shape[1]
    n = np.shape(active)[1]
    p = weights(p, n)
    h, y, y_start = np.zeros((n, d)), np.zeros(d), np.zeros(d)
    last_round = [0] * n
    server_steps = []
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        sent = []
        for i in participants(active, k):
            if last_round[i] == k:
                yhat = y_start
            else:
                yhat = (x[last_round[i]] - x[k]) / sum(server_steps[last_round[i] : k])
            last_round[i] = k
            z, gbar = x[k].copy(), np.zeros(d)
            for local in range(local_steps):
                g = ask(gradient, i, z, k, local)
                gbar = gbar + g / local_steps
                z = z - a[i] * (g - h[i] + yhat)
            sent.append(p[i] * (gbar - h[i]))
            h[i] = gbar
        y = y + sum_of(sent, d)
        server_steps.append(server_stepsize * (sum(a) / n) * local_steps)
        x[k + 1] = x[k] - server_steps[k] * y
    return x


def fed_avg_momentum(
    gradient,
    active,
    x0,
    stepsize,
    steps,
    local_steps=1,
    server_stepsize=1.0,
    gradient_weight=1.0,
    g0=None,
    p=None,
):
    """Run FedAvg-M (Cheng et al. 2024): g+ = mean_S (x - y_i) / (a_k,i K), x+ = x - eta_g a_k K g+.

    In S, from y = x, K times y <- y - a_k,i (beta g_i(y) + (1 - beta) g). g = g0 at first, 0 if
    None; the paper starts with the mean of the gradients at x_0. Nobody active: x and g stay.
    """
    beta = gradient_weight
    x = start(x0, steps)
    d = x.shape[1]
    n = np.shape(active)[1]
    p = weights(p, n)
    momentum = np.zeros(d) if g0 is None else np.asarray(g0, dtype=np.float64)
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        who = participants(active, k)
        if not who:
            x[k + 1] = x[k]
            continue
        directions = []
        for i in who:
            y = x[k].copy()
            for local in range(local_steps):
                q = ask(gradient, i, y, k, local)
                y = y - a[i] * (beta * q + (1 - beta) * momentum)
            directions.append((x[k] - y) / (a[i] * local_steps))
        momentum = mean_over(who, directions, p, d)
        x[k + 1] = x[k] - server_stepsize * (sum(a) / n) * local_steps * momentum
    return x


def scaffold_momentum(
    gradient,
    active,
    x0,
    stepsize,
    steps,
    local_steps=1,
    server_stepsize=1.0,
    gradient_weight=1.0,
    g0=None,
    c0=None,
    p=None,
):
    """Run SCAFFOLD-M (Cheng et al. 2024): FedAvg-M with control variates c_i.

    In S, from y = x, K times y <- y - a_k,i (beta (g_i(y) - c_i + c) + (1 - beta) g); then c_i+ is
    the mean of these K gradients g_i(y), g+ = mean_S (x - y_i) / (a_k,i K), x+ = x - eta_g a_k K
    g+, and c+ = c + sum_S p_i (c_i+ - c_i). At first g = g0 [d] and c_i = c0[i], c0 [n, d], with
    c their mean; 0 if None. The paper has c_i = the gradient at x_0 and g = c. Nobody active: x, g
    and c stay.
    """
    beta = gradient_weight
    x = start(x0, steps)
    d = x.shape[1]
    n = np.shape(active)[1]
    p = weights(p, n)
    momentum = np.zeros(d) if g0 is None else np.asarray(g0, dtype=np.float64)
    c_client = np.zeros((n, d)) if c0 is None else np.array(c0, dtype=np.float64)
    c = mean_of_all(c_client, p)
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        who = participants(active, k)
        if not who:
            x[k + 1] = x[k]
            continue
        directions, changes = [], []
        for i in who:
            y, mean_gradient = x[k].copy(), np.zeros(d)
            for local in range(local_steps):
                q = ask(gradient, i, y, k, local)
                mean_gradient = mean_gradient + q / local_steps
                y = y - a[i] * (beta * (q - c_client[i] + c) + (1 - beta) * momentum)
            directions.append((x[k] - y) / (a[i] * local_steps))
            changes.append(p[i] * (mean_gradient - c_client[i]))
            c_client[i] = mean_gradient
        momentum = mean_over(who, directions, p, d)
        c = c + sum_of(changes, d)
        x[k + 1] = x[k] - server_stepsize * (sum(a) / n) * local_steps * momentum
    return x
