"""Linear sketches as matrices R [s, d], made of given draws, and descent through them.

A vector x [d] is sent as y = R x and read as R' y; E R'R = I and E |R'R x - x|^2 = c |x|^2, with c
as each docstring says. One matrix serves all clients of a round, so that a sum of sketches is the
sketch of the sum.
"""

import numpy as np

from .federated import ask, mean_over, participants, start, weights
from .methods import agent_stepsizes


def gaussian(normals):
    """Return R = N / sqrt(s) of standard normal N [s, d]; c = (d + 1) / s."""
    normals = np.asarray(normals, dtype=np.float64)
    return normals / np.sqrt(len(normals))


def rademacher(signs):
    """Return R = N / sqrt(s) of random signs N [s, d]; c = (d - 1) / s."""
    return gaussian(signs)


def count_sketch(buckets, signs, size):
    """Return the R [s, d] whose column j is 0 but for signs[j] in row buckets[j]; c = (d - 1) / s.

    Buckets [d] are uniform in 0 .. s - 1 and independent, s = size, and so are signs [d].
    """
    r = np.zeros((size, len(buckets)))
    for j in range(len(buckets)):
        r[buckets[j], j] = signs[j]
    return r


def srht(rows, signs, d):
    """Return the subsampled randomized Hadamard transform, c = (D / s - 1) (d - 1) / (D - 1).

    R = sqrt(D / s) S H diag(signs), cut to its first d columns, of which D, the least power of 2
    that is at least d, pads x by zeros. H is the orthonormal Hadamard matrix, S takes the s rows,
    different ones of 0 .. D - 1. Signs beyond the first d are not used.
    """
    padded = 1
    while padded < d:
        padded = 2 * padded
    h = hadamard(padded)
    r = np.zeros((len(rows), d))
    for place, row in enumerate(rows):
        for j in range(d):
            r[place, j] = np.sqrt(padded / len(rows)) * h[row, j] * signs[j]
    return r


def hadamard(size):
    """Return the orthonormal Hadamard matrix [D, D] in its natural order, D a power of 2.

    Entry (i, j) is 1 / sqrt(D) times -1 to the number of binary places where i and j both have a 1.
    """
    h = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            h[i, j] = (-1) ** (i & j).bit_count() / np.sqrt(size)
    return h


def sketched_sgd(
    gradient,
    active,
    x0,
    stepsize,
    steps,
    *,
    sketch,
    local_steps=1,
    server_stepsize=1.0,
    clip=None,
    noise=None,
    p=None,
):
    """Run sketched FedAvg (Song et al. 2023): x+ = x + eta_g R' mean_S y_i, R = sketch(k) [s, d].

    In S, from u = x, K times g = g_i(u), shortened to at most clip if that is not None, and u <- u
    - a_k,i (g + noise(i, k, l)), noise a function to [d] or None for 0; then y_i = R (u - x) is
    sent. The conventions are those of federated.py. Nobody active: x stays.
    """
    x = start(x0, steps)
    n = np.shape(active)[1]
    p = weights(p, n)
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        who = participants(active, k)
        x[k + 1] = x[k]
        if not who:
            continue
        r = np.asarray(sketch(k), dtype=np.float64)
        sent = []
        for i in who:
            u = x[k].copy()
            for local in range(local_steps):
                g = ask(gradient, i, u, k, local)
                length = np.sqrt(np.sum(g**2))
                if clip is not None and length > clip:
                    g = g * clip / length
                if noise is not None:
                    g = g + np.asarray(noise(i, k, local), dtype=np.float64)
                u = u - a[i] * g
            sent.append(r @ (u - x[k]))
        x[k + 1] = x[k] + server_stepsize * r.T @ mean_over(who, sent, p, len(r))
    return x
