"""The import direction: modules import from lower floors, heavy libraries stay in their place."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import jaxdopt as jd
from experiments.catalogue import lines

PACKAGE = Path(jd.__file__).parent
FLOORS = {
    "_backend": 0,
    "_leaves": 0,
    "_memory": 0,
    "_mesh": 0,
    "_opaque": 0,
    "_checks": 0,
    "_numbers": 0,
    "_processes": 0,
    "_pytree": 0,
    "_repr": 0,
    "_selection": 0,
    "_wrapper": 0,
    "roles": 0,
    "costs": 0,
    "_arguments": 3,
    "agents": 0,
    "aggregators": 0,
    "attacks": 0,
    "compressors": 0,
    "optimizers": 0,
    "schedules": 0,
    "problems": 1,
    "networks": 1,
    "algorithms": 2,
    "averaging": 2,
    "metrics": 2,
    "theory": 2,
    "checkpoints": 3,
    "honest": 3,
    "ledger": 3,
    "longrun": 3,
    "records": 3,
    "results": 3,
    "loop": 3,
    "simulate": 3,
    "pieces": 3,
    "sweep": 3,
    "call": 3,
    "explain": 3,
    "diagnose": 3,
    "datasets": 3,
    "fingerprint": 3,
    "programs": 3,
    "grids": 3,
    "settings": 3,
    "compare": 3,
    "plot": 4,
}
SHARED = {  # what methods of a family take from each other
    f"jaxdopt.algorithms.{room}"
    for room in (
        "black_boxes.surrogate",
        "black_boxes.swarm",
        "compressed.messages",
        "directed.coupling",
        "directed.ratio",
        "error_feedback.links",
        "federated.clients",
        "games.snapshots",
        "low_communication.fragments",
        "low_communication.norms",
        "low_communication.outer",
        "reshuffling.epochs",
    )
}
ONLY_IN = {
    "networkx": {"networks/connectivity.py", "networks/graphs.py", "plot/networks.py"},
    "pandas": set(),  # tables are printed and written by the experiments
    "scipy.optimize": set(),  # scipy loads its parts where they are used
    "optax": {"optimizers.py", "problems/linear.py", "problems/neural/losses.py"},
    "xarray": {"compare.py", "datasets.py"},
    "matplotlib": {
        "plot/curves.py",
        "plot/matrices.py",
        "plot/networks.py",
        "plot/style.py",
        "plot/timeline.py",
    },
    "sklearn": set(),  # problems/data.py looks it up by name when it is needed
    "flax": {"problems/neural/flax.py", "problems/neural/models.py"},  # if asked for
    "chex": set(),
    "orbax": {"checkpoints.py"},  # an extra, imported when it is used
}
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


@functools.cache
def imported(path):
    """Every module a file imports anywhere, as dotted names."""
    names = []
    for node in ast.walk(ast.parse((PACKAGE / path).read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names += [node.module or ""]
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def part(dotted):
    names = dotted.split(".")
    return names[1] if names[0] == "jaxdopt" and len(names) > 1 else None


@pytest.mark.parametrize("path", [f for f in FILES if f != "__init__.py"])
def test_imports_point_down(path):
    own = path.removesuffix(".py").split("/")[0]
    for name in imported(path):
        if (other := part(name)) in FLOORS:
            assert FLOORS[other] <= FLOORS[own], f"{path} imports {name}"
            if own == "algorithms" and other == own and path != "algorithms/__init__.py":
                room = ".".join(name.split(".")[:4])
                whole = room.count(".") < 3  # a family: the next name says which of its rooms
                assert whole or room in SHARED, (
                    f"{path} imports {name}: a method is a file of its own"
                )


@pytest.mark.parametrize("library", ONLY_IN)
def test_heavy_libraries_stay_in_their_modules(library):
    users = {
        path for path in FILES if any(f"{n}.".startswith(f"{library}.") for n in imported(path))
    }
    assert users == ONLY_IN[library]


def test_every_module_has_a_floor():
    top = {path.split("/")[0].removesuffix(".py") for path in FILES}
    assert top - {"__init__"} == set(FLOORS)


SLOW_TO_LOAD = {
    *("networkx", "optax", "pandas", "xarray"),
    *("scipy.linalg", "scipy.optimize", "scipy.sparse.csgraph", "scipy.sparse.linalg"),
}


def test_importing_changes_no_configuration_and_loads_nothing_slow():
    """A fresh process: no extra and nothing that takes long is loaded, and x64 stays off."""
    code = (
        "import sys, jax; before = dict(jax.config.values); import jaxdopt; "
        "assert dict(jax.config.values) == before; "
        "extras = {'matplotlib', 'sklearn', 'flax', 'chex', 'orbax'}; "
        f"loaded = (extras | {SLOW_TO_LOAD}) & set(sys.modules); "
        "assert not loaded, loaded; "
        "assert {'graphs', 'plot'} <= set(dir(jaxdopt)); "
        "from jaxdopt import graphs, plot; assert jaxdopt.graphs is graphs; "
        "assert 'networkx' in sys.modules; assert not hasattr(jaxdopt, 'graph')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_everything_public_exists_and_is_documented():
    for name in jd.__all__:
        value = getattr(jd, name)
        assert value.__doc__ or name in ("Fraction", "Nonnegative", "Positive", "Scalar"), name


def test_a_methods_file_is_its_mathematics():
    counts = lines.by_role(PACKAGE / "algorithms")
    assert counts["step"] > 500  # it has found them
    assert counts["checks"] + counts["cost"] <= 1.6 * len(jd.algorithms.__all__), counts
