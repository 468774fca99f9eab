"""Asynchronous and overlapping methods as event-by-event simulations, from their equations.

The clock of adsgd, asbcd, ad_psgd and r_fast. All n agents start at time 0. compute[i][m] is the
time of agent i's m-th gradient, m = 0, 1, ..., and delay(i, j, m) the time that the m-th message of
sender j to receiver i travels, inf when it is lost. Version 0 of an agent is its row of x0, known
to all at time 0, and version m + 1 is what it holds after its m-th update; message m carries
version m + 1. Messages may overtake each other: a receiver keeps the newest version only. At equal
times messages are delivered before gradients finish, and gradients finish in the order of the
agents' numbers. A message without delay is therefore delivered before the next agent finishes:
agents that finish together, without delays, make a Gauss-Seidel sweep, not a Jacobi one.

In these four gradient(e, i, x) is the [d] gradient of agent i at x for event number e = 0, 1, ...,
counted over all agents, x0 is an array [n, d], stepsize a number, and events the number of updates
to simulate. Each returns the list of its Events.
"""

import heapq
import itertools
import math
from dataclasses import dataclass, field

import numpy as np

from .methods import agent_stepsizes, neighbor_sum

DELIVERY, FINISH = 0, 1  # in this order at equal times


@dataclass
class Event:
    """One update: its time, its agent, the versions read {j: version} and all iterates after it."""

    time: float
    agent: int
    read: dict
    x: np.ndarray  # [n, d]
    extra: dict = field(default_factory=dict)


def simulate(compute, delay, receivers, inbox, update, events):
    """Run the clock; update(e, i, box) does agent i's update and says what it sends.

    receivers[j] lists whom j sends to after every update. inbox[i] = {j: (version, content)} is the
    newest message that i holds of each of its in-neighbors j, filled with version 0. update gets a
    box {j: content} and returns ({receiver: content}, the iterates [n, d], extra).
    """
    n = len(receivers)
    serial = itertools.count()  # so that the heap never compares contents
    heap = []
    for i in range(n):
        heapq.heappush(heap, (float(compute[i][0]), FINISH, i, next(serial), None))
    updates = [0] * n
    record = []
    while len(record) < events:
        time, kind, i, _, message = heapq.heappop(heap)
        if kind == DELIVERY:
            j, version, content = message
            if version > inbox[i][j][0]:
                inbox[i][j] = (version, content)
            continue
        read = {j: version for j, (version, _) in inbox[i].items()}
        box = {j: content for j, (_, content) in inbox[i].items()}
        outgoing, x, extra = update(len(record), i, box)
        record.append(Event(time, i, read, x.copy(), extra))
        m = updates[i]
        updates[i] = m + 1
        for receiver in receivers[i]:
            travel = float(delay(receiver, i, m))
            if math.isfinite(travel):
                message = (i, m + 1, outgoing[receiver].copy())
                heapq.heappush(heap, (time + travel, DELIVERY, receiver, next(serial), message))
        if len(record) < events:
            finish = time + float(compute[i][m + 1])
            heapq.heappush(heap, (finish, FINISH, i, next(serial), None))
    return record


def adsgd(gradient, weights, x0, stepsize, compute, delay, events, relaxation=1.0):
    """Run ADSGD (Zhou and Pu 2025): mix with the newest models received.

    x_i+ = sum_j w_ij x_j(newest received) - a g_i(x_i), own x_i fresh; with the relaxation t,
    x_i+ = (1 - t) x_i + t (that). Agent i sends x_i+ to its neighbors, all j with w_ij != 0, and
    starts its next gradient at once.
    """
    x = np.array(x0, dtype=np.float64)
    n = len(x)
    neighbors = [[j for j in range(n) if j != i and weights[i][j] != 0] for i in range(n)]
    inbox = [{j: (0, x[j].copy()) for j in neighbors[i]} for i in range(n)]

    def update(e, i, box):
        g = gradient(e, i, x[i].copy())
        target = weights[i][i] * x[i]
        for j in neighbors[i]:
            target = target + weights[i][j] * box[j]
        target = target - stepsize * g
        x[i] = (1.0 - relaxation) * x[i] + relaxation * target
        return {j: x[i] for j in neighbors[i]}, x, {}

    return simulate(compute, delay, neighbors, inbox, update, events)


