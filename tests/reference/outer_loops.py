"""Low-communication methods as loops over rounds, clients, inner steps and leaves.

Conventions are those of federated.py, of methods.py for noloco, whose weights are a list of
matrices W_k, and of asynchronous.py for aedit and async_diloco. gradient(i, x, k, l) is asked for
once for each inner step of a client that is active: in round k at inner step l, or with l = 0 in
step k where a step is one inner step of all. stepsize(k) is the inner stepsize of round, or of
step, k. Where a client starts from phi, its inner optimizer goes on with the memory it has.

local and server make optimizers: local() is called once a client and server() once, or once a
fragment. An optimizer has update(g, x) -> direction, to be subtracted times a stepsize, and memory,
a dict of float arrays and integers by name, empty before the first update.

leaves is a list of the (offset, size) of the model's leaves, the whole of it if None. A compressor
is a function compress(k, channel, i, v) of what client i sends in round or step k, channel 0.

mean_S(u_i) is sum_S p_i u_i / sum_S p_i over the active clients, p [n] or None for the plain mean.
"""

import math
from collections.abc import Callable

import numpy as np

from .asynchronous import mean_of_returns, serve
from .federated import ask, mean_over, participants, start, weights
from .methods import agent_stepsizes, neighbor_sum

# --- optimizers -----------------------------------------------------------------------------------


class SGD:
    """u = g."""

    def __init__(self):
        self.memory = {}

    def update(self, g, x):
        """Return the direction of the gradient g at x, and remember it."""
        del x
        return g


class HeavyBall(SGD):
    """m = g + b m, u = m."""

    def __init__(self, decay):
        super().__init__()
        self.decay = decay

    def update(self, g, x):
        """Return the direction of the gradient g at x, and remember it."""
        m = g + self.decay * self.memory.get("m", np.zeros_like(x))
        self.memory = {"m": m}
        return m


class Nesterov(HeavyBall):
    """m = g + b m, u = g + b m with the new m: torch's, and optax.trace(b, nesterov=True)."""

    def update(self, g, x):
        """Return the direction of the gradient g at x, and remember it."""
        return g + self.decay * super().update(g, x)


class Adam(SGD):
    """u = mhat / (sqrt(vhat) + eps) + w x, bias-corrected; w = weight_decay makes it AdamW."""

    def __init__(self, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0):
        super().__init__()
        self.b1, self.b2, self.eps, self.weight_decay = b1, b2, eps, weight_decay

    def update(self, g, x):
        """Return the direction of the gradient g at x, and remember it."""
        m = self.b1 * self.memory.get("m", np.zeros_like(x)) + (1 - self.b1) * g
        v = self.b2 * self.memory.get("v", np.zeros_like(x)) + (1 - self.b2) * g**2
        t = self.memory.get("t", 0) + 1
        self.memory = {"m": m, "v": v, "t": t}
        mhat, vhat = m / (1 - self.b1**t), v / (1 - self.b2**t)
        return mhat / (np.sqrt(vhat) + self.eps) + self.weight_decay * x


class DelayedNesterov(SGD):
    """u = g / N; in every N-th call m = b m + (the last N g) / N, and u = g / N + b m."""

    def __init__(self, decay, every):
        super().__init__()
        self.decay, self.every = decay, every

    def update(self, g, x):
        """Return the direction of the gradient g at x, and remember it."""
        m = self.memory.get("m", np.zeros_like(x))
        total = self.memory.get("sum", np.zeros_like(x)) + g / self.every
        t = self.memory.get("t", 0) + 1
        u = g / self.every
        if t % self.every == 0:
            m = self.decay * m + total
            u = u + self.decay * m
            total = np.zeros_like(x)
        self.memory = {"m": m, "sum": total, "t": t}
        return u


Make = Callable[[], SGD]


def average_memory(optimizers, who, p):
    """Give the optimizers of `who` the mean over them of each float array; integers stay."""
    for name, value in list(optimizers[who[0]].memory.items()):
        if isinstance(value, int):
            continue
        arrays = [optimizers[i].memory[name].ravel() for i in who]
        mean = mean_over(who, arrays, p, value.size).reshape(value.shape)
        for i in who:
            optimizers[i].memory[name] = mean.copy()


