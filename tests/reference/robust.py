"""Robust rules, what goes before them, attacks, and methods under liars, loop by loop.

A rule is made by its parameters and called as rule(x, heard=None, own=0, key=None): x [n, d] are
the messages, heard [n] says which of them have arrived (None: all; the others do not exist), own is
the index of the receiver's own message. It returns the aggregate [d]. Here m is the number of
messages heard and f of these may be liars'. What goes before a rule is called as
before(x, heard=None, key=None) and returns other messages with their own heard; randomness is
given as numbers, and key is in the signatures only because it is in the library's.

A message with a NaN or an inf in it counts as received and is farther from every other one, and of
larger norm, than any finite one; its coordinates count as the largest of all. Up to f of these, no
number of theirs enters a result. Where equal candidates compete, the one of the lower index wins.

An attack is called as attack(honest, liars=f, key=None, heard=None), honest [m, d] the honest
messages, on a graph those that one receiver hears, its own first; it returns the lie [d] that this
receiver is told. f is the number of liars that it hears.
"""

import itertools
import math
from statistics import NormalDist

import numpy as np

from .methods import agent_stepsizes, mixed_momentum, start

# What messages and rules have in common


def arrived(x, heard):
    """Return the messages as float64 [n, d] and the list of the indices of those heard."""
    x = np.asarray(x, dtype=np.float64)
    n = len(x)
    return x, [i for i in range(n) if heard is None or heard[i]]


def is_finite(v):
    """Return whether all numbers of a message are finite."""
    return bool(np.all(np.isfinite(v)))


def squared(v):
    """Return |v|^2, inf for a message that is not finite."""
    if not is_finite(v):
        return math.inf
    total = 0.0
    with np.errstate(over="ignore"):
        for number in v:
            total = total + number * number
    return float(total)


def squared_distance(u, v):
    """Return |u - v|^2, inf where one of the two is not finite."""
    if not (is_finite(u) and is_finite(v)):
        return math.inf
    with np.errstate(over="ignore"):
        return squared(u - v)


def smallest(values, who, count):
    """Return the count members of who with the smallest values, the lower index first on ties."""
    return sorted(sorted(who), key=lambda i: values[i])[:count]


def mean_of(x, who):
    """Return the mean of some rows of x; it is not finite if one of them is not."""
    total = np.zeros(x.shape[1])
    with np.errstate(invalid="ignore", over="ignore"):
        for i in who:
            total = total + x[i]
        return total / len(who)


def shortened(v, radius):
    """Return v min(1, radius / |v|), and zero for what is not finite: it has no direction."""
    if not is_finite(v):
        return np.zeros(len(v))
    norm = math.sqrt(squared(v))
    return v * (radius / norm) if norm > radius else v


def column(x, who, k):
    """Return coordinate k of the messages of who; those of a message that is not finite are inf."""
    return [float(x[i, k]) if is_finite(x[i]) else math.inf for i in who]


def middle(values):
    """Return the median of a list of numbers: the mean of the two in the middle if it is even."""
    values = sorted(values)
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2


def spare(m, f, least):
    """Refuse an f that leaves fewer than least messages of m after what the rule removes."""
    if f < 0 or m < least:
        raise ValueError(f"f is {f} of {m} messages; give a smaller f")


# Rules


def mean():
    """Return the mean of what is heard: no liar is survived, and a NaN passes."""

    def rule(x, heard=None, own=0, key=None):
        x, who = arrived(x, heard)
        return mean_of(x, who)

    return rule


def median():
    """Return the median of every coordinate."""

    def rule(x, heard=None, own=0, key=None):
        x, who = arrived(x, heard)
        return np.array([middle(column(x, who, k)) for k in range(x.shape[1])])

    return rule


def trimmed_mean(f):
    """Return, for every coordinate, the mean without the f largest and the f smallest values."""

    def rule(x, heard=None, own=0, key=None):
        x, who = arrived(x, heard)
        m = len(who)
        spare(m, f, 2 * f + 1)
        result = np.zeros(x.shape[1])
        for k in range(x.shape[1]):
            kept = sorted(column(x, who, k))[f : m - f]
            result[k] = sum(kept) / len(kept)
        return result

    return rule


