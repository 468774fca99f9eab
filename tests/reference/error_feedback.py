"""Servers whose messages are compressed, as loops over rounds and clients, with error feedback.

The conventions are those of federated.py: a method is called as name(gradient, active, x0,
stepsize, steps, *, compress, downlink, **numbers, p) and returns the server's model after every
round, [steps + 1, d] whose row 0 is x0. What all clients hold is the public model w, w_0 = x_0, at
which all gradients are taken, once for each active client and at local step 0.

compress(k, channel, i, v) is the [d] message C(v) of client i's vector v in round k, asked for at
most once for each active client and round, on channel 0. downlink(x, k) is the [d] message of the
server's vector x in round k, or None if w = x. The server speaks to all clients in every round,
also where nobody is active: w <- w + downlink(x - w), the last thing that a round does.

Of a round's active clients S, total(c_i) = sum_S p_i c_i, with all n clients in the denominator of
p_i = 1/n, and mean_S(c_i) = sum_S p_i c_i / sum_S p_i. Whoever is absent keeps all its memories,
which are 0 at first. Where the server's step needs a stepsize, it is a_k = (1/n) sum_i a_k,i.

With history, a method returns (x, memories), a dict by name of all that is kept between rounds,
public among it: [steps + 1, d] of the server, [steps + 1, n, d] of the clients.
"""

from typing import Any

import numpy as np

from .federated import ask, mean_over, participants, start, sum_of, weights
from .methods import agent_stepsizes


def compressed_sgd(
    gradient, active, x0, stepsize, steps, *, compress, downlink=None, p=None, history=False
) -> Any:
    """Run compressed SGD without memory: x+ = x - a_k mean_S C(g_i). Nobody active: x stays."""
    x, public = start(x0, steps), start(x0, steps)
    n, d = np.shape(active)[1], x.shape[1]
    p = weights(p, n)
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        who = participants(active, k)
        sent = [message(compress, k, i, ask(gradient, i, public[k], k, 0)) for i in who]
        x[k + 1] = x[k]
        if who:
            x[k + 1] = x[k] - sum(a) / n * mean_over(who, sent, p, d)
        public[k + 1] = published(downlink, k, public[k], x[k + 1])
    return (x, {"public": public}) if history else x


def ef14(
    gradient, active, x0, stepsize, steps, *, compress, downlink=None, p=None, history=False
) -> Any:
    """Run EF14 (Seide et al. 2014; Stich et al. 2018): x+ = x - mean_S m_i, memories of unsent x.

    In S: m_i = C(e_i + a_k,i g_i), e_i+ = e_i + a_k,i g_i - m_i. Nobody active: x stays.
    """
    x, public = start(x0, steps), start(x0, steps)
    n, d = np.shape(active)[1], x.shape[1]
    p = weights(p, n)
    e = np.zeros((steps + 1, n, d))
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        who, sent = participants(active, k), []
        x[k + 1], e[k + 1] = x[k], e[k]
        for i in who:
            unsent = e[k, i] + a[i] * ask(gradient, i, public[k], k, 0)
            sent.append(message(compress, k, i, unsent))
            e[k + 1, i] = unsent - sent[-1]
        if who:
            x[k + 1] = x[k] - mean_over(who, sent, p, d)
        public[k + 1] = published(downlink, k, public[k], x[k + 1])
    return (x, {"e": e, "public": public}) if history else x


def ef21(
    gradient, active, x0, stepsize, steps, *, compress, downlink=None, p=None, history=False
) -> Any:
    """Run EF21 (Richtarik et al. 2021): x+ = x - a_k H+, H the server's sum_i p_i h_i.

    In S: c_i = C(g_i - h_i), h_i+ = h_i + c_i. H+ = H + total(c_i). Nobody active: x moves along H.
    """
    x, public = start(x0, steps), start(x0, steps)
    n, d = np.shape(active)[1], x.shape[1]
    p = weights(p, n)
    h, mean = np.zeros((steps + 1, n, d)), np.zeros((steps + 1, d))
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        h[k + 1], sent = h[k], []
        for i in participants(active, k):
            c = message(compress, k, i, ask(gradient, i, public[k], k, 0) - h[k, i])
            h[k + 1, i] = h[k, i] + c
            sent.append(p[i] * c)
        mean[k + 1] = mean[k] + sum_of(sent, d)
        x[k + 1] = x[k] - sum(a) / n * mean[k + 1]
        public[k + 1] = published(downlink, k, public[k], x[k + 1])
    return (x, {"h": h, "mean": mean, "public": public}) if history else x