def inner_steps(gradient, optimizer, i, x, k, stepsize, count):
    """Return what client i makes of x in round k: count times y -= a u(g_i(y))."""
    y = x.copy()
    for l in range(count):  # noqa: E741
        y = y - stepsize * optimizer.update(ask(gradient, i, y, k, l), y)
    return y


# --- rounds ---------------------------------------------------------------------------------------


def diloco(
    gradient,
    active,
    x0,
    stepsize,
    steps,
    local_steps=1,
    server_stepsize=1.0,
    local: Make = SGD,
    server: Make = SGD,
    memory="keep",
    p=None,
):
    """Run DiLoCo (Douillard et al. 2023): phi -= s u_server(Delta), Delta = phi - mean_S theta_i.

    Clients in S make H = local_steps inner steps from theta_i = phi. Their inner memory is kept, or
    is a new one in each round ("reset"), or becomes the mean_S of it after the round ("average").
    Absent clients keep theirs. Nobody active: nothing changes.
    """
    x = start(x0, steps)
    d, n = x.shape[1], np.shape(active)[1]
    p = weights(p, n)
    inner, outer = [local() for _ in range(n)], server()
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        who = participants(active, k)
        if not who:
            x[k + 1] = x[k]
            continue
        models = []
        for i in who:
            if memory == "reset":
                inner[i] = local()
            models.append(inner_steps(gradient, inner[i], i, x[k], k, a[i], local_steps))
        if memory == "average":
            average_memory(inner, who, p)
        delta = x[k] - mean_over(who, models, p, d)
        x[k + 1] = x[k] - server_stepsize * outer.update(delta, x[k])
    return x


def sparse_loco(
    gradient,
    active,
    x0,
    stepsize,
    steps,
    compress,
    local_steps=1,
    server_stepsize=1.0,
    decay=0.95,
    local: Make = SGD,
    p=None,
):
    """Run SparseLoCo (Sarfi et al. 2025): error feedback in place of the outer momentum.

    In S: theta_i after H inner steps from theta, e_i <- b e_i + theta - theta_i, C(e_i) is sent,
    e_i -= C(e_i). Then theta -= s mean_S C(e_i). Absent clients keep e_i as it is. Nobody active:
    nothing changes.
    """
    x = start(x0, steps)
    d, n = x.shape[1], np.shape(active)[1]
    p = weights(p, n)
    inner, e = [local() for _ in range(n)], np.zeros((n, d))
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        who = participants(active, k)
        if not who:
            x[k + 1] = x[k]
            continue
        sent = []
        for i in who:
            y = inner_steps(gradient, inner[i], i, x[k], k, a[i], local_steps)
            e[i] = decay * e[i] + (x[k] - y)
            sent.append(np.asarray(compress(k, 0, i, e[i].copy()), dtype=np.float64))
            e[i] = e[i] - sent[-1]
        x[k + 1] = x[k] - server_stepsize * mean_over(who, sent, p, d)
    return x


def co2(
    gradient,
    active,
    x0,
    stepsize,
    steps,
    local_steps=1,
    server_stepsize=1.0,
    momentum=0.5,
    gap=None,
    clip=None,
    local: Make = SGD,
    p=None,
):
    """Run CO2 (Sun et al. 2024): what round t - 1 found out arrives at the end of round t.

    Row t of the result is x_t,0, from which all start round t. delta_t = x_t,0 - mean_S theta_i
    after their H inner steps. At the end of round t, with L = gap, or gap(x_t,0 - x_{t-1},0,
    delta_{t-1}), and 2 s / (1 - b) if it is None: m <- b m + delta_{t-1} / L, each coordinate of m
    clipped to +-clip, x_{t+1},0 = x_t,0 - s m. Nothing is pending in the first round: m and x stay.
    Nobody active: nothing changes, and what is pending waits.
    """
    x = start(x0, steps)
    d, n = x.shape[1], np.shape(active)[1]
    p = weights(p, n)
    inner, m, pending, before = [local() for _ in range(n)], np.zeros(d), None, x[0]
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        who = participants(active, k)
        x[k + 1] = x[k]
        if not who:
            continue
        models = [inner_steps(gradient, inner[i], i, x[k], k, a[i], local_steps) for i in who]
        if pending is not None:
            if gap is None:
                penalty = 2.0 * server_stepsize / (1.0 - momentum)
            else:
                penalty = gap(x[k] - before, pending) if callable(gap) else gap
            m = momentum * m + pending / penalty
            if clip is not None:
                m = np.minimum(np.maximum(m, -clip), clip)
            x[k + 1] = x[k] - server_stepsize * m
        pending, before = x[k] - mean_over(who, models, p, d), x[k]
    return x