def geometric_median(smoothing=1e-6, iterations=50):
    """Return smoothed Weiszfeld: z = sum w_i x_i / sum w_i, w_i = 1 / max(nu, |x_i - z|).

    z starts at the median of every coordinate. A message that is not finite is at distance inf and
    has the weight 0.
    """

    def rule(x, heard=None, own=0, key=None):
        x, who = arrived(x, heard)
        z = median()(x, heard)
        for _ in range(iterations):
            total, mass = np.zeros(x.shape[1]), 0.0
            for i in who:
                distance = math.sqrt(squared_distance(x[i], z))
                if distance < math.inf:
                    weight = 1.0 / max(smoothing, distance)
                    total, mass = total + weight * x[i], mass + weight
            if mass == 0:  # half of the messages or more are not finite
                return np.full(x.shape[1], np.nan)
            z = total / mass
        return z

    return rule


def krum_scores(x, who, f, neighbors=None):
    """Return {i: the sum of the squared distances from x_i to its m - f - 1 nearest others}."""
    count = len(who) - f - 1 if neighbors is None else neighbors
    if not 1 <= count <= max(len(who) - 1, 1) and len(who) > 1:
        raise ValueError(f"neighbors is {count} of {len(who)} messages; give 1 to {len(who) - 1}")
    scores = {}
    for i in who:
        distances = sorted(squared_distance(x[i], x[j]) for j in who if j != i)
        scores[i] = sum(distances[:count])
    return scores


def krum(f, neighbors=None):
    """Return the message of the smallest score of krum_scores."""

    def rule(x, heard=None, own=0, key=None):
        x, who = arrived(x, heard)
        return x[smallest(krum_scores(x, who, f, neighbors), who, 1)[0]].copy()

    return rule


def multi_krum(f, select=None):
    """Return the mean of the select messages with the smallest scores of Krum, m - f if None."""

    def rule(x, heard=None, own=0, key=None):
        x, who = arrived(x, heard)
        count = len(who) - f if select is None else select
        spare(len(who), f, f + 1)
        return mean_of(x, smallest(krum_scores(x, who, f), who, count))

    return rule


def centered_clipping(radius, iterations=1):
    """Return v after so many steps v <- v + (1/m) sum_i (x_i - v) min(1, tau / |x_i - v|) from 0.

    A message that is not finite adds nothing to the sum and is one of the m.
    """

    def rule(x, heard=None, own=0, key=None):
        x, who = arrived(x, heard)
        return _clipped(x, who, np.zeros(x.shape[1]), radius, iterations)

    return rule


def self_centered_clipping(radius=None, iterations=1):
    """Return centered clipping from x_own: one step is x_own + (1/m) sum_j clip(x_j - x_own).

    m counts oneself. With radius None tau is the second largest of the distances to the others, the
    only one if there is one other; what is not finite is at distance inf.
    """

    def rule(x, heard=None, own=0, key=None):
        x, who = arrived(x, heard)
        tau = radius
        if tau is None:
            distances = sorted(math.sqrt(squared_distance(x[j], x[own])) for j in who if j != own)
            tau = (distances[-2:] or [0.0])[0]
        return _clipped(x, who, x[own].copy(), tau, iterations)

    return rule


def _clipped(x, who, v, radius, iterations):
    for _ in range(iterations):
        total = np.zeros(len(v))
        for i in who:
            if is_finite(x[i]):
                total = total + shortened(x[i] - v, radius)
        v = v + total / len(who)
    return v


