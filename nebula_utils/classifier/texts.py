"""What an answer says in plain words."""

from typing import NamedTuple

from nebula_utils.catalogue.table import Nebula, UnknownNameError, resolve
from nebula_utils.classifier.classifier import Result
from nebula_utils.config import OTHER

NOUNS = {
    "dark": "a dark nebula",
    "emission": "an emission nebula",
    "reflection": "a reflection nebula",
    "planetary": "a planetary nebula",
    "protoplanetary": "a protoplanetary nebula",
    "supernova_remnant": "a supernova remnant",
    OTHER: "something else than a nebula",
}

TYPES = {
    "dark": "A cloud of dust that hides the stars behind it. Only the shape says so: "
    "it has no light of its own, and takes its colour from what is behind it.",
    "emission": "Gas that glows because hot young stars ionise it, mostly in the red "
    "light of hydrogen (an H II region).",
    "reflection": "Dust that mirrors the light of stars nearby. It looks blue, as "
    "small grains scatter blue light best.",
    "planetary": "The gas shell that a dying star like the Sun has thrown off and now "
    "lights up; often a small disc or ring.",
    "protoplanetary": "The stage just before: a star sheds its layers but is not yet "
    "hot enough to make them glow, so that its light is mirrored by their dust.",
    "supernova_remnant": "What a star's explosion left behind: shock waves that run "
    "into the gas around and light up as thin filaments.",
    OTHER: "No nebula: a galaxy, a cluster or a plain field of stars, or a picture of "
    "something on Earth.",
}

COUNTERFACTUAL_LABELS = {
    "grey": "without colour",
    "saturated": "stronger colours",
    "swapped": "red and blue swapped",
    "hue180": "hues reversed",
}

FRAGILE = 0.7  # a stability below is worth a word


class Wording(NamedTuple):
    """An answer in words.

    Attributes
    ----------
    headline : str
        A few words.
    sentence : str
        What else there is to say.
    """

    headline: str
    sentence: str


def describe_result(result: Result) -> Wording:
    """Put an answer into plain words.

    Parameters
    ----------
    result : Result
        The classifier's.

    Returns
    -------
    Wording
        "Probably a dark nebula", for instance, and the sentences below it.
    """
    said = [describe_colour(result)]
    if not result.confident:
        headline = "Not sure"
        said.insert(0, _describe_doubt(result))
    elif result.label == OTHER:
        headline = "This does not look like a nebula"
        said.insert(0, "More like a galaxy, a star cluster or an everyday photo.")
    else:
        headline = f"Probably {NOUNS[result.label]}"
    return Wording(headline, " ".join(said))


def describe_colour(result: Result) -> str:
    """Say what becomes of the answer without colour, and in other colours."""
    if result.grey_label != result.label:
        return (
            f"Without its colour it would be called {NOUNS[result.grey_label]}: here "
            "the colour decides, so be careful."
        )
    if result.stability < FRAGILE:
        kept = f"{result.stability:.0%}".replace("%", " %")
        return (
            "Without its colour the answer stays the same, but over the changes of "
            f"colour below it keeps only {kept} of its strength."
        )
    return "Without its colour the answer stays the same."


def describe_counterfactual(name: str) -> str:
    """Return the name of a colour counterfactual as the strip shows it."""
    return COUNTERFACTUAL_LABELS.get(name, f"in {name}")


def look_up(name: str, result: Result | None) -> str:
    """Say what the catalogue knows of an object, and whether the classifier agrees.

    Parameters
    ----------
    name : str
        As the user typed it; the text repeats it, so it needs escaping in HTML.
    result : Result, optional
        The classifier's answer on a picture of it.

    Returns
    -------
    str
        "" for an empty name.
    """
    if not name.strip():
        return ""
    try:
        nebula = resolve(name)
    except UnknownNameError as error:
        return f"The catalogue does not know it: {error}."
    said = f"{_introduce(nebula)} is {NOUNS[nebula.type]} in the catalogue."
    return f"{said} {_compare(nebula, result)}".strip()


def _describe_doubt(result: Result) -> str:
    names = list(result.candidates)
    if len(names) < 2:
        ranked = sorted(result.probabilities.items(), key=lambda item: -item[1])
        names = [name for name, _ in ranked[:2]]
    nouns = [NOUNS[name] for name in names]
    return f"It may be {', '.join(nouns[:-1])} or {nouns[-1]}."


def _introduce(nebula: Nebula) -> str:
    also = f" ({nebula.aliases[0]})" if nebula.aliases else ""
    return (
        f"{nebula.name}{also}, in {nebula.constellation},"
        if (nebula.constellation)
        else f"{nebula.name}{also}"
    )


def _compare(nebula: Nebula, result: Result | None) -> str:
    if result is None:
        return ""
    if not result.confident:
        if nebula.type in result.candidates:
            return "The classifier is not sure, but holds that possible."
        return "The classifier is not sure, and does not expect that."
    if result.label == nebula.type:
        return "The classifier agrees."
    return f"The classifier does not agree: it says {NOUNS[result.label]}."
