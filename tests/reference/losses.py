"""Local objectives f_i and their gradients as loops over samples, and a Newton solver.

The data of agent i are A = features[i], [m_i, p], with row a_j for sample j, and b = labels[i],
[m_i]. The numbers of samples m_i may differ. Weights p_i are 1/n ("agents") or m_i/m ("samples").
"""

import math

import numpy as np


def logistic_value(x, A, b, l2):
    """Return (1/m) sum_j log(1 + exp(-b_j a_j.x)) + (l2/2) |x|^2, b_j in {-1, +1}."""
    total = 0.0
    for j in range(len(b)):
        margin = float(b[j]) * float(np.dot(A[j], x))
        if margin >= 0:
            total += math.log1p(math.exp(-margin))
        else:
            total += -margin + math.log1p(math.exp(margin))
    return total / len(b) + 0.5 * l2 * float(np.dot(x, x))


def logistic_gradient(x, A, b, l2):
    """Return (1/m) sum_j -b_j a_j / (1 + exp(b_j a_j.x)) + l2 x."""
    x = np.asarray(x, dtype=np.float64)
    total = np.zeros_like(x)
    for j in range(len(b)):
        margin = float(b[j]) * float(np.dot(A[j], x))
        if margin >= 0:
            probability = math.exp(-margin) / (1.0 + math.exp(-margin))
        else:
            probability = 1.0 / (1.0 + math.exp(margin))
        total = total - probability * float(b[j]) * A[j]
    return total / len(b) + l2 * x


def least_squares_value(x, A, b, l2):
    """Return (1/m) sum_j (1/2) (a_j.x - b_j)^2 + (l2/2) |x|^2."""
    total = 0.0
    for j in range(len(b)):
        residual = float(np.dot(A[j], x)) - float(b[j])
        total += 0.5 * residual * residual
    return total / len(b) + 0.5 * l2 * float(np.dot(x, x))


def least_squares_gradient(x, A, b, l2):
    """Return (1/m) sum_j (a_j.x - b_j) a_j + l2 x."""
    x = np.asarray(x, dtype=np.float64)
    total = np.zeros_like(x)
    for j in range(len(b)):
        residual = float(np.dot(A[j], x)) - float(b[j])
        total = total + residual * A[j]
    return total / len(b) + l2 * x


def softmax_scores(x, a):
    """Return the scores a M, [c], where M [p, c] is the flat x in row-major order."""
    x = np.asarray(x, dtype=np.float64)
    p = len(a)
    c = len(x) // p
    scores = np.zeros(c)
    for q in range(p):
        for r in range(c):
            scores[r] += a[q] * x[q * c + r]
    return scores


def softmax_value(x, A, b, l2):
    """Return (1/m) sum_j [log sum_r exp(s_jr) - s_j,b_j] + (l2/2) |x|^2, s_j = a_j M."""
    total = 0.0
    for j in range(len(b)):
        scores = softmax_scores(x, A[j])
        largest = float(scores.max())
        normalizer = 0.0
        for score in scores:
            normalizer += math.exp(score - largest)
        total += largest + math.log(normalizer) - float(scores[int(b[j])])
    return total / len(b) + 0.5 * l2 * float(np.dot(x, x))


def softmax_gradient(x, A, b, l2):
    """Return (1/m) sum_j a_j^T (softmax(a_j M) - onehot(b_j)) + l2 M, flat in row-major order."""
    x = np.asarray(x, dtype=np.float64)
    total = np.zeros_like(x)
    for j in range(len(b)):
        scores = softmax_scores(x, A[j])
        c = len(scores)
        exponentials = [math.exp(score - scores.max()) for score in scores]
        normalizer = sum(exponentials)
        for r in range(c):
            error = exponentials[r] / normalizer - (1.0 if r == int(b[j]) else 0.0)
            for q in range(len(A[j])):
                total[q * c + r] += A[j][q] * error
    return total / len(b) + l2 * x


def agent_weights(labels, weights):
    """Return [p_1, ..., p_n]: p_i = 1/n for "agents", p_i = m_i/m for "samples"."""
    n = len(labels)
    if weights == "agents":
        return [1.0 / n for _ in range(n)]
    if weights == "samples":
        m = sum(len(b) for b in labels)
        return [len(b) / m for b in labels]
    raise ValueError(f'weights is {weights!r}, expected "agents" or "samples"')


def objective(value, x, features, labels, l2, weights="agents"):
    """Return sum_i p_i f_i(x), where f_i(x) = value(x, features[i], labels[i], l2)."""
    p = agent_weights(labels, weights)
    total = 0.0
    for i in range(len(labels)):
        total += p[i] * value(x, features[i], labels[i], l2)
    return total


def solve_logistic(features, labels, l2, weights="agents", tolerance=1e-14):
    """Return argmin_x sum_i p_i f_i(x), f_i logistic, by Newton steps damped to shrink |gradient|.

    Raise ArithmeticError where |gradient| <= tolerance is not reached (rounding, no minimizer).
    """
    A = np.concatenate([np.asarray(a, dtype=np.float64) for a in features])
    b = np.concatenate([np.asarray(label, dtype=np.float64) for label in labels])
    p = agent_weights(labels, weights)
    sample_weights = np.concatenate(
        [np.full(len(labels[i]), p[i] / len(labels[i])) for i in range(len(labels))]
    )

    def gradient_and_hessian(x):
        margins = b * (A @ x)
        small = np.exp(-np.abs(margins))
        probabilities = np.where(margins >= 0, small, 1.0) / (1.0 + small)
        curvatures = small / (1.0 + small) ** 2
        gradient = -A.T @ (sample_weights * b * probabilities) + l2 * x
        hessian = (A.T * (sample_weights * curvatures)) @ A + l2 * np.eye(len(x))
        return gradient, hessian

    x = np.zeros(A.shape[1])
    gradient, hessian = gradient_and_hessian(x)
    for _ in range(200):
        norm = np.linalg.norm(gradient)
        if norm <= tolerance:
            return x
        direction = np.linalg.solve(hessian, -gradient)
        damping = 1.0
        while damping > 1e-10:
            trial = x + damping * direction
            gradient, hessian = gradient_and_hessian(trial)
            if np.linalg.norm(gradient) < norm:
                break
            damping /= 2
        else:
            raise ArithmeticError(f"Newton stalled at gradient norm {norm}")
        x = trial
    raise ArithmeticError(f"Newton did not converge: gradient norm {np.linalg.norm(gradient)}")