def mda(f):
    """Return the mean of the m - f messages of smallest diameter, the first subset on ties."""

    def rule(x, heard=None, own=0, key=None):
        x, who = arrived(x, heard)
        spare(len(who), f, 2 * f + 1)
        best, kept = None, []
        for subset in itertools.combinations(who, len(who) - f):
            diameter = 0.0
            for i, j in itertools.combinations(subset, 2):
                diameter = max(diameter, squared_distance(x[i], x[j]))
            if len(subset) == 1:  # no pair tells whether the message is finite
                diameter = 0.0 if is_finite(x[subset[0]]) else math.inf
            if best is None or diameter < best:
                best, kept = diameter, subset
        return mean_of(x, kept)

    return rule


def meamed(f):
    """Return, for every coordinate, the mean of the m - f values nearest the median."""

    def rule(x, heard=None, own=0, key=None):
        x, who = arrived(x, heard)
        spare(len(who), f, 2 * f + 1)
        result = np.zeros(x.shape[1])
        for k in range(x.shape[1]):
            values = column(x, who, k)
            center = middle(values)
            away = [abs(v - center) if v < math.inf else math.inf for v in values]
            kept = smallest(away, range(len(who)), len(who) - f)
            result[k] = sum(values[i] for i in kept) / len(kept)
        return result

    return rule


def caf(f, count=None):
    """Return the mean of least spread that the covariance-bound agnostic filter meets.

    c_i = 1, and 0 for a message that is not finite. While sum c > m - 2f: mu = sum c x / sum c;
    (lambda, v) is the top eigenpair of sum c (x - mu)(x - mu)^T / sum c; the mu of the smallest
    lambda is kept; t_i = <x_i - mu, v>^2; c_i <- c_i (1 - t_i / max t), the maximum over c_i > 0.

    The first mean is always taken, so that f = 0 is the mean. Where max t = 0 all that is left is
    one point, and this is the result. A list count is given the number of means looked at.
    """

    def rule(x, heard=None, own=0, key=None):
        x, who = arrived(x, heard)
        spare(len(who), f, 2 * f + 1)
        c = {i: 1.0 if is_finite(x[i]) else 0.0 for i in who}
        least, best, looked = math.inf, np.full(x.shape[1], np.nan), 0
        while True:
            mass = sum(c.values())
            if mass == 0:
                break
            mu = np.zeros(x.shape[1])
            for i in who:
                if c[i] > 0:
                    mu = mu + c[i] * x[i]
            mu = mu / mass
            spread = np.zeros((x.shape[1], x.shape[1]))
            for i in who:
                if c[i] > 0:
                    spread = spread + c[i] * np.outer(x[i] - mu, x[i] - mu)
            values, vectors = np.linalg.eigh(spread / mass)
            looked += 1
            if values[-1] < least:
                least, best = values[-1], mu
            t = {i: float((x[i] - mu) @ vectors[:, -1]) ** 2 for i in who if c[i] > 0}
            largest = max(t.values())
            if largest == 0:
                break
            for i in t:
                c[i] = c[i] * (1 - t[i] / largest)
            if not sum(c.values()) > len(who) - 2 * f:
                break
        if count is not None:
            count.append(looked)
        return best

    return rule


def nna(f):
    """Return the mean of the m - f messages nearest to one's own, which is one of them.

    Nothing is near an own message that is not finite: the result is NaN.
    """

    def rule(x, heard=None, own=0, key=None):
        x, who = arrived(x, heard)
        spare(len(who), f, f + 1)
        if not is_finite(x[own]):
            return np.full(x.shape[1], np.nan)
        away = {i: squared_distance(x[i], x[own]) for i in who}
        return mean_of(x, smallest(away, who, len(who) - f))

    return rule


def cge(f):
    """Return the mean of the m - f messages of the smallest norms."""

    def rule(x, heard=None, own=0, key=None):
        x, who = arrived(x, heard)
        spare(len(who), f, f + 1)
        return mean_of(x, smallest({i: squared(x[i]) for i in who}, who, len(who) - f))

    return rule


