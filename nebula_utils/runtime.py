"""Run an exported backbone with LiteRT, which starts in a tenth of a second.

TensorFlow trains and exports; here only its answers are wanted, on one picture, at
once. `LiteBackbone` has the same ``embed`` and ``embed_with_map`` as
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