def asbcd(gradient, weights, x0, stepsize, penalty, compute, delay, events):
    """Run block coordinate descent on sum_i f_i(x_i) + (1 / (2 p)) x^T ((I - W) kron I) x.

    x_i+ = x_i - a [g_i(x_i) + (1 / p) sum_j (I - W)_ij xhat_j], with p the penalty, xhat_i = x_i
    the fresh own block and xhat_j the newest version of block j that has reached i.
    """
    x = np.array(x0, dtype=np.float64)
    n = len(x)
    laplacian = np.eye(n) - np.asarray(weights, dtype=np.float64)
    neighbors = [[j for j in range(n) if j != i and laplacian[i, j] != 0] for i in range(n)]
    inbox = [{j: (0, x[j].copy()) for j in neighbors[i]} for i in range(n)]

    def update(e, i, box):
        block = gradient(e, i, x[i].copy()) + laplacian[i, i] * x[i] / penalty
        for j in neighbors[i]:
            block = block + laplacian[i, j] * box[j] / penalty
        x[i] = x[i] - stepsize * block
        return {j: x[i] for j in neighbors[i]}, x, {}

    return simulate(compute, delay, neighbors, inbox, update, events)


def ad_psgd(gradient, x0, stepsize, compute, delay, partner, events):
    """Run AD-PSGD (Lian et al. 2018) with the clock's ties.

    Worker i begins by copying its own x_i. After compute[i][m] + delay(i, j, m) more seconds, where
    j = partner(i, m) is the partner of its m-th update, all of this happens at once: x_i and x_j
    both become (x_i + x_j) / 2, then x_i -= a g_i(the copy), then i begins again. A worker that is
    its own partner only steps. Here a version counts the times a row was written, by its worker or
    by another, and read = {i: version of the copy, j: version of x_j that was averaged}.
    """
    x = np.array(x0, dtype=np.float64)
    n = len(x)
    versions, updates, copies, heap, record = [0] * n, [0] * n, {}, [], []

    def begin(i, time):
        m = updates[i]
        j = int(partner(i, m))
        copies[i] = (versions[i], x[i].copy())
        heapq.heappush(heap, (time + float(compute[i][m]) + float(delay(i, j, m)), i, j))

    for i in range(n):
        begin(i, 0.0)
    while len(record) < events:
        time, i, j = heapq.heappop(heap)
        version, copy = copies[i]
        g = gradient(len(record), i, copy.copy())
        read = {j: versions[j], i: version}
        if j != i:
            middle = (x[i] + x[j]) / 2.0
            x[i] = middle
            x[j] = middle
            versions[j] += 1
        x[i] = x[i] - stepsize * g
        versions[i] += 1
        updates[i] += 1
        record.append(Event(time, i, read, x.copy()))
        if len(record) < events:
            begin(i, time)
    return record


