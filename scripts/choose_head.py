"""Choose the exported head on other photographers' pictures, by one measure.

Run as ``python scripts/choose_head.py --fine-tune 2``. Reads the outside sets in
``../shared``, which are not ours to share, and writes ``reports/choice.md`` and
``data/certainty.json``. The measure stood before the search: the mean of macro recall
as it is and in grey, five types among themselves, by nebula, all sets pooled; subject
to few flips and to telling nebulae from the rest. Of candidates that differ by less
than their paired interval the simpler one is taken.

Two parts of the recipe stay although without them the measure falls by less than its
interval. Dust is for dark nebulae: the column "dark" has the paired interval of their
recall. Framing is for answers that hold when a nebula is framed otherwise: the column
"framing" has how many flip, of one picture a nebula of these sets.

Tried in earlier searches and left, by their effect on the measure: the whole picture in
random colours too +0.001, simulated scenes -0.004, dust at full share -0.008; crops
without random colours let 11 % of the answers flip without colour.
"""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from nebula_utils.bias.outside import Outside, load_outside, pool, predict_outside
from nebula_utils.config import OTHER, REPORTS, REPOSITORY
from nebula_utils.dataset.manifest import Dataset, load_dataset
from nebula_utils.dataset.screening import find_unseen
from nebula_utils.features.backbone import load_backbone
from nebula_utils.files import write_atomic, write_json
from nebula_utils.training import calibration, scores
from nebula_utils.training.finetune import fine_tune
from nebula_utils.training.scores import Predictions, make_score, make_weights
from nebula_utils.training.study import (
    ABLATION,
    BALANCED,
    FRAMINGS,
    PLAIN,
    ROBUST,
    Study,
    run_study,
)

log = logging.getLogger(__name__)

SOURCE, PLAN = "stellarium+everyday", (5, 3, 0)  # of the default study
SETS = ("strangers", "photos", "stellarium-26.3")
CONSTRAINED = "strangers"  # the set with all that a nebula must be told from
MOST_FLIPS, LEAST_AUROC, LEAST_OTHER = 0.10, 0.98, 0.90
CANDIDATES = (
    ROBUST,
    PLAIN,
    BALANCED,
    replace(BALANCED, name="balanced, C = 0.003", C=0.003),
    *ABLATION,
    replace(ROBUST, name="robust, C = 0.003", C=0.003),
    replace(ROBUST, name="robust, C = 0.03", C=0.03),
)
LIMITS = (0.7, 0.75, 0.8, 0.85, 0.9)  # candidates for when an answer is sure


def load_sets(dataset: Dataset) -> dict[str, Outside]:
    """Read the outside sets that are there."""
    folders = {name: REPOSITORY.parent / "shared" / name for name in SETS}
    found = {name: load_outside(folder, dataset) for name, folder in folders.items()}
    return {name: one for name, one in found.items() if one is not None}


def predict(
    study: Study, sets: Mapping[str, Outside], leave_out: bool
) -> dict[str, Any]:
    """Return pooled answers as they are and in grey; perhaps without their nebulae."""
    known = study.dataset
    answers = []
    for name, one in sets.items():
        without: list[str] = []
        if leave_out:
            unseen = find_unseen(known.manifest, one.manifest)
            without = np.unique(np.delete(known.groups, unseen)).tolist()
        answers.append(predict_outside(study, one, name, without))
    parts = [one.manifest.assign(set=name) for name, one in sets.items()]
    table = pd.concat(parts, ignore_index=True)
    unit = (table["set"] + ": " + table["group"] + ": " + table["label"]).to_numpy(str)
    found = {change: replace(p, groups=unit) for change, p in pool(answers).items()}
    is_new = np.concatenate([one.is_new for one in sets.values()])
    return {**found, "set": table["set"].to_numpy(str), "is_new": is_new}


