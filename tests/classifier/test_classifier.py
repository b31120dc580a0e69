"""The exported classifier: what is written, read back and answered."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_classifier import STRIP, make_classifier
from PIL import Image

from nebula_utils.classifier import rendering
from nebula_utils.classifier.classifier import Classifier, load_classifier
from nebula_utils.config import CLASS_NAMES, NEBULA_TYPES
from nebula_utils.counterfactuals.colour import Shift
from nebula_utils.errors import ImageError, ModelError
from nebula_utils.images.reading import to_float
from nebula_utils.training.heads import make_linear_head


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


def save_grey(path: Path, seed: int) -> Path:
    """Write a picture without colour."""
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 255, (64, 96), dtype=np.uint8)).save(path)
    return path


def test_a_result_is_consistent(classifier: Classifier, picture: Path) -> None:
    """Probabilities sum to 1 and agree with the label, the candidates and the strip."""
    result = classifier.classify(picture)
    assert sum(result.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert result.label == max(result.probabilities, key=result.probabilities.get)
    assert result.nebula == pytest.approx(1 - result.probabilities["other"], abs=1e-5)
    assert result.candidates[0] == result.label
    assert tuple(result.counterfactuals) == STRIP and 0 < result.stability <= 1
    grey = result.counterfactuals["grey"]
    assert result.grey_label == max(grey, key=grey.get)
    assert json.dumps(result.as_dict()) and result.picture.shape == (60, 80, 3)
    assert result.as_dict()["candidates"] == list(result.candidates)


@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_one_rule_says_what_is_sure(
    classifier: Classifier, picture: Path, limit: float
) -> None:
    """Sure is what reaches the threshold, whatever the prediction set holds."""
    sure = classifier.certainty._replace(threshold=limit)
    result = replace(classifier, certainty=sure, set_threshold=0.0).classify(picture)
    assert result.confident == (limit == 0.0) and len(result.candidates) == 7


def test_without_a_class_other_nebula_is_not_known(picture: Path) -> None:
    """A model that knows nebulae only does not say that a cat is one."""
    whole = make_classifier()
    head = make_linear_head(
        NEBULA_TYPES, whole.head.coef_[:, :6], whole.head.intercept_[:6]
    )
    assert replace(whole, head=head).classify(picture).nebula is None


def test_classify_is_a_pure_function(classifier: Classifier, picture: Path) -> None:
    """Bytes and path give the same, twice; the name is never opened."""
    data = picture.read_bytes()
    first = classifier.classify(data, "../../etc/passwd")
    again = classifier.classify(picture, "x")
    assert first.path == "../../etc/passwd" and again.path == "x"
    assert first.as_dict() == again.as_dict() | {"path": first.path}


def test_headline_tiles_and_sliders_have_one_basis(
    classifier: Classifier, picture: Path
) -> None:
    """No change of colour gives the headline's numbers; grey those of its tile."""
    result = classifier.classify(picture)
    predict = classifier.make_predictor(result.picture)
    as_is, grey = predict([Shift(), Shift(saturation=0.0)])
    assert as_is == pytest.approx(list(result.probabilities.values()), abs=1e-5)
    tile = list(result.counterfactuals["grey"].values())
    assert grey == pytest.approx(tile, abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_a_grey_picture_has_no_marked_tile(
    classifier: Classifier, tmp_path: Path, seed: int
) -> None:
    """Where there is no colour none can have decided, and taking it changes nothing."""
    result = classifier.classify(save_grey(tmp_path / "grey.png", seed))
    strip = classifier.make_strip(result.picture)
    html = rendering.render_answer(result, classifier.certainty, strip)
    assert "nebula-changed" not in html and "another answer" not in html
    assert "colour played no part" in html
    for name, share in result.counterfactuals["grey"].items():
        assert share == pytest.approx(result.probabilities[name], abs=1e-3)


def test_strip_shows_the_picture_in_each_colour(classifier: Classifier) -> None:
    """The first is as it is, grey has equal channels, squares have the asked size."""
    strip = classifier.make_strip(np.full((50, 90, 3), (200, 50, 10), np.uint8), 40)
    assert tuple(strip) == ("as_is", *STRIP) and strip["red"].shape == (40, 40, 3)
    assert (strip["as_is"] == (200, 50, 10)).all()
    assert np.ptp(strip["grey"].astype(int), axis=2).max() == 0


def test_the_map_lights_what_speaks_for_a_class(classifier: Classifier) -> None:
    """A red spot off the middle is where a head that likes red sees its evidence."""
    image = np.full((60, 120, 3), 20, np.uint8)
    image[10:25, 85:100, 0] = 250  # outside the middle square
    backbone = classifier.backbone
    red = backbone.weights[0] / np.square(backbone.weights[0]).sum()
    coef = np.zeros((8, 7), np.float32)
    coef[:, 1] = red
    head = make_linear_head(CLASS_NAMES, coef, np.zeros(7, np.float32))
    views = (classifier.views[0],)
    found = replace(classifier, head=head, views=views).map_evidence(image)[..., 1]
    top, left = np.unravel_index(found.argmax(), found.shape)
    assert abs(top / found.shape[0] - 17 / 60) < 0.15
    assert abs(left / found.shape[1] - 92 / 120) < 0.1


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8\xff\xe0broken"])
def test_bad_bytes_raise_the_documented_error(
    classifier: Classifier, data: bytes
) -> None:
    """What is no picture raises ImageError."""
    with pytest.raises(ImageError):
        classifier.classify(data, "x.jpg")


def make_neighbours(seed: int = 2) -> dict[str, np.ndarray]:
    """Store six training pictures; every other one may be shown."""
    X = np.random.default_rng(seed).normal(size=(6, 8)).astype(np.float32)
    return {
        "X": X / np.linalg.norm(X, axis=1, keepdims=True),
        "mean": np.zeros(8, np.float32),
        "may_show": np.array([True, False] * 3),
        "thumbnails": np.zeros((6, 96, 96, 3), np.uint8),
    } | {
        name: np.array([f"{name} {i}" for i in range(6)])
        for name in ("nebula", "label", "credit", "licence")
    }


def test_neighbours_are_the_most_similar(classifier: Classifier, picture: Path) -> None:
    """The four nearest come in order; those of unfree licence have no thumbnail."""
    known = replace(classifier, neighbours=make_neighbours())
    result = known.classify(picture)
    similarity = [n.similarity for n in result.neighbours]
    assert len(similarity) == 4 and similarity == sorted(similarity, reverse=True)
    assert not result.was_trained_on
    for one in result.neighbours:
        assert (one.thumbnail is None) == (int(one.nebula[-1]) % 2 == 1)
    nearest = result.neighbours[0].nebula
    others = known.classify(picture, nebula=nearest).neighbours
    assert nearest not in [one.nebula for one in others]


def test_a_picture_is_not_its_own_neighbour(
    classifier: Classifier, picture: Path
) -> None:
    """A training picture is told to be one, and is not listed beside itself."""
    stored = make_neighbours()
    shaped = to_float(
        np.asarray(Image.open(picture).crop((10, 0, 70, 60)).resize((32, 32), 4))
    )
    views = (classifier.views[0],)
    x = classifier.backbone.embed(shaped[None])[0]
    stored["X"][3] = x / np.linalg.norm(x)
    result = replace(classifier, neighbours=stored, views=views).classify(picture)
    assert result.was_trained_on
    assert "nebula 3" not in [one.nebula for one in result.neighbours]


def test_a_missing_model_says_what_to_do(tmp_path: Path) -> None:
    """Without a model the message names `make reproduce`."""
    with pytest.raises(ModelError, match="make reproduce"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("text", ["", "[", '{"format_version": 3}'])
def test_a_damaged_or_older_model_is_refused(tmp_path: Path, text: str) -> None:
    """A broken or foreign model.json gives the documented error."""
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ModelError, match="run `make reproduce` again"):
        load_classifier(tmp_path)
