"""The exported classifier: what is written, read back and answered."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_classifier import STRIP, make_classifier
from PIL import Image

from nebula_utils.classifier.classifier import (
    Classifier,
    compute_activation_map,
    load_classifier,
)
from nebula_utils.errors import ImageError, ModelError
from nebula_utils.training.heads import Head


@pytest.fixture
def classifier() -> Classifier:
    """Give a classifier with a trivial backbone and a random head."""
    return make_classifier()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Give a reddish picture, 60 × 80 px."""
    pixels = np.random.default_rng(1).integers(0, 120, (60, 80, 3), dtype=np.uint8)
    pixels[..., 0] += 120
    path = tmp_path / "red.png"
    Image.fromarray(pixels).save(path)
    return path


def test_a_result_is_consistent(classifier: Classifier, picture: Path) -> None:
    """Probabilities sum to 1 and agree with the label, the doubt and the strip."""
    result = classifier.classify(picture)
    assert sum(result.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert result.label == max(result.probabilities, key=result.probabilities.get)
    assert result.nebula == pytest.approx(1 - result.probabilities["other"], abs=1e-5)
    assert result.confident == (len(result.candidates) == 1)
    assert tuple(result.counterfactuals) == STRIP and 0 < result.stability <= 1
    grey = result.counterfactuals["grey"]
    assert result.grey_label == max(grey, key=grey.get)
    assert result.activation.shape == (4, 4) and result.activation.max() <= 1
    assert json.dumps(result.as_dict()) and result.picture.shape == (60, 80, 3)


def test_classify_is_a_pure_function(classifier: Classifier, picture: Path) -> None:
    """Bytes and path give the same, twice; the name is never opened."""
    data = picture.read_bytes()
    first = classifier.classify(data, "../../etc/passwd")
    again = classifier.classify(picture, "x")
    assert first.path == "../../etc/passwd" and again.path == "x"
    assert first.as_dict() == again.as_dict() | {"path": first.path}
    assert (first.activation == again.activation).all()


def test_no_view_is_embedded_twice(classifier: Classifier, picture: Path) -> None:
    """Grey of grey is grey: of the six views each different one is embedded once."""
    classifier.classify(picture)
    assert (
        classifier.backbone.n_seen
        == len(set(sum(classifier._list_questions(), ())))
        < 6
    )


def test_a_grey_picture_needs_no_colour(classifier: Classifier, tmp_path: Path) -> None:
    """Taking the colour from a grey picture changes nothing at all."""
    path = tmp_path / "grey.png"
    Image.fromarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)).save(path)
    result = classifier.classify(path)
    for name, share in result.counterfactuals["grey"].items():
        assert share == pytest.approx(result.probabilities[name], abs=1e-3)


def test_strip_shows_the_picture_in_each_colour(classifier: Classifier) -> None:
    """Grey has equal channels; squares have the asked size."""
    strip = classifier.make_strip(np.full((50, 90, 3), (200, 50, 10), np.uint8), 40)
    assert tuple(strip) == STRIP and strip["red"].shape == (40, 40, 3)
    assert np.ptp(strip["grey"].astype(int), axis=2).max() == 0


def test_activation_map_marks_the_evidence() -> None:
    """Only the cell that speaks for the class is lit; without evidence none is."""
    head = Head(("a", "b"), np.array([[1.0, -1.0]], np.float32), np.zeros(2))
    cells = np.array([[[2.0], [-3.0]], [[0.0], [1.0]]], np.float32)
    assert compute_activation_map(cells, head, 0).tolist() == [[1, 0], [0, 0.5]]
    assert compute_activation_map(cells * 0, head, 1).max() == 0


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8\xff\xe0broken"])
def test_bad_bytes_raise_the_documented_error(
    classifier: Classifier, data: bytes
) -> None:
    """What is no picture raises ImageError."""
    with pytest.raises(ImageError):
        classifier.classify(data, "x.jpg")


def test_neighbours_are_the_most_similar(classifier: Classifier, picture: Path) -> None:
    """The four nearest come in order; those of unfree licence have no thumbnail."""
    rng = np.random.default_rng(2)
    X = rng.normal(size=(6, 8)).astype(np.float32)
    stored = {
        "X": X / np.linalg.norm(X, axis=1, keepdims=True),
        "mean": np.zeros(8, np.float32),
        "may_show": np.array([True, False] * 3),
        "thumbnails": np.zeros((6, 96, 96, 3), np.uint8),
    } | {
        name: np.array([f"{name} {i}" for i in range(6)])
        for name in ("nebula", "label", "credit", "licence")
    }
    found = replace(classifier, neighbours=stored).classify(picture).neighbours
    similarity = [n.similarity for n in found]
    assert len(found) == 4 and similarity == sorted(similarity, reverse=True)
    assert all((n.thumbnail is None) == (int(n.nebula[-1]) % 2 == 1) for n in found)


def test_a_missing_model_says_what_to_do(tmp_path: Path) -> None:
    """Without a model the message names `make reproduce`."""
    with pytest.raises(ModelError, match="make reproduce"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("text", ["", "[", '{"format_version": 99}'])
def test_a_damaged_model_is_refused(tmp_path: Path, text: str) -> None:
    """A broken or foreign model.json gives the documented error."""
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ModelError, match="make reproduce"):
        load_classifier(tmp_path)
