"""Engines agree with each other and with themselves, and one says what it can't do."""

import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from nebula_utils.errors import BackboneError, ModelError, NebulaError
from nebula_utils.features import backbone as backbones
from nebula_utils.features import engines
from nebula_utils.features.backbone import load_backbone, load_lite
from nebula_utils.features.extraction import extract_features


def test_a_missing_or_damaged_model_file(tmp_path: Path) -> None:
    """The message says which file, and to run `make reproduce`."""
    path = tmp_path / "backbone.tflite"
    with pytest.raises(ModelError, match=r"backbone\.tflite.*make reproduce"):
        load_lite(path, "0" * 64, 4)
    path.write_bytes(b"TFL3 but not really")
    with pytest.raises(ModelError, match="damaged"):
        load_lite(path, "0" * 64, 4)


@pytest.fixture(scope="module")
def backbone():
    """Give the real default backbone, or skip."""
    try:
        return load_backbone()
    except NebulaError as error:
        pytest.skip(f"needs the default weights: {error}")


@pytest.fixture(params=engines.NAMES)
def real(request, backbone):
    """Give the default network in each engine that this machine has."""
    loaded = load_backbone(engine=request.param)
    if request.param == engines.FAST and "OpenVINO" not in loaded.engine.title:
        pytest.skip("this processor has no bfloat16 units")
    return loaded


@pytest.fixture
def pictures() -> np.ndarray:
    """Give nine pictures of noise, the smallest that the original tool offered."""
    return np.random.default_rng(0).random((9, 128, 128, 3), np.float32)


@pytest.mark.slow
def test_no_bit_hangs_on_batch_order_or_threads(real, pictures, monkeypatch):
    """One by one, backwards, in a thread's engine, and with one thread: all alike."""
    whole = real.embed(pictures)
    one_by_one = np.concatenate([real.embed(pictures[i : i + 1]) for i in range(9)])
    np.testing.assert_array_equal(one_by_one, whole)
    np.testing.assert_array_equal(real.embed(pictures[::-1])[::-1], whole)
    np.testing.assert_array_equal(real.fork().embed(pictures), whole)
    if real.file:
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")
        fast = engines.FAST if "OpenVINO" in real.engine.title else engines.FLOAT32
        single = engines.choose_engine(real.file, fast)
        np.testing.assert_array_equal(single.run(pictures)[0], whole)


@pytest.mark.slow
@pytest.mark.parametrize("size", [224, 160])
def test_litert_agrees_with_tensorflow(backbone, size: int) -> None:
    """Embeddings differ by less than 1e-3, feature maps too, at two sizes."""
    images = np.random.default_rng(0).random((3, size, size, 3), dtype=np.float32)
    exact = load_backbone(engine=engines.TENSORFLOW)
    found, maps = backbone.embed_with_map(images)
    expected, expected_maps = exact.embed_with_map(images)
    assert maps.shape[1] == size // 32 and found.shape == (3, 1024)
    assert np.abs(found - expected).max() < 1e-3
    assert np.abs(maps - expected_maps).max() < 1e-3


@pytest.mark.slow
def test_the_fast_engine_is_close_and_kept_apart(backbone, textures, tmp_path):
    """Cosine to float32 of at least 0.99 on real pictures, under another key."""
    fast = load_backbone(engine=engines.FAST)
    if "OpenVINO" not in fast.engine.title:
        pytest.skip("this processor has no bfloat16 units")
    files = sorted(textures.glob("m*.png"))[:16]
    exact, found = (
        extract_features(files, one, store=str(tmp_path)).X[:, 0]
        for one in (backbone, fast)
    )
    norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(found, axis=1)
    assert 0.99 < ((exact * found).sum(1) / norms).min() < 1
    assert len({backbone.sha256, fast.sha256}) == len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_the_fast_engine_sends_nothing(backbone):
    """No socket is opened, and OpenVINO's telemetry is never imported."""
    code = f"""
import socket, sys
def refuse(*_): raise SystemExit("a socket was opened")
socket.socket.connect = socket.getaddrinfo = refuse
from pathlib import Path
from nebula_utils.features.engines import OpenVinoEngine
import numpy as np
OpenVinoEngine(Path({str(backbone.file)!r})).run(np.zeros((1, 64, 64, 3), np.float32))
assert not [n for n in sys.modules if "telemetry" in n and sys.modules[n] is not None
            and "stub" not in n and "ovc" not in n and "utils" not in n]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_other_kernels_differ_little_and_are_kept_apart(
    backbone, pictures, monkeypatch
):
    """LiteRT without XNNPACK, as a processor of another kind would compute."""
    monkeypatch.setenv("NEBULA_LITERT_KERNELS", "plain")
    other = load_backbone()
    found, expected = other.embed(pictures), backbone.embed(pictures)
    assert other.sha256 != backbone.sha256
    assert 0 < np.abs(found - expected).max() < 1e-4


def test_a_fast_engine_that_is_not_installed(monkeypatch, tmp_path):
    """The message names the extra."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackboneError, match=r"pip install 'nebula-utils\[fast\]'"):
        engines.choose_engine(tmp_path / "none.tflite", engines.FAST)


def test_without_bfloat16_units_litert_runs(monkeypatch, tmp_path, caplog):
    """And it is said."""

    class Core:
        def get_property(self, *_):
            return ["FP32", "INT8"]

    monkeypatch.setattr(
        engines, "_import_openvino", lambda: types.SimpleNamespace(Core=Core)
    )
    monkeypatch.setattr(engines, "LiteEngine", lambda file: file.name)
    assert engines.choose_engine(tmp_path / "x.tflite", engines.FAST) == "x.tflite"
    assert "no bfloat16 units" in caplog.text


def test_a_network_that_cannot_be_converted_is_run_by_tensorflow(monkeypatch, tmp_path):
    """What TensorFlow Hub offers is more than LiteRT can."""

    def refuse(folder, out):
        raise BackboneError("an operation that LiteRT does not know")

    monkeypatch.setattr(backbones, "resolve_backbone", lambda _: tmp_path)
    monkeypatch.setattr(backbones, "compute_weights_sha256", lambda _: "0" * 64)
    monkeypatch.setattr(backbones, "_place", lambda *_: tmp_path / "litert")
    monkeypatch.setattr(backbones.weights, "convert_for_litert", refuse)
    engine = types.SimpleNamespace(title="TensorFlow", n_features=4, n_map=0)
    monkeypatch.setattr(engines, "TensorFlowEngine", lambda folder: engine)
    loaded = load_backbone("odd")
    assert loaded.engine is engine and loaded.file is None and loaded.n_features == 4
