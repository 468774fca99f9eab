"""Optimization from values alone, as loops over steps, agents, queries and directions.

value(i, x, k, l) is the float f_i(x) of agent i in round k at local step l, 0 where there is one: a
sample is the same wherever i, k and l are. Otherwise the conventions are those of federated.py for
the servers, and for the swarms a trajectory is [steps + 1, n, d], of n particles.

An estimate of a gradient is a mean over m directions v_j [m, d] of differences of values times the
direction and a factor: 1 for standard normal directions, d for uniform ones of length 1.
"""

import numpy as np

from .federated import mean_over, participants, start, weights
from .methods import agent_stepsizes
from .methods import start as start_each


def central(forth, back, directions, radius, factor):
    """Return factor / (2 mu m) sum_j (f(x + mu v_j) - f(x - mu v_j)) v_j, mu = radius.

    The two values of each direction are given as forth [m] and back [m].
    """
    m, d = np.shape(directions)
    total = np.zeros(d)
    for j in range(m):
        total = total + (forth[j] - back[j]) * directions[j]
    return factor / (2 * radius * m) * total


def forward(forth, here, directions, radius, factor):
    """Return factor / (mu m) sum_j (f(x + mu v_j) - f(x)) v_j, mu = radius.

    The values at the directions' ends are given as forth [m], f(x) as here.
    """
    m, d = np.shape(directions)
    total = np.zeros(d)
    for j in range(m):
        total = total + (forth[j] - here) * directions[j]
    return factor / (radius * m) * total


def fed_zo(value, active, x0, stepsize, steps, *, direction, local_steps=1, radius=1e-3, p=None):
    """Run FedZO (Fang et al. 2022): FedAvg whose gradients are forward estimates on the sphere.

    In S, K times from y = x: y <- y - a_k,i e, e = d / (mu m) sum_j (f_i(y + mu v_j) - f_i(y)) v_j
    of the unit vectors direction(i, k, l) [m, d], with one sample for the m + 1 values. x+ = x +
    mean_S (y_i - x). Nobody active: x stays.
    """
    x = start(x0, steps)
    n, d = np.shape(active)[1], x.shape[1]
    p = weights(p, n)
    for k in range(steps):
        a = agent_stepsizes(stepsize, k, n)
        who, moves = participants(active, k), []
        for i in who:
            y = x[k].copy()
            for local in range(local_steps):
                v = np.asarray(direction(i, k, local), dtype=np.float64)
                forth = [value(i, y + radius * v_j, k, local) for v_j in v]
                y = y - a[i] * forward(forth, value(i, y.copy(), k, local), v, radius, d)
            moves.append(y - x[k])
        x[k + 1] = x[k] + mean_over(who, moves, p, d) if who else x[k]
    return x


def just_one_byte(value, active, x0, stepsize, steps, *, direction, radius=1e-3, code=None, p=None):
    """Run Just One Byte (Zelikman et al. 2023); return (x, scalars), what was sent [steps, n].

    In S: g_i = (f_i(x + eps z_i) - f_i(x - eps z_i)) / (2 eps), z_i = direction(i, k) [d] standard
    normal, is sent as code(g_i), as it is if code is None. x+ = x - a_k mean_S code(g_i) z_i, which
    everyone does alike. Scalars are as those who receive read them, 0 of the absent. Nobody active:
    x stays.
    """
    x = start(x0, steps)
    n = np.shape(active)[1]
    scalars = np.zeros((steps, n))
    for k in range(steps):
        for i in participants(active, k):
            z = np.asarray(direction(i, k), dtype=np.float64)
            forth, back = (value(i, x[k] + eps * z, k, 0) for eps in (radius, -radius))
            g = (forth - back) / (2 * radius)
            scalars[k, i] = g if code is None else code(g)
        x[k + 1] = _moved(x[k], k, scalars[k], active, stepsize, direction, p)
    return x, scalars


def replay(x0, scalars, active, stepsize, direction, p=None):
    """Return the x [T + 1, d] of just_one_byte from its scalars [T, n] alone: no value is asked."""
    x = start(x0, len(scalars))
    for k in range(len(scalars)):
        x[k + 1] = _moved(x[k], k, scalars[k], active, stepsize, direction, p)
    return x


