"""What the docstrings of a method say of it: the formula, its source, and how sure the listing is.

A method's module docstring begins with a sentence and the iteration, indented, and ends with
fields: ``Source``, ``Confidence``, maybe ``Departs`` and ``Invariant``, and the ``Theorem`` or
``Property in the tests``. Confidence is one or more words of `CONFIDENCE`, each with a note in
parentheses if need be, and then what remains open:

    Confidence: authors' code ("cta"), from memory ("atc"); open: which order the paper prints.
"""

import dataclasses
import inspect
import re
import sys
import textwrap

CONFIDENCE = {  # from the surest to the least sure
    "textbook": "many texts print the same recursion",
    "paper": "as the paper prints it",
    "authors' code": "agrees with the authors' own code",
    "authors' slides": "agrees with the authors' slides",
    "third-party code": "agrees with others' code for the paper",
    "summaries": "agrees with others' restatements or reviews of the paper",
    "from memory": "of the paper, without a second source; limits and invariants checked",
    "derived": "by us, from what is published about the method",
}
"""What a listing rests on."""

FIELD = re.compile(r"^(Source|Confidence|Departs|Invariant|Theorem|Property)(?:e?s)?(?: in .*?)?: ")


@dataclasses.dataclass(frozen=True)
class Listing:
    """What is written about a method; a text that is not there is empty."""

    title: str  # the first sentence
    about: str  # the module's docstring above its fields, with title and formula
    formula: str  # the iteration, as it is laid out in the module's docstring
    iteration: str  # in one line, the class docstring's first
    source: str  # authors (year), arXiv number, algorithm
    confidence: str  # the words of `CONFIDENCE` that hold, with notes
    open: str  # what no source confirms
    departs: str  # where the file departs from its source
    invariant: str
    tested: str  # the theorem or property that the tests check
    arguments: dict[str, str]  # of the constructor, by name

    @property
    def words(self) -> tuple[str, ...]:
        """The words of `CONFIDENCE`, without notes."""
        text = self.confidence
        while (bare := re.sub(r"\s*\([^()]*\)", "", text)) != text:
            text = bare
        return tuple(text.split(", "))


def listing(method: type) -> Listing:
    """Return what the docstrings of a method and of its module say.

    Example:
        >>> import jaxdopt as jd
        >>> dgd = listing(jd.DGD)
        >>> dgd.formula
        'xₖ₊₁ = W xₖ − α g(xₖ)'
        >>> dgd.words
        ('textbook',)
    """
    text = inspect.cleandoc(str(sys.modules[method.__module__].__doc__))
    lines = text.splitlines()
    blocks = re.findall(r"(?m)(?:^    .*(?:\n\n(?=    ))?\n?)+", text)
    fields: dict[str, str] = {}
    name = ""
    above = next((i for i, line in enumerate(lines) if FIELD.match(line)), len(lines))
    for line in lines[above:]:
        if found := FIELD.match(line):
            name = {"Theorem": "Tested", "Property": "Tested"}.get(found[1], found[1])
            fields[name] = line[found.end() :]
        else:
            fields[name] += f" {line}".rstrip()
    confidence, _, unsure = fields.get("Confidence", "").rstrip(".").partition("; open: ")
    own = inspect.cleandoc(str(method.__doc__))
    return Listing(
        title=lines[0],
        about="\n".join(lines[:above]).strip(),
        formula=textwrap.dedent(blocks[0]).strip() if blocks else "",
        iteration=own.splitlines()[0],
        source=fields.get("Source", "").rstrip("."),
        confidence=confidence,
        open=unsure,
        departs=fields.get("Departs", ""),
        invariant=fields.get("Invariant", ""),
        tested=fields.get("Tested", ""),
        arguments=arguments(own),
    )


def arguments(docstring: str | None, section: str = "Args") -> dict[str, str]:
    """Return what a section of a docstring describes, by name."""
    _, _, rest = inspect.cleandoc(docstring or "").partition(f"\n{section}:\n")
    described: dict[str, str] = {}
    for line in rest.splitlines():
        if not line.startswith("    "):  # the next section
            break
        name, colon, text = line.strip().partition(": ")
        if not line.startswith("     ") and colon:
            described[name] = text
        elif described:
            described[next(reversed(described))] += f" {line.strip()}"
    return described
