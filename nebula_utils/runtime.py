"""Run an exported backbone with LiteRT, which starts in a tenth of a second.

TensorFlow trains and exports; here only its answers are wanted, on one picture, at
once. `LiteBackbone` has the same ``embed`` and ``compute_feature_map`` as
`backbone.Backbone`, so every stage takes either.
"""

import logging
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from nebula_utils.errors import ModelError
from nebula_utils.quiet import silence_stderr

log = logging.getLogger(__name__)

# As many as help on small batches; more only wait for each other.
N_THREADS = min(4, os.cpu_count() or 1)


class LiteBackbone:
    """A feature extractor in a ``.tflite`` file.

    Parameters
    ----------
    path : Path
        As `export.export_lite` writes it.
    sha256 : str
        Fingerprint of the backbone that it was made from.
    n_features : int
        Length of one embedding.

    Raises
    ------
    ModelError
        If the file is missing or damaged.

    Notes
    -----
    One interpreter a batch shape is kept, as changing the shape costs more than a
    forward pass. A lock makes calls from several threads wait for each other.
    """

    def __init__(self, path: Path, sha256: str, n_features: int) -> None:
        self.name = path.name
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
        self.compute_feature_map(np.zeros((1, 64, 64, 3), np.float32))

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Embed a batch; see `backbone.Backbone.embed`."""
        found = self.compute_feature_map(images)
        return found.mean((1, 2)) if found.ndim == 4 else found

    def compute_feature_map(self, images: np.ndarray) -> np.ndarray:
        """Return the last feature map; see `backbone.Backbone.compute_feature_map`.

        A backbone that has none gives its embeddings, shape (n_images, n_features).
        """
        with self._lock:
            interpreter = self._get_interpreter(images.shape)
            interpreter.set_tensor(self._input, images.astype(np.float32, copy=False))
            interpreter.invoke()
            return interpreter.get_tensor(self._output)

    def _get_interpreter(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._interpreters:
            from ai_edge_litert.interpreter import Interpreter

            try:
                with silence_stderr():
                    made = Interpreter(
                        model_content=self._content, num_threads=N_THREADS
                    )
                    self._input = made.get_input_details()[0]["index"]
                    self._output = made.get_output_details()[0]["index"]
                    made.resize_tensor_input(self._input, list(shape))
                    made.allocate_tensors()
            except (ValueError, RuntimeError) as error:
                raise ModelError(
                    f"{self.name} is damaged ({error}): run `make reproduce` again"
                ) from error
            self._interpreters[shape] = made
        return self._interpreters[shape]