def r_fast(gradient, row, column, x0, stepsize, compute, delay, events):
    """Run R-FAST (Zhu et al. 2024): Push-Pull with running sums, so that losses lose no mass.

    W = row mixes v (rows sum to 1); A = column shares z (columns sum to 1), a_ji being the share of
    i's z that goes to j. At agent i's event, in this order and at one instant, with the newest
    message (v_j, rho_ij) that has arrived from each in-neighbor j by then:

        v_i = x_i - a z_i
        x_i = w_ii v_i + sum_j w_ij v_j
        g_i+ = gradient at this new x_i
        zh = z_i + g_i+ - g_i + sum_j (rho_ij - taken_ij);   taken_ij = rho_ij;   g_i = g_i+
        z_i = a_ii zh;   rho_ji += a_ji zh for every out-neighbor j
        send (v_i, rho_ji) to every j with w_ji != 0 or a_ji != 0, one message a link

    The time compute[i][m] passes before the event, and the gradient is that of the point just
    mixed: the event is the whole iteration, dated at its end, and it reads what is there at its
    end. Start: z_i = 0, g_i = 0, rho = taken = 0, and v_j = x_j^0 as version 0. Then
    sum_i z_i + sum_ij (rho_ij - taken_ij) = sum_i g_i after every event, whatever is lost, with the
    sender's rho_ij. extra holds z [n, d], gradients [n, d] and pending [n, n, d], whose row [i, j]
    is rho_ij - taken_ij: the mass sent by j that i has not taken yet.
    """
    x = np.array(x0, dtype=np.float64)
    n, d = x.shape
    z, g = np.zeros((n, d)), np.zeros((n, d))
    rho, taken = np.zeros((n, n, d)), np.zeros((n, n, d))
    sources, targets = [[] for _ in range(n)], [[] for _ in range(n)]
    for i in range(n):
        for j in range(n):
            if j != i and (row[i][j] != 0 or column[i][j] != 0):
                sources[i].append(j)
                targets[j].append(i)
    inbox = [{j: (0, np.array([x[j], np.zeros(d)])) for j in sources[i]} for i in range(n)]

    def update(e, i, box):
        v = x[i] - stepsize * z[i]
        x[i] = row[i][i] * v
        for j in sources[i]:
            x[i] = x[i] + row[i][j] * box[j][0]
        g_new = gradient(e, i, x[i].copy())
        zh = z[i] + g_new - g[i]
        for j in sources[i]:
            zh = zh + box[j][1] - taken[i, j]
            taken[i, j] = box[j][1]
        g[i] = g_new
        z[i] = column[i][i] * zh
        outgoing = {}
        for j in targets[i]:
            rho[j, i] = rho[j, i] + column[j][i] * zh
            outgoing[j] = np.array([v, rho[j, i]])
        return outgoing, x, {"z": z.copy(), "gradients": g.copy(), "pending": rho - taken}

    return simulate(compute, delay, targets, inbox, update, events)


def osgp(gradient, column, x0, stepsize, steps, overlap):
    """Run Overlap SGP (Assran et al. 2019) in rounds; overlap 0 is SGP.

    With mass w_i (1 at first) and z_i = x_i / w_i, in round k: h_i = x_i - a_k,i g_i(z_i); i keeps
    a_ii (h_i, w_i) and sends a_ji (h_i, w_i) to j, which adds it at the end of round k + overlap.
    column is A [n, n], its columns summing to 1, or column(k) is that of round k; gradient(i, z, k)
    and stepsize(k) are as in methods.py. Returns z [steps + 1, n, d], the total mass of w
    [steps + 1] and that of x [steps + 1, d], both with what is in flight.
    """
    x = np.array(x0, dtype=np.float64)
    n = len(x)
    w = np.ones(n)
    flight = []  # (round of arrival, receiver, share of h, share of w)
    zs, total_w, total_x = [x.copy()], [w.sum()], [x.sum(axis=0)]
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        shares = np.asarray(column(k) if callable(column) else column)
        kept_x, kept_w = np.zeros_like(x), np.zeros(n)
        for i in range(n):
            h = x[i] - a[i] * gradient(i, x[i] / w[i], k)
            kept_x[i], kept_w[i] = shares[i, i] * h, shares[i, i] * w[i]
            for j in range(n):
                if j != i and shares[j, i] != 0:
                    flight.append((k + overlap, j, shares[j, i] * h, shares[j, i] * w[i]))
        x, w = kept_x, kept_w
        still = []
        for message in flight:
            arrival, j, share_x, share_w = message
            if arrival == k:
                x[j] = x[j] + share_x
                w[j] = w[j] + share_w
            else:
                still.append(message)
        flight = still
        zs.append(np.array([x[i] / w[i] for i in range(n)]))
        total_w.append(w.sum() + sum(message[3] for message in flight))
        total_x.append(x.sum(axis=0) + sum(message[2] for message in flight))
    return np.array(zs), np.array(total_w), np.array(total_x)


