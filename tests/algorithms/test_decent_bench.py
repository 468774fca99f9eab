"""decent-bench's methods against the golden trajectories, where it is installed.

Its step sizes, weights and starts are set to those of a file; its costs are the file's, through the
checker. That is the same way in which any library can test itself.
"""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

needed = "decent-bench is not installed (pip install decent-bench, Python 3.13 or newer)"
pytest.importorskip("decent_bench", reason=needed)

# ruff: noqa: E402
# pyright: reportMissingImports=false
import networkx as nx
from decent_array import interoperability as iop
from decent_bench.agents import Agent
from decent_bench.algorithms import p2p
from decent_bench.costs import Cost
from decent_bench.networks import P2PNetwork

iop.set_backend("numpy")
FOLDER = Path(__file__).parents[2] / "experiments" / "conformance" / "suite"
SAME = {
    "DGD": p2p.DGD,
    "DSGD": p2p.ATC,
    "GradientTracking": p2p.ATC_Tracking,
    "EXTRA": p2p.EXTRA,
    "ExactDiffusion": p2p.ED,
    "NIDS": p2p.NIDS,
}


def _checker() -> Any:
    spec = importlib.util.spec_from_file_location("checker", FOLDER / "checker.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


checker = _checker()


class Stored(Cost):
    """An agent's function in a file, of which only the gradient is asked."""

    def __init__(self, case, i):
        self.case, self.i = case, i

    @property
    def shape(self):
        return self.case["x"].shape[2:]

    def gradient(self, x, **_):
        return iop.from_numpy(checker.gradient(self.case, self.i, iop.to_numpy(x)))

    def _unasked(self, *_, **__):
        raise NotImplementedError

    function = hessian = proximal = m_smooth = m_cvx = _unasked
    __add__ = _unasked


def trajectory(method, case, steps, **options):
    """All iterates [steps + 1, n, d] of one of decent-bench's methods on a file's data."""
    agents = [Agent(Stored(case, i)) for i in range(len(case["labels"]))]
    network = P2PNetwork(nx.from_numpy_array(case["W"] - np.diag(np.diag(case["W"]))), agents)
    network.weights = iop.from_numpy(case["W"])
    x0 = {a: iop.from_numpy(x) for a, x in zip(agents, case["x"][0].copy(), strict=True)}
    made = method(step_size=case["arguments"]["stepsize"], x0=x0, **options)
    made.initialize(network)
    rows = [case["x"][0]]
    for k in range(steps):
        network._step(k)
        made.step(network, k)
        rows.append(np.array([iop.to_numpy(agent.x) for agent in agents]))
    return np.array(rows)


@pytest.mark.parametrize("name", SAME)
def test_decent_bench_agrees(name):
    case = checker.load(FOLDER / f"{name}.json")
    made = trajectory(SAME[name], case, len(case["x"]) - 1)
    print(name, np.abs(made - case["x"]).max())
    checker.compare(case, made, 1e-13)


def dlm(change):
    """DLM on a ring from a common start, where its recursion is that of LinearizedADMM."""
    case = checker.load(FOLDER / "LinearizedADMM.json")
    n, steps = len(case["labels"]), len(case["x"]) - 1
    links = nx.to_numpy_array(nx.cycle_graph(n))
    case |= {"W": (links + np.eye(n)) / 3, "x": np.tile(case["x"][0, :1], (steps + 1, n, 1))}
    alpha = case["arguments"]["stepsize"]
    c = case["arguments"]["penalty"] / (4 * alpha)
    rate = alpha / (1 + 4 * alpha * c)
    duals = np.zeros_like(case["x"][0])
    for k in range(steps):
        x = case["x"][k]
        apart = 2 * x - links @ x
        g = np.array([checker.gradient(case, i, x[i]) for i in range(n)])
        case["x"][k + 1] = x - rate * (g + duals + 2 * c * apart)
        duals += c * apart
    with pytest.MonkeyPatch.context() as patch:
        change(patch)
        case["arguments"]["stepsize"] = rate
        made = trajectory(p2p.DLM, case, steps + 1, penalty=c)[1:]  # its first step only sends
    return case, made


def test_its_linearized_admm_adds_messages_up_in_place():
    """And so changes what has been sent; with a sum of its own it agrees."""

    def mended(patch):
        patch.setattr(p2p.DLM, "_sum_messages", lambda _, i: sum(i.messages().values()))

    case, made = dlm(mended)
    print(np.abs(made - case["x"]).max())
    checker.compare(case, made, 1e-13)
    with pytest.raises(AssertionError, match="LinearizedADMM: after 1 steps, agent"):
        checker.compare(*dlm(lambda _: None))
