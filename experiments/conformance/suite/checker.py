"""Check a method against its golden trajectory, in NumPy alone. Copy this file; it needs no other.

    case = load("EXTRA.json")
    check(case, step)  # your step(k, x, memory, case) -> (x, memory); memory is None at k = 0

or, for programs in other languages, `python checker.py EXTRA.json mine.json`, where mine.json holds
the nested list of your x. Both name the first step, agent and coordinate that differ.

A file is an object: the `method`, its `iteration`, its `arguments` by name, and what it needs of:

    x        [steps + 1][n][d]: the estimates, x[0] the start; [steps + 1][1][d] where a server has
             the only model. With methods that never wait a step is one event
    features, labels, l2: aᵢⱼ [n][mᵢ][d], bᵢⱼ [n][mᵢ] and λ in F = (1/n) Σᵢ fᵢ, where agent i has
             fᵢ(x) = (1/mᵢ) Σⱼ log(1 + exp(−bᵢⱼ aᵢⱼᵀx)) + (λ/2) |x|²; see `gradient`
    l1       w of a regularizer w |x|₁ of F; see `prox`
    W        [n][n] weights of an undirected graph; or `row`, whose rows sum to 1, and `column`,
             whose columns do: row i holds what agent i puts on what it hears
    down, up [n]: every agent's parent in the two spanning trees, the root's being itself
    active   [steps][n]: which clients take part in a round
    samples  [steps][n][batch]: which of its samples each agent takes in a step, where the method
             draws them; all other gradients are those of all samples
    toss     [steps][n]: agent i (if [steps], all) takes a snapshot below `probability`, or at k = 0
    broadcaster [steps]: the only agent that sends; sketch [steps][s][d]: the matrices R of rounds
    direction [steps][n][d], or [steps][local step][n][·][d]; normal [steps][n][d]: of methods that
             ask for fᵢ alone, see `value`; `code` of a scalar: sign(g) exp(q / steps), q the
             integer nearest to steps ln |g|, at most ±top; 0 of 0
    frequencies, phases: of √(2 / M) cos(Ωz/ℓ + b); `initial` [n][·][d] and `offsets` [steps][local
             step, or end of the round][n][·][d] in −1 ... 1: where FZooS asks, or may ask
    compressor, uniform: how messages are compressed, and the random numbers; see `compress`
    compute  [m][n] seconds that the m-th gradient (or visit) of an agent takes, and
    delay    [m][i][j] those that the m-th message of j to i travels, null if it is lost. At equal
             times messages come before completions, and these in the order of the agents
    agent, partner, read: what follows from these: whose event it is; with whom it averages (itself:
             none); and [events][n] the version of every agent's x that it reads, −1 of those that
             it does not hear. x[0] is version 0, the m-th update makes version m
    rule, returns: when the server aggregates ("each" return, "every" so many seconds, or with a
             "buffer" of so many), and [steps][·][client, version fetched]; `weights` [n]
"""

import json
import pathlib
import sys

import numpy as np

DRAWN = {"direction", "normal", "offsets", "initial", "frequencies", "phases"}
TABLES = DRAWN | {"x", "W", "row", "column", "uniform", "toss", "sketch", "compute", "delay"}


def load(path):
    """Return a case; tables of numbers are arrays, ragged ones lists of arrays, null is NaN."""
    case = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    for name in TABLES & case.keys():
        case[name] = np.array(case[name], dtype=np.float64)
    for name in ("features", "labels"):
        case[name] = [np.array(rows, dtype=np.float64) for rows in case[name]]
    return case


def gradient(case, i, x, samples=None):
    """Return ∇fᵢ at x [d], over all of agent i's samples or the mean over some."""
    a, b = case["features"][i], case["labels"][i]
    a, b = (a, b) if samples is None else (a[samples], b[samples])
    return -(b / (1 + np.exp(b * (a @ x)))) @ a / len(b) + case["l2"] * x


def value(case, i, x):
    """Return fᵢ at x [d], over all of agent i's samples."""
    margins = case["labels"][i] * (case["features"][i] @ x)
    return np.mean(np.log1p(np.exp(-margins))) + case["l2"] / 2 * (x @ x)


def prox(case, z, t):
    """Return the prox of t w |x|₁ at z."""
    return np.sign(z) * np.maximum(np.abs(z) - t * case["l1"], 0)


def compress(case, k, channel, i, v):
    """Return agent i's message C(v) of step k; a method's x is channel 0, its second, 1."""
    how, size = case["compressor"], np.abs(v)
    if how["name"] == "TopK":  # the k largest
        return np.where(np.argsort(np.argsort(-size, kind="stable")) < how["k"], v, 0)
    s, largest = how["levels"], size.max()  # Dither: (|v|/s) sign(v) ⌊s |vⱼ| / |v| + uⱼ⌋
    level = s * size / (largest or 1)
    up = case["uniform"][k, channel, i] < level - np.floor(level)
    return np.sign(v) * largest * (np.floor(level) + up) / s


def compare(case, trajectory, tolerance=1e-10):
    """Raise AssertionError naming the first entry of x that differs, relatively and absolutely."""
    got, x = np.asarray(trajectory, dtype=np.float64), case["x"]
    assert got.shape == x.shape, f"{case['method']}: x has shape {got.shape}, not {x.shape}."
    wrong = np.argwhere(~(np.abs(got - x) <= tolerance * (1 + np.abs(x))))
    if len(wrong):
        k, i, j = (int(number) for number in wrong[0])
        raise AssertionError(
            f"{case['method']}: after {k} steps, agent {i}, coordinate {j}: x is "
            f"{float(got[k, i, j])!r}, not {float(x[k, i, j])!r}; {len(wrong)} of {x.size} differ."
        )


def check(case, step, tolerance=1e-10):
    """Run step(k, x, memory, case) -> (x, memory) from the start and compare all of x."""
    trajectory, memory = [case["x"][0]], None
    for k in range(len(case["x"]) - 1):
        x, memory = step(k, trajectory[-1].copy(), memory, case)
        trajectory.append(np.array(x, dtype=np.float64))
    compare(case, trajectory, tolerance)


if __name__ == "__main__":
    compare(load(sys.argv[1]), json.loads(pathlib.Path(sys.argv[2]).read_text(encoding="utf-8")))
    print("the same")
