"""Check that the exported backbone is the graph that it was made from."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from nebula_utils.config import IMAGE_SIZE
from nebula_utils.features.backbone import load_backbone
from nebula_utils.features.quiet import import_tensorflow, silence_stderr
from nebula_utils.features.views import Preprocessing, View
from nebula_utils.features.weights import fetch_frozen_graph

POOL = "MobilenetV1/Logits/AvgPool_1a/AvgPool:0"


def make_batch(paths: Iterable[Path | str], size: int = IMAGE_SIZE) -> np.ndarray:
    """Return what the network is shown of some pictures.

    Parameters
    ----------
    paths : iterable of Path or str
        The files.
    size : int
        Side of the network's input, px.

    Returns
    -------
    ndarray of shape (n_images, size, size, 3), float32
        RGB in [0, 1]; dark borders are cut off.
    """
    shown = Preprocessing((View(size),), trim=True)
    return np.stack([shown.make_views(shown.read(Path(path)))[0] for path in paths])


def compute_fidelity(paths: Iterable[Path | str]) -> float:
    """Return how far the default backbone is from the frozen graph of its weights.

    Parameters
    ----------
    paths : iterable of Path or str
        Pictures to compare on.

    Returns
    -------
    float
        Largest difference of any feature of any picture at 224 px, between the TF-Hub
        module and the frozen graph that it was exported from.
    """
    tf = import_tensorflow()
    batch = make_batch(paths)
    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(fetch_frozen_graph().read_bytes())
    with tf.Graph().as_default(), silence_stderr():
        tf.import_graph_def(graph, name="")
        with tf.compat.v1.Session() as session:
            original = [
                session.run(POOL, {"input:0": (x[None] * 255 - 127.5) / 127.5})
                for x in batch
            ]
    pooled = np.concatenate(original)[:, 0, 0]
    return float(np.abs(load_backbone().embed(batch) - pooled).max())