def osgp_one_exchange(gradient, column, x0, stepsize, steps, patience):
    """Run Overlap SGP as its authors' code does: one exchange at a time, gradients in full.

    Step k: (1) if an exchange sent more than patience steps before is under way, wait for it: every
    agent adds all that was sent to it, to u and w. (2) If none is under way, agent i sends
    a_ji (u_i, w_i) to every j and keeps a_ii (u_i, w_i). (3) g_i is taken at u_i / w_i, and
    (4) u_i -= a_k,i g_i.
    Arguments and returns are as in osgp: u / w after (1) of the steps 0 .. steps, and the masses.
    """
    u = np.array(x0, dtype=np.float64)
    n = len(u)
    w = np.ones(n)
    inbox, sent = None, 0
    zs, total_w, total_u = [], [], []
    for k in range(steps + 1):
        if inbox is not None and k - sent > patience:
            for i in range(n):
                for share_u, share_w in inbox[i]:
                    u[i] = u[i] + share_u
                    w[i] = w[i] + share_w
            inbox = None
        waiting = [] if inbox is None else [message for box in inbox for message in box]
        zs.append(np.array([u[i] / w[i] for i in range(n)]))
        total_w.append(w.sum() + sum(share_w for _, share_w in waiting))
        total_u.append(u.sum(axis=0) + sum(share_u for share_u, _ in waiting))
        if k == steps:
            return np.array(zs), np.array(total_w), np.array(total_u)
        if inbox is None:
            shares = np.asarray(column(k) if callable(column) else column)
            inbox, sent = [[] for _ in range(n)], k
            for i in range(n):
                for j in range(n):
                    if j != i and shares[j, i] != 0:
                        inbox[j].append((shares[j, i] * u[i], shares[j, i] * w[i]))
                u[i], w[i] = shares[i, i] * u[i], shares[i, i] * w[i]
        a = agent_stepsizes(stepsize, k, n)
        for i in range(n):
            u[i] = u[i] - a[i] * gradient(i, u[i] / w[i], k)


def local_dsgd(gradient, weights, x0, stepsize, rounds, local_steps):
    """Run local DSGD: in round k every agent takes local_steps steps, then x_i = sum_j w_ij y_j.

    y_i = x_i at first, then y_i -= a_k,i g_i(y_i, k, l) for l = 0 .. local_steps - 1. Here
    gradient(i, x, k, l) is agent i's gradient in round k at local step l, and stepsize(k) a float
    or [n]. Returns the iterates at the ends of the rounds, [rounds + 1, n, d], row 0 being x0.
    """
    x = [np.array(x0, dtype=np.float64)]
    n = len(x[0])
    for k in range(rounds):
        a = agent_stepsizes(stepsize, k, n)
        y = x[k].copy()
        for i in range(n):
            for l in range(local_steps):  # noqa: E741
                y[i] = y[i] - a[i] * gradient(i, y[i].copy(), k, l)
        x.append(np.array([neighbor_sum(weights, y, i) for i in range(n)]))
    return np.array(x)


def oldsgd(gradient, weights, x0, stepsize, rounds, local_steps):
    """Run OLDSGD (Zhou and Pu 2026): the models of the round's start mix while the agents step.

    x_i at the end of round k is sum_j w_ij x_j - a_k,i sum_l g_i(y_i,l, k, l), with x_j from the
    round's start, the own one too, y_i,0 = x_i and y_i,l+1 = y_i,l - a_k,i g_i(y_i,l, k, l).
    Arguments and returns as in local_dsgd.
    """
    x = [np.array(x0, dtype=np.float64)]
    n = len(x[0])
    for k in range(rounds):
        a = agent_stepsizes(stepsize, k, n)
        new = np.zeros_like(x[k])
        for i in range(n):
            y, total = x[k][i].copy(), np.zeros_like(x[k][i])
            for l in range(local_steps):  # noqa: E741
                g = gradient(i, y.copy(), k, l)
                total = total + g
                y = y - a[i] * g
            new[i] = neighbor_sum(weights, x[k], i) - a[i] * total
        x.append(new)
    return np.array(x)