def flag_subspace(x, who, rank, iterations, eps=1e-7):
    """Return Y [d, r] with orthonormal columns: the flag median of the directions of x by IRLS.

    Y is the top r left singular vectors of the columns w_i u_i, u_i = x_i / |x_i|, w_i = 1 at first
    and then, so many times, w_i = (|1 - |Y^T u_i|^2| + eps)^(-1/4). u_i = 0 where x_i is zero or
    not finite. Directions of singular value 0 are left out.
    """
    u = {}
    for i in who:
        norm = math.sqrt(squared(x[i]))
        u[i] = x[i] / norm if 0 < norm < math.inf else np.zeros(x.shape[1])
    weights = dict.fromkeys(who, 1.0)
    for repeat in range(iterations + 1):
        columns = np.stack([weights[i] * u[i] for i in who], axis=1)
        left, values, _ = np.linalg.svd(columns, full_matrices=False)
        r = min(rank, int(np.sum(values > 1e-12 * max(values[0], 1e-300))))
        y = left[:, :r]
        if repeat < iterations:
            weights = {i: (abs(1 - squared(y.T @ u[i])) + eps) ** -0.25 for i in who}
    return y


def flag(rank=None, iterations=5):
    """Return Y Y^T (1/p) sum_i x_i, Y of flag_subspace, p the number heard; x as it came, not u.

    rank None is r = ceil((p + 1) / 2). A message that is not finite adds nothing and is one of p.
    """

    def rule(x, heard=None, own=0, key=None):
        x, who = arrived(x, heard)
        p = len(who)
        r = math.ceil((p + 1) / 2) if rank is None else rank
        y = flag_subspace(x, who, r, iterations)
        total = np.zeros(x.shape[1])
        for i in who:
            if is_finite(x[i]):
                total = total + x[i]
        return y @ (y.T @ (total / p))

    return rule


def foolsgold_weights(histories, heard=None):
    """Return FoolsGold's weights [n] in [0, 1] of histories [n, d]; 0 for what was not heard.

    s_ij is the cosine of h_i and h_j, 0 where one of them is zero, and s_ii = 0.
    m_i = max_j s_ij + 1e-5; s_ij <- s_ij m_i / m_j where m_i < m_j; a_i = clip(1 - max_j s_ij, 0,
    1), divided by the largest of them; w_i = clip(ln(a_i / (1 - a_i)) + 1/2, 0, 1).

    The maxima include j = i, as in the authors' code: a negative similarity does not raise a_i
    above 1. A history that is not finite has the weight 0 and is compared with none. Where all a_i
    are 0, up to the rounding of a cosine, all weights are 0.
    """
    h, who = arrived(histories, heard)
    weights = np.zeros(len(h))
    who = [i for i in who if is_finite(h[i])]
    s = {(i, i): 0.0 for i in who}
    for i, j in itertools.permutations(who, 2):
        norms = math.sqrt(squared(h[i])) * math.sqrt(squared(h[j]))
        s[i, j] = float(h[i] @ h[j]) / norms if norms > 0 else 0.0
    m = {i: max(s[i, j] for j in who) + 1e-5 for i in who}
    for i, j in itertools.permutations(who, 2):
        if m[i] < m[j]:
            s[i, j] = s[i, j] * m[i] / m[j]
    a = {i: min(max(1 - max(s[i, j] for j in who), 0.0), 1.0) for i in who}
    largest = max(a.values(), default=0.0)
    if largest < 1e-12:
        return weights
    for i in who:
        share = a[i] / largest
        if share == 1:
            weights[i] = 1.0
        elif share > 0:
            weights[i] = min(max(math.log(share / (1 - share)) + 0.5, 0.0), 1.0)
    return weights


def foolsgold():
    """Return sum w_i x_i / sum w_i, w of foolsgold_weights of the messages themselves.

    Where all weights are 0 (all messages point one way) it is the mean of the finite ones.
    """

    def rule(x, heard=None, own=0, key=None):
        x, who = arrived(x, heard)
        weights = foolsgold_weights(x, heard)
        if not np.any(weights > 0):
            return mean_of(x, [i for i in who if is_finite(x[i])])
        total, mass = np.zeros(x.shape[1]), 0.0
        for i in who:
            if weights[i] > 0:
                total, mass = total + weights[i] * x[i], mass + weights[i]
        return total / mass

    return rule