def noloco(
    gradient,
    weights,
    x0,
    stepsize,
    steps,
    local_steps=1,
    server_stepsize=0.7,
    momentum=0.5,
    gamma=None,
    local: Make = SGD,
):
    """Run NoLoCo (Kolehmainen et al. 2025): an outer momentum an agent, and pairs in W_k.

    Delta_i = theta_i - phi_i after H inner steps from theta_i = phi_i, then delta_i <- a delta_i +
    b sum_j w_ij Delta_j - gamma (phi_i - sum_j w_ij phi_j) and phi_i += delta_i, with a =
    momentum, b = server_stepsize and gamma = b if it is None. weights is W [n, n], or a list of
    them, W_k of round k; x0 is [n, d], and the result phi [steps + 1, n, d].
    """
    gamma = server_stepsize if gamma is None else gamma
    x0 = np.asarray(x0, dtype=np.float64)
    n, d = x0.shape
    if np.ndim(weights) == 2:
        weights = [weights] * steps
    phi = np.zeros((steps + 1, n, d))
    phi[0] = x0
    inner, moving = [local() for _ in range(n)], np.zeros((n, d))
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        change = np.zeros((n, d))
        for i in range(n):
            y = inner_steps(gradient, inner[i], i, phi[k, i], k, a[i], local_steps)
            change[i] = y - phi[k, i]
        for i in range(n):
            apart = phi[k, i] - neighbor_sum(weights[k], phi[k], i)
            arrived = neighbor_sum(weights[k], change, i)
            moving[i] = momentum * moving[i] + server_stepsize * arrived - gamma * apart
            phi[k + 1, i] = phi[k, i] + moving[i]
    return phi


# --- fragments ------------------------------------------------------------------------------------


def coordinates(leaves, fragments, d):
    """Return the coordinates of each fragment: leaf l belongs to fragment l mod P."""
    found = [[] for _ in range(fragments)]
    for number, (offset, size) in enumerate([(0, d)] if leaves is None else leaves):
        found[number % fragments].extend(range(offset, offset + size))
    return [np.array(indices, dtype=int) for indices in found]