def measure(answers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the deciding measure with its resamples, and what constrains it."""
    p, grey = answers["as_is"], answers["grey"]
    types, grey_types = p.among_types(), grey.among_types()
    weights = make_weights(types.groups, types.y_true)
    as_is = scores.compute_balanced_accuracy(types, weights)
    in_grey = scores.compute_balanced_accuracy(grey_types, weights)
    home = p.select(answers["set"] == CONSTRAINED)
    once = make_weights(home.groups, home.y_true, 0)
    other = home.class_names.index(OTHER)
    recall = scores.compute_recall(types, weights)
    return {
        "values": (as_is + in_grey) / 2,
        "dark": recall[:, types.class_names.index("dark")],
        "as_is": as_is[0],
        "grey": in_grey[0],
        "flips": scores.compute_flip_rate(types, grey_types.y_proba, weights)[0],
        "auroc": scores.compute_nebula_auroc(home, once)[0],
        "other": scores.compute_recall(home, once)[0, other],
        "recall": recall[0],
        "groups": types.groups,
        "types": types.class_names,
    }


def measure_framing(study: Study, sets: Mapping[str, Outside]) -> float:
    """Return how many types flip under framings, of one picture a nebula and set."""
    tables = [one.manifest.drop_duplicates("group") for one in sets.values()]
    table = pd.concat(tables, ignore_index=True)
    answers = study.predict(table[table["label"] != OTHER], FRAMINGS)
    types = np.array(study.dataset.class_names) != OTHER
    best = {name: p[:, types].argmax(1) for name, p in answers.items()}
    return float(np.mean([best[name] != best["as_is"] for name in FRAMINGS]))


def describe(name: str, found: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    """Return a row of the table."""
    allowed = (
        found["flips"] <= MOST_FLIPS
        and found["auroc"] >= LEAST_AUROC
        and found["other"] >= LEAST_OTHER
    )
    paired = ["–", "–"]
    if found is not best:
        groups = found["groups"]
        differences = [
            make_score(found[key] - best[key], groups) for key in ("values", "dark")
        ]
        paired = [
            "{value:+.3f} [{low:+.3f}, {high:+.3f}]".format(**d) for d in differences
        ]
    recall = " ".join(f"{value:.2f}" for value in found["recall"])
    return (
        f"| {name} | {found['values'][0]:.3f} | {found['as_is']:.3f} | "
        f"{found['grey']:.3f} | {found['flips']:.0%} | {found['framing']:.0%} | "
        f"{found['auroc']:.3f} | {found['other']:.2f} | "
        f"{'yes' if allowed else 'no'} | "
        f"{' | '.join(paired)} | {recall} |"
    )


def make_table(found: Mapping[str, Mapping[str, Any]], best: str) -> str:
    """Return a table of the candidates."""
    types = " ".join(str(name)[:3] for name in found[best]["types"])
    head = (
        "| head | measure | as it is | grey | flips | framing | AUROC | other | "
        f"allowed | minus {best} | dark, minus {best} | {types} |\n"
        "|---" + "|---" * 11 + "|\n"
    )
    rows = [describe(name, one, found[best]) for name, one in found.items()]
    return head + "\n".join(rows) + "\n"


def measure_certainty(answers: Mapping[str, Any], limit: float) -> dict[str, Any]:
    """Return how many answers are sure and right: pooled, on new nebulae, by set."""
    p: Predictions = answers["as_is"]
    parts = {name: answers["set"] == name for name in np.unique(answers["set"])}
    parts["new nebulae"] = answers["is_new"]
    found = scores.score_sure(p, limit)
    by_set = {}
    for name, mask in parts.items():
        part = p.select(mask)
        one = scores.score_sure(part, limit)
        weights = make_weights(part.groups, part.y_true, 0)
        by_set[name] = {
            "share": one["share"]["value"],
            "right": one["accuracy"]["value"],
            "n_images": one["share"]["n_images"],
            "n_nebulae": one["share"]["n_nebulae"],
            "ece": round(float(scores.compute_ece(part, weights)[0]), 5),
        }
    return {
        "threshold": limit,
        "coverage": found["share"]["value"],
        "accuracy": found["accuracy"]["value"],
        "measured_on": "pictures by other photographers",
        "sets": by_set,
    }


def make_certainty_table(answers: Mapping[str, Any]) -> str:
    """Return how right sure answers are for each limit."""
    names = [*np.unique(answers["set"]), "new nebulae"]
    lines = ["| sure from | pooled | " + " | ".join(names) + " |"]
    lines.append("|---|---" + "|---" * len(names) + "|")
    for limit in LIMITS:
        found = measure_certainty(answers, limit)
        cells = [f"{found['accuracy']:.3f} of {found['coverage']:.0%}"]
        for name in names:
            one = found["sets"][name]
            cells.append(f"{one['right']:.3f} of {one['share']:.0%}")
        lines.append(f"| {limit} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every candidate, write the table and the evidence for "sure"."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    about = (
        "also fine-tune the network, so many times, some minutes each, and fit the "
        "robust head on it; it has then seen all nebulae: first table only"
    )
    parser.add_argument("--fine-tune", type=int, default=0, metavar="SEEDS", help=about)
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    dataset = load_dataset(SOURCE)
    sets = load_sets(dataset)
    if len(sets) < len(SETS):
        log.info("skipped: %s are needed beside the repository", ", ".join(SETS))
        return 0
    networks = dict.fromkeys(CANDIDATES, load_backbone())
    for seed in range(args.fine_tune):
        tuned = load_backbone(str(fine_tune(dataset, random_state=seed)))
        networks[replace(ROBUST, name=f"robust, fine-tuned (seed {seed})")] = tuned
    few: dict[str, Any] = {"changes": ("grey",), "framings": (), "random_split": False}
    found, strict, sure = {}, {}, {}
    for recipe, backbone in networks.items():
        log.info("%s", recipe.name)
        study = run_study(dataset, backbone, recipe, PLAN, **few)
        framing = measure_framing(study, sets)
        answers = predict(study, sets, leave_out=False)
        found[recipe.name] = {**measure(answers), "framing": framing}
        if recipe is ROBUST:
            sure = answers
            write_json(
                calibration.CERTAINTY, measure_certainty(answers, calibration.SURE)
            )
        if recipe in CANDIDATES:
            answers = predict(study, sets, leave_out=True)
            strict[recipe.name] = {**measure(answers), "framing": framing}
    text = [
        "# How the exported head was chosen\n",
        f"{__doc__}\nFitted on all default pictures:\n".replace("``", "`"),
        make_table(found, ROBUST.name),
        "Fitted without the nebulae that the set shows:\n",
        make_table(strict, ROBUST.name),
        f'"Sure" of {ROBUST.name}: share of right answers, of how many:\n',
        make_certainty_table(sure),
    ]
    with write_atomic(REPORTS / "choice.md") as temporary:
        temporary.write_text("\n".join(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
