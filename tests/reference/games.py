"""Games on a server, whose operators take a gradient's place, as loops over steps and agents.

The problem is to find z with F(z) = sum_i p_i F_i(z) = 0, p [n] summing to 1 or None for 1/n each.
The conventions are those of error_feedback.py, with operator(i, z, k, l) for gradient: agent i's
F_i(z) [d] in step k, where l is 0 for the first point that a step asks at and 1 for the second, so
that noise differs between the two. A method returns z after every step, [steps + 1, d].

The methods have one stepsize for all: a_k = (1/n) sum_i a_k,i where agents have their own.
compress(k, channel, i, v) is agent i's message. There is no difference between the server's z and
what the agents hold: where it has a downlink, its message downlink(v, k) is a part of the step.
"""

from typing import Any

import numpy as np

from .error_feedback import message
from .federated import ask, mean_over, participants, start, weights
from .methods import agent_stepsizes


def extra_gradient(operator, active, z0, stepsize, steps, *, compress, p=None):
    """Run the extragradient method (Korpelevich 1976), naively compressed (Beznosikov et al. 2022).

    zh = z - a_k mean_S C(F_i(z)), sent on channel 0, and z+ = z - a_k mean_S C(F_i(zh)), on channel
    1, with the same S. Nobody active: z stays.
    """
    z = start(z0, steps)
    n, d = np.shape(active)[1], z.shape[1]
    p = weights(p, n)
    for k in range(steps):
        a = sum(agent_stepsizes(stepsize, k, n)) / n
        who = participants(active, k)
        z[k + 1] = z[k]
        if not who:
            continue
        sent = [message(compress, k, i, ask(operator, i, z[k], k, 0), 0) for i in who]
        half = z[k] - a * mean_over(who, sent, p, d)
        sent = [message(compress, k, i, ask(operator, i, half, k, 1), 1) for i in who]
        z[k + 1] = z[k] - a * mean_over(who, sent, p, d)
    return z


def masha1(
    operator,
    active,
    z0,
    stepsize,
    steps,
    *,
    compress,
    toss,
    probability,
    downlink=None,
    p=None,
    history=False,
) -> Any:
    """Run MASHA1 (Beznosikov et al. 2022) with unbiased compressors, all agents in every step.

    The snapshot w, F_i(w) and F(w) are renewed at w = z at the start of a step, if toss(k), uniform
    in [0, 1) and shared, is below the probability, and in the first step always. Then, with tau = 1
    - probability, zb = tau z + (1 - tau) w, zh = zb - a_k F(w), q = downlink(sum_i p_i C(F_i(zh) -
    F_i(w))), z+ = zh - a_k q.

    With history, also what is held during each step, and True where it was renewed: dict of w
    [steps, d], own [steps, n, d], mean [steps, d], renewed [steps].
    """
    z = start(z0, steps)
    n, d = _all_of(active), z.shape[1]
    p = weights(p, n)
    snapshots = Snapshots(operator, p, n, d, steps)
    for k in range(steps):
        a = sum(agent_stepsizes(stepsize, k, n)) / n
        w, own, mean = snapshots.at(z[k], k, toss, probability)
        half = probability * w + (1 - probability) * z[k] - a * mean
        sent = [message(compress, k, i, ask(operator, i, half, k, 1) - own[i]) for i in range(n)]
        q = mean_over(range(n), sent, p, d)
        if downlink is not None:
            q = np.asarray(downlink(q, k), dtype=np.float64)
        z[k + 1] = half - a * q
    return (z, snapshots.history) if history else z


def masha2(
    operator,
    active,
    z0,
    stepsize,
    steps,
    *,
    compress,
    toss,
    probability,
    downlink=None,
    p=None,
    history=False,
) -> Any:
    """Run MASHA2 (Beznosikov et al. 2022), with contractive compressors, w and zh as MASHA1's.

    c_i = C(a_k F_i(zh) - a_k F_i(w) + e_i), e_i+ = a_k F_i(zh) - a_k F_i(w) + e_i - c_i; the server
    q = downlink(sum_i p_i c_i + e), e+ = sum_i p_i c_i + e - q, where e = 0 without a downlink; z+
    = zh - q. With history, also e [steps + 1, n, d] and server [steps + 1, d], the server's e.
    """
    z = start(z0, steps)
    n, d = _all_of(active), z.shape[1]
    p = weights(p, n)
    snapshots = Snapshots(operator, p, n, d, steps)
    e, server = np.zeros((steps + 1, n, d)), np.zeros((steps + 1, d))
    for k in range(steps):
        a = sum(agent_stepsizes(stepsize, k, n)) / n
        w, own, mean = snapshots.at(z[k], k, toss, probability)
        half = probability * w + (1 - probability) * z[k] - a * mean
        sent = []
        for i in range(n):
            unsent = a * ask(operator, i, half, k, 1) - a * own[i] + e[k, i]
            sent.append(message(compress, k, i, unsent))
            e[k + 1, i] = unsent - sent[i]
        q = mean_over(range(n), sent, p, d)
        if downlink is not None:
            unsent = q + server[k]
            q = np.asarray(downlink(unsent, k), dtype=np.float64)
            server[k + 1] = unsent - q
        z[k + 1] = half - q
    return (z, {"e": e, "server": server, **snapshots.history}) if history else z


class Snapshots:
    """The last point w where all agents sent F_i(w) whole, and its history."""

    def __init__(self, operator, p, n, d, steps):
        self.operator, self.p = operator, p
        self.history = {
            "w": np.zeros((steps, d)),
            "own": np.zeros((steps, n, d)),
            "mean": np.zeros((steps, d)),
            "renewed": np.zeros(steps, bool),
        }

    def at(self, z, k, toss, probability):
        """Return w, own [n, d] and their mean in step k, renewed at z if that is its toss."""
        w, own, mean = (self.history[name] for name in ("w", "own", "mean"))
        if k == 0 or toss(k) < probability:
            self.history["renewed"][k] = True
            w[k] = z
            for i in range(len(self.p)):
                own[k, i] = ask(self.operator, i, z, k, 0)
            mean[k] = mean_over(range(len(self.p)), own[k], self.p, len(z))
        else:
            w[k], own[k], mean[k] = w[k - 1], own[k - 1], mean[k - 1]
        return w[k], own[k], mean[k]


def _all_of(active):
    """Return the number of agents, of whom none may be absent."""
    if not np.all(active):
        raise ValueError("MASHA has no partial participation: every agent is active in every step")
    return np.shape(active)[1]