def offsets(period, fragments):
    """Return o_p = floor((p + 1) H / P) of the fragments p = 0 .. P - 1."""
    return [(p + 1) * period // fragments for p in range(fragments)]


def returning(active, k):
    """Return who is active in step k and was not in the step before."""
    return [i for i in participants(active, k) if k > 0 and not active[k - 1][i]]


def streaming_diloco(
    gradient,
    active,
    x0,
    stepsize,
    steps,
    period,
    fragments=1,
    delay=0,
    merge=0.0,
    server_stepsize=1.0,
    leaves=None,
    local: Make = SGD,
    server: Make = SGD,
    compress=None,
    failed=(),
    copied=None,
    p=None,
):
    """Run Streaming DiLoCo (Douillard et al. 2025), with torchft's schedule and failures.

    A step is an inner step of all who are active. After the step number s = k + 1 = 1, 2, ...

        s = o_p - delay mod H:  Delta_p = mean_S C(phi_p - theta_i,p) is sent,
        s = o_p mod H:          phi_p -= server_stepsize u_p(Delta_p),
                                theta_i,p <- merge theta_i,p + (1 - merge) phi_p for i in S,

    with H = period, o_p = floor((p + 1) H / P), S who is active in that step, and C on the vector
    of the fragment's coordinates, leaf after leaf. Nobody active at the sending: phi_p, the
    server's memory and all theta_i,p stay at the arrival, too. Absent clients keep theta_i, and
    start from phi when they return.

    failed are the numbers 0, 1, ... of the exchanges, in the order of time, whose commit fails:
    then theta_i,p <- phi_p for i in S, nothing else changes, and the same fragment is what the
    next exchange is about. copied[s] = [(i, j), ...]: after step s, before anything is sent, client
    i takes over theta_j, as torchft's replicas do that join.

    Return phi [steps + 1, d] and theta [steps + 1, n, d], each before the steps 0 .. steps.
    """
    phi = start(x0, steps)
    d, n = phi.shape[1], np.shape(active)[1]
    p = weights(p, n)
    theta = np.zeros((steps + 1, n, d))
    theta[0] = phi[0]
    parts, due = coordinates(leaves, fragments, d), offsets(period, fragments)
    inner, outer = [local() for _ in range(n)], [server() for _ in range(fragments)]
    exchange, failures, pending = 0, 0, None
    for k in range(steps):
        a, s, who = agent_stepsizes(stepsize, k, n), k + 1, participants(active, k)
        phi[s], theta[s] = phi[k], theta[k]
        for i in returning(active, k):
            theta[s, i] = phi[k]
        for i in who:
            g = ask(gradient, i, theta[s, i], k, 0)
            theta[s, i] = theta[s, i] - a[i] * inner[i].update(g, theta[s, i])
        for i, j in (copied or {}).get(s, []):
            theta[s, i] = theta[s, j]
        which = (exchange - failures) % fragments
        part = parts[which]
        arrival = due[exchange % fragments] + period * (exchange // fragments)
        if s == arrival - delay:
            moves = [phi[s, part] - theta[s, i, part] for i in who]
            if compress is not None:
                moves = [np.asarray(compress(k, 0, i, v)) for i, v in zip(who, moves, strict=True)]
            pending = mean_over(who, moves, p, len(part)) if who else None
        if s == arrival:
            if exchange in failed:
                failures += 1
                for i in who:
                    theta[s, i, part] = phi[s, part]
            elif pending is not None:
                u = outer[which].update(pending, phi[s, part])
                phi[s, part] = phi[s, part] - server_stepsize * u
                for i in who:
                    theta[s, i, part] = merge * theta[s, i, part] + (1 - merge) * phi[s, part]
            exchange, pending = exchange + 1, None
    return phi, theta


def decoupled_diloco(
    gradient,
    active,
    x0,
    stepsize,
    steps,
    period,
    fragments=1,
    quorum=1,
    grace=0,
    server_stepsize=1.0,
    leaves=None,
    local: Make = SGD,
    server: Make = SGD,
):
    """Run Decoupled DiLoCo (2026, arXiv 2604.21428) on a common clock, which waits for nobody.

    In tick s = k + 1 who is active makes an inner step. Learner m has made w_m,p inner steps since
    it last merged fragment p, or since it returned, then with phi for theta_m. Fragment p falls due
    at s = o_p mod H, and is merged in the first tick from then on in which `quorum` learners are
    there (active with w_m,p > 0), or, with a grace, `grace` ticks later, or, where by then fewer
    than the quorum are there, in the first tick in which it is there again. Falling due once more
    while it waits changes nothing. With sums over who is there in the tick of the merge,

        Delta_p = sum_m w_m,p (phi_p - theta_m,p) / sum_m w_m,p,  phi_p -= s u_p(Delta_p),

    and for these learners theta_m,p <- phi_p, w_m,p <- 0. The paper's weight, tokens x (tokens /
    steps), is w_m,p where all batches are of one size; how its grace works is ours.

    Return phi [steps + 1, d] and theta [steps + 1, n, d], each before the ticks 0 .. steps.
    """
    phi = start(x0, steps)
    d, n = phi.shape[1], np.shape(active)[1]
    theta = np.zeros((steps + 1, n, d))
    theta[0] = phi[0]
    parts, due = coordinates(leaves, fragments, d), offsets(period, fragments)
    inner, outer = [local() for _ in range(n)], [server() for _ in range(fragments)]
    worked = [[0] * fragments for _ in range(n)]
    waiting, merges_at = [False] * fragments, [math.inf] * fragments
    for k in range(steps):
        a, s, who = agent_stepsizes(stepsize, k, n), k + 1, participants(active, k)
        phi[s], theta[s] = phi[k], theta[k]
        for i in returning(active, k):
            theta[s, i], worked[i] = phi[k], [0] * fragments
        for i in who:
            g = ask(gradient, i, theta[s, i], k, 0)
            theta[s, i] = theta[s, i] - a[i] * inner[i].update(g, theta[s, i])
            worked[i] = [count + 1 for count in worked[i]]
        for which, part in enumerate(parts):
            if s % period == due[which] % period:
                waiting[which] = True
            if not waiting[which]:
                continue
            there = [i for i in who if worked[i][which] > 0]
            if len(there) < quorum:
                continue
            merges_at[which] = min(merges_at[which], s + grace)
            if s < merges_at[which]:
                continue
            total, mass = np.zeros(len(part)), 0.0
            for i in there:
                total = total + worked[i][which] * (phi[s, part] - theta[s, i, part])
                mass = mass + worked[i][which]
            u = outer[which].update(total / mass, phi[s, part])
            phi[s, part] = phi[s, part] - server_stepsize * u
            for i in there:
                theta[s, i, part], worked[i][which] = phi[s, part], 0
            waiting[which], merges_at[which] = False, math.inf
    return phi, theta


# --- norms, leaf by leaf --------------------------------------------------------------------------


class Norms:
    """The norms of one client's moves of one leaf: their running mean and variance."""

    def __init__(self):
        self.mean, self.variance, self.count = None, 0.0, 0

    def outlier(self, norm, threshold, decay, warmup):
        """Return whether norm is an outlier, and learn from it unless it is one.

        z = (G - mu) / sqrt(v) > threshold, where warmup or more norms came before, outliers among
        them. mu' = mu + a (G - mu) and v' = (1 - a) (v + a (G - mu) (G - mu')), with a = decay; the
        first norm makes mu = G and v = 0.
        """
        before, self.count = self.count, self.count + 1
        if self.mean is None:
            self.mean = norm
            return False
        apart = norm - self.mean
        if before >= warmup and apart > threshold * math.sqrt(self.variance):
            return True
        self.mean = self.mean + decay * apart
        self.variance = (1 - decay) * (self.variance + decay * apart * (norm - self.mean))
        return False


def penalize(moves, records, leaves, clip, threshold, decay, warmup):
    """Return EDiT's pseudo-gradient [d] of the moves D_i; records[i][l] are the Norms of their i.

    Leaf by leaf: D = sum_i w_i D_i, w = softmax(-|D_i|), over those that are no outliers, 0 if all
    are, and then D <- D min(1, clip / (|D| + 1e-8)). Moves are tested in their order.
    """
    d = len(moves[0])
    delta = np.zeros(d)
    for l, (offset, size) in enumerate([(0, d)] if leaves is None else leaves):  # noqa: E741
        leaf = slice(offset, offset + size)
        kept = []
        for move, record in zip(moves, records, strict=True):
            norm = math.sqrt(np.sum(move[leaf] ** 2))
            if not record[l].outlier(norm, threshold, decay, warmup):
                kept.append((norm, move[leaf]))
        if not kept:
            continue
        least = min(norm for norm, _ in kept)  # of all exponents, so that none underflows
        mass = sum(math.exp(least - norm) for norm, _ in kept)
        total = np.zeros(size)
        for norm, move in kept:
            total = total + math.exp(least - norm) / mass * move
        delta[leaf] = total * min(1.0, clip / (math.sqrt(np.sum(total**2)) + 1e-8))
    return delta


def norm_records(leaves, n):
    """Return new Norms, of every client and leaf."""
    return [[Norms() for _ in range(1 if leaves is None else len(leaves))] for _ in range(n)]


def edit(
    gradient,
    active,
    x0,
    stepsize,
    steps,
    local_steps=1,
    server_stepsize=1.0,
    clip=10.0,
    threshold=3.0,
    decay=0.02,
    warmup=100,
    leaves=None,
    local: Make = SGD,
    server: Make = SGD,
):
    """Run EDiT (Cheng et al. 2025): x -= s u_server(D), with the D of penalize, of D_i = x - x_i.

    Clients in S make H inner steps from x. Absent ones keep their norms and inner memory. Where all
    are outliers in a leaf, the server's optimizer gets zeros: without momentum the leaf stays.
    Nobody active: nothing changes. The method's weights are those of the norms, not of clients.
    """
    x = start(x0, steps)
    n = np.shape(active)[1]
    inner, outer, records = [local() for _ in range(n)], server(), norm_records(leaves, n)
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        who = participants(active, k)
        if not who:
            x[k + 1] = x[k]
            continue
        moves = [x[k] - inner_steps(gradient, inner[i], i, x[k], k, a[i], local_steps) for i in who]
        those = [records[i] for i in who]
        delta = penalize(moves, those, leaves, clip, threshold, decay, warmup)
        x[k + 1] = x[k] - server_stepsize * outer.update(delta, x[k])
    return x


# --- returns --------------------------------------------------------------------------------------


def dynamic_steps(speeds, local_steps):
    """Return DyLU's H_i = floor(v_i / max_j v_j H) of clients with the speeds v, at least 1."""
    return [max(1, int(np.floor(v / max(speeds) * local_steps))) for v in speeds]


def returned_moves(gradient, inner, merged, stepsize, local_steps, k):
    """Return sent_i - y_i of those who come back, whose inner optimizers go on with their memory.

    stepsize and local_steps are as in asynchronous.py.
    """
    a = agent_stepsizes(stepsize if callable(stepsize) else lambda _: stepsize, k, len(inner))
    moves = []
    for result, sent, _ in merged:
        i, count = result.client, np.asarray(local_steps)
        for index in (i, result.visit)[: count.ndim]:
            count = count[index]
        y = inner_steps(gradient, inner[i], i, sent, k, a[i], int(count))
        moves.append(sent - y)
    return moves


def async_diloco(
    gradient,
    x0,
    stepsize,
    server_stepsize,
    compute,
    rule,
    aggregations,
    local_steps,
    local: Make = SGD,
    server: Make | None = None,
    p=None,
):
    """Run asynchronous DiLoCo (Liu et al. 2024): x -= s u_server(mean over S of sent_i - y_i).

    S are those who come back, y_i what K_i inner steps made of the model sent_i that i had fetched,
    and the mean is by the weights p_i. The paper's server is DelayedNesterov(0.9, n), which is the
    default, its K_i are dynamic_steps, and S is one client. A tick without returns changes nothing.
    """
    n = len(compute)
    inner, outer = [local() for _ in range(n)], server() if server else DelayedNesterov(0.9, n)

    def step(k, x, merged):
        moves = returned_moves(gradient, inner, merged, stepsize, local_steps, k)
        return x - server_stepsize * outer.update(mean_of_returns(merged, moves, p, n), x)

    return serve(x0, compute, rule, aggregations, step)


def aedit(
    gradient,
    x0,
    stepsize,
    server_stepsize,
    compute,
    rule,
    aggregations,
    local_steps,
    clip=10.0,
    threshold=3.0,
    decay=0.02,
    warmup=100,
    leaves=None,
    local: Make = SGD,
    server: Make = SGD,
):
    """Run A-EDiT (Cheng et al. 2025), by returns: EDiT with D_i = sent_i - y_i of those who return.

    Each is tested by its own client's norms. A tick without returns changes nothing.
    """
    n = len(compute)
    inner, outer, records = [local() for _ in range(n)], server(), norm_records(leaves, n)

    def step(k, x, merged):
        moves = returned_moves(gradient, inner, merged, stepsize, local_steps, k)
        those = [records[result.client] for result, _, _ in merged]
        delta = penalize(moves, those, leaves, clip, threshold, decay, warmup)
        return x - server_stepsize * outer.update(delta, x)

    return serve(x0, compute, rule, aggregations, step)