def oldsgd_incremental(gradient, weights, x0, stepsize, rounds, local_steps):
    """Run OLDSGD in its incremental form, which keeps the posted copies c_i and no gradient sums.

    Local steps change x_i itself; at the end of the round x_i += sum_j w_ij c_j - c_i, and then
    c_i = x_i is posted. Arguments and returns as in local_dsgd.
    """
    x = np.array(x0, dtype=np.float64)
    n = len(x)
    posted = x.copy()
    trajectory = [x.copy()]
    for k in range(rounds):
        a = agent_stepsizes(stepsize, k, n)
        for l in range(local_steps):  # noqa: E741
            for i in range(n):
                x[i] = x[i] - a[i] * gradient(i, x[i].copy(), k, l)
        for i in range(n):
            x[i] = x[i] + neighbor_sum(weights, posted, i) - posted[i]
        posted = x.copy()
        trajectory.append(x.copy())
    return np.array(trajectory)


# --- a server and its clients -------------------------------------------------------------------
#
# Client i fetches the server's model, works on it for compute[i][m] > 0 seconds in its m-th visit
# (the whole local work), and returns. gradient(i, x, k, l) is its gradient at local step l of a
# visit that is merged at aggregation k; x0 is the server's [d]; stepsize is a number, or
# stepsize(k) a number or [n] for what is merged at aggregation k; local_steps is one number, or
# one a client [n], or one a visit [n, M].


@dataclass
class Return:
    """One returned visit: the client, its number of visits before, the version it had fetched."""

    client: int
    visit: int
    fetched: int


@dataclass
class Aggregation:
    """One server step: its time, who returned, versions since each fetched, and the model [d]."""

    time: float
    who: list
    staleness: list
    x: np.ndarray


def arrivals(compute, rule, aggregations):
    """Return [(time, [Return, ...])] of the aggregations, whose number k makes version k + 1.

    ("each",): every return is an aggregation of its own, and the client restarts at once with the
    new model; simultaneous returns go in the order of the clients' numbers.
    ("every", dt): at the ticks dt, 2 dt, ... all who returned since the last tick, or just now, are
    aggregated, and restart then. A tick without returns counts as an
    aggregation and as a version too, though nobody comes and the model stays.
    ("buffer", c): the aggregation comes when c clients have returned, in the order of time and then
    number, and these c restart then. ("buffer", c, "at once"): each restarts when it returns, with
    the model of that moment, the c-th one with the new model; a client may be in a buffer twice.
    ("all",): synchronous; the aggregation comes when the last has returned.
    """
    n = len(compute)
    heap = [(float(compute[i][0]), i) for i in range(n)]
    heapq.heapify(heap)
    visits, fetched = [0] * n, [0] * n

    def restart(i, time, version):
        fetched[i] = version
        heapq.heappush(heap, (time + float(compute[i][visits[i]]), i))

    def take():
        time, i = heapq.heappop(heap)
        result = Return(i, visits[i], fetched[i])
        visits[i] += 1
        return time, result

    record = []
    for k in range(aggregations):
        returned, time = [], 0.0
        if rule[0] == "every":
            time = (k + 1) * rule[1]
            while heap and heap[0][0] <= time:
                returned.append(take()[1])
        else:
            size = {"each": 1, "all": n}[rule[0]] if rule[0] != "buffer" else rule[1]
            while len(returned) < size:
                time, result = take()
                returned.append(result)
                if rule[2:] == ("at once",) and len(returned) < size:
                    restart(result.client, time, k)
        record.append((time, returned))
        if k + 1 == aggregations:
            break
        waiting = returned[-1:] if rule[2:] == ("at once",) else returned
        for result in waiting:
            restart(result.client, time, k + 1)
    return record


def local_work(gradient, stepsize, local_steps, result, x, k, n):
    """Return y after K steps y -= a g_i(y, k, l) from y = x, and the mean of the K gradients."""
    i = result.client
    a = agent_stepsizes(stepsize if callable(stepsize) else lambda _: stepsize, k, n)[i]
    number = np.asarray(local_steps)
    if number.ndim > 0:
        number = number[i]
    if number.ndim > 0:
        number = number[result.visit]
    y, total = x.copy(), np.zeros_like(x)
    for l in range(int(number)):  # noqa: E741
        g = gradient(i, y.copy(), k, l)
        total = total + g
        y = y - a * g
    return y, total / int(number)


