"""The site is built without a warning, its links lead somewhere, and it is complete in itself."""

import html
import json
import re
import subprocess
import sys

import pytest

import jaxdopt as jd
from docs import __main__ as site
from docs import gallery, links, reference

RECORD = {
    "schema": 1,
    "study": "drr",
    "paper": "Huang, Li, Milzarek, Pu, Qiu (2023), arXiv 2112.15287",
    "question": "Does reshuffling pay?",
    "scale": "quick",
    "seed": 0,
    "command": "python -m experiments drr --quick",
    "seconds": 12.3,
    "versions": {"jax": "0.10"},
    "data": "digits",
    "figures": [{"name": "curves", "png": "curves.png", "pdf": "curves.pdf", "width": "page"}],
    "claims": [
        {
            "text": "the error falls as α²",
            "source": "theorem 2",
            "claimed": "2",
            "holds_if": "2 ± 0.3",
            "measured": [
                {"value": 1.9, "where": {"network": "ring"}},
                {"value": None, "where": {}},
            ],
            "worst": {"value": 1.9, "where": {"network": "ring"}},
            "miss": -0.33,
            "verdict": "holds",
        },
        {
            "text": "|x| is smaller than DSGD's",
            "source": "figure 1",
            "claimed": "yes",
            "holds_if": "at most 1",
            "measured": [],
            "worst": None,
            "miss": None,
            "verdict": "not judged",
        },
    ],
}


@pytest.fixture
def results(tmp_path):
    """A folder with the results of one study."""
    folder = tmp_path / "results" / "drr"
    folder.mkdir(parents=True)
    (folder / "claims.json").write_text(json.dumps(RECORD))
    (folder / "curves.png").write_bytes(
        next(site.ROOT.glob("experiments/figures/*.png")).read_bytes()
    )
    return tmp_path / "results"


@pytest.mark.slow
@pytest.mark.long
def test_the_site_is_built_strictly(results):
    subprocess.run([sys.executable, "-m", "docs", "--results", results], check=True, cwd=site.ROOT)
    pages = {path.parent.relative_to(site.SITE).as_posix() for path in site.SITE.rglob("*.html")}
    assert {".", "concepts", "methods/tracking", "gallery/drr", "notebooks/first_steps"} <= pages
    catalogue = "".join(path.read_text() for path in (site.SITE / "methods").rglob("*.html"))
    for name in jd.algorithms.__all__:
        assert f'id="{name.lower()}"' in catalogue, name
        assert f'id="{getattr(jd, name).__module__}.{name}"' in catalogue, name
    assert "theorem 2" in (site.SITE / "gallery/drr/index.html").read_text()
    gossip = re.sub("<[^>]+>", "", (site.SITE / "methods/gossip/index.html").read_text())
    assert "DGD(stepsize: Nonnegative)" in html.unescape(gossip)


def test_claims_are_read_and_shown(results):
    (record,) = gallery.read(results).values()
    page = "\n".join(gallery.judged(record))
    assert "| the error falls as α² (theorem 2) | holds | 2 | 1.9 | 2 ± 0.3 |" in page
    assert (
        "| &#124;x&#124; is smaller than DSGD's (figure 1) | not judged | yes | – | at most 1 |"
        in page
    )
    assert "python -m experiments drr --quick" in page
    assert gallery.summary(record, "").endswith("1 of 1 claims hold")


def test_links_that_lead_nowhere_are_found(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "index.html").write_text('<h1 id="here">x</h1>')
    (tmp_path / "index.html").write_text(
        '<a href="other/#here">a</a> <a href="other/#there">b</a> <a href="none/">c</a>'
        '<img src="none.png"><script src="https://example.org/x.js"></script>'
        '<a href="https://example.org">d</a>'
    )
    found = list(links.broken(tmp_path))
    assert len(found) == 4
    for part in ("no such anchor", "none/", "none.png", "from elsewhere"):
        assert sum(part in sentence for sentence in found) == 1, part


def test_everything_public_is_in_the_reference():
    there = {name for room in reference.ROOMS for name, _ in reference.public(room)}
    for module in (jd, jd.networks, jd.problems, jd.networks.participation, jd.plot):
        for name in module.__all__:
            value = getattr(module, name)
            known = name in there or name in jd.algorithms.__all__ or hasattr(value, "__path__")
            assert known or name in reference.ROOMS or value in vars(jd).values(), name
