"""Methods on trees as loops over agents and edges, from their published recursions.

A tree is an int array parent [n]: parent[i] is the agent above i, and the root's parent is itself.
The rest is as in methods.py: gradient(i, x, k) and stepsize(k) are asked for the steps k = 0 ..
steps - 1 only, the gradient once for each agent and step; a method returns the agents' estimates
at every step, an array [steps + 1, n, d] whose row 0 is x0.
"""

import numpy as np

from .methods import agent_stepsizes, all_gradients, start


def heap_parent(n, branching):
    """Return the parents of the complete B-ary tree: parent(i) = (i - 1) // B, with root 0."""
    parent = np.zeros(n, dtype=int)
    for i in range(1, n):
        parent[i] = (i - 1) // branching
    return parent


def stpp(gradient, parent, push, x0, stepsize, steps):
    """Run spanning-tree Push-Pull: x_i+ = x_p - a_k,p y_p, where p = parent[i], from whom i pulls.

    y_i+ = sum of y_j over the j with push[j] = i, + g_i+ - g_i, y_0 = g_0; agent j pushes to
    push[j]. The root, one for both trees, is its own parent and pushes to itself.
    """
    x = start(x0, steps)
    n = x.shape[1]
    y, g_previous = np.zeros_like(x[0]), np.zeros_like(x[0])
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        g = all_gradients(gradient, x[k], k)
        if k == 0:
            y = g.copy()
        else:
            y_previous = y
            y = np.zeros_like(y_previous)
            for i in range(n):
                for j in range(n):
                    if push[j] == i:
                        y[i] = y[i] + y_previous[j]
                y[i] = y[i] + g[i] - g_previous[i]
        for i in range(n):
            p = parent[i]
            x[k + 1, i] = x[k, p] - a[p] * y[p]
        g_previous = g
    return x


def relay_sgd(gradient, parent, x0, stepsize, steps):
    """Run RelaySGD (Vogels et al. 2021, Algorithm 1) on the undirected edges (i, parent[i]).

    With h_i = x_i - a_k,i g_i, i sends each neighbor j the message m_ij = h_i + sum of last round's
    m_li over its other neighbors l, and the count c_ij = 1 + sum of last round's c_li, all 0 before
    round 0. Received in the same round: x_i+ = (h_i + sum_j m_ji) / (1 + sum_j c_ji), the mean over
    the agents that i has heard of, which are all n of them once k + 1 reaches the diameter.
    """
    x = start(x0, steps)
    n, d = x.shape[1:]
    neighbors = [[] for _ in range(n)]
    for i in range(n):
        p = int(parent[i])
        if p != i:
            neighbors[i].append(p)
            neighbors[p].append(i)
    messages, counts = {}, {}
    for i in range(n):
        for j in neighbors[i]:
            messages[i, j], counts[i, j] = np.zeros(d), 0
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        g = all_gradients(gradient, x[k], k)
        half = np.zeros_like(x[k])
        for i in range(n):
            half[i] = x[k, i] - a[i] * g[i]
        last_messages, last_counts = messages, counts
        messages, counts = {}, {}
        for i in range(n):
            for j in neighbors[i]:
                message, count = half[i].copy(), 1
                for other in neighbors[i]:
                    if other != j:
                        message = message + last_messages[other, i]
                        count = count + last_counts[other, i]
                messages[i, j], counts[i, j] = message, count
        for i in range(n):
            total, count = half[i].copy(), 1
            for j in neighbors[i]:
                total = total + messages[j, i]
                count = count + counts[j, i]
            x[k + 1, i] = total / count
    return x
