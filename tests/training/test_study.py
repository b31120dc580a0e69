"""The study: what is held out stays out, nothing stale is served, answers are known."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_info

from nebula_utils.dataset.manifest import Dataset, make_dataset
from nebula_utils.errors import SourceError
from nebula_utils.training import fitting, study
from nebula_utils.training.fitting import Samples, compute_sample_weight
from nebula_utils.training.heads import TwoStepHead

SMALL = replace(study.ROBUST.at_size(64), crops=1, framed=1, dusty=1)
PLAN = (4, 1, 0)


@pytest.fixture
def dataset(manifest: pd.DataFrame) -> Dataset:
    """Give the synthetic study, all seven classes of four nebulae."""
    return make_dataset(
        manifest.assign(group=manifest["nebula"], palette="mixed"), min_nebulae=3
    )


@pytest.fixture
def run(dataset: Dataset, fake_backbone, tmp_cache) -> Callable[..., study.Study]:
    """Run a study of small views in an empty cache."""

    def run_small(recipe=SMALL, data=dataset, **more) -> study.Study:
        given = {"changes": ("grey", "red"), "framings": ("smaller",), **more}
        given = {"random_split": False, **given}
        return study.run_study(data, fake_backbone, recipe, PLAN, **given)

    return run_small


def test_folds_never_share_a_nebula(dataset: Dataset) -> None:
    """Every picture is tested once a repeat, and no nebula is on both sides."""
    folds = study.make_splits(dataset, 4, 2)
    for _, _, train, test in folds:
        assert not set(dataset.groups[train]) & set(dataset.groups[test])
    tested = np.concatenate([test for _, _, _, test in folds[:4]])
    assert sorted(tested) == list(range(len(dataset.y)))


def test_two_folds_are_refused_with_the_reason(dataset: Dataset) -> None:
    """The error says how many to choose."""
    with pytest.raises(SourceError, match="choose FOLDS from 3 to 4"):
        study.make_splits(dataset, 2, 1)


def test_a_study_knows_its_answers(run, dataset: Dataset) -> None:
    """Better than chance; what is no nebula is asked as it is and in grey only."""
    made = run(random_split=True)
    n_nebulae = int((dataset.manifest["label"] != "other").sum())
    shapes = {name: y.shape[1] for name, y in made.y_proba.items()}
    whole = len(dataset.y)
    assert shapes == {
        "as_is": whole,
        "grey": whole,
        "red": n_nebulae,
        "smaller": n_nebulae,
    }
    for name in made.y_proba:
        p = made.predict_under(name)
        np.testing.assert_allclose(p.y_proba.sum(-1), 1)
    # These classes differ in colour alone, of which the head is to make little.
    assert made.predictions.is_right.mean() > 2 / 7
    assert made.predictions.replace(made.random_split).is_right.mean() > 2 / 7
    found, names = made.ask(np.array([0, whole - 1]))
    assert names == dataset.class_names and np.isnan(found["red"][1]).all()
    np.testing.assert_array_equal(found["as_is"], made.y_proba["as_is"][0][[0, -1]])
    scores = made.score()
    assert set(scores["flip_rate"]) == {"grey", "red"}
    assert set(scores["framing_flip_rate"]) == {"smaller", "mean"}
    assert 0 <= scores["sure"]["share"]["value"] <= 1


def test_the_head_of_a_study_is_what_a_direct_fit_gives(run, dataset: Dataset) -> None:
    """`Study.head` is the two-step head on all samples, with the temperature."""
    made = run()
    direct = fitting.fit_head(made.training, SMALL, dataset.class_names)
    direct.temperature = made.temperature
    X = made.embed()
    assert isinstance(made.head, TwoStepHead)
    assert np.array_equal(made.head.predict_proba(X), direct.predict_proba(X))
    found = made.predict(dataset.manifest, ("grey", "red"))
    assert np.array_equal(found["as_is"], direct.predict_proba(X))
    assert len(found["red"]) == len(dataset.y)


def test_out_of_fold_answers_never_saw_the_nebula(
    run, dataset: Dataset, fake_backbone
) -> None:
    """A fold's answers are those of a head without its nebulae, tempered by others."""
    made = run(study.BALANCED.at_size(64), framings=())
    folds = study.make_splits(dataset, *PLAN)
    X = made.embed()
    for _, _, train, test in folds:
        head = fitting.fit_head(
            made.training,
            made.recipe,
            dataset.class_names,
            dataset.groups[test],
            len(train),
        )
        raw, found = head.predict_proba(X[test]), made.y_proba["as_is"][0][test]
        slope = np.log(found[:, 0] / found[:, 1]) / np.log(raw[:, 0] / raw[:, 1])
        np.testing.assert_allclose(slope, slope[0], rtol=1e-6)  # one temperature


