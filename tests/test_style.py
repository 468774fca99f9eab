"""A method has one color and one marker in all figures."""

import itertools

import matplotlib as mpl
import numpy as np
import pytest

import jaxdopt as jd
from jaxdopt.plot.style import KNOWN, METHODS, PALETTE

mpl.use("Agg")

COMPARED = {
    "adsgd": ["ADSGD", "AD-PSGD", "R-FAST", "DSGD", "DGD", "parallel SGD"],
    "apd": ["APD-SC", "Push-DIGing", "Push-Pull"],
    "apd, convex": ["APD", "Push-DIGing"],
    "cedas": ["GT", "EDAS", "LEAD", "CEDAS", "BEER", "C-GT"],
    "cedas, inexact": ["SGD", "DSGD", "EDAS", "CEDAS", "LEAD", "CHOCO-SGD", "DeepSqueeze"],
    "cpp": ["Push-Pull", "CPP", "B-CPP"],
    "error_feedback": ["CompressedSGD", "EF14", "EF21", "EF21-SGDM", "EControl", "DGC"],
    "drr": ["D-RR", "DSGD", "CRR", "SGD"],
    "server_optimizers": ["FedAvg", "FedAvgM", "FedAdam (optax)", "FedAdagrad", "FedYogi"],
    "fedfix": ["FedAvg", "AsyncFedAvg", "FedFix 0.5", "FedBuff 5"],
    "fednmap": ["FedNMap", "Zhang, Hu, Johansson", "FedDualAvg", "FedMid"],
    "fedsum": ["FedAvg", "MIFA", "FedVARP", "SCAFFOLD", "FedSUM-B", "FedSUM", "FedSUM-CR"],
    "masha": ["ExtraGradient", "MASHA1", "MASHA2"],
    "gtrr": ["centralized RR", "GT-RR", "ED-RR", "D-RR", "DSGT", "ED", "DSGD"],
    "networks": ["DSGD", "GradientTracking", "EXTRA", "ExactDiffusion"],
    "one_byte": ["JustOneByte", "DSGD"],
    "one_byte, queries": ["FedAvg", "FedZO"],
    "oldsgd": ["DSGD", "LocalDSGD", "OLDSGD", "OSGP"],
    "quickstart": ["DGD", "GradientTracking", "EXTRA", "ExactDiffusion"],
    "stpp": ["SGD", "DSGD", "DSGT", "ED", "RelaySGD", "Push-Pull", "AB", "STPP"],
    "variance reduction": ["GT", "GT-SAGA", "GT-SVRG", "GT-VR"],
    "exact": ["EXTRA", "ED", "NIDS", "DLM", "GT"],
    "directed": ["SGP", "Push-DIGing", "Push-Pull", "AB"],
    "local": ["FedAvg", "FedProx", "SCAFFOLD", "MIFA", "FOCUS"],
}
# Viénot, Brettel, Mollon (1999) and Machado, Oliveira, Fernandes (2009): linear RGB as it is seen.
SEEN = {
    "all": np.eye(3),
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
}


def lab(color: str, seen) -> np.ndarray:
    """Return a color in CIELAB as it is seen."""
    rgb = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = np.array([[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]])
    x, y, z = xyz @ np.clip(np.asarray(seen) @ linear, 0, 1) / np.array([0.9505, 1, 1.0888])
    x, y, z = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_every_method_has_a_look_of_its_own():
    assert set(jd.algorithms.__all__) <= set(METHODS)
    assert len(set(METHODS.values())) == len(METHODS)
    assert len(KNOWN) > len(METHODS)  # no two names that agree but for hyphens
    for name, look in METHODS.items():
        found = jd.plot.styles([name])[name]
        assert (found["color"], found["marker"]) == look


@pytest.mark.parametrize("group", COMPARED)
def test_what_is_compared_is_told_apart(group):
    looks = jd.plot.styles(COMPARED[group])
    assert {look["linestyle"] for look in looks.values()} == {"-"}
    for a, b in itertools.combinations(looks.values(), 2):
        distances = [np.linalg.norm(lab(a["color"], s) - lab(b["color"], s)) for s in SEEN.values()]
        assert min(distances) > 15, (a, b)
        assert a["marker"] != b["marker"] or min(distances) > 18, (a, b)


def test_names_are_those_of_papers_or_classes():
    same = [
        ("GT", "GradientTracking", "DSGT", "GT, grid", "gradient tracking"),
        ("D-RR", "DRR", "d-rr (n = 8)"),
        ("FedSUM-CR", "FedSUMCR", "FedSUM-CR, K = 4"),
        ("ED", "ExactDiffusion", "D²", "EDAS"),
        ("Zhang, Hu, Johansson", "ZhangHuJohansson"),
    ]
    for names in same:
        looks = [jd.plot.styles([name])[name] for name in names]
        assert looks == looks[:1] * len(looks)
    # "GT-RR" is no GT, "FedSUM-B" no FedSUM, and "SGDx" nothing that is known
    names = ["GT-RR", "GT", "FedSUM-B", "FedSUM", "SGDx"]
    looks = jd.plot.styles(names)
    assert len({(look["color"], look["marker"]) for look in looks.values()}) == len(names)
    assert {look["linestyle"] for look in looks.values()} == {"-"}


def test_members_of_one_method_differ_in_dashes_or_else_in_colors():
    names = ["GT-RR", "DSGD", "GT-RR, restart", "mine", "yours"]
    looks = jd.plot.styles(names)
    assert looks["GT-RR"] | {"linestyle": "--"} == looks["GT-RR, restart"]
    assert len({look["color"] for look in looks.values()}) == 4
    plain = jd.plot.styles(names, dashes=False)
    assert len({look["color"] for look in plain.values()}) == 5
    assert plain["GT-RR"] == looks["GT-RR"]
    alone = jd.plot.styles(["FedFix 0.2", "FedFix 0.5", "FedFix 0.8"])
    assert [look["color"] for look in alone.values()] == [*PALETTE[:3]]


def test_many_unknown_names_differ():
    looks = jd.plot.styles([f"method {i}" for i in range(40)])
    assert len({(look["color"], look["marker"]) for look in looks.values()}) == 40
