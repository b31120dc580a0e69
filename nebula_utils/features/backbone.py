"""Get a frozen feature extractor through TensorFlow Hub, online or off.

The default, ``mobilenet_v1_100_224``, is the network of the original web tool:
Google's MobileNet v1 (width 1.0, 224 px), trained on ImageNet, Apache-2.0. `weights`
gets it without TF-Hub's site; any other handle or SavedModel folder is taken too. For
the study and for answers it is converted once, and run without TensorFlow (`engines`).
"""

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nebula_utils.config import DEFAULT_BACKBONE, cache_dir
from nebula_utils.errors import BackboneError, ModelError
from nebula_utils.features import engines, weights
from nebula_utils.features.engines import (
    FLOAT32,
    NAMES,
    TENSORFLOW,
    Engine,
    import_tensorflow,
    import_tensorflow_hub,
    list_engines,
    silence_stderr,
)
from nebula_utils.features.views import make_batch
from nebula_utils.features.weights import compute_weights_sha256
from nebula_utils.files import make_key

log = logging.getLogger(__name__)

# The original tool offered 4 widths x 4 input sizes; TF-Hub's names for them.
MOBILENETS = {
    f"mobilenet_v1_{width}_{size}": (
        "https://tfhub.dev/google/imagenet/"
        f"mobilenet_v1_{width}_{size}/feature_vector/5"
    )
    for width in ("100", "075", "050", "025")
    for size in (128, 160, 192, 224)
}
POOL = "MobilenetV1/Logits/AvgPool_1a/AvgPool:0"  # in the frozen graph


@dataclass(frozen=True)
class Backbone:
    """A loaded, frozen feature extractor.

    `name` is the name, handle or folder it was asked for by; `sha256` is of the
    weights, the engine and the code that runs them, and part of every stored feature's
    key; `file` is the network for LiteRT, if there is one.
    """

    name: str
    sha256: str
    engine: Engine
    file: Path | None = None

    @property
    def n_features(self) -> int:
        """Length of one embedding; MobileNet v1 of width 1.0 gives 1024."""
        return self.engine.n_features

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Return the embeddings only; see `embed_with_map`."""
        return self.engine.run(images, with_map=False)[0]

    def embed_with_map(
        self, images: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Embed a batch; return its last feature maps too, None if there are none.

        Parameters
        ----------
        images : ndarray of shape (n_images, height, width, 3), float32
            RGB in [0, 1]; any height and width of at least 32 px.

        Returns
        -------
        embeddings : ndarray of shape (n_images, n_features), float32
        maps : ndarray of shape (n_images, height / 32, width / 32, n_map) or None

        Raises
        ------
        BackboneError
            If the network can't take pictures of this shape.
        """
        return self.engine.run(images)

    def fork(self) -> "Backbone":
        """Return the same extractor for one of several threads that embed at once."""
        return replace(self, engine=self.engine.fork())


def load_backbone(name: str = DEFAULT_BACKBONE, engine: str = FLOAT32) -> Backbone:
    """Load a feature extractor, making it available first if need be.

    Parameters
    ----------
    name : str
        A name from `MOBILENETS`, a TF-Hub handle, or a SavedModel folder.
    engine : {"float32", "fast", "tensorflow"}
        See `engines.choose_engine`; a network that can't be converted for LiteRT is
        run by TensorFlow. Features of two engines never share a cache.

    Raises
    ------
    BackboneError
        If it can't be had, or is not an image feature extractor.
    """
    if engine not in NAMES:
        there = ", ".join(list_engines())
        raise BackboneError(f"no engine {engine!r}: choose from {there}")
    folder = resolve_backbone(name)
    fingerprint = compute_weights_sha256(folder)
    file = None if engine == TENSORFLOW else _convert(folder, fingerprint)
    chosen = (
        engines.choose_engine(file, engine)
        if file
        else engines.TensorFlowEngine(folder)
    )
    sha256 = make_key(fingerprint, chosen.title, engines)
    return Backbone(name, sha256, chosen, file)


