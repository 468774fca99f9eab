"""The gallery: what each paper claims, our figure and number, and the command that gives them."""

import ast
import json
import re
import shutil
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
VERDICTS = {"holds": "holds", "fails": "does not hold", "not judged": "not judged"}


def write(folder: Path, figures: Path, results: Path | None) -> dict[str, str]:
    """Write a page a study and an index, and return the studies' sources by name.

    ``results`` is searched for claims.json; a study without one has its figure and its command.
    """
    folder.mkdir(parents=True)
    found = {} if results is None else read(results)
    names = sorted(found.keys() | {path.stem for path in figures.glob("*.png")})
    cards = []
    for name in names:
        record, about = found.get(name), description(name)
        if record is None:
            lines = pending(name, about)
        else:
            for i, figure in enumerate(record["figures"]):
                picture = record["folder"] / figure["png"]
                shutil.copy(picture, figures / f"{name}_{figure['name']}.png")
                if i == 0:
                    shutil.copy(picture, figures / f"{name}.png")
            about = f"{record['question']} {record['paper']}"
            lines = judged(record)
        (folder / f"{name}.md").write_text("\n".join(lines) + "\n")
        cards.append(
            f'<a href="{name}/"><img src="../figures/{name}.png" alt="" loading="lazy">'
            f"<p><b>{name}</b>. {escape(summary(record, about))}</p></a>"
        )
    lines = [
        "# Gallery",
        "",
        "Every study of a paper is one command. It writes the figures, the labelled data, and "
        "`claims.json`: what the paper claims, with its source and number, what was measured, and "
        "whether it holds.",
        "",
        "```bash",
        "python -m experiments all --quick  # all studies, minutes on two cores",
        "python -m docs --results results   # this site, with their claims",
        "```",
        "",
        '<div class="cards">',
        *cards,
        "</div>",
    ]
    (folder / "index.md").write_text("\n".join(lines) + "\n")
    return {name: source(name) for name in names}


def read(results: Path) -> dict[str, dict[str, Any]]:
    """Return the records by study, each with the folder that its figures' paths start from."""
    records = {}
    for path in sorted(results.rglob("*claims.json")):
        record = json.loads(path.read_text())
        records[record["study"]] = {**record, "folder": path.parent}
    return records


def source(name: str) -> str:
    """Return a study's code."""
    path = EXPERIMENTS / f"{name}.py"
    return path.read_text() if path.exists() else ""


def description(name: str) -> str:
    """Return the first paragraph of a study's docstring."""
    about = ast.get_docstring(ast.parse(source(name))) or ""
    return " ".join(about.partition("\n\n")[0].split())


def summary(record: Mapping[str, Any] | None, about: str) -> str:
    """Return a study's question, and how many of its claims hold."""
    if record is None:
        return about
    verdicts = [claim["verdict"] for claim in record["claims"]]
    judged = [verdict for verdict in verdicts if verdict in ("holds", "fails")]
    held = f"{judged.count('holds')} of {len(judged)} claims hold" if judged else ""
    return f"{record['question']} {held}"


def pending(name: str, about: str) -> list[str]:
    """Return the page of a study of which no results were given."""
    return [
        f"# {name}",
        "",
        about,
        "",
        f"![Figure of {name}](../figures/{name}.png)",
        "",
        "The claims, with what was measured for each, are printed and written by",
        "",
        "```bash",
        f"python -m experiments {name}",
        "```",
    ]


def judged(record: Mapping[str, Any]) -> list[str]:
    """Return the page of a study with its results."""
    name = record["study"]
    lines = [f"# {name}", "", f"{record['question']}", "", f"*{record['paper']}*", ""]
    lines += ["```bash", record["command"], "```", ""]
    for figure in record["figures"]:
        lines += [f"![{name}, {figure['name']}](../figures/{name}_{figure['name']}.png)", ""]
    lines += [
        "## Claims",
        "",
        "| claim | verdict | paper | measured | holds if |",
        "|---|---|---|---|---|",
    ]
    for claim in record["claims"]:
        cells = (
            f"{claim['text']} ({claim['source']})",
            verdict(claim),
            str(claim["claimed"]),
            measured(claim),
            claim["holds_if"],
        )
        lines.append("| " + " | ".join(cell(text) for text in cells) + " |")
    versions = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
    lines += ["", f"Scale {record['scale']}, seed {record['seed']}, {record['seconds']:.0f} s; "]
    lines[-1] += f"data: {record['data']}; {versions}."
    return lines


def cell(text: str) -> str:
    """Return text for a Markdown table, with nothing in it for Markdown to read."""
    return re.sub(r"[|*_<`]", lambda mark: f"&#{ord(mark[0])};", " ".join(text.split()))


def measured(claim: Mapping[str, Any]) -> str:
    """Return the worst value, where it is, and the range of all."""
    values = [entry["value"] for entry in claim["measured"] if entry["value"] is not None]
    if not values:
        return "–"
    spread = " to ".join(dict.fromkeys(f"{value:.3g}" for value in (min(values), max(values))))
    worst = claim["worst"]
    if " to " not in spread or not worst or worst["value"] is None:
        return spread
    where = ", ".join(str(place) for place in worst["where"].values())
    return f"{spread}; worst {worst['value']:.3g}" + (f" ({where})" if where else "")


def verdict(claim: Mapping[str, Any]) -> str:
    """Return the verdict, and by how much a claim misses, in units of its tolerance."""
    said = VERDICTS[claim["verdict"]]
    miss = claim["miss"]
    return said if claim["verdict"] != "fails" or miss is None else f"{said} (miss {miss:.2g})"


def benchmarks(page: Path, results: Path | None) -> None:
    """Add the benchmark's table to a page, if it was run."""
    for path in sorted(results.rglob("benchmark.json")) if results else ():
        record = json.loads(path.read_text())
        about = ", ".join(f"{name} {value}" for name, value in record["about"].items())
        lines = [
            "",
            "## Measured",
            "",
            f"{about}.",
            "",
            "| | measure | ratio | bar |",
            "|---|---|---|---|",
        ]
        for row in record["rows"]:
            figure = "not measured here" if row["absent"] else f"{row['ratio']:.2f}"
            lines.append(f"| {row['name']} | {cell(row['what'])} | {figure} | {row['bar']} |")
        page.write_text(page.read_text() + "\n".join(lines) + "\n")