# What goes before a rule


def nnm(f):
    """Return what replaces every message by the mean of the m - f nearest to it, itself included.

    A message that is not finite is near none: it stays as it is.
    """

    def before(x, heard=None, key=None):
        x, who = arrived(x, heard)
        spare(len(who), f, f + 1)
        mixed = np.full_like(x, np.nan)
        for i in who:
            away = {j: squared_distance(x[i], x[j]) for j in who}
            mixed[i] = mean_of(x, smallest(away, who, len(who) - f)) if is_finite(x[i]) else x[i]
        return mixed, _mask(who, len(x))

    return before


def bucketing(size, permutation=None):
    """Return what replaces the messages by the means of groups of so many in a given order.

    The messages heard are taken in the order in which the permutation of 0 .. n - 1 lists them. The
    last bucket may be smaller. A bucket with a message that is not finite is not finite.
    """

    def before(x, heard=None, key=None):
        x, who = arrived(x, heard)
        order = range(len(x)) if permutation is None else permutation
        line = [int(i) for i in order if i in who]
        rows = [mean_of(x, line[b : b + size]) for b in range(0, len(line), size)]
        return np.stack(rows), np.ones(len(rows), dtype=bool)

    return before


def clip(radius):
    """Return what replaces x_i by x_i min(1, radius / |x_i|), and what is not finite by 0."""

    def before(x, heard=None, key=None):
        x, who = arrived(x, heard)
        clipped = np.full_like(x, np.nan)
        for i in who:
            clipped[i] = shortened(x[i], radius)
        return clipped, _mask(who, len(x))

    return before


def arc(f):
    """Return adaptive clipping: the k = floor(2 f (m - f) / m) largest get the next smaller norm.

    What is not finite is among the largest; it has no direction, and becomes 0.
    """

    def before(x, heard=None, key=None):
        x, who = arrived(x, heard)
        m = len(who)
        spare(m, f, f + 1)
        k = (2 * f * (m - f)) // m
        norms = {i: squared(x[i]) for i in who}
        increasing = smallest(norms, who, m)
        radius = math.sqrt(norms[increasing[m - k - 1]])
        clipped = np.full_like(x, np.nan)
        for i in who:
            clipped[i] = x[i]
        for i in increasing[m - k :]:
            clipped[i] = shortened(x[i], radius)
        return clipped, _mask(who, len(x))

    return before


def chain(*parts):
    """Return the rule that is the last part after all the others, in their order."""
    *pre, last = parts

    def rule(x, heard=None, own=0, key=None):
        for before in pre:
            x, heard = before(x, heard, key)
        return last(x, heard, own=own, key=key)

    return rule


def _mask(who, n):
    return np.array([i in who for i in range(n)])


# The theory of rules


def kappa(rule, n, f):
    """Return the proved bound on the robustness coefficient of a rule by name, q = f / (n - 2f)."""
    q = f / (n - 2 * f)
    return {
        "trimmed_mean": 6 * q * (1 + q),
        "krum": 6 * (1 + q),
        "geometric_median": 4 * (1 + q) ** 2,
        "median": 4 * (1 + q) ** 2,
    }[rule]


def kappa_nnm(bound, n, f):
    """Return the bound of a rule behind nearest-neighbor mixing, 8 f (1 + kappa) / (n - f)."""
    return 8 * f * (1 + bound) / (n - f)


def coefficient(aggregate, x, f):
    """Return the largest |R - mean_S|^2 / ((1/|S|) sum_S |x_i - mean_S|^2) of all S of n - f.

    Where the spread of S is 0 the ratio is 0 if R is the mean, up to rounding, and inf otherwise.
    """
    x = np.asarray(x, dtype=np.float64)
    worst = 0.0
    for subset in itertools.combinations(range(len(x)), len(x) - f):
        center = mean_of(x, subset)
        spread = sum(squared(x[i] - center) for i in subset) / len(subset)
        error = squared(aggregate - center)
        if spread == 0:
            worst = max(worst, 0.0 if error < 1e-24 else math.inf)
        else:
            worst = max(worst, error / spread)
    return worst