def ef21_sgdm(
    gradient,
    active,
    x0,
    stepsize,
    steps,
    *,
    compress,
    downlink=None,
    beta=0.1,
    p=None,
    history=False,
) -> Any:
    """Run EF21-SGDM (Fatkhullin et al. 2023): EF21 of averaged gradients v_i, 0 at first.

    In S: v_i+ = (1 - beta) v_i + beta g_i, c_i = C(v_i+ - h_i), h_i+ = h_i + c_i. Then H+ = H +
    total(c_i) and x+ = x - a_k H+. Nobody active: x moves along H.
    """
    x, public = start(x0, steps), start(x0, steps)
    n, d = np.shape(active)[1], x.shape[1]
    p = weights(p, n)
    v, h = np.zeros((steps + 1, n, d)), np.zeros((steps + 1, n, d))
    mean = np.zeros((steps + 1, d))
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        v[k + 1], h[k + 1], sent = v[k], h[k], []
        for i in participants(active, k):
            g = ask(gradient, i, public[k], k, 0)
            v[k + 1, i] = (1 - beta) * v[k, i] + beta * g
            c = message(compress, k, i, v[k + 1, i] - h[k, i])
            h[k + 1, i] = h[k, i] + c
            sent.append(p[i] * c)
        mean[k + 1] = mean[k] + sum_of(sent, d)
        x[k + 1] = x[k] - sum(a) / n * mean[k + 1]
        public[k + 1] = published(downlink, k, public[k], x[k + 1])
    return (x, {"v": v, "h": h, "mean": mean, "public": public}) if history else x


def econtrol(
    gradient, active, x0, stepsize, steps, *, compress, eta, downlink=None, p=None, history=False
) -> Any:
    """Run EControl (Gao et al. 2023): x+ = x - a_k H+, with a feedback of strength eta.

    In S: c_i = C(eta e_i + g_i - h_i), e_i+ = e_i + g_i - h_i - c_i, h_i+ = h_i + c_i. Then H+ = H
    + total(c_i). Nobody active: x moves along H.
    """
    x, public = start(x0, steps), start(x0, steps)
    n, d = np.shape(active)[1], x.shape[1]
    p = weights(p, n)
    e, h = np.zeros((steps + 1, n, d)), np.zeros((steps + 1, n, d))
    mean = np.zeros((steps + 1, d))
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        e[k + 1], h[k + 1], sent = e[k], h[k], []
        for i in participants(active, k):
            g = ask(gradient, i, public[k], k, 0)
            c = message(compress, k, i, eta * e[k, i] + g - h[k, i])
            e[k + 1, i] = e[k, i] + g - h[k, i] - c
            h[k + 1, i] = h[k, i] + c
            sent.append(p[i] * c)
        mean[k + 1] = mean[k] + sum_of(sent, d)
        x[k + 1] = x[k] - sum(a) / n * mean[k + 1]
        public[k + 1] = published(downlink, k, public[k], x[k + 1])
    return (x, {"e": e, "h": h, "mean": mean, "public": public}) if history else x


def dgc(
    gradient,
    active,
    x0,
    stepsize,
    steps,
    *,
    compress,
    downlink=None,
    momentum=0.9,
    clip=None,
    masking=True,
    nesterov=False,
    whole=None,
    p=None,
    history=False,
) -> Any:
    """Run deep gradient compression (Lin et al. 2018): x+ = x - a_k mean_S s_i.

    In S: g_i is shortened to at most clip / sqrt(n), if clip is not None; u_i+ = m u_i + g_i, v_i+
    = v_i + u_i+, or with nesterov u_i+ = m (u_i + g_i), v_i+ = v_i + u_i+ + g_i; s_i = C(v_i+) is
    sent, and is taken out of v_i+. With masking, u_i+ becomes 0 in the coordinates where s_i is
    not, but for those of whole [d], True where a coordinate is always sent: there nothing is
    withheld, and momentum is as usual. Nobody active: x stays.
    """
    x, public = start(x0, steps), start(x0, steps)
    n, d = np.shape(active)[1], x.shape[1]
    p = weights(p, n)
    whole = np.zeros(d, bool) if whole is None else np.asarray(whole, bool)
    u, v = np.zeros((steps + 1, n, d)), np.zeros((steps + 1, n, d))
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        who, sent = participants(active, k), []
        x[k + 1], u[k + 1], v[k + 1] = x[k], u[k], v[k]
        for i in who:
            g = ask(gradient, i, public[k], k, 0)
            if clip is not None:
                g = shortened(g, clip / np.sqrt(n))
            if nesterov:
                velocity = momentum * (u[k, i] + g)
                unsent = v[k, i] + velocity + g
            else:
                velocity = momentum * u[k, i] + g
                unsent = v[k, i] + velocity
            s = message(compress, k, i, unsent)
            for j in range(d):
                if masking and s[j] != 0 and not whole[j]:
                    velocity[j] = 0.0
            u[k + 1, i], v[k + 1, i] = velocity, unsent - s
            sent.append(s)
        if who:
            x[k + 1] = x[k] - sum(a) / n * mean_over(who, sent, p, d)
        public[k + 1] = published(downlink, k, public[k], x[k + 1])
    return (x, {"u": u, "v": v, "public": public}) if history else x


def message(compress, k, i, vector, channel=0):
    """Return what client i sends of its vector in round k, as a float64 array [d]."""
    return np.array(compress(k, channel, i, vector.copy()), dtype=np.float64)


def published(downlink, k, public, x):
    """Return what clients hold after round k: x itself, or public + downlink(x - public)."""
    if downlink is None:
        return x
    return public + np.asarray(downlink(x - public, k), dtype=np.float64)


def shortened(g, most):
    """Return g min(1, most / |g|), g itself if it is 0."""
    length = np.sqrt(np.sum(g**2))
    return g * most / length if length > most else g
