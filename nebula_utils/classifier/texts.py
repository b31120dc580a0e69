"""What an answer says in plain words."""

import re
from typing import NamedTuple

from nebula_utils.catalogue.names import canonical
from nebula_utils.catalogue.table import Nebula, find, suggest
from nebula_utils.classifier.classifier import Certainty, Result
from nebula_utils.config import OTHER
from nebula_utils.counterfactuals.colour import Shift

NOUNS = {
    "dark": "a dark nebula",
    "emission": "an emission nebula",
    "reflection": "a reflection nebula",
    "planetary": "a planetary nebula",
    "protoplanetary": "a protoplanetary nebula",
    "supernova_remnant": "a supernova remnant",
    OTHER: "something other than a nebula",
}

TYPES = {
    "dark": "A cloud of dust that hides the stars behind it. Only its shape gives it "
    "away: it has no light of its own and takes its colour from what lies behind.",
    "emission": "Gas that glows because hot young stars ionise it, mostly in the red "
    "light of hydrogen (an H II region).",
    "reflection": "Dust that reflects the light of nearby stars. It looks blue, as "
    "small grains scatter blue light best.",
    "planetary": "The shell of gas that a dying star like the Sun has thrown off and "
    "now lights up; often a small disc or ring.",
    "protoplanetary": "The stage just before: a star sheds its layers but is not yet "
    "hot enough to make them glow, so their dust only reflects its light.",
    "supernova_remnant": "What a star's explosion left behind: shock waves that run "
    "into the gas around it and light up as thin filaments.",
    OTHER: "No nebula: a galaxy, a cluster, a plain field of stars, or a picture of "
    "something on Earth.",
}

COUNTERFACTUAL_LABELS = {
    "as_is": "as it is",
    "grey": "without colour",
    "saturated": "stronger colours",
    "red": "in red",
    "blue": "in blue",
    "gold": "in gold",
    "swapped": "red and blue swapped",
}

FRAGILE = 0.7  # a stability below is worth a word
MOST_WORDS = 4  # of a file's name, that may be an object's name
_TELLING = re.compile(r"m ?\d|b ?\d\d|[a-z]{2}", re.IGNORECASE)


class Wording(NamedTuple):
    """An answer in words: a few, then how sure that is and what part colour plays."""

    headline: str
    sentences: tuple[str, ...]


def describe_result(result: Result, certainty: Certainty) -> Wording:
    """Put an answer into plain words."""
    best = format_share(result.probabilities[result.label])
    if not result.confident:
        limit = format_share(certainty.threshold)
        sure = f"At {best}, the answer is below the {limit} that count as sure."
        return Wording(
            f"Not sure: perhaps {NOUNS[result.label]}",
            tuple(filter(None, (sure, _list_others(result), describe_colour(result)))),
        )
    worth = (
        f"Of {certainty.measured_on} that look this sure, "
        f"{describe_proportion(certainty.accuracy)} were right."
    )
    if result.label == OTHER:
        headline = "This does not look like a nebula"
        worth = "It looks more like a galaxy, a cluster or an everyday photo. " + worth
    else:
        headline = f"This looks like {NOUNS[result.label]}"
    return Wording(headline, (worth, describe_colour(result)))


def describe_colour(result: Result) -> str:
    """Say what becomes of the answer without colour, and in other colours."""
    if result.is_grey:
        return "The picture has no colour, so colour played no part."
    if result.grey_label != result.label:
        return (
            f"Without its colour it would look like {NOUNS[result.grey_label]}: here "
            "the answer rests on colour, so treat it with care."
        )
    if result.stability < FRAGILE:
        return (
            "Without its colour the answer stays the same, but over the changes of "
            f"colour below it keeps only {format_share(result.stability)} of its "
            "probability."
        )
    return "Without its colour the answer stays the same."


def describe_proportion(share: float) -> str:
    """Return a share as people say it: "nine in ten", "97 %"."""
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
    tenths = round(10 * share)
    if not 1 <= tenths <= 9 or abs(share - tenths / 10) > 0.025:
        return format_share(share)
    return f"{(*words, 'nine')[tenths]} in ten"


def format_share(share: float) -> str:
    """Return a share as a percentage that never claims 0 or 100."""
    if share > 0.99:
        return "over 99 %"
    return "under 1 %" if share < 0.01 else f"{100 * share:.0f} %"


def describe_shift(shift: Shift) -> str:
    """Put a change of colour that flips an answer into words."""
    if shift.palette != "natural":
        return f"palette {shift.palette}"
    if shift.hue:
        return f"hues turned by {shift.hue:+.0f}°"
    if shift.saturation == 0:
        return "without colour"
    return f"saturation at {100 * shift.saturation:.0f} %"


def look_up(name: str, result: Result | None = None) -> str:
    """Say what the catalogue knows of an object, and whether the classifier agrees.

    The text, "" for no name, repeats the name as typed: it needs escaping in HTML.
    """
    name = name.strip()
    if not name:
        return ""
    nebula = find(name)
    if nebula is None:
        return _explain_unknown(name)
    # By its number and the name that most people know.
    messier = [alias for alias in nebula.aliases if re.fullmatch(r"M \d+", alias)]
    known = "".join(f" ({alias})" for alias in (messier or list(nebula.aliases))[:1])
    said = f"{nebula.name}{known} is {NOUNS[nebula.type]} in the catalogue."
    return f"{said} {_compare(nebula, result)}".strip()


def guess_name(file_name: str) -> str:
    """Return the catalogue's object that a file is named after, "" if none.

    "M42_2023-01-05_stack.fits" gives "NGC 1976".
    """
    stem = re.sub(r"(\.\w{1,5}){1,2}$", "", file_name)
    words = re.findall(r"[A-Za-z]+[\d-]*\d|\d+|[^\W\d_]+", stem)[:24]
    for n in range(MOST_WORDS, 0, -1):
        for first in range(len(words) - n + 1):
            some = words[first : first + n]
            said = " ".join(some)
            # One plain word may be anything ("North", "Cone"), and so may "a1".
            if n == 1 and canonical(said) is None or not _TELLING.match(said):
                continue
            if (nebula := find(said)) is not None:
                return nebula.name
    return ""


def _explain_unknown(name: str) -> str:
    shown = name if len(name) <= 60 else name[:57] + "…"
    number = canonical(name)
    if number is not None:
        start = f"The catalogue of nebulae has no {number}"
        return f"{start}; galaxies and star clusters are not in it."
    similar = suggest(name, 3)
    hint = f" Did you mean {' or '.join(similar)}?" if similar else ""
    return f"The catalogue of nebulae does not know “{shown}”.{hint}"


def _list_others(result: Result) -> str:
    *others, last = (NOUNS[name] for name in result.candidates)
    if len(result.candidates) < 2:
        return ""
    before = f"{', '.join(others[1:])} or " if others[1:] else ""
    return f"It may also be {before}{last}."


def _compare(nebula: Nebula, result: Result | None) -> str:
    if result is None:
        return ""
    doubt = "" if result.confident else " is not sure, but"
    if result.label == nebula.type:
        return f"The classifier{doubt} {'thinks so too' if doubt else 'agrees'}."
    if nebula.type in result.candidates:
        return "The classifier finds that possible, but less probable."
    return f"The classifier{doubt} does not agree: it says {NOUNS[result.label]}."