# Attacks


def honest_mean(honest, heard):
    """Return the mean of the honest messages that are heard."""
    honest, who = arrived(honest, heard)
    return mean_of(honest, who)


def sign_flip(scale=1.0):
    """Return -s mean."""

    def attack(honest, liars=1, key=None, heard=None):
        return -scale * honest_mean(honest, heard)

    return attack


def inner_product(factor=0.1):
    """Return -eps mean: inner product manipulation, the fall of empires for eps >= 1."""

    def attack(honest, liars=1, key=None, heard=None):
        return -factor * honest_mean(honest, heard)

    return attack


def alie_factor(n, f):
    """Return ALIE's z = Phi^-1((n - f - s) / (n - f)), s = floor(n / 2 + 1) - f supporters.

    It is -inf where the quotient is 0 (n = 2, f = 1) and inf where it is 1 or more (f > n / 2).
    """
    supporters = math.floor(n / 2 + 1) - f
    quotient = (n - f - supporters) / (n - f)
    if quotient <= 0:
        return -math.inf
    return NormalDist().inv_cdf(quotient) if quotient < 1 else math.inf


def alie(factor=None):
    """Return mean - z sigma of the honest ones heard, coordinate by coordinate, ddof = 1.

    factor None is alie_factor(m + f, f). sigma is 0 where one is heard, and so is then z sigma.
    """

    def attack(honest, liars=1, key=None, heard=None):
        honest, who = arrived(honest, heard)
        center = mean_of(honest, who)
        if len(who) == 1:
            return center
        total = np.zeros(honest.shape[1])
        for i in who:
            total = total + (honest[i] - center) ** 2
        z = alie_factor(len(who) + liars, liars) if factor is None else factor
        return center - z * np.sqrt(total / (len(who) - 1))

    return attack


def mimic(target=0):
    """Return what honest agent target sends, by its place in honest, whether it is heard or not."""

    def attack(honest, liars=1, key=None, heard=None):
        return np.array(honest[target], dtype=np.float64)

    return attack


def gaussian(draw, sigma=1.0):
    """Return sigma times a given standard normal draw [d]: noise around 0, not around a mean."""

    def attack(honest, liars=1, key=None, heard=None):
        return sigma * np.asarray(draw, dtype=np.float64)

    return attack


def constant(value):
    """Return value, a number or [d], in every coordinate; inf and NaN are values."""

    def attack(honest, liars=1, key=None, heard=None):
        return np.array(np.broadcast_to(value, np.shape(honest)[1:]), dtype=np.float64)

    return attack


def dissensus(factor):
    """Return x_i - eps sum_honest w (x_j - x_i) / sum_liars w, equal weights w, x_i = honest[0].

    With eps = 1 and plain averaging the receiver ends where it was.
    """

    def attack(honest, liars=1, key=None, heard=None):
        honest, who = arrived(honest, heard)
        total = np.zeros(honest.shape[1])
        for j in who:
            total = total + (honest[j] - honest[0])
        return honest[0] - factor * total / liars

    return attack


def scripted(lie):
    """Return the honest mean plus a given vector [d], one of lies[k, i]."""

    def attack(honest, liars=1, key=None, heard=None):
        return honest_mean(honest, heard) + np.asarray(lie, dtype=np.float64)

    return attack


def line_search(value, evaluations=16, step=10.0, ratio=0.8):
    """Return the best of so many points, as ByzFL looks for the factor of an attack.

    From 0: as long as the point a step further is better it is taken and the step doubles; after
    the first that is not, the step is multiplied by ratio and, from then on, after each point.
    """
    best, highest = 0.0, value(0.0)
    growing = True
    for _ in range(evaluations - 1):
        there = value(best + step)
        if there > highest:
            best, highest = best + step, there
            step = step * (2 if growing else ratio)
        else:
            growing = False
            step = step * ratio
    return best