def test_editing_labels_or_weights_gives_another_study(
    run, dataset: Dataset, monkeypatch
) -> None:
    """Nothing stale: `accept`, a share, the recipe and the groups are in the key."""
    first = run()
    keys = []

    def note(name, parts, compute):
        keys.append(study_key(*parts))
        return {name: y.copy() for name, y in stored.items()}

    from nebula_utils.files import make_key as study_key

    stored = {**first.y_proba, "temperature": np.array(1.0)}
    monkeypatch.setattr(study, "load_or_compute", note)
    run()
    table = dataset.manifest.copy()
    table.loc[0, "accept"] = "dark|emission"
    run(data=replace(dataset, manifest=table))
    monkeypatch.setitem(fitting.SHARES_TYPES, "framed", 0.3)
    run()
    run(replace(SMALL, C=0.1))
    run()
    assert len(set(keys)) == 4 and keys[2] == keys[4] and len(keys) == 5


def test_two_runs_are_equal(run, tmp_cache, monkeypatch) -> None:
    """The same study twice gives the same bits, computed anew or not."""
    first = run()
    monkeypatch.setenv("NEBULA_CACHE", str(tmp_cache / "other"))
    again = run()
    for name, y_proba in first.y_proba.items():
        assert np.array_equal(y_proba, again.y_proba[name])


def test_dust_makes_dark_samples_of_emission_nebulae(
    dataset: Dataset, fake_backbone, tmp_cache
) -> None:
    """A dusty crop is dark, and of its picture's nebula, which a fold leaves out."""
    training = fitting.make_training(dataset, fake_backbone, SMALL)
    types, nebula = training.types, training.nebula
    dusty = types.kind == "dusty"
    assert {dataset.class_names[y] for y in types.y[dusty]} == {"dark"}
    assert all(group.startswith("Sim emission") for group in types.groups[dusty])
    assert "other" not in {dataset.class_names[y] for y in types.y}
    left = types.without(np.array(["Sim emission 1"]))
    # Two pictures, each as it is and grey; a crop and a copy in three colours;
    # a crop behind dust in three colours.
    assert len(types.y) - len(left.y) == 2 * (2 + 3 + 3 + 3)
    # Whether it is a nebula is learnt from whole pictures, as they are and in grey.
    assert nebula is not None and len(nebula.y) == len(dataset.y) * 2


def test_one_head_is_fitted_on_the_same_samples(
    dataset: Dataset, fake_backbone, tmp_cache
) -> None:
    """The ablation differs in the steps alone; without `other` there is one step."""
    two = fitting.make_training(dataset, fake_backbone, SMALL)
    one = fitting.make_training(dataset, fake_backbone, replace(SMALL, two_step=False))
    other = dataset.class_names.index("other")
    assert one.nebula is None and two.nebula is not None
    n_other = int((two.nebula.y == other).sum())
    assert len(one.types.y) == len(two.types.y) + n_other
    rows = dataset.manifest[dataset.manifest["label"] != "other"]
    types = make_dataset(rows, dataset.class_names[:-1], 3)
    assert fitting.make_training(types, fake_backbone, SMALL).nebula is None


def test_balanced_weights_give_each_class_and_nebula_its_share() -> None:
    """Each class sums to the same weight; in it each nebula; sample types by share."""
    y = np.array([0, 0, 0, 1])
    groups, kinds = np.array(["a", "a", "b", "c"]), np.full(4, "picture")
    samples = Samples(np.zeros((4, 1)), y, groups, kinds, {})
    weight = compute_sample_weight(samples, balanced=True)
    assert weight.tolist() == pytest.approx([0.5, 0.5, 1.0, 2.0])
    kinds = np.array(["picture", "framed", "picture", "picture"])
    samples = samples._replace(kind=kinds, shares={"framed": 0.5})
    weight = compute_sample_weight(samples, balanced=True)
    assert weight[1] / weight[0] == pytest.approx(1.0)  # half the share, half as many
    assert weight[:3].sum() == pytest.approx(weight[3])


def test_folds_are_answered_with_one_thread(run, monkeypatch) -> None:
    """Else the number of threads, and the last bits, depend on who fits meanwhile."""
    seen = []
    answer = TwoStepHead.predict_proba

    def spy(self: TwoStepHead, X: np.ndarray) -> np.ndarray:
        seen.append(max(library["num_threads"] for library in threadpool_info()))
        return answer(self, X)

    monkeypatch.setattr(TwoStepHead, "predict_proba", spy)
    run()
    assert set(seen) == {1}
