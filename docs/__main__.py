"""Build the site, ``python -m docs``: write all pages to build/pages and the site to build/site."""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from docs import catalogue, conformance, gallery, lessons, links, reference

HERE = Path(__file__).parent
ROOT = HERE.parent
BUILD = ROOT / "build"
PAGES, SITE = BUILD / "pages", BUILD / "site"


def write(results: Path | None) -> None:
    """Write all pages, by hand and generated, to build/pages."""
    shutil.rmtree(PAGES, ignore_errors=True)
    PAGES.mkdir(parents=True)
    for page in (*HERE.glob("*.md"), HERE / "style.css"):
        shutil.copy(page, PAGES)
    figures = PAGES / "figures"
    shutil.copytree(ROOT / "experiments" / "figures", figures)
    studies = gallery.write(PAGES / "gallery", figures, results)
    catalogue.write(PAGES / "methods", studies)
    gallery.benchmarks(PAGES / "performance.md", results)
    reference.write(PAGES / "reference")
    lessons.write(ROOT / "notebooks", PAGES / "notebooks")
    conformance.write(ROOT / "experiments" / "conformance" / "suite", PAGES / "conformance")
    shutil.copy(ROOT / "CONTRIBUTING.md", PAGES / "contributing.md")
    front = (ROOT / "README.md").read_text()
    for there, here in (
        ("docs/", ""),
        ("experiments/figures/", "figures/"),
        ("CONTRIBUTING.md", "contributing.md"),
    ):
        front = front.replace(f"]({there}", f"]({here}")
    (PAGES / "index.md").write_text(f"---\nhide: [navigation]\n---\n\n{front}")


def configuration() -> dict[str, Any]:
    """Return mkdocs.yml, with the pages of every folder in ``nav`` listed, its index first."""
    whole = yaml.safe_load((HERE / "mkdocs.yml").read_text())
    nav = []
    for entry in whole["nav"]:
        ((title, pages),) = entry.items()
        if isinstance(pages, str) and pages.endswith("/"):
            found = sorted(
                (PAGES / pages).glob("*.md"), key=lambda page: (page.stem != "index", page)
            )
            pages = [page.relative_to(PAGES).as_posix() for page in found]
        nav += [{title: pages}] if pages else []
    return {**whole, "nav": nav}


def main(arguments: list[str] | None = None) -> None:
    """Write the pages, build the site with all warnings as errors, and check its links."""
    parser = argparse.ArgumentParser(prog="python -m docs", description=__doc__)
    parser.add_argument(
        "--results",
        type=Path,
        help="the folder that `python -m experiments all` wrote, for the gallery's claims",
    )
    write(parser.parse_args(arguments).results)
    (BUILD / "mkdocs.yml").write_text(yaml.safe_dump(configuration(), sort_keys=False))
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", "build/mkdocs.yml"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # a notice about mkdocs' successor
    subprocess.run(command, check=True, cwd=ROOT, env=environment)
    broken = list(links.broken(SITE))
    if broken:
        raise SystemExit("\n".join(broken))
    print(SITE / "index.html")


if __name__ == "__main__":
    main()