def strongest(make, rule, evaluations=16, step=10.0):
    """Return the attack make(factor) of the factor >= 0 that moves the rule farthest.

    Far is |rule - honest mean|^2; a server's rule is asked of the honest messages and f lies.
    """

    def attack(honest, liars=1, key=None, heard=None):
        honest, who = arrived(honest, heard)
        honest = honest[who]

        def moved(factor):
            lie = make(factor)(honest, liars=liars)
            told = np.concatenate([honest, np.tile(lie, (liars, 1))])
            return squared(rule(told) - mean_of(honest, range(len(honest))))

        return make(line_search(moved, evaluations, step))(honest, liars=liars)

    return attack


# Methods


def robust_mixing(rule, z, hears, lying, attack, k):
    """Return what the agents make of the messages z [n, d] in round k: row i is agent i's.

    Agent i applies the rule to its own message, which is the first, and to what its neighbors j,
    hears[i][j], tell it: z_j or, where j lies and i does not, attack(k, i, j, honest, f). Here
    honest are i's own message and those of its honest neighbors, in the order of their indices,
    and f is the number of liars that i hears. Liars are told the truth.
    """
    mixed = np.zeros_like(z)
    n = len(z)
    for i in range(n):
        neighbors = [j for j in range(n) if j != i and hears[i][j]]
        told = [z[i]]
        honest = np.stack([z[i]] + [z[j] for j in neighbors if not lying[j]])
        f = sum(bool(lying[j]) for j in neighbors)
        for j in neighbors:
            if attack is None or lying[i] or not lying[j]:
                told.append(z[j])
            else:
                told.append(attack(k, i, j, honest, f))
        mixed[i] = rule(np.stack(told), own=0)
    return mixed


def at_round(given, k, dimensions):
    """Return round k of what is one array for all rounds, one array a round, or a function of k."""
    if callable(given):
        return np.asarray(given(k))
    given = np.asarray(given)
    return given if given.ndim == dimensions else given[k]


def robust_dsgd(gradient, hears, x0, stepsize, steps, rule, attack=None, liars=None, beta=0.0):
    """Run DSGD under liars: m+ = beta m + (1 - beta) g, m_0 = 0; x+ = robust mixing of x - a m+.

    hears is [n, n], [steps, n, n] or a function of the round; liars is [n] or [steps, n]. MoNNA is
    this with the rule nna.
    """

    def mix(z, k):
        lying = np.zeros(len(z), dtype=bool) if liars is None else at_round(liars, k, 1)
        return robust_mixing(rule, z, at_round(hears, k, 2), lying, attack, k)

    return mixed_momentum(gradient, mix, x0, stepsize, steps, beta)


def monna(gradient, hears, x0, stepsize, steps, f, beta=0.99, attack=None, liars=None):
    """Run MoNNA (Farhadkhani et al. 2023): momentum and nearest-neighbor averaging.

    A node that hears m vectors, its own among them, averages the m - f nearest to its own: in the
    paper m = n - f, and n - 2f are kept.
    """
    return robust_dsgd(gradient, hears, x0, stepsize, steps, nna(f), attack, liars, beta)