def load_lite(file: Path, sha256: str, n_features: int) -> Backbone:
    """Load the ``.tflite`` file of an exported classifier, without TensorFlow.

    `sha256` and `n_features` are of the backbone that it is from. A missing or damaged
    file, or one of another network, is a ModelError.
    """
    loaded = Backbone(file.name, sha256, engines.LiteEngine(file), file)
    if loaded.n_features != n_features:
        raise ModelError(f"{file} is of another network: run `make reproduce` again")
    return loaded


def resolve_backbone(name: str = DEFAULT_BACKBONE) -> Path:
    """Make a feature extractor available and return its SavedModel folder.

    `name` is as for `load_backbone`. If it can't be had, a BackboneError says what to
    do without a network.
    """
    if name == DEFAULT_BACKBONE:
        return _export_default()
    if (Path(name) / "saved_model.pb").is_file():
        return Path(name).resolve()
    if name not in MOBILENETS and "://" not in name:
        raise BackboneError(
            f"no backbone {name!r}: give a folder that holds a saved_model.pb, "
            f"a TF-Hub handle (https://…), or one of {', '.join(MOBILENETS)}"
        )
    return _download_from_hub(MOBILENETS.get(name, name))


def prepare_backbone(name: str = DEFAULT_BACKBONE) -> Path:
    """Get an extractor as `resolve_backbone` does, and convert it: what is slow."""
    folder = resolve_backbone(name)
    _convert(folder, compute_weights_sha256(folder))
    return folder


def compute_fidelity(paths: Iterable[Path | str]) -> float:
    """Return how far the default backbone is from the frozen graph of its weights.

    The largest difference of any feature of these pictures at 224 px, between the
    TF-Hub module and the graph that it was exported from.
    """
    tf = import_tensorflow()
    batch = make_batch(paths)
    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(weights.fetch_frozen_graph().read_bytes())
    with tf.Graph().as_default(), silence_stderr():
        tf.import_graph_def(graph, name="")
        with tf.compat.v1.Session() as session:
            original = [
                session.run(POOL, {"input:0": (x[None] * 255 - 127.5) / 127.5})
                for x in batch
            ]
    pooled = np.concatenate(original)[:, 0, 0]
    return float(np.abs(load_backbone().embed(batch) - pooled).max())


def _download_from_hub(handle: str) -> Path:
    hub = import_tensorflow_hub()
    os.environ.setdefault("TFHUB_CACHE_DIR", str(cache_dir() / "tfhub"))
    try:
        return Path(hub.resolve(handle))
    except (OSError, ValueError, RuntimeError) as error:
        raise BackboneError(
            f"can't get {handle}: {error}\n"
            "Without a network: use the default backbone "
            f"({DEFAULT_BACKBONE}), or unpack the model's .tar.gz on this machine and "
            "give that folder's path instead, or copy another machine's "
            f"{os.environ['TFHUB_CACHE_DIR']} here."
        ) from error


def _export_default() -> Path:
    def export(folder: Path) -> None:
        log.info("writing %s as a TF-Hub module", DEFAULT_BACKBONE)
        frozen = weights.read_frozen_weights(weights.fetch_frozen_graph())
        weights.export_feature_vector(frozen, folder)

    folder = _place(DEFAULT_BACKBONE, weights.GRAPH_SHA256)
    weights.write_whole_folder(folder, export)
    return folder


def _convert(folder: Path, fingerprint: str) -> Path | None:
    """Return the network for LiteRT, or None if TensorFlow must run it."""

    def convert(target: Path) -> None:
        log.info("converting %s for LiteRT, once: some ten seconds", folder.name)
        target.mkdir()
        weights.convert_for_litert(folder, target / "backbone.tflite")

    target = _place("litert", fingerprint)
    try:
        weights.write_whole_folder(target, convert)
    except BackboneError as error:
        log.warning("TensorFlow runs the network: %s", error)
        return None
    return target / "backbone.tflite"


def _place(name: str, *parts: str) -> Path:
    key = make_key(*parts, weights.CODE_SHA256)  # what writes it counts, too
    return cache_dir() / "backbones" / f"{name}-{key[:16]}"