def _moved(x, k, scalars, active, stepsize, direction, p):
    """Return x - a_k mean_S scalars_i z_i."""
    n, who = len(scalars), participants(active, k)
    if not who:
        return x
    moves = [scalars[i] * np.asarray(direction(i, k), dtype=np.float64) for i in who]
    return x - sum(agent_stepsizes(stepsize, k, n)) / n * mean_over(
        who, moves, weights(p, n), len(x)
    )


def log_byte(g, steps=8, top=63):
    """Return sign(g) e^(q / steps), q = steps ln |g| rounded and cut to -top .. top; 0 of 0."""
    return decode(encode(g, steps, top), steps, top)


def encode(g, steps=8, top=63):
    """Return the symbol of g, one of 0 .. 4 top + 2: 0 for 0, then the positive, the negative."""
    if g == 0:
        return 0
    q = int(np.clip(np.round(steps * np.log(abs(g))), -top, top))
    return 1 + q + top + (2 * top + 1 if g < 0 else 0)


def decode(symbol, steps=8, top=63):
    """Return what a symbol stands for."""
    if symbol == 0:
        return 0.0
    sign, q = divmod(symbol - 1, 2 * top + 1)
    return (-1.0) ** sign * float(np.exp((q - top) / steps))


def cbo(
    energy,
    x0,
    stepsize,
    steps,
    *,
    normal,
    drift=1.0,
    noise=1.0,
    alpha=50.0,
    anisotropic=True,
    neighbors=None,
):
    """Run consensus-based optimization (Pinnau et al. 2017) of energy(i, x, k), particle i's value.

    x_i+ = x_i - lambda dt (x_i - v_i) + sigma sqrt(dt) D_i xi_i, with dt = stepsize(k), lambda =
    drift, sigma = noise, xi = normal(k) [n, d] and v_i the consensus of all, or of i itself and its
    neighbors[i]. D_i is |x_i - v_i| of each coordinate, or the length of it all if not anisotropic.
    """
    x = start_each(x0, steps)
    n = x.shape[1]
    for k in range(steps):
        dt = agent_stepsizes(stepsize, k, n)
        v = _consensus_of_each(energy, x[k], k, alpha, neighbors)
        xi = np.asarray(normal(k), dtype=np.float64)
        for i in range(n):
            away = x[k, i] - v[i]
            distance = np.abs(away) if anisotropic else np.sqrt(np.sum(away**2))
            moved = x[k, i] - drift * dt[i] * away
            x[k + 1, i] = moved + noise * np.sqrt(dt[i]) * distance * xi[i]
    return x


def consensus_hopping(energy, x0, steps, *, normal, noise, alpha, neighbors=None):
    """Run consensus hopping (Riedl et al. 2023): x_i+ = v_i + sigma xi_i, v_i and xi as in cbo."""
    x = start_each(x0, steps)
    for k in range(steps):
        v = _consensus_of_each(energy, x[k], k, alpha, neighbors)
        xi = np.asarray(normal(k), dtype=np.float64)
        for i in range(x.shape[1]):
            x[k + 1, i] = v[i] + noise * xi[i]
    return x


def consensus(x, energies, alpha):
    """Return sum_j x_j exp(-alpha (E_j - min E)) / sum_j exp(-alpha (E_j - min E)), x [n, d]."""
    least = min(energies)
    total, mass = np.zeros(np.shape(x)[1]), 0.0
    for j in range(len(x)):
        weight = np.exp(-alpha * (energies[j] - least))
        total, mass = total + weight * x[j], mass + weight
    return total / mass


def _consensus_of_each(energy, x, k, alpha, neighbors):
    """Return each particle's consensus [n, d], of all or of its closed neighborhood."""
    n = len(x)
    energies = np.array([float(energy(i, x[i].copy(), k)) for i in range(n)])
    if neighbors is None:
        return np.tile(consensus(x, energies, alpha), (n, 1))
    v = np.zeros_like(x)
    for i in range(n):
        heard = sorted({i, *neighbors[i]})
        v[i] = consensus(x[heard], energies[heard], alpha)
    return v


