"""Composite federated methods, min sum_i p_i f_i(x) + phi(x), as loops over clients and steps.

Every method is called as name(gradient, prox, x0, stepsize, steps, n, **numbers) and returns the
reported x after every round, an array [steps + 1, d] whose row 0 is x0. All n clients take part in
every round. gradient(i, x, k, l) is the [d] gradient of f_i at x in round k at local step l, asked
for once for each client and local step; prox(z, t) = argmin_x phi(x) + |x - z|^2 / (2 t), which is
z at t = 0; stepsize(k) is the stepsize a_k of round k, one float for all clients; Q is local_steps
and eta_s is server_stepsize; p [n] sums to 1, None is 1/n each, and mean_i (u_i) = sum_i p_i u_i.
The centralized methods ask for the gradients at l = 0.
"""

import numpy as np


def start(x0, steps):
    """Return a float64 array of the reported iterates [steps + 1, d] with row 0 set to x0."""
    x0 = np.asarray(x0, dtype=np.float64)
    x = np.zeros((steps + 1, len(x0)))
    x[0] = x0
    return x


def mean_of(vectors, p=None):
    """Return sum_i p_i u_i of a list of [d] vectors or of the rows of an array."""
    total = np.zeros(len(vectors[0]))
    for i, vector in enumerate(vectors):
        total = total + vector * (1.0 / len(vectors) if p is None else p[i])
    return total


def ask(gradient, i, x, k, local):
    """Return client i's gradient at x in round k at a local step, as a float64 array [d]."""
    return np.asarray(gradient(i, x.copy(), k, local), dtype=np.float64)


def apply(prox, z, t):
    """Return prox(z, t) as a float64 array [d]."""
    return np.asarray(prox(z.copy(), t), dtype=np.float64)


def common_stepsize(stepsize, k):
    """Return stepsize(k) as one float; an array of the clients' stepsizes must have equal ones."""
    values = np.asarray(stepsize(k), dtype=np.float64).ravel()
    if np.any(values != values[0]):
        raise ValueError(f"stepsize({k}) differs between the clients")
    return float(values[0])


def proximal_gradient(gradient, prox, x0, stepsize, steps, n, p=None):
    """Run centralized proximal gradient descent: x+ = prox(x - a_k sum_i p_i g_i(x), a_k)."""
    x = start(x0, steps)
    for k in range(steps):
        a = common_stepsize(stepsize, k)
        g = mean_of([ask(gradient, i, x[k], k, 0) for i in range(n)], p)
        x[k + 1] = apply(prox, x[k] - a * g, a)
    return x


def normal_map_descent(gradient, prox, x0, stepsize, steps, n, prox_stepsize, p=None):
    """Run centralized descent along the normal map F(z) = grad f(x) + (z - x) / lam.

    With x = prox(z, lam): z+ = z - a_k (sum_i p_i g_i(x) + (z - x) / lam) from z_0 = x0. Reported
    is prox(z, lam), but x0 itself in row 0.
    """
    lam = prox_stepsize
    x = start(x0, steps)
    z = x[0].copy()
    for k in range(steps):
        a = common_stepsize(stepsize, k)
        at = apply(prox, z, lam)
        g = mean_of([ask(gradient, i, at, k, 0) for i in range(n)], p)
        z = z - a * (g + (z - at) / lam)
        x[k + 1] = apply(prox, z, lam)
    return x


def fed_nmap(
    gradient,
    prox,
    x0,
    stepsize,
    steps,
    n,
    prox_stepsize,
    local_steps=1,
    server_stepsize=1.0,
    p=None,
):
    """Run FedNMap with one vector each way: local normal-map steps with drift corrections d_i.

    From z_i = z, Q times x_i = prox(z_i, lam), z_i <- z_i - a_k (g_i(x_i) + (z_i - x_i) / lam +
    d_i). With zbar = sum_i p_i z_i: z+ = z + eta_s (zbar - z), d_i+ = d_i + (z_i - zbar) / (a_k
    Q). z_0 = x0, d_i = 0 at first. Reported is prox(z, lam), but x0 itself in row 0.
    """
    lam = prox_stepsize
    x = start(x0, steps)
    z = x[0].copy()
    correction = np.zeros((n, len(z)))
    for k in range(steps):
        a = common_stepsize(stepsize, k)
        z_client = np.zeros((n, len(z)))
        for i in range(n):
            zi = z.copy()
            for local in range(local_steps):
                xi = apply(prox, zi, lam)
                g = ask(gradient, i, xi, k, local)
                zi = zi - a * (g + (zi - xi) / lam + correction[i])
            z_client[i] = zi
        zbar = mean_of(z_client, p)
        for i in range(n):
            correction[i] = correction[i] + (z_client[i] - zbar) / (a * local_steps)
        z = z + server_stepsize * (zbar - z)
        x[k + 1] = apply(prox, z, lam)
    return x


