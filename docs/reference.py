"""The reference: pages of everything public, by room, from the library's own lists of names."""

import inspect
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxdopt as jd

ROOMS = {
    "run": "Running and comparing",
    "networks": "Networks",
    "graphs": "Graphs",
    "participation": "Participation",
    "durations": "Durations",
    "problems": "Problems",
    "neural": "Neural networks",
    "prox": "Regularizers",
    "partition": "Partitions",
    "data": "Data",
    "compressors": "Compressors",
    "aggregators": "Robust rules",
    "attacks": "Attacks",
    "schedules": "Schedules",
    "metrics": "Metrics",
    "costs": "Costs",
    "roles": "Roles",
    "agents": "Agents",
    "plot": "Plots",
    "theory": "Theory",
    "fingerprint": "Fingerprints",
}
INNER = {
    "participation": jd.networks.participation,
    "durations": jd.networks.durations,
    "neural": jd.problems.neural,
    "prox": jd.problems.prox,
}


def write(folder: Path) -> None:
    """Write a page a room, and an index of all names."""
    folder.mkdir(parents=True)
    index = ["# Reference", "", "Methods have [their own pages](../methods/index.md)."]
    rooms = {room: dict(public(room)) for room in ROOMS}
    elsewhere = {path for room in ROOMS if room != "run" for path in rooms[room].values()}
    rooms["run"] = {name: path for name, path in rooms["run"].items() if path not in elsewhere}
    for room, title in ROOMS.items():
        names = rooms[room]
        if not names:
            continue
        module = None if room == "run" else _module(room)
        prefix = "jd" if module is None else _prefix(room)
        lines = [f"# {title}", ""]
        if module is not None:
            lines += [prose(str(inspect.getdoc(module))), ""]
        for name, path in names.items():
            lines += [f"::: {path}", "    options:", f'      heading: "{prefix}.{name}"']
            lines += [f'      toc_label: "{name}"', ""]
        (folder / f"{room}.md").write_text("\n".join(lines))
        linked = ", ".join(f"[`{name}`]({room}.md#{path})" for name, path in names.items())
        index += ["", f"## [{title}]({room}.md)", "", f"`{prefix}`: {linked}"]
    (folder / "index.md").write_text("\n".join(index) + "\n")


def public(room: str) -> Iterator[tuple[str, str]]:
    """Yield the public names of a room, with the paths of the objects."""
    module: Any = jd if room == "run" else _module(room)
    if module is None:
        return
    own = [name for name, value in vars(module).items() if _is_own(value, module)]
    methods = set(jd.algorithms.__all__)
    for name in sorted(getattr(module, "__all__", own), key=str.lower):
        value = getattr(module, name)
        if name in methods or isinstance(value, types.ModuleType) or name.startswith("_"):
            continue
        if not isinstance(value, type | types.FunctionType):  # types such as jd.Scalar
            yield name, f"{module.__name__}.{name}"
        else:
            yield name, f"{value.__module__}.{value.__qualname__}"


def _module(room: str) -> Any:
    return INNER.get(room, getattr(jd, room, None))


def _prefix(room: str) -> str:
    return _module(room).__name__.replace("jaxdopt", "jd") if room in INNER else f"jd.{room}"


def _is_own(value: Any, module: types.ModuleType) -> bool:
    return (
        isinstance(value, type | types.FunctionType)
        and value.__module__ == module.__name__
        and not value.__name__.startswith("_")
    )


def prose(docstring: str) -> str:
    """Return a docstring as Markdown: tables ruled with = signs become tables."""
    lines = docstring.splitlines()
    rules = [i for i, line in enumerate(lines) if line.startswith("===")]
    if len(rules) != 3:
        return docstring
    first, second, last = rules
    column = lines[first].rindex(" ") + 1
    rows: list[list[str]] = []
    for line in (lines[second - 1], *lines[second + 1 : last]):
        left, right = line[:column].strip(), line[column:].strip()
        if left or not rows:
            rows.append([left, right])
        else:
            rows[-1][1] += f" {right}"
    table = [f"| {left} | {right} |" for left, right in rows]
    table.insert(1, "|---|---|")
    return "\n".join([*lines[:first], *table, *lines[last + 1 :]])
