"""Every chart draws, says what it found, and leaves the random state alone."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from matplotlib import pyplot as plt

from nebula_utils.errors import ImageError
from nebula_utils.report import charts, drawing, pictures
from nebula_utils.training.scores import Predictions, score_head

NAMES = ("dark", "emission", "other")


@pytest.fixture(autouse=True)
def close_figures():
    """Close what a test drew."""
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def predictions():
    """Sixty answers of which a third is wrong, in two repeats."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 20)
    y_proba = rng.dirichlet([1, 1, 1], (2, 60)) * 0.6 + np.eye(3)[y] * 0.4
    return Predictions(y, y_proba, np.array([f"N {i}" for i in range(60)]), NAMES)


@pytest.fixture(scope="module")
def heads(predictions):
    """Scores of two heads, as in metrics.json."""
    grey = {"grey": predictions.y_proba[:, :, [1, 0, 2]]}
    palettes = np.array(["red", "blue"] * 30)
    scored = score_head(predictions, grey, palettes, random_split=predictions)
    return {"plain": scored, "robust": scored}


def perfect():
    """Answers that are all right."""
    y = np.repeat([0, 1], 6)
    groups = np.array([f"N {i}" for i in range(12)])
    return Predictions(y, np.eye(2)[y][None], groups, ("dark", "emission"))


def test_flip_rates_title_has_both_numbers(heads):
    """The title repeats the value that metrics.json has."""
    value = heads["plain"]["flip_rate"]["grey"]["value"]
    title = charts.plot_flip_rates(heads).get_title("left")
    assert f"{value:.0%} (plain)" in title and f"{value:.0%} (robust)" in title


def test_recall_keeps_the_house_order(heads):
    """Rows are the classes in their order, the first on top."""
    ax = charts.plot_recall(heads)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["dark", "emission", "not a nebula"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_given_axes_are_used(predictions):
    """With ax, nothing is drawn elsewhere."""
    _, ax = plt.subplots()
    before = plt.get_fignums()
    assert charts.plot_reliability({"plain": predictions}, ax) is ax
    assert plt.get_fignums() == before


def test_group_recall_leaves_small_groups_unscored():
    """Groups below five nebulae show a dash, not a number."""
    palettes = np.array(["red"] * 5 + ["blue"] + ["red"] * 6)
    ax = charts.plot_group_recall(perfect(), palettes)
    texts = [text.get_text() for text in ax.texts]
    assert "–\n1 neb." in texts and "1.00\n5 neb." in texts


def test_plots_leave_the_random_state_alone(predictions, heads):
    """Drawing a figure changes no later result."""
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    rng = np.random.default_rng(0)
    charts.plot_flip_rates(heads)
    charts.plot_split_comparison(heads)
    charts.plot_reliability({"plain": predictions})
    X = rng.normal(size=(60, 8)).astype(np.float32)
    charts.plot_embedding_map(X, predictions.y_true, NAMES)
    charts.plot_learning_curves({"loss": [2, 1], "val_loss": [2, 1.5]}, 10, 1.2)
    assert np.array_equal(before, np.random.get_state()[1])


def test_saved_figure_is_the_same_twice(tmp_path):
    """Two runs give equal files."""
    files = [tmp_path / name for name in ("a.png", "b.png")]
    for file in files:
        drawing.save_figure(charts.plot_reliability({"plain": perfect()}), file)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_gallery_writes_the_credit_beneath(manifest):
    """Each picture stands with its nebula, credit and licence."""
    axes = pictures.plot_gallery(manifest.head(2), columns=2)
    assert "drawn by the tests\nCC0" in axes[0, 0].texts[0].get_text()
    assert manifest["nebula"].iloc[0] in axes[0, 0].get_title()


def test_long_licences_are_wrapped(manifest):
    """One wordy licence does not push the gallery's columns apart."""
    wordy = manifest.head(1).assign(licence="public domain or CC0 (see the README.txt)")
    text = pictures.plot_gallery(wordy)[0, 0].texts[0].get_text()
    assert max(map(len, text.splitlines())) <= 26


def test_unfree_pictures_are_refused(manifest):
    """No figure shows a picture whose licence doesn't allow it."""
    unfree = manifest.head(1).assign(licence="GPL-2.0-or-later (package)")
    with pytest.raises(ImageError, match="may not be shown"):
        pictures.plot_gallery(unfree)
    assert pictures.choose_examples(unfree).empty


def test_pictures_are_never_stretched(manifest):
    """A gallery's pictures are square and drawn so."""
    axes = pictures.plot_gallery(manifest.head(1))
    assert axes[0, 0].get_aspect() == 1
    assert axes[0, 0].images[0].get_array().shape == (160, 160, 3)


def test_strips_mark_wrong_answers(manifest):
    """A wrong answer has a cross, a right one has not."""
    rows = manifest[manifest["label"] == "dark"].head(1)
    y_proba = {"as_is": np.array([[0.9, 0.1]]), "grey": np.array([[0.2, 0.8]])}
    classes = ("dark", "emission")
    axes = pictures.plot_strips(rows, y_proba, classes, ("as_is", "grey"))
    assert axes[0, 0].get_xlabel() == "dark 0.90"
    assert axes[0, 1].get_xlabel() == "✗ emission 0.80"


def test_shown_figure_is_a_small_jpeg_with_alt_text(manifest):
    """What a notebook shows is a JPEG that says what is to be seen."""
    shown = drawing.show(pictures.plot_gallery(manifest.head(1)), alt="a nebula")
    assert shown.data[:2] == b"\xff\xd8" and shown.alt == "a nebula"
    assert not plt.get_fignums()
