"""Nothing of a test nebula may be seen in training."""

import numpy as np
import pandas as pd
import pytest

from nebula_utils.dataset import splits
from nebula_utils.errors import LeakageError


def make_manifest(rows):
    """Build a manifest from (nebula, ra, dec, size) rows."""
    table = pd.DataFrame(rows, columns=["nebula", "ra_deg", "dec_deg", "size_arcmin"])
    table["image_id"] = [f"image{i}" for i in range(len(table))]
    return table


def test_groups_join_one_nebula_under_two_names():
    """M 42 and its other name at the same place are one group, Orion's rest is not."""
    table = make_manifest(
        [
            ("NGC 1976", 83.82, -5.39, 65.0),
            ("Orion, my photo", 83.80, -5.40, 60.0),
            ("NGC 1976", np.nan, np.nan, np.nan),
            ("NGC 1977", 83.81, -4.82, 20.0),
            ("no place", np.nan, np.nan, np.nan),
        ]
    )
    assert splits.make_groups(table).tolist() == [0, 0, 0, 1, 2]


def test_groups_match_by_the_catalogue_where_pictures_are_off_centre():
    """LDN 1616 is the cloud of NGC 1788, wherever the pictures' middles are."""
    table = make_manifest(
        [("NGC 1788", 76.44, -3.71, 73.1), ("LDN 1616", 76.75, -3.35, 20.0)]
    )
    assert splits.make_groups(table).tolist() == [0, 0]


def test_groups_do_not_swallow_what_lies_in_a_huge_nebula():
    """A small nebula inside Barnard's Loop keeps its own group."""
    table = make_manifest([("Sh2-276", 84.0, -2.0, 600.0), ("B 33", 85.2, -2.5, 6.0)])
    assert splits.make_groups(table).tolist() == [0, 1]


def test_groups_match_across_zero_hours():
    """Positions either side of right ascension 0 are neighbours."""
    table = make_manifest([("a", 359.99, 60.0, 5.0), ("b", 0.01, 60.0, 5.0)])
    assert splits.make_groups(table).tolist() == [0, 0]


def test_groups_join_copies():
    """Copies under different names are one group; unknown ids are ignored."""
    table = make_manifest([(name, np.nan, np.nan, np.nan) for name in "abc"])
    pairs = pd.DataFrame({"first": ["image0", "gone"], "second": ["image2", "image1"]})
    assert splits.make_groups(table, pairs).tolist() == [0, 1, 0]


def test_each_row_is_tested_once_a_repeat(manifest):
    """The test parts of one repeat are a partition of the rows."""
    groups = splits.make_groups(manifest)
    parts = list(splits.repeated_group_kfold(manifest["label"], groups, 4, 2))
    assert [(r, f) for r, f, _, _ in parts] == [
        (r, f) for r in (0, 1) for f in range(4)
    ]
    for repeat in (0, 1):
        tested = np.concatenate([test for r, _, _, test in parts if r == repeat])
        assert sorted(tested) == list(range(len(manifest)))


def test_no_fold_leaks_and_every_class_is_tested(manifest):
    """Four nebulae a class in four folds: each class in each test fold, no leak."""
    groups = splits.make_groups(manifest)
    assert len(set(groups)) == 28
    y = manifest["label"].to_numpy()
    for _, _, train, test in splits.repeated_group_kfold(y, groups, 4, 3):
        splits.check_leakage(groups, train, test, manifest["nebula"])
        assert set(y[test]) == set(y)


def test_thin_class_among_large_ones_is_in_every_fold():
    """Five thin groups among sixty of uneven size still reach all five folds."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 30, 65)
    groups = np.repeat(np.arange(65), sizes)
    y = np.where(groups < 5, "thin", "thick")
    for seed in range(5):
        for _, _, _, test in splits.repeated_group_kfold(y, groups, 5, 1, seed):
            assert "thin" in y[test]


def test_splits_repeat_with_the_seed(manifest):
    """Equal seeds give equal folds, repeats differ from each other."""
    groups = splits.make_groups(manifest)
    y = manifest["label"]
    first, again = (
        [test.tolist() for *_, test in splits.repeated_group_kfold(y, groups, 4, 2, 3)]
        for _ in range(2)
    )
    assert first == again
    assert first[:4] != first[4:]


def test_too_few_groups_are_refused():
    """Two nebulae can't make five folds."""
    with pytest.raises(LeakageError, match="2 nebulae can't be split into 5"):
        list(splits.repeated_group_kfold(["a", "b"], np.array([0, 1])))


@pytest.mark.filterwarnings("error")
def test_class_thinner_than_the_folds_gives_no_warning():
    """Where every class is thin the folds are still dealt out, silently."""
    y = ["a", "a", "b", "b", "c"]
    assert len(list(splits.repeated_group_kfold(y, np.arange(5), 5, 1))) == 5


def test_random_split_leaks_and_is_caught(manifest):
    """The flattering split has nebulae on both sides, and the message names them."""
    groups = splits.make_groups(manifest)
    _, _, train, test = next(splits.random_kfold(manifest["label"]))
    with pytest.raises(LeakageError, match=r"Sim \w+ \d"):
        splits.check_leakage(groups, train, test, manifest["nebula"])
