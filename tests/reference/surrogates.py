"""FZooS as loops over rounds, clients, local steps and queries, on the surrogates of black_boxes.

value(i, x, k, l) is as there: l is the local step, K in the round's end, K + 1 for the first
queries of all. offsets(k, l, count) [n, count, d] are uniform in -1 .. 1.
"""

import numpy as np

from .black_boxes import Features, GaussianProcess, corrected
from .federated import start


def fzoos(
    value,
    n,
    x0,
    stepsize,
    steps,
    *,
    offsets,
    frequencies,
    phases,
    local_steps=1,
    lengthscale=1.0,
    memory=120,
    active=4,
    candidates=60,
    initial=10,
    refit=10,
    radius=0.05,
    jitter=1e-6,
    correct=True,
):
    """Run FZooS (Shu et al. 2023); return (x [steps + 1, d], queries of a client [steps]).

    Each client keeps its last queries. Round 0 begins with initial ones, uniform in x +- radius. In
    a local step y <- y - a direction, of the process of the queries so far; then f_i(y) and its
    values at those active ones of the candidates in y +- radius whose slopes are least known, of
    the same process. In the end x is the mean of the y; refit of the candidates in x +- mean_i |x -
    y_i| / 2 are asked; and the weights are fitted to the kept queries, scaled as the process scales
    them.
    """
    x = start(x0, steps)
    features = Features(frequencies, phases, lengthscale)
    points, values = [[] for _ in range(n)], [[] for _ in range(n)]
    own = np.zeros((n, len(phases)))
    counts = []

    def ask(i, z, k, local):
        points[i].append(np.array(z))
        values[i].append(float(value(i, np.array(z), k, local)))
        del points[i][:-memory], values[i][:-memory]

    def least_known(process, around, count):
        uncertainty = [process.uncertainty(z) for z in around]
        return around[np.argsort(uncertainty)[::-1][:count]]

    for k in range(steps):
        mean, asked = own.mean(axis=0), np.zeros(n, int)
        ends = np.tile(x[k], (n, 1))
        for i in range(n):
            if k == 0:
                for z in x[k] + radius * offsets(k, local_steps + 1, initial)[i]:
                    ask(i, z, k, local_steps + 1)
                    asked[i] += 1
            for local in range(local_steps):
                process = GaussianProcess(points[i], values[i], lengthscale, jitter)
                direction = process.gradient(ends[i])
                if correct:
                    direction = corrected(process, features, own[i], mean, ends[i], local)
                ends[i] = ends[i] - stepsize(k) * direction
                around = ends[i] + radius * offsets(k, local, candidates)[i]
                for z in [ends[i].copy(), *least_known(process, around, active)]:
                    ask(i, z, k, local)
                    asked[i] += 1
        x[k + 1] = ends.mean(axis=0)
        reach = np.mean([np.sqrt(np.sum((x[k + 1] - y) ** 2)) for y in ends]) / 2
        for i in range(n):
            process = GaussianProcess(points[i], values[i], lengthscale, jitter)
            around = x[k + 1] + reach * offsets(k, local_steps, candidates)[i]
            for z in least_known(process, around, refit):
                ask(i, z, k, local_steps)
                asked[i] += 1
            low, high = min(values[i]), max(values[i])
            scaled = (np.array(values[i]) - low) / (high - low)
            own[i] = (high - low) * features.weights(points[i], scaled, jitter)
        counts.append(asked)
    return x, np.array(counts)