class GaussianProcess:
    """What values [m] at points [m, d] say of a function and its gradient elsewhere.

    Its prior has mean 0 and covariance exp(-|a - b|^2 / (2 s^2)), s = lengthscale, for values that
    are scaled to 0 .. 1, v = (f - min f) / (max f - min f), with an error of variance jitter. Then
    f's posterior mean is min f + (max f - min f) sum_j c_j k(y, z_j), (K + jitter I) c = v.
    """

    def __init__(self, points, values, lengthscale=1.0, jitter=1e-6):
        self.points, self.lengthscale = np.asarray(points, dtype=np.float64), lengthscale
        self.least, self.range = np.min(values), np.max(values) - np.min(values)
        scaled = np.zeros(len(values))
        if self.range > 0:
            scaled = (np.asarray(values) - self.least) / self.range
        covariance = np.array([self.covariances(z) for z in self.points])
        self.inverse = np.linalg.inv(covariance + jitter * np.eye(len(values)))
        self.coefficients = self.inverse @ scaled

    def covariances(self, y):
        """Return k(y, z_j) [m] for all points."""
        return np.array(
            [np.exp(-np.sum((y - z) ** 2) / (2 * self.lengthscale**2)) for z in self.points]
        )

    def slopes(self, y):
        """Return the gradients of k(., z_j) at y, [m, d]."""
        k = self.covariances(y)
        return np.array([-k[j] * (y - z) / self.lengthscale**2 for j, z in enumerate(self.points)])

    def mean(self, y):
        """Return f's posterior mean at y."""
        return self.least + self.range * float(self.covariances(y) @ self.coefficients)

    def gradient(self, y):
        """Return the gradient of f's posterior mean at y [d], in units of f."""
        return self.range * (self.coefficients @ self.slopes(y))

    def uncertainty(self, y):
        """Return the trace of the posterior covariance of v's gradient at y.

        It is d / s^2 - sum_jl (K + jitter I)^-1_jl <slope_j, slope_l>, whatever the values are.
        """
        slopes = self.slopes(y)
        known = np.sum(self.inverse * (slopes @ slopes.T))
        return len(y) / self.lengthscale**2 - known


class Features:
    """The random Fourier features of that covariance: phi(a)'phi(b) is k(a, b) in expectation.

    phi_j(z) = sqrt(2 / M) cos(Omega_j z / s + b_j), Omega [M, d] standard normal, b [M] uniform in
    0 .. 2 pi.
    """

    def __init__(self, frequencies, phases, lengthscale=1.0):
        self.frequencies = np.asarray(frequencies, dtype=np.float64) / lengthscale
        self.phases = np.asarray(phases, dtype=np.float64)

    def __call__(self, z):
        """Return phi(z) [M]."""
        return np.sqrt(2 / len(self.phases)) * np.cos(self.frequencies @ z + self.phases)

    def gradient(self, z, w):
        """Return the gradient of phi(z)'w, -sqrt(2 / M) Omega' (sin(Omega z / s + b) w) / s."""
        sines = np.sin(self.frequencies @ z + self.phases)
        return -np.sqrt(2 / len(self.phases)) * self.frequencies.T @ (sines * w)

    def weights(self, points, values, ridge):
        """Return the w [M] of least sum_j (phi(z_j)'w - values_j)^2 + ridge |w|^2."""
        phi = np.array([self(z) for z in points])
        gram = phi @ phi.T + ridge * np.eye(len(points))
        return phi.T @ np.linalg.solve(gram, np.asarray(values, dtype=np.float64))


def corrected(process, features, own, mean, y, local):
    """Return FZooS's local direction [d] at y (Shu et al. 2023) in its local step 0, 1, ...

    It is the gradient of the client's posterior mean, and 1 / (local + 1) times the gradient of
    phi'mean less that of phi'own: the server's mean weights, and the client's own.
    """
    difference = features.gradient(y, mean) - features.gradient(y, own)
    return process.gradient(y) + difference / (local + 1)
