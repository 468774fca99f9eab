"""How many lines of the methods' files do what: `python -m experiments.catalogue.lines`.

A method's file is its mathematics. Lines of a class with ``init`` and ``step`` are counted with
their decorators and docstrings: checks are ``__post_init__``; costs are ``cost``, and the class
variables and properties that `jaxdopt.costs` reads.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import jaxdopt as jd

ROLES = {
    "step": ("step",),
    "init": ("init",),
    "checks": ("__post_init__",),
    "cost": ("cost", "axes", "vectors", "numbers", "exchanges", "gradients", "overlap"),
}


def methods(folder: Path) -> Iterator[ast.ClassDef]:
    """Yield the classes of a folder of methods that have ``init`` and ``step``."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                names = {f.name for f in node.body if isinstance(f, ast.FunctionDef)}
                if {"init", "step"} <= names:
                    yield node


def by_role(folder: Path) -> dict[str, int]:
    """Return the number of lines of each role, and of all files, below a folder."""
    counts = dict.fromkeys(ROLES, 0)
    for method in methods(folder):
        for node in method.body:
            first = node.lineno
            if isinstance(node, ast.FunctionDef):
                name = node.name
                first = min([first, *(decorator.lineno for decorator in node.decorator_list)])
            elif isinstance(node, ast.AnnAssign) and "ClassVar" in ast.unparse(node.annotation):
                name = ast.unparse(node.target)
            else:
                continue
            for role, names in ROLES.items():
                if name in names:
                    counts[role] += (node.end_lineno or first) - first + 1
    counts["all"] = sum(len(path.read_text().splitlines()) for path in folder.rglob("*.py"))
    return counts


if __name__ == "__main__":
    default = Path(jd.__file__).parent / "algorithms"
    for name, count in by_role(Path(sys.argv[1]) if sys.argv[1:] else default).items():
        print(f"{name:7} {count:5}")
