"""The catalogue of methods, family by family, and the table of roles: from the classes."""

import inspect
import re
import sys
from collections.abc import Iterable, Mapping
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import jaxdopt as jd
from experiments.catalogue import methods, roles

WHERE = """---
title: Which method runs where
hide: [navigation, toc]
---

# Which method runs where

A method runs on a network that offers all that it needs, in the words of
[`jd.roles`](../reference/roles.md); any other pair is refused in one sentence, before any work. A
row has the methods that run on the same kinds of network; the test of the library asks every pair,
which runs and equals its reference, or is refused. In a terminal: `python -m experiments roles`.

{table}
"""

STABILITY = """# Stepsizes, of theory and measured

The largest stable stepsizes times L, on quadratics of eight agents with Metropolis weights on a
ring: the bound below which a theorem has convergence, the edge above which it has divergence where
all agents have the same Hessian, and the edges measured where they have and where they have not.
See [`jd.theory`](../reference/theory.md). In a terminal: `python -m experiments methods`.

{table}
"""


def write(folder: Path, studies: Mapping[str, str]) -> None:
    """Write a page a family, and an index; ``studies`` has each study's source by its name."""
    folder.mkdir(parents=True)
    index = [
        "# Methods",
        "",
        f"{len(jd.algorithms.__all__)} methods, each tested against an independent NumPy loop over "
        "agents and neighbors to 1e-10, and against its theorem. All are `jd.X`. The same entries, "
        "in a terminal:",
        "",
        "```bash",
        "python -m experiments methods",
        "```",
        "",
    ]
    for family, of in groupby(methods.entries(), lambda entry: entry.family):
        about = inspect.getdoc(sys.modules[f"jaxdopt.algorithms.{family}"]) or ""
        title = family.replace("_", "-").capitalize()
        lines = [f"# {title}", "", about, ""]
        index += [f"## [{title}]({family}.md)", "", "| method | iteration | needs | sends a step |"]
        index += ["|---|---|---|---|"]
        for entry in of:
            lines += [*page(entry, studies), ""]
            link = f"[`{entry.name}`]({family}.md#{anchor(entry.name)})"
            iteration = escape(entry.iteration.rstrip(".")).replace("|", "&#124;")
            index.append(f"| {link} | {iteration} | {', '.join(entry.needs)} | {entry.sends} |")
        index.append("")
        (folder / f"{family}.md").write_text("\n".join(lines))
    (folder / "index.md").write_text("\n".join(index))
    (folder / "where.md").write_text(WHERE.format(table=table()))
    (folder / "stability.md").write_text(STABILITY.format(table=stability(methods.stability())))


def anchor(name: str) -> str:
    """Return the anchor of a method's entry."""
    return name.lower()


def page(entry: methods.Entry, studies: Mapping[str, str]) -> list[str]:
    """Return a method's entry."""
    method, told = getattr(jd, entry.name), entry.listing
    facts = {
        "Needs": ", ".join(entry.needs),
        "Sends": f"{entry.sends} a step",
        "Source": told.source,
        "Confidence": told.confidence,
        "Open": told.open,
        "Departs": told.departs,
        "Invariant": told.invariant,
        "Tested": told.tested,
    }
    cells = {name: inline(fact) for name, fact in facts.items() if fact}
    seen = [
        f'<a href="../../gallery/{study}/">{study}</a>'
        for study, source in studies.items()
        if re.search(rf"\bjd\.{entry.name}\b", source)
    ]
    cells |= {"Studies": ", ".join(seen)} if seen else {}
    lines = [f"## {entry.name} {{#{anchor(entry.name)}}}", "", told.about, "", '<dl class="facts">']
    lines += [f"<dt>{name}</dt><dd>{fact}</dd>" for name, fact in cells.items()]
    lines += ["</dl>", ""]
    own = entry.name.lower()
    if own in studies:
        lines += [
            f"[![The study {own}](../figures/{own}.png){{ width=480 loading=lazy }}]"
            f"(../gallery/{own}.md)",
            "",
        ]
    lines += [f"::: {method.__module__}.{entry.name}", "    options:"]
    lines += [f'      heading: "jd.{entry.name}"', "      heading_level: 3"]
    lines += ["      members: []", "      show_source: true"]
    return lines


def stability(rows: Iterable[Any]) -> str:
    """Return bounds and edges of stability, of theory and measured, as a Markdown table."""
    lines = ["| method | bound | edge | measured, equal | measured, unequal | formula |"]
    lines += ["|---|---|---|---|---|---|"]
    for row in rows:
        numbers = (row.bound, row.edge, row.equal, row.unequal)
        cells = ["–" if number is None else f"{float(number):.3f}" for number in numbers]
        formula = next(claim.formula for claim in (row.bound, row.edge) if claim is not None)
        cells += [formula.replace("|", "&#124;")]
        lines.append(f"| `{row.name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def inline(text: str) -> str:
    """Return text of a docstring as HTML, names in backticks as code."""
    return re.sub(r"`+([^`]+)`+", r"<code>\1</code>", escape(text, quote=False))


def table() -> str:
    """Return which methods run on which kinds of network, as HTML: a row those that fit alike."""
    alike: dict[tuple[tuple[bool, ...], str], list[str]] = {}
    for name in roles.METHODS:
        fits = tuple(roles.fits(name, kind) for kind in roles.KINDS)
        needs = ", ".join(word for word in jd.roles.WORDS if word in roles.built(name).needs)
        alike.setdefault((fits, needs), []).append(name)
    kinds = "".join(f'<th class="kind"><span>{kind}</span></th>' for kind in roles.KINDS)
    rows = [
        f'<tr><td class="methods"><b>{needs}</b>: {", ".join(names)}</td>'
        + "".join('<td class="runs">×</td>' if fit else "<td></td>" for fit in fits)
        + "</tr>"
        for (fits, needs), names in sorted(alike.items(), key=lambda item: -sum(item[0][0]))
    ]
    return (
        f'<table class="roles"><thead><tr><th></th>{kinds}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
