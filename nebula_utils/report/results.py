"""What a run writes: metrics.json in sections, and the model card.

A notebook writes the section that it computed; `write_metrics` joins those of one and
the same study, so that numbers of two studies never stand in one file.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nebula_utils.errors import NebulaError
from nebula_utils.files import write_atomic, write_json
from nebula_utils.report.drawing import CLASS_LABELS
from nebula_utils.report.tables import find_score, format_score
from nebula_utils.training.fitting import Recipe
from nebula_utils.training.scores import score_mean

log = logging.getLogger(__name__)

SCHEMA = 2  # 2: three heads, answers among types, framing, certainty, pooled outside
PARTS = "parts"
SECTIONS = ("heads", "dark_emission", "external", "held_out", "photographers")
SPLIT = "repeated stratified k-fold by nebula"


def make_study(
    data: Mapping[str, Any], plan: tuple[int, int, int], backbone: str, input_size: int
) -> dict[str, Any]:
    """Return what identifies a study; its data and protocol stand in metrics.json.

    ``data`` is `Dataset.describe`, ``plan`` k, repeats and random state of the
    cross-validation, ``input_size`` the side of the backbone's input in px.
    """
    protocol = dict(zip(("k", "repeats", "random_state"), plan, strict=True))
    return {
        "data": dict(data),
        "protocol": {"split": SPLIT, **protocol},
        "features": {"backbone": backbone, "input_size": input_size},
    }


def write_part(
    reports: Path, section: str, content: Any, study: Mapping[str, Any]
) -> Path:
    """Write one of metrics.json's `SECTIONS`, with the study that it belongs to.

    It lies in the folder ``parts`` until `write_metrics` is called.

    Raises
    ------
    NebulaError
        If there is no such section.
    """
    if section not in SECTIONS:
        raise NebulaError(f"metrics.json has no section {section!r}: use {SECTIONS}")
    path = reports / PARTS / f"{section}.json"
    return write_json(path, {"study": study, section: content})


def write_metrics(reports: Path, study: Mapping[str, Any]) -> dict[str, Any]:
    """Join the parts of a study in ``metrics.json``, and return what it holds.

    A section that nobody wrote is None; parts of another study are left out.
    """
    study = json.loads(json.dumps(study))
    metrics: dict[str, Any] = {"schema": SCHEMA, **dict.fromkeys(SECTIONS)}
    metrics |= {key: study[key] for key in ("data", "protocol")}
    metrics["external"] = {"photos": None}
    files = {section: reports / PARTS / f"{section}.json" for section in SECTIONS}
    for section, path in files.items():
        part = read_json(path) if path.is_file() else {"study": study}
        if part["study"] != study:
            log.warning("%s is of another study: left out", path.name)
        elif section in part:
            metrics[section] = part[section]
    write_json(reports / "metrics.json", metrics)
    return metrics


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file; a missing or damaged one is a NebulaError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = f"{path} can't be read ({error}): run `make reproduce`"
        raise NebulaError(reason) from error


def write_model_card(
    path: Path,
    study: Mapping[str, Any],
    scored: Mapping[str, Any],
    recipe: Recipe,
    located: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write the card of the exported head, made by a recipe.

    ``study`` is from `make_study`; ``scored`` are the head's scores, as in
    metrics.json; ``located`` is from `bias.measure_localisation`.
    """
    data, recall = study["data"], scored["recall"]

    def score(*keys: str) -> str:
        return format_score(find_score(scored, keys))

    counts = [
        f"| {CLASS_LABELS[name]} | {count['nebulae']} | {count['images']} "
        f"| {format_score(recall.get(name))} |"
        for name, count in data["classes"].items()
    ]
    unknown = [
        f"- not known to the model: {CLASS_LABELS[name]} ({reason})\n"
        for name, reason in data["left_out"].items()
    ]
    text = CARD.format(
        **study["features"],
        about=describe_recipe(recipe),
        **{key: data[key] for key in ("source", "n_images", "n_nebulae")},
        counts="\n".join(counts),
        unknown="".join(unknown),
        balanced=score("balanced_accuracy"),
        grey=score("grey_balanced_accuracy"),
        flips=score("flip_rate", "grey"),
        framing=score("framing_flip_rate", "mean"),
        ece=score("ece"),
        share=score("sure", "share"),
        accuracy=score("sure", "accuracy"),
        evidence=describe_evidence(located),
    )
    with write_atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def describe_evidence(located: Sequence[Mapping[str, Any]]) -> str:
    """Say how much of the evidence lies on the nebulae."""
    if not located:
        return "Not measured: no picture whose nebula has a known outline or circle."
    table = pd.DataFrame(located)
    groups = table["nebula"].to_numpy(str)
    labels = table["label"].to_numpy(str)

    def mean(name: str) -> str:
        return format_score(score_mean(table[name].to_numpy(float), groups, labels))

    return (
        f"Of the evidence for the right type {mean('share')} lies on the nebula, which "
        f"covers {mean('chance')} of the picture; evidence that lay as in the other "
        f"pictures on average would have {mean('others')} there "
        f"({len(table)} training pictures whose outline or circle is known)."
    )


def describe_recipe(recipe: Recipe) -> str:
    """Say in a sentence or two how a head is made."""
    copies = ["as it is" if colour == "as_is" else colour for colour in recipe.colours]
    parts = {
        "in crops": recipe.crops,
        "smaller in a star field": recipe.framed,
        "behind simulated dust (emission nebulae, as dark ones)": recipe.dusty,
        "and all these copies in grey and in random colours too": recipe.crops,
    }
    copies += [part for part, n in parts.items() if n]
    kind = "A logistic regression"
    if recipe.two_step:
        kind = "Two logistic regressions, one for nebula or not and one for the type,"
    return (
        f"{kind} on frozen features. Trained on each picture {', '.join(copies)}; "
        f"asked about {len(recipe.views)} views of one, whose answers are averaged."
    )


CARD = """# Model card: nebula classifier, robust head

Written by notebook 04; every number is from the same run.

**What it is.** {about} The features are those of `{backbone}` at {input_size} px.

**What it is for.** Sorting photographs of nebulae by type, teaching, and showing what \
such a classifier looks at. Not for measuring or cataloguing objects: the type of a \
nebula is a matter of spectra, not of pictures.

**Trained on.** {n_images} pictures of {n_nebulae} objects, source {source}. \
LDN 1622 is held out.

| class | nebulae | pictures | recall, by nebula |
|---|---|---|---|
{counts}

**How good.** Balanced accuracy {balanced}; without colour {grey}. Without colour \
{flips} of the answers flip, in another framing {framing}. Calibration error {ece}. \
95 % intervals, nebulae resampled, cross-validated by nebula.

**"Sure".** An answer is sure from a probability on that was chosen on pictures by \
other photographers than those it was trained on. Here {share} of the answers are \
sure, and {accuracy} of these are right. How it fares on other people's pictures \
stands in the README's table.

**Where it looks.** {evidence}

**Limits.**
{unknown}- few nebulae in the thin classes: look at the intervals, not the values
- most training pictures come from few photographers with their own colours and crops
- a picture with two kinds of nebula gets one label
- pictures from spectrographs, drawings and simulations were never seen
"""
