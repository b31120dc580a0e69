"""The study: what is held out stays out, and simulated samples don't leak."""

import numpy as np
import pandas as pd
import pytest

from nebula_utils.bias.erasure import fit_eraser
from nebula_utils.dataset.manifest import make_dataset
from nebula_utils.dataset.splits import check_leakage
from nebula_utils.errors import LeakageError, SourceError
from nebula_utils.features.views import View
from nebula_utils.training import study
from nebula_utils.training.calibration import compute_threshold, score_coverage
from nebula_utils.training.discriminant import (
    average_nebulae,
    compute_moments,
    fit_folds,
    fit_moments,
    number_columns,
)
from nebula_utils.training.fitting import Samples, compute_sample_weight
from nebula_utils.training.heads import Head
from nebula_utils.training.robust import CROPS_ELSE, make_robust_samples
from nebula_utils.training.scores import Predictions
from nebula_utils.training.study import Strategy

SMALL = (View(64),)


@pytest.fixture
def judged(manifest: pd.DataFrame) -> pd.DataFrame:
    """Add what judging adds: each picture's group and palette."""
    return manifest.assign(group=manifest["nebula"], palette="mixed")


@pytest.fixture
def dataset(judged: pd.DataFrame):
    """Give the synthetic study, all seven classes of four nebulae."""
    return make_dataset(judged, min_nebulae=3)


def test_thin_types_are_left_out_by_name_and_reason(judged):
    """A type with fewer nebulae than asked for is named, never silently dropped."""
    thin = judged[~judged["nebula"].isin(["Sim dark 0", "Sim dark 1"])]
    made = make_dataset(thin, min_nebulae=3)
    assert "dark" not in made.class_names
    assert made.left_out["dark"].startswith("only 2 nebulae")


def test_held_out_nebulae_are_in_no_fold(judged):
    """A nebula that is held out is not among the pictures of the study."""
    made = make_dataset(judged, min_nebulae=3, held_out=("Sim dark 0",))
    assert set(made.held_out["nebula"]) == {"Sim dark 0"}
    assert "Sim dark 0" not in set(made.groups)


def test_unknown_class_is_an_error(judged):
    """A misspelt class is answered with the classes there are."""
    with pytest.raises(SourceError, match="supernova_remnant"):
        make_dataset(judged, classes=("dark", "emision"))


def test_accept_holds_the_label_and_the_second_type(judged):
    """A picture with two accepted types accepts exactly these."""
    judged.loc[0, "accept"] = "dark|emission"
    made = make_dataset(judged, min_nebulae=3)
    accepted = np.array(made.class_names)[made.accept[0]]
    assert accepted.tolist() == ["dark", "emission"] and made.is_ambiguous[0]


def test_folds_never_share_a_nebula(dataset):
    """Every picture is tested once a repeat, and no nebula is on both sides."""
    folds = study.make_splits(dataset, 4, 2)
    for _, _, train, test in folds:
        assert not set(dataset.groups[train]) & set(dataset.groups[test])
    assert sorted(np.concatenate([test for _, _, _, test in folds[:4]])) == list(
        range(len(dataset.y))
    )


def test_two_folds_are_refused_with_the_reason(dataset):
    """Two folds leave nothing to calibrate on: the error says how many to choose."""
    with pytest.raises(SourceError, match="choose FOLDS from 3 to 4"):
        study.make_splits(dataset, 2, 1)


def test_leakage_check_raises(dataset):
    """Two pictures of one nebula on both sides are an error that names it."""
    with pytest.raises(LeakageError):
        check_leakage(dataset.groups, np.array([0]), np.array([1]))


def test_random_split_leaks(dataset):
    """With each picture on its own, nebulae do stand on both sides."""
    loose = dataset.ungroup()
    _, _, train, test = study.make_splits(loose, 3, 1)[0]
    assert set(dataset.groups[train]) & set(dataset.groups[test])


@pytest.mark.parametrize("method", ["logistic", "discriminant"])
def test_answers_are_probabilities_of_every_question(
    dataset, fake_backbone, tmp_cache, method
):
    """Each picture gets probabilities as it is and under each counterfactual."""
    strategy = Strategy("s", SMALL, SMALL, balanced=True, method=method)
    embeddings = study.embed_dataset(dataset, fake_backbone, strategy, ("grey", "red"))
    folds = study.make_splits(dataset, 4, 2)
    y_proba = study.cross_validate(dataset, embeddings, strategy, folds)
    assert set(y_proba) == {"as_is", "grey", "red"}
    for proba in y_proba.values():
        np.testing.assert_allclose(proba.sum(-1), 1, atol=1e-6)
    p = study.predict_study(dataset, y_proba)
    assert p.is_right.mean() > 0.5  # seven classes of different colours


