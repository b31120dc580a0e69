"""How far the scores of two processors may lie apart: the one place that says so.

The same study on another processor gives other last digits: TensorFlow, LiteRT and
OpenBLAS choose other kernels there, which add in another order. Embeddings then differ
in the sixth digit, and pictures that lie on a border between two classes fall to the
other side. So what a score may differ by is a number of pictures, and a little more.

Measured with `make test-portable` on an Intel Xeon with AMX (November 2026), each from
an empty cache: the kernels of an SSE4.1 processor in oneDNN and OpenBLAS changed 60
numbers of the whole study, at most by 9 % of the room below; a processor that claims to
have AVX but neither AVX2 nor FMA, for every library, changed 125, at most by 37 %. No
count, name, order or text differed.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

ROOM = 0.01  # of any score, whatever the number of pictures
PICTURES = 2  # that may be answered otherwise, of those that the score is of
BOUNDS = 2  # times as far for the ends of an interval, which few nebulae decide
WORST = 0.1  # a worst group may be another one, of very few pictures
PROBABILITY = 0.05  # of one picture


@dataclasses.dataclass(frozen=True)
class Difference:
    """A number that differs: where, by how much, and how far it may.

    ``room`` 0 means that it must be equal; ``found`` is infinite where something is
    missing, new, or no number.
    """

    where: str
    found: float
    room: float

    @property
    def too_far(self) -> bool:
        """Whether no processor explains it."""
        return self.found > self.room


def compare_metrics(committed: Any, fresh: Any, where: str = "") -> list[Difference]:
    """Return all that differs between two ``metrics.json``.

    Parameters
    ----------
    committed, fresh : object
        As read. An outside set that is not on this machine (None in ``fresh``) is not
        compared.
    where : str
        Prefix of the places.
    """
    return list(_compare(committed, fresh, where))


def _compare(old: Any, new: Any, where: str) -> Iterator[Difference]:
    if where.startswith(".external") and new is None:
        return
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        for name in old:
            room = compute_room(old, name, where)
            if room is None:
                yield from _compare(old[name], new[name], f"{where}.{name}")
            else:
                yield from _compare_numbers(
                    old[name], new[name], f"{where}.{name}", room
                )
    elif isinstance(old, float) and isinstance(new, float):
        yield from _compare_numbers(old, new, where, PROBABILITY)
    elif type(old) is not type(new) or old != new:
        yield Difference(f"{where}: {_shorten(old)} → {_shorten(new)}", math.inf, 0)


def compute_room(score: dict[str, Any], name: str, where: str) -> float | None:
    """Return how far a part of a score may differ; None for all that is no such part.

    Parameters
    ----------
    score : dict
        Perhaps a score: ``value``, ``low``, ``high``, ``n_images``, ``n_nebulae``.
    name : str
        One of its names.
    where : str
        Its place in the file.
    """
    if name not in ("value", "low", "high") or "n_images" not in score:
        return None
    room = ROOM + PICTURES / max(score["n_images"], 1)
    if "worst" in where.rpartition(".")[2]:
        room = WORST
    return room if name == "value" else BOUNDS * room


def _compare_numbers(
    old: float | None, new: float | None, where: str, room: float
) -> Iterator[Difference]:
    if old is None or new is None:
        if old is not new:
            yield Difference(f"{where}: {old} → {new}", math.inf, room)
    elif old != new:
        yield Difference(f"{where}: {old} → {new}", abs(old - new), room)


def _shorten(value: Any) -> str:
    return f"{sorted(value)}" if isinstance(value, dict) else repr(value)
