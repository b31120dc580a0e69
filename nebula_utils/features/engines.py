"""Run an exported backbone with LiteRT, which starts in a tenth of a second.

TensorFlow trains and exports; here only its answers are wanted: on one picture, at
once, or on a folder of them, in a third of the memory. `LiteBackbone` has the same
``embed`` and ``embed_with_map`` as `backbone.Backbone`, so every stage takes either.
"""

import hashlib
import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from nebula_utils.config import DEFAULT_BACKBONE, cache_dir
from nebula_utils.errors import BackboneError, ModelError
from nebula_utils.features.backbone import (
    EXPORT_VERSION,
    FAST_BACKBONE,
    Backbone,
    load_backbone,
    write_whole_folder,
)
from nebula_utils.features.quiet import import_tensorflow, silence_stderr
from nebula_utils.files import write_atomic

log = logging.getLogger(__name__)

# As many as help on small batches, more only wait for each other; workers of a cluster
# are given one each, by the variable that TensorFlow reads too.
N_THREADS = int(os.environ.get("TF_NUM_INTRAOP_THREADS") or min(4, os.cpu_count() or 1))


class LiteBackbone:
    """A feature extractor in a ``.tflite`` file.

    Parameters
    ----------
    path : Path
        As `export_lite` writes it.
    sha256 : str
        Fingerprint of the backbone that it was made from.
    n_features : int
        Length of one embedding.
    name : str, optional
        What to call it; default: the file's name.

    Raises
    ------
    ModelError
        If the file is missing or damaged.

    Notes
    -----
    One interpreter a batch shape is kept, as changing the shape costs more than a
    forward pass. A lock makes calls from several threads wait for each other.
    """

    def __init__(
        self, path: Path, sha256: str, n_features: int, name: str = ""
    ) -> None:
        self.name = name or path.name
        self.sha256 = sha256
        self.n_features = n_features
        try:
            self._content = path.read_bytes()
        except OSError as error:
            raise ModelError(
                f"can't read {path} ({error.strerror}): run `make reproduce` first"
            ) from error
        self._interpreters: dict[tuple[int, ...], Any] = {}
        self._lock = threading.Lock()
        self.embed(np.zeros((1, 64, 64, 3), np.float32))

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Embed a batch; see `backbone.Backbone.embed`."""
        return self.embed_with_map(images)[0]

    def embed_with_map(
        self, images: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Embed a batch; give its last feature maps too, None if there are none."""
        with self._lock:
            interpreter = self._get_interpreter(images.shape)
            given = interpreter.get_input_details()[0]["index"]
            interpreter.set_tensor(given, images.astype(np.float32, copy=False))
            interpreter.invoke()
            outputs = [
                interpreter.get_tensor(output["index"])
                for output in interpreter.get_output_details()
            ]
        maps = next((found for found in outputs if found.ndim == 4), None)
        vectors = next((found for found in outputs if found.ndim == 2), None)
        if vectors is None:
            assert maps is not None
            vectors = maps.mean((1, 2))
        return vectors, maps

    def _get_interpreter(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._interpreters:
            from ai_edge_litert.interpreter import Interpreter

            try:
                with silence_stderr():
                    made = Interpreter(
                        model_content=self._content, num_threads=N_THREADS
                    )
                    given = made.get_input_details()[0]["index"]
                    made.resize_tensor_input(given, list(shape))
                    made.allocate_tensors()
            except (ValueError, RuntimeError) as error:
                raise ModelError(
                    f"{self.name} is damaged ({error}): run `make reproduce` again"
                ) from error
            self._interpreters[shape] = made
        return self._interpreters[shape]


def load_extractor(name: str = DEFAULT_BACKBONE) -> Backbone | LiteBackbone:
    """Load what embeds folders of pictures: LiteRT for the default network.

    Parameters
    ----------
    name : str
        As for `backbone.load_backbone`.

    Returns
    -------
    Backbone or LiteBackbone
        The default network is converted once and kept in the cache beside TF-Hub's
        form, with checksums; any other is run by TensorFlow. LiteRT's embeddings
        differ in the fifth decimal, so its fingerprint is another one.

    Raises
    ------
    BackboneError
        If it can't be had or converted.
    """
    if name != DEFAULT_BACKBONE:
        return load_backbone(name)
    folder = cache_dir() / "backbones" / f"{name}-v{EXPORT_VERSION}-litert"
    write_whole_folder(folder, _convert_default)
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    return LiteBackbone(
        folder / "backbone.tflite", about["sha256"], about["n_features"], name
    )


def _convert_default(folder: Path) -> None:
    loaded = load_backbone(DEFAULT_BACKBONE)
    folder.mkdir()
    export_lite(loaded, folder / "backbone.tflite")
    sha256 = hashlib.sha256(f"{loaded.sha256} litert".encode()).hexdigest()
    about = {"sha256": sha256, "n_features": loaded.n_features}
    (folder / "about.json").write_text(json.dumps(about) + "\n", encoding="utf-8")


def export_lite(backbone: Backbone, path: Path) -> None:
    """Convert a backbone for LiteRT.

    Parameters
    ----------
    backbone : Backbone
        Loaded through TensorFlow Hub.
    path : Path
        The ``.tflite`` file; it gives the feature map if the backbone has one, and the
        embedding where that is more than the map's mean. Weights stay float32, so
        answers agree to about 1e-5; LiteRT has no bfloat16 convolutions, so the same
        network in float32 stands in for `backbone.FAST_BACKBONE`.

    Raises
    ------
    BackboneError
        If TensorFlow can't convert it.
    """
    tf = import_tensorflow()
    if backbone.name == FAST_BACKBONE:
        exact = load_backbone(DEFAULT_BACKBONE)
        backbone = exact.deepen() if backbone.function == "layers" else exact
    module = backbone.module
    if backbone.function == "layers":
        function = module.layers_and_map
    else:
        function = module.feature_map if backbone.has_feature_map else module.__call__
    pictures = tf.TensorSpec([None, None, None, 3], tf.float32)
    with silence_stderr():
        try:
            concrete = function.get_concrete_function(pictures)
            converter = tf.lite.TFLiteConverter.from_concrete_functions(
                [concrete], module
            )
            content = converter.convert()
        except Exception as error:  # the converter raises what it likes
            raise BackboneError(
                f"{backbone.name} can't be converted for LiteRT: "
                f"{str(error).splitlines()[0]}"
            ) from error
    with write_atomic(path) as temporary:
        temporary.write_bytes(content)