def serve(x0, compute, rule, aggregations, step):
    """Run the server: step(k, x, [(Return, model fetched, staleness), ...]) is its next model."""
    models = [np.array(x0, dtype=np.float64)]  # all versions
    record = []
    for k, (time, returned) in enumerate(arrivals(compute, rule, aggregations)):
        merged = []
        for result in returned:
            merged.append((result, models[result.fetched].copy(), k - result.fetched))
        x = step(k, models[k].copy(), merged) if merged else models[k].copy()
        models.append(x)
        who = [result.client for result, _, _ in merged]
        record.append(Aggregation(time, who, [age for _, _, age in merged], x.copy()))
    return record


def asynchronous_fed_avg(
    gradient, x0, stepsize, server_stepsize, weights, compute, rule, aggregations, local_steps
):
    """Run FedAvg under any of the rules (Fraboni et al. 2023), without renormalized weights.

    x += s sum_{i in S} weights[i] (y_i - sent_i), where sent_i is the model that i fetched, y_i
    what its local steps made of it, s the server's stepsize and S those who returned.
    """
    n = len(compute)

    def step(k, x, merged):
        for result, sent, _ in merged:
            y, _ = local_work(gradient, stepsize, local_steps, result, sent, k, n)
            x = x + server_stepsize * weights[result.client] * (y - sent)
        return x

    return serve(x0, compute, rule, aggregations, step)


def mean_of_returns(merged, vectors, p, n):
    """Return sum p_i u_i / sum p_i over what came back; p_i = 1/n each if p is None."""
    total, mass = np.zeros_like(vectors[0]), 0.0
    for (result, _, _), vector in zip(merged, vectors, strict=True):
        weight = 1.0 / n if p is None else float(p[result.client])
        total, mass = total + weight * vector, mass + weight
    return total / mass


def fed_buff(
    gradient, x0, stepsize, server_stepsize, compute, rule, aggregations, local_steps, p=None
):
    """Run FedBuff (Nguyen et al. 2022): x += s mean_{i in S} (1 + t_i)^(-1/2) (y_i - sent_i).

    The mean is by the weights p_i of the objective sum_i p_i f_i. S is the buffer and t_i the
    staleness. Under the rule ("buffer", c, "at once") clients do not wait until it is full.
    """
    n = len(compute)

    def step(k, x, merged):
        moves = []
        for result, sent, staleness in merged:
            y, _ = local_work(gradient, stepsize, local_steps, result, sent, k, n)
            moves.append((y - sent) / np.sqrt(1.0 + staleness))
        return x + server_stepsize * mean_of_returns(merged, moves, p, n)

    return serve(x0, compute, rule, aggregations, step)


def afa_cd(
    gradient, x0, stepsize, server_stepsize, compute, rule, aggregations, local_steps, p=None
):
    """Run AFA-CD (Yang et al. 2022): x -= s mean over the returns of G_i.

    The mean is by the weights p_i of the objective sum_i p_i f_i. G_i is the mean of the K_i
    gradients along i's local steps, so K_i may differ.
    """
    n = len(compute)

    def step(k, x, merged):
        means = [
            local_work(gradient, stepsize, local_steps, result, sent, k, n)[1]
            for result, sent, _ in merged
        ]
        return x - server_stepsize * mean_of_returns(merged, means, p, n)

    return serve(x0, compute, rule, aggregations, step)


def afa_cs(
    gradient,
    x0,
    stepsize,
    server_stepsize,
    compute,
    rule,
    aggregations,
    local_steps,
    table=None,
    p=None,
):
    """Run AFA-CS (Yang et al. 2022): G_i goes to row i of a table, x -= s sum_j p_j row_j.

    G_i is as in AFA-CD; the table starts at the given [n, d], or at zeros. Only returns make the
    server step: at a tick without any the model stays.
    """
    n = len(compute)
    d = len(x0)
    rows = np.zeros((n, d)) if table is None else np.array(table, dtype=np.float64)

    def step(k, x, merged):
        for result, sent, _ in merged:
            i = result.client
            rows[i] = local_work(gradient, stepsize, local_steps, result, sent, k, n)[1]
        total = np.zeros(d)
        for i in range(n):
            total = total + rows[i] * (1.0 / n if p is None else p[i])
        return x - server_stepsize * total

    return serve(x0, compute, rule, aggregations, step)