def test_two_runs_are_equal(dataset, fake_backbone, tmp_cache):
    """The same study twice gives the same bits, threads or not."""
    strategy = Strategy("s", SMALL, SMALL)
    embeddings = study.embed_dataset(dataset, fake_backbone, strategy, ("grey",))
    folds = study.make_splits(dataset, 4, 1)
    first = study.cross_validate(dataset, embeddings, strategy, folds)
    again = study.cross_validate(dataset, embeddings, strategy, folds)
    assert np.array_equal(first["as_is"], again["as_is"])


def test_nothing_of_a_tested_nebula_is_fitted(dataset, fake_backbone, tmp_cache):
    """Crops and dusty crops carry the nebula of their picture and leave with it."""
    samples = make_robust_samples(dataset, fake_backbone, size=64, dust=False)
    rest = samples.without(np.array(["Sim emission 1"]))
    assert len(samples.y) - len(rest.y) == 2 * CROPS_ELSE * 3
    assert "Sim emission 1" not in set(rest.groups)


def test_dust_makes_dark_samples_of_emission_nebulae(
    dataset, fake_backbone, tmp_cache, monkeypatch
):
    """A dusty crop is dark and of its picture's nebula; without dust it is emission."""
    from nebula_utils.training import robust

    monkeypatch.setattr(robust, "SCENES", {"rich": 3})
    samples = make_robust_samples(dataset, fake_backbone, size=64)
    names = np.array(dataset.class_names)[samples.y]
    dusty = samples.kind == "dust before emission"
    assert set(names[dusty]) == {"dark"}
    assert all(group.startswith("Sim emission") for group in samples.groups[dusty])
    assert set(names[samples.kind == "rich field"]) == {"other"}
    assert set(samples.kind) <= set(robust.SHARES)


def make_samples(X: np.ndarray, y: np.ndarray, **more) -> Samples:
    """Give each row a nebula of its own."""
    return Samples(X.astype(np.float32), y, np.arange(len(y)).astype(str), **more)


def fit_all(samples: Samples, names: tuple[str, ...]) -> Head:
    """Fit the discriminant on everything."""
    column, classes = number_columns(samples)
    weight = np.ones(len(samples.y))
    moments = compute_moments(samples, column, weight, len(classes))
    return fit_moments(moments, classes, names)


def test_discriminant_ignores_what_varies_inside_the_classes():
    """A direction that is loud but the same in all classes gets little weight."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 200)
    X = np.c_[y + rng.normal(0, 0.2, 400), rng.normal(0, 50, 400)]
    head = fit_all(make_samples(X, y), ("a", "b"))
    contrast = np.abs(head.coef[:, 1] - head.coef[:, 0]) * X.std(0)
    assert contrast[1] < 0.2 * contrast[0]
    assert (head.predict_proba(X).argmax(1) == y).mean() > 0.9


def test_discriminant_avoids_the_colour_direction():
    """Of two equally good directions, the one that colour moves weighs less."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 300)
    grey = y[:, None] + rng.normal(0, 0.5, (600, 2))
    coloured = grey + np.c_[np.zeros(600), rng.normal(0, 2, 600)]
    X = np.stack([coloured, grey], 1).reshape(-1, 2)
    samples = make_samples(X, np.repeat(y, 2), copies=2)
    coef = fit_all(samples, ("a", "b")).coef
    contrast = np.abs(coef[:, 1] - coef[:, 0])
    assert contrast[1] < 0.5 * contrast[0]


def test_parts_of_a_class_add_up():
    """A class on both sides of another is found if its two parts are named."""
    rng = np.random.default_rng(0)
    place = np.repeat([-3, 0, 3], 100)
    y = np.repeat([1, 0, 1], 100)
    X = place[:, None] + rng.normal(0, 0.5, (300, 1))
    samples = make_samples(X, y, part=np.repeat(["left", "", "right"], 100))
    head = fit_all(samples, ("middle", "outside"))
    proba = head.predict_proba(X)
    np.testing.assert_allclose(proba.sum(1), 1, atol=1e-6)
    assert (proba.argmax(1) == y).mean() > 0.95


