"""The model card: what a user of the exported classifier should know."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nebula_utils.files import write_atomic
from nebula_utils.report.style import CLASS_LABELS
from nebula_utils.report.tables import find_score, format_score
from nebula_utils.training.fitting import Recipe


def write_model_card(
    path: Path, study: Mapping[str, Any], scored: Mapping[str, Any], recipe: Recipe
) -> None:
    """Write the card of the exported head.

    Parameters
    ----------
    path : Path
        ``MODEL_CARD.md``.
    study : mapping
        From `results.make_study`.
    scored : mapping
        The exported head's scores, as metrics.json has them.
    recipe : Recipe
        How the head is made.
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
        source=data["source"],
        n_images=data["n_images"],
        n_nebulae=data["n_nebulae"],
        counts="\n".join(counts),
        unknown="".join(unknown),
        balanced=score("balanced_accuracy"),
        grey=score("grey_balanced_accuracy"),
        flips=score("flip_rate", "grey"),
        framing=score("framing_flip_rate", "mean"),
        ece=score("ece"),
        share=score("sure", "share"),
        accuracy=score("sure", "accuracy"),
    )
    with write_atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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

**Limits.**
{unknown}- few nebulae in the thin classes: look at the intervals, not the values
- most training pictures come from few photographers with their own colours and crops
- a picture with two kinds of nebula gets one label
- pictures from spectrographs, drawings and simulations were never seen
"""
