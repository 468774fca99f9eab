"""Texts as numbers of one vocabulary, each a client's own: files, the Bible, generated ones."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdopt.problems.reading import reading

BIBLE = (
    "apt-get install bible-kjv bible-kjv-text (Debian), or name a file that holds what its "
    "bible -f gen1:1-rev22:21 prints."
)


class Text(NamedTuple):
    """Characters of several texts, each a client's own, as numbers of one vocabulary.

    Attributes:
        tokens: an array [cᵢ] for each text, uint8 (int32 if there are more than 256 characters).
        vocabulary: the characters, in order; a token is a place in it.
        names: of the texts.

    Example:
        >>> text = markov_text(books=3, characters=1000)
        >>> train, test = text.split(0.1)
        >>> [windows.shape for windows in train.windows(16)]
        [(28, 17), (56, 17), (84, 17)]
        >>> test.decode(test.tokens[0][:12])
        'ppeoopbcjfgb'
    """

    tokens: list[np.ndarray]
    vocabulary: str
    names: list[str]

    def windows(self, length: int) -> list[np.ndarray]:
        """Return each text cut into windows [mᵢ, length + 1], for `jd.problems.next_token`.

        A window begins with the last token of the one before, so that every token but the first of
        a text is predicted once; what is left at the end, less than ``length``, is dropped.
        ``ValueError`` if a text is shorter than one window.
        """
        if not isinstance(length, int | np.integer) or length < 1:
            raise ValueError(f"length is {length!r}; give an integer of at least 1.")
        for name, tokens in zip(self.names, self.tokens, strict=True):
            if len(tokens) <= length:
                raise ValueError(
                    f"{name} has {len(tokens)} characters, less than a window of {length} + 1; "
                    "take shorter windows, or join texts with joined()."
                )
        cut = np.lib.stride_tricks.sliding_window_view
        return [cut(tokens, length + 1)[::length].copy() for tokens in self.tokens]

    def split(self, held_out: float = 0.1) -> tuple["Text", "Text"]:
        """Return (kept, held out), the last part of each text; ``ValueError`` outside of (0, 1)."""
        if not 0 < held_out < 1:
            raise ValueError(f"held_out is {held_out}; give a share of each text in (0, 1).")
        ends = [round((1 - held_out) * len(tokens)) for tokens in self.tokens]
        kept = [tokens[:end] for tokens, end in zip(self.tokens, ends, strict=True)]
        out = [tokens[end:] for tokens, end in zip(self.tokens, ends, strict=True)]
        return self._replace(tokens=kept), self._replace(tokens=out)

    def joined(self, clients: int) -> "Text":
        """Return the texts in order, joined to those of so many clients, of about equal length.

        ``ValueError`` if there are fewer texts than clients.
        """
        if not 1 <= clients <= len(self.tokens):
            raise ValueError(f"{len(self.tokens)} texts cannot be joined to {clients} clients.")
        ends = np.cumsum([len(tokens) for tokens in self.tokens])
        middles = ends - np.array([len(tokens) for tokens in self.tokens]) / 2
        owners = np.minimum(middles * clients // ends[-1], clients - 1).astype(int)
        owners[0] = 0
        for i in range(1, len(owners)):  # nobody is left without
            rest = len(owners) - i
            owners[i] = min(max(owners[i], clients - rest), owners[i - 1] + 1)
        parts = [np.flatnonzero(owners == client) for client in range(clients)]
        return self._replace(
            tokens=[np.concatenate([self.tokens[i] for i in part]) for part in parts],
            names=[" ".join(self.names[i] for i in part) for part in parts],
        )

    def decode(self, tokens: Any) -> str:
        """Return ``tokens`` [c] as the characters that they stand for."""
        return "".join(self.vocabulary[token] for token in np.asarray(tokens))


def bible(path: str | Path | None = None) -> Text:
    """The King James Bible: 66 books of 1,553 to 223,732 characters, 4.1 million in all.

    A verse is a line. ``path`` is a file of what the command of Debian's package bible-kjv prints,
    ``bible -f gen1:1-rev22:21``, which is called by default: lines such as "Ge1:1 In the
    beginning ...". The text is in the public domain outside of the United Kingdom.
    """
    if path is not None:
        with reading(path, BIBLE):
            return _books(Path(path).read_text(encoding="utf-8"))
    command = shutil.which("bible")
    if command is None:
        raise FileNotFoundError(f"the command bible is missing: {BIBLE}")
    printed = subprocess.run([command, "-f", "gen1:1-rev22:21"], capture_output=True, check=False)
    try:
        return _books(printed.stdout.decode())
    except ValueError as error:
        raise ValueError(f"{command} printed no verses ({error}): {BIBLE}") from error


def _books(printed: str) -> Text:
    books: dict[str, list[str]] = {}
    for line in printed.splitlines():
        verse = re.fullmatch(r"(\d?[A-Za-z]+)\d+:\d+ (.*)", line)
        if verse is None:
            raise ValueError(f"{line[:40]!r} is no verse")
        books.setdefault(verse[1], []).append(verse[2] + "\n")
    return _text({name: "".join(verses) for name, verses in books.items()})


def text(*paths: str | Path) -> Text:
    """Read text files in UTF-8, a file a client: their characters, with one vocabulary for all.

    ``paths`` are the files; their names without suffixes are the clients'.
    """
    texts = {}
    for path in paths:
        with reading(path, "name text files in UTF-8."):
            texts[str(path)] = Path(path).read_text(encoding="utf-8")
    return _text(texts)._replace(names=[Path(path).stem for path in texts])


def markov_text(books: int = 8, characters: int = 2000, *, seed: int = 0) -> Text:
    """Generate texts of unlike statistics and lengths, as a stand-in for books in tests.

    A book is a Markov chain of 16 characters; a quarter of the probability of its transitions is
    its own, the rest the same for all books, both drawn from Dirichlet(0.1). Book i has
    2i/(books + 1) times the mean number of ``characters``. ``seed`` is of all of it.
    """
    random, count = np.random.default_rng(seed), 16
    shared, *own = random.dirichlet(np.full(count, 0.1), (books + 1, count))
    texts = []
    for i, mine in enumerate(own, start=1):
        chain = (0.75 * shared + 0.25 * mine).cumsum(axis=1)
        draws = random.random(2 * i * characters // (books + 1))
        tokens = np.empty(len(draws), np.uint8)
        state = 0
        for k, draw in enumerate(draws):
            state = tokens[k] = min(np.searchsorted(chain[state], draw), count - 1)
        texts.append(tokens)
    return Text(texts, "abcdefghijklmnop", [f"book {i}" for i in range(1, books + 1)])


def _text(texts: dict[str, str]) -> Text:
    if not texts or not all(texts.values()):
        raise ValueError("a text is empty, or there is none; give files with characters in them.")
    codes = [np.frombuffer(text.encode("utf-32-le"), "<u4") for text in texts.values()]
    known = np.unique(np.concatenate(codes))
    dtype = np.uint8 if len(known) <= 256 else np.int32
    tokens = [np.searchsorted(known, code).astype(dtype) for code in codes]
    return Text(tokens, "".join(map(chr, known)), list(texts))
