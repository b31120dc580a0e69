"""The notebooks: their form, and that each runs with other parameters."""

import ast
import json
import shutil
from collections import Counter
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from nebula_utils import config
from nebula_utils.config import OTHER
from nebula_utils.errors import PipelineError
from nebula_utils.workflow import pipeline
from nebula_utils.workflow.pipeline import read_parameters

NOTEBOOKS = sorted(config.NOTEBOOKS.glob("[0-9]*.ipynb"))
MAX_BYTES = 1_500_000
TINY = {
    "SOURCE": "photos",
    "CLASSES": "[dark, emission, other]",
    "MIN_NEBULAE": "2",
    "INPUT_SIZE": "64",
    "FOLDS": "3",
    "REPEATS": "1",
    "KERAS_STEPS": "6",
}


def read(path):
    """Return a notebook's code cells."""
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code"]


def test_there_are_six():
    """The map of the notebooks is complete."""
    names = [path.stem for path in NOTEBOOKS]
    assert [name[:2] for name in names] == ["01", "02", "03", "04", "05", "06"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestForm:
    """What the house style asks of every notebook."""

    def test_parameters_are_literals_in_upper_case(self, path):
        """The cell exists, does nothing, and every parameter is used later on."""
        parameters = read_parameters(path)
        code = "\n".join(cell.source for cell in read(path)[2:])
        assert parameters
        assert all(name.isupper() and name in code for name in parameters)

    def test_logic_is_in_the_package(self, path):
        """No function or class is defined in a notebook."""
        for cell in read(path):
            kinds = {type(node) for node in ast.walk(ast.parse(cell.source))}
            assert not kinds & {ast.FunctionDef, ast.ClassDef, ast.Lambda}

    def test_committed_freshly_run(self, path):
        """Every cell was run, from top to bottom, without error."""
        cells = read(path)
        counts = [cell.execution_count for cell in cells]
        assert counts == list(range(1, len(cells) + 1))
        kinds = Counter(o.output_type for cell in cells for o in cell.outputs)
        assert kinds["error"] == 0

    def test_outputs_are_small_and_say_nothing_of_the_machine(self, path):
        """No warnings, progress bars or paths stand in the outputs."""
        assert path.stat().st_size < MAX_BYTES
        for cell in read(path):
            assert not any(o.get("name") == "stderr" for o in cell.outputs)
            text = json.dumps([strip_pictures(o) for o in cell.outputs])
            assert "/home/" not in text and "/root/" not in text
            assert str(config.REPOSITORY) not in text


def strip_pictures(output):
    """Return an output without its pictures, whose base64 may hold any letters."""
    data = {k: v for k, v in output.get("data", {}).items() if "image/" not in k}
    return {"text": output.get("text", ""), "data": data}


def test_shared_parameters_have_one_default():
    """What is called the same means the same, so `-p` reaches every notebook alike."""
    values = {}
    for path in NOTEBOOKS:
        for name, value in read_parameters(path).items():
            assert values.setdefault(name, value) == value, f"{name} in {path.stem}"


def test_misspelt_parameter_is_refused():
    """Papermill would only warn."""
    with pytest.raises(PipelineError, match="did you mean INPUT_SIZE"):
        pipeline.plan_run((), {"INPUT_SIZ": "160"})


@pytest.fixture(scope="module")
def tiny_backbone(tmp_path_factory):
    """Write a TF-Hub module that takes pictures of any size: 4 × 4 colours."""
    from nebula_utils.features.engines import import_tensorflow

    tf = import_tensorflow()
    pictures = tf.TensorSpec([None, None, None, 3], tf.float32)

    class Tiny(tf.Module):
        def __init__(self):
            super().__init__()
            weights = np.random.default_rng(0).normal(size=(48, 12))
            self.weights = tf.Variable(weights, dtype=tf.float32)

        @tf.function(input_signature=[pictures])
        def __call__(self, images):
            small = tf.image.resize(images, (4, 4))
            return tf.reshape(small, (-1, 48)) @ self.weights

    folder = tmp_path_factory.mktemp("tiny")
    tf.saved_model.save(Tiny(), str(folder))
    return folder


@pytest.fixture(scope="module")
def own_photos(tmp_path_factory, synthetic_folder):
    """Copy the synthetic pictures as a user would: eight nebulae a class."""
    folder = tmp_path_factory.mktemp("own")
    for label, name in (("dark", "dark"), ("emission", "emission"), (OTHER, "galaxy")):
        (folder / name).mkdir()
        for number, file in enumerate(sorted((synthetic_folder / label).iterdir())):
            shutil.copy(file, folder / name / f"my_{name}_{number}-1.png")
    return folder


@pytest.fixture(scope="module")
def other_photos(tmp_path_factory, synthetic_folder):
    """Copy a few pictures under the names of nebulae that nobody trained on."""
    folder = tmp_path_factory.mktemp("other")
    for label in ("dark", "emission"):
        (folder / label).mkdir()
        for number, file in enumerate(sorted((synthetic_folder / label).iterdir())):
            copy = folder / label / f"new_{label}_{number}-1.png"
            with Image.open(file) as picture:  # turned, else it is a mere copy
                picture.transpose(Image.Transpose.ROTATE_90).save(copy)
    return folder


@pytest.mark.slow
def test_all_run_with_other_parameters(
    tmp_path, monkeypatch, own_photos, other_photos, tiny_backbone
):
    """One's own photos, other classes, backbone and input size: all six finish."""
    monkeypatch.setenv("NEBULA_CACHE", str(tmp_path / "cache"))
    parameters = {
        **TINY,
        "PHOTOS_DIR": str(own_photos),
        "BACKBONE": str(tiny_backbone),
        "OUTSIDE": f"{{photos: {other_photos}}}",
        "PICTURE": str(next(own_photos.glob("dark/*.png"))),
    }
    out = tmp_path / "out"
    runs = pipeline.run_steps(pipeline.plan_run((), parameters, out), out)
    assert [run.skipped for run in runs] == [False] * 6
    check_metrics(json.loads((out / "metrics.json").read_text("utf-8")))
    for name in ("labels.txt", "model.json", "MODEL_CARD.md", "head.npz"):
        assert (out / "model" / name).is_file()
    assert not list(Path(out).rglob("*.pkl"))


def check_metrics(metrics):
    """Check that a tiny study's metrics.json is complete."""
    assert list(metrics["data"]["classes"]) == ["dark", "emission", "other"]
    assert metrics["protocol"]["k"] == 3 and metrics["protocol"]["repeats"] == 1
    for section in ("heads", "dark_emission"):
        for head in metrics[section].values():
            score = head["balanced_accuracy"]
            assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
            assert {"grey", "red", "blue", "gold"} <= set(head["flip_rate"])
    assert set(metrics["external"]["photos"]) == {"plain", "balanced", "robust"}