def sybilwall(
    gradient,
    hears,
    x0,
    stepsize,
    steps,
    choose,
    local_steps=1,
    attack=None,
    liars=None,
    rate=1 / 1.25,
    forward=False,
    history="updates",
    stores=None,
):
    """Run SybilWall (Werthenbach & Pouwelse 2023), as it is meant rather than as its code is.

    In round k agent i takes local_steps gradient steps from x_i, gradient(i, x, k, l), and sends
    the result z_i. It keeps a history of every direct neighbor and of those it was told of, each
    with its round, its distance in hops (1 for a direct neighbor) and, above 1, who told it.

    - Before the messages of the round are received every agent s sends every neighbor t one
      history: choose(k, s, t, peers, probabilities) returns one of peers, those of which s keeps a
      history at the end of the last round, without t and without what t told; the probabilities
      are proportional to rate exp(-rate (h - 1)). Where peers is empty nothing is sent and choose
      is not asked. It arrives at distance h + 1.
    - A direct neighbor's history is renewed each round. A history told replaces one of distance
      above 1 and of an older round; on the same round the first sender's stays.
    - w are FoolsGold's weights of all histories kept, and x_i+ = (z_i + sum w_j z_j) / (1 + sum
      w_j), the sums over direct neighbors only.

    The history of j is the sum of its updates since the start, of what was received minus the
    point x_j from which j took its local steps, as FoolsGold's clients send it. With history="sent"
    it is the sum of the changes of what was received, as in the authors' code, but from x0: what
    was received last minus j's x0. That contains what j has heard, so that honest neighbors turn
    into copies of each other. A message that is not finite makes a history of weight 0.

    A liar tells attack(k, i, j, honest, f) as in robust_mixing, and passes no histories on, as in
    the authors' code, unless forward; its own row follows the protocol on true messages. A list
    stores is given, each round, the agents' dictionaries {peer: (round, distance, teller, h)}.
    """
    x = start(x0, steps)
    n = x.shape[1]
    kept = [{} for _ in range(n)]
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        links = at_round(hears, k, 2)
        lying = np.zeros(n, dtype=bool) if liars is None else at_round(liars, k, 1)
        z = x[k].copy()
        for i in range(n):
            for local in range(local_steps):
                z[i] = z[i] - a[i] * np.asarray(gradient(i, z[i].copy(), k, local))
        told = _histories_told(kept, links, lying, choose, rate, forward, k)
        for i in range(n):
            neighbors = [j for j in range(n) if j != i and links[i][j]]
            honest = np.stack([z[i]] + [z[j] for j in neighbors if not lying[j]])
            f = sum(bool(lying[j]) for j in neighbors)
            received = {}
            for j in neighbors:
                if attack is None or lying[i] or not lying[j]:
                    received[j] = z[j]
                else:
                    received[j] = np.asarray(attack(k, i, j, honest, f))
                if history == "sent":
                    h = received[j] - x[0, j]
                else:
                    h = received[j] - x[k, j]
                    if j in kept[i] and kept[i][j][1] == 1:
                        h = kept[i][j][3] + h
                kept[i][j] = (k, 1, None, h)
            for teller, peer, when, distance, h in told[i]:
                known = kept[i].get(peer)
                if known is None or (known[1] > 1 and when > known[0]):
                    kept[i][peer] = (when, distance, teller, h)
            peers = sorted(kept[i])
            weights = foolsgold_weights(np.stack([kept[i][p][3] for p in peers])) if peers else []
            total, mass = z[i].copy(), 1.0
            for j in neighbors:
                weight = weights[peers.index(j)]
                if weight > 0 and is_finite(received[j]):
                    total, mass = total + weight * received[j], mass + weight
            x[k + 1, i] = total / mass
        if stores is not None:
            stores.append([dict(one) for one in kept])
    return x


def _histories_told(kept, links, lying, choose, rate, forward, k):
    """Return, for every agent t, the histories it is told in round k, in the tellers' order."""
    n = len(kept)
    told = [[] for _ in range(n)]
    for s in range(n):
        if lying[s] and not forward:
            continue
        for t in range(n):
            if t == s or not links[t][s]:
                continue
            peers = [p for p in sorted(kept[s]) if p != t and kept[s][p][2] != t]
            if not peers:
                continue
            p = np.array([rate * math.exp(-rate * (kept[s][q][1] - 1)) for q in peers])
            peer = choose(k, s, t, peers, p / p.sum())
            when, distance, _, h = kept[s][peer]
            told[t].append((s, peer, when, distance + 1, h))
    return told