def fed_nmap_variates(
    gradient,
    prox,
    x0,
    stepsize,
    steps,
    n,
    prox_stepsize,
    local_steps=1,
    server_stepsize=1.0,
    p=None,
):
    """Run FedNMap with control variates as in SCAFFOLD, algebraically the same as fed_nmap.

    With F_i = g_i(x_i) + (z_i - x_i) / lam at x_i = prox(z_i, lam): Q times z_i <- z_i - a_k (F_i -
    c_i + c) from z_i = z; c_i+ = the mean of these Q vectors F_i, c+ = sum_i p_i c_i+; z+ = z +
    eta_s (sum_i p_i z_i - z). z_0 = x0, c_i = 0 at first. Reported is prox(z, lam), but x0 itself
    in row 0.
    """
    lam = prox_stepsize
    x = start(x0, steps)
    z = x[0].copy()
    c_client = np.zeros((n, len(z)))
    c = np.zeros(len(z))
    for k in range(steps):
        a = common_stepsize(stepsize, k)
        z_client = np.zeros((n, len(z)))
        for i in range(n):
            zi, mean_direction = z.copy(), np.zeros(len(z))
            for local in range(local_steps):
                xi = apply(prox, zi, lam)
                direction = ask(gradient, i, xi, k, local) + (zi - xi) / lam
                mean_direction = mean_direction + direction / local_steps
                zi = zi - a * (direction - c_client[i] + c)
            z_client[i] = zi
            c_client[i] = mean_direction
        c = mean_of(c_client, p)
        z = z + server_stepsize * (mean_of(z_client, p) - z)
        x[k + 1] = apply(prox, z, lam)
    return x


def fed_mid(
    gradient,
    prox,
    x0,
    stepsize,
    steps,
    n,
    local_steps=1,
    server_stepsize=1.0,
    client_prox=True,
    p=None,
):
    """Run FedMid (Yuan et al. 2021): x+ = prox(x + eta_s mean_i (v_i - x), eta_s a_k Q).

    From v_i = x, Q times v_i <- prox(v_i - a_k g_i(v_i), a_k). As both clients and server shrink,
    small stepsizes lead near the minimum of f + 2 phi; client_prox = False leaves the clients' out.
    """
    x = start(x0, steps)
    for k in range(steps):
        a = common_stepsize(stepsize, k)
        moves = []
        for i in range(n):
            v = x[k].copy()
            for local in range(local_steps):
                v = v - a * ask(gradient, i, v, k, local)
                if client_prox:
                    v = apply(prox, v, a)
            moves.append(v - x[k])
        x[k + 1] = x[k] + server_stepsize * mean_of(moves, p)
        x[k + 1] = apply(prox, x[k + 1], server_stepsize * a * local_steps)
    return x


def fed_dual_avg(
    gradient, prox, x0, stepsize, steps, n, local_steps=1, server_stepsize=1.0, p=None
):
    """Run FedDualAvg (Yuan et al. 2021), local dual averaging; for convex phi.

    With T_k = sum over the rounds q < k of eta_s a_q Q: from z_i = z, for l = 0 .. Q - 1, w =
    prox(z_i, T_k + l a_k), z_i <- z_i - a_k g_i(w); z+ = z + eta_s mean_i (z_i - z), z_0 = x0.
    Reported is prox(z_k, T_k), which is x0 in row 0.
    """
    x = start(x0, steps)
    z = x[0].copy()
    weight = 0.0
    for k in range(steps):
        a = common_stepsize(stepsize, k)
        moves = []
        for i in range(n):
            zi = z.copy()
            for local in range(local_steps):
                w = apply(prox, zi, weight + local * a)
                zi = zi - a * ask(gradient, i, w, k, local)
            moves.append(zi - z)
        z = z + server_stepsize * mean_of(moves, p)
        weight = weight + server_stepsize * a * local_steps
        x[k + 1] = apply(prox, z, weight)
    return x


def zhang_hu_johansson(
    gradient, prox, x0, stepsize, steps, n, local_steps=1, server_stepsize=1.0, p=None
):
    """Run the composite method of Zhang, Hu & Johansson (2023), with eta_s their eta_g.

    Let t_k = a_k eta_s Q and q = prox(xbar, t_k). From u_i = v_i = q, for l = 0 .. Q - 1: u_i <-
    u_i - a_k (g_i(v_i) + c_i), v_i = prox(u_i, (l + 1) a_k). Then xbar+ = q + eta_s (mean_i u_i -
    q), c_i+ = (q - xbar+) / t_k - the mean of the Q gradients g_i(v_i). xbar_0 = x0, c_i = 0 at
    first. Reported after round k is prox(xbar+, t_k), but x0 itself in row 0.
    """
    x = start(x0, steps)
    xbar = x[0].copy()
    c = np.zeros((n, len(xbar)))
    for k in range(steps):
        a = common_stepsize(stepsize, k)
        t = a * server_stepsize * local_steps
        q = apply(prox, xbar, t)
        ends, mean_gradients = [], []
        for i in range(n):
            u, v, mean_gradient = q.copy(), q.copy(), np.zeros(len(q))
            for local in range(local_steps):
                g = ask(gradient, i, v, k, local)
                mean_gradient = mean_gradient + g / local_steps
                u = u - a * (g + c[i])
                v = apply(prox, u, (local + 1) * a)
            ends.append(u)
            mean_gradients.append(mean_gradient)
        xbar = q + server_stepsize * (mean_of(ends, p) - q)
        for i in range(n):
            c[i] = (q - xbar) / t - mean_gradients[i]
        x[k + 1] = apply(prox, xbar, t)
    return x
