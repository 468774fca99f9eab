"""Which models have arrived when an agent finishes, and which agents can be one step together.

All on the host, over all completion events of a `jaxdopt.networks.events.timeline` in order.
"""

from typing import Any

import jax
import numpy as np

from jaxdopt.networks.events import draws, durations
from jaxdopt.networks.events.schedule import ordinals
from jaxdopt.networks.events.wires import Wires

OVERHEAD = 24  # completion events that cost as much as a step does by itself, measured


class Completed:
    """Completion events in order, and the places in that order of every agent's versions."""

    def __init__(self, time: np.ndarray, agent: np.ndarray, n: int) -> None:
        self.time, self.agent = time, agent
        self.counts = np.bincount(agent, minlength=n)
        self.offset = np.cumsum(self.counts) - self.counts
        self.place = np.argsort(agent, kind="stable")  # places in order, agent after agent
        self._keys = agent[self.place] * (len(agent) + 1) + self.place

    @property
    def version(self) -> np.ndarray:
        """The version that every event makes, 1 and up, [E]."""
        version = np.empty(len(self.agent), int)
        version[self.place] = ordinals(self.counts) + 1
        return version

    def made(self, sender: np.ndarray, version: np.ndarray) -> np.ndarray:
        """Return where versions were made, −1 for those of the start."""
        if not len(self.place):
            return np.full(np.shape(version), -1)
        index = self.offset[sender] + np.maximum(version, 1) - 1
        return np.where(version > 0, self.place[np.minimum(index, len(self.place) - 1)], -1)

    def before(self, sender: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Return how many versions senders have made before a place in the order."""
        asked = sender * (len(self.agent) + 1) + place
        return np.searchsorted(self._keys, asked) - self.offset[sender]


def delivered(events: Completed, wires: Wires, delay: Any, key: jax.Array) -> np.ndarray:
    """Return the newest version that has arrived of every sender at every event, [E, slots]."""
    total = len(events.time)
    sent = events.counts[wires.sender]  # messages over every link
    link = np.repeat(np.arange(len(sent)), sent)
    number = ordinals(sent)
    place = events.place[events.offset[wires.sender][link] + number]
    travel = draws.drawn(
        delay,
        jax.random.fold_in(key, durations.DELAY),
        number,
        wires.receiver[link],
        wires.sender[link],
    )
    wrong = np.flatnonzero(~(travel >= 0))
    if len(wrong):
        raise ValueError(f"a message takes {travel[wrong[0]]} seconds; give delays of at least 0.")
    # delivered before what finishes at that time, but not before it was made
    seen = np.maximum(place + 1, np.searchsorted(events.time, events.time[place] + travel))
    # the first place at which this message or a newer one is there; links one after the other
    seen = link * (total + 1) + np.minimum(seen, total)
    seen = np.minimum.accumulate(seen[::-1])[::-1]
    asking = events.counts[wires.receiver]
    link = np.repeat(np.arange(len(asking)), asking)
    place = events.place[events.offset[wires.receiver][link] + ordinals(asking)]
    newest = np.searchsorted(seen, link * (total + 1) + place, side="right")
    read = np.zeros((total, wires.senders.shape[1]), int)
    read[place, wires.slot[link]] = newest - (np.cumsum(sent) - sent)[link]
    return read


def runs(events: Completed, read: np.ndarray, wires: Wires) -> np.ndarray:
    """Return where runs begin, and where the last one ends."""
    total = len(events.time)
    if not total:
        return np.zeros(1, int)
    heard = events.made(wires.senders[events.agent], read).max(axis=1, initial=-1)
    before = events.made(events.agent, events.version - 1)
    latest = np.maximum.accumulate(np.maximum(heard, before))  # has to lie before the run
    longest = np.searchsorted(latest, np.arange(total)).tolist()

    def cut(width: int) -> list[int]:
        begin, cuts = 0, [0]
        while begin < total:
            begin = min(longest[begin], begin + width)
            cuts.append(begin)
        return cuts

    best = cut(total)
    width = int(np.diff(best).max())
    cost = len(best) * (width + OVERHEAD)
    # all runs are padded to the widest: where few are wide, cutting these makes the tables smaller
    for power in reversed(range((width - 1).bit_length())):
        if total * (1 + OVERHEAD / 2**power) >= cost:
            break
        narrower = cut(2**power)
        if len(narrower) * (2**power + OVERHEAD) < cost:
            best, cost = narrower, len(narrower) * (2**power + OVERHEAD)
    return np.array(best)
