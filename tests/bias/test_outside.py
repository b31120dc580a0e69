"""What is judged otherwise: copies are dropped, sets pooled, answers are known."""

import shutil
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from synthetic import TINTS, draw_nebula

from nebula_utils.bias import measures, outside
from nebula_utils.bias.dust_response import measure_dust_response
from nebula_utils.dataset.manifest import Dataset, make_dataset
from nebula_utils.training import study

PLAN = (3, 1, 0)
FEW = {"changes": ("grey",), "framings": (), "random_split": False}
SMALL = replace(study.BALANCED.at_size(64), name="balanced")


@pytest.fixture
def dataset(manifest: pd.DataFrame) -> Dataset:
    """Give the synthetic study, all seven classes of four nebulae."""
    rows = manifest.assign(group=manifest["nebula"], palette="mixed")
    return make_dataset(rows, min_nebulae=3)


@pytest.fixture
def made(dataset: Dataset, fake_backbone, tmp_cache: Path) -> study.Study:
    """Run a study of small views in an empty cache."""
    return study.run_study(dataset, fake_backbone, SMALL, PLAN, **FEW)


@pytest.fixture
def folder(manifest: pd.DataFrame, tmp_path: Path) -> Path:
    """Give an outside set: a new picture a class, and a copy of a training picture."""
    rng = np.random.default_rng(99)
    for label in TINTS:
        path = tmp_path / "outside" / label / f"new_{label}-1.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(draw_nebula(label, rng, side=320)).save(path)
    twin = Path(manifest["path"].iloc[0])
    shutil.copy(twin, tmp_path / "outside" / "dark" / "twin-1.png")
    return tmp_path / "outside"


def test_copies_of_training_pictures_are_not_scored(made, folder: Path) -> None:
    """The copy is dropped, the seven new ones stay and count as new."""
    found = outside.load_outside(folder, made.dataset)
    assert sorted(found.manifest["label"]) == sorted(TINTS)
    assert found.is_new.all()
    assert outside.load_outside(folder / "missing", made.dataset) is None


def test_outside_scores_are_those_of_the_answers(made, folder: Path) -> None:
    """Recall by class is 0 or 1 as the one picture is answered; pools need all sets."""
    sets = {"one": folder, "other": folder.parent / "missing"}
    found = outside.score_outside({"balanced": made}, sets)
    assert found["other"] is None and found[outside.POOLED] is None
    one = outside.load_outside(folder, made.dataset)
    answers = outside.predict_outside(made, one, "one")["as_is"]
    names = np.array(made.dataset.class_names)
    said = names[answers.y_proba[0].argmax(1)]
    scored = found["one"]["balanced"]["recall"]
    for label, answer in zip(one.manifest["label"], said, strict=True):
        assert scored[label]["value"] == float(label == answer)
    alone = outside.score_outside({"balanced": made}, {"one": folder})
    assert alone[outside.POOLED]["balanced"]["recall"] == scored


def test_flips_are_listed_with_what_they_cost(dataset: Dataset) -> None:
    """Of three nebulae the first flips from right to wrong, and is told so."""
    few = replace(dataset, manifest=dataset.manifest[::8].reset_index(drop=True))
    names = list(few.class_names)
    before = np.full((len(few.y), len(names)), 0.1 / 6)
    before[np.arange(len(few.y)), few.y] = 0.9
    after = before.copy()
    after[0] = np.roll(before[0], 1)  # the first picture's answer is another class
    fake = study.Study(few, SMALL, None, None, {"as_is": before[None]})
    fake.y_proba["grey"] = after[None]
    (flip,) = measures.list_flips(fake, "grey").to_dict("records")
    assert flip["label"] == flip["before"] == names[few.y[0]]
    assert flip["after"] != flip["before"] and flip["was_right"]
    assert flip["shift"] == pytest.approx(0.883, abs=1e-3)


def test_held_out_nebulae_are_asked_in_every_colour(made) -> None:
    """One row a colour, probabilities sum to 1; without held-out pictures no row."""
    rows = made.dataset.manifest.head(1)
    fake = replace(made, dataset=replace(made.dataset, held_out=rows))
    story = outside.predict_held_out({"balanced": fake}, ("grey", "red"))["balanced"]
    assert list(story["colour"]) == ["as_is", "grey", "red"]
    sums = story[list(made.dataset.class_names)].sum(axis=1)
    np.testing.assert_allclose(sums, 1)
    empty = replace(made, dataset=replace(made.dataset, held_out=rows[:0]))
    assert outside.predict_held_out({"balanced": empty})["balanced"].empty


def test_leaving_out_photographers(dataset: Dataset, fake_backbone, tmp_cache) -> None:
    """A photographer a nebula gives the same score; a class of one is left out."""
    rows = dataset.manifest.assign(credit=dataset.manifest["nebula"])
    rows.loc[rows["label"] == "dark", "credit"] = "One Observatory"
    found = outside.compare_photographers(
        replace(dataset, manifest=rows), fake_backbone, [SMALL], PLAN
    )["balanced"]
    assert found["nebula"]["n_images"] == 4 * 6
    assert found["nebula"]["value"] == pytest.approx(found["photographer"]["value"])


def test_dust_changes_nothing_where_there_is_none(made, fake_backbone) -> None:
    """Equal doses give equal answers; a row a nebula, colour and dose."""
    doses = (0.0, 0.0, 6.0)
    found = measure_dust_response({"balanced": made}, fake_backbone, 2, doses)
    assert len(found) == 2 * 2 * 3 and found["p_dark"].between(0, 1).all()
    first, second, third = (found["p_dark"].to_numpy()[i::3] for i in range(3))
    np.testing.assert_array_equal(first, second)
    assert (third != first).all()


def test_types_of_a_fake_study_are_told_apart() -> None:
    """`predict_nebulae` leaves out what is no nebula."""
    p = types.SimpleNamespace(is_nebula="mask", select=lambda mask: mask)
    fake = types.SimpleNamespace(predict_under=lambda change: p)
    assert measures.predict_nebulae(fake, ["as_is"]) == {"as_is": "mask"}