def test_sums_without_a_fold_equal_a_fit_without_it():
    """Taking a fold's sums away gives the head that never saw the fold."""
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 60)
    samples = make_samples(y[:, None] + rng.normal(0, 1, (120, 4)), y)
    folds = np.split(np.arange(120), 4)
    fits, _ = fit_folds(samples, samples, ("a", "b"), folds)
    rest = samples.without(samples.groups[folds[0]])
    expected = fit_all(rest, ("a", "b"))
    np.testing.assert_allclose(fits[0].head.coef, expected.coef, rtol=1e-2, atol=1e-3)


def test_thin_classes_are_not_put_at_a_disadvantage():
    """Of 10 nebulae against 100, fresh ones are missed far less often."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [100, 10])
    centres = np.zeros((2, 30))
    centres[1, 0] = 3
    samples = make_samples(centres[y] + rng.normal(0, 1, (110, 30)), y)
    column, classes = number_columns(samples)
    weight = compute_sample_weight(samples, balanced=True)
    moments = compute_moments(samples, column, weight, 2)
    nebulae = average_nebulae(samples, column, weight, ("many", "few"))
    fresh = centres[np.repeat([0, 1], 500)] + rng.normal(0, 1, (1000, 30))

    def find_recall(head: Head) -> np.ndarray:
        right = head.predict_proba(fresh).argmax(1) == np.repeat([0, 1], 500)
        return right.reshape(2, 500).mean(1)

    many, few = find_recall(fit_moments(moments, classes, ("many", "few")))
    names = ("many", "few")
    fair = find_recall(fit_moments(moments, classes, names, nebulae=nebulae))
    assert many - few > 0.2
    assert abs(fair[0] - fair[1]) < 0.6 * (many - few)
    assert fair.mean() > (many + few) / 2


def test_erasure_leaves_no_linear_trace_of_the_palette():
    """The palette's covariance with the embeddings is gone, and little else is."""
    rng = np.random.default_rng(0)
    palette = rng.choice(["red", "grey", "blue"], 300)
    X = rng.normal(0, 1, (300, 8))
    X[:, 0] += 3 * (palette == "red")
    X[:, 1] += 2 * (palette == "blue")
    weight = rng.uniform(0.5, 2, 300)
    eraser = fit_eraser(X.astype(np.float32), palette, weight)
    left = eraser.apply(X)
    for name in np.unique(palette):
        mean = np.average(
            left[palette == name], axis=0, weights=weight[palette == name]
        )
        np.testing.assert_allclose(mean, eraser.centre, atol=1e-4)
    assert 0.5 < left[:, 5].std() / X[:, 5].std() <= 1.01
    head = Head(("a", "b"), rng.normal(0, 1, (8, 2)).astype(np.float32), np.ones(2))
    np.testing.assert_allclose(
        eraser.merge(head).predict_proba(X), head.predict_proba(left), atol=1e-5
    )


@pytest.mark.parametrize("palettes", ["balanced", "erased"])
def test_palettes_can_be_balanced_and_erased(
    dataset, fake_backbone, tmp_cache, palettes
):
    """Each palette of a class weighs the same; answers stay probabilities."""
    strategy = Strategy("s", balanced=True, palettes=palettes)
    embeddings = study.embed_dataset(dataset, fake_backbone, strategy, ("grey",))
    assert np.array_equal(embeddings.train.kind, dataset.palettes)
    fit = study.fit_strategy(dataset, embeddings, strategy)
    proba = fit.head.predict_proba(embeddings.test["grey"])
    np.testing.assert_allclose(proba.sum(1), 1, atol=1e-6)


def make_predictions(n: int, sharpness: float) -> Predictions:
    """Give answers whose probabilities are true by construction."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, sharpness, (n, 3))
    proba = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    y = np.array([rng.choice(3, p=p) for p in proba])
    return Predictions(y, proba[None], np.arange(n).astype(str), ("a", "b", "c"))


def test_conformal_sets_cover_what_they_promise():
    """A threshold from one half of the nebulae covers 90 % of the other half."""
    p = make_predictions(2000, 2.0)
    half = np.arange(2000) < 1000
    threshold = compute_threshold(p.select(half), 0.9)
    scores = score_coverage(p.select(~half), threshold)
    assert scores["coverage"]["value"] == pytest.approx(0.9, abs=0.03)
    assert scores["accuracy_if_confident"]["value"] > scores["accuracy"]["value"]
