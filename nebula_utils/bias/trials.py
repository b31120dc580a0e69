"""How faithful the TF-Hub module is to the frozen graph that its weights are from."""

from pathlib import Path

import numpy as np
import pandas as pd

from nebula_utils.config import IMAGE_SIZE
from nebula_utils.features.backbone import load_backbone
from nebula_utils.features.quiet import import_tensorflow, silence_stderr
from nebula_utils.features.views import Preprocessing, View
from nebula_utils.features.weights import fetch_frozen_graph

POOL = "MobilenetV1/Logits/AvgPool_1a/AvgPool:0"


def make_batch(manifest: pd.DataFrame, size: int = IMAGE_SIZE) -> np.ndarray:
    """Return what the network is shown of some pictures.

    Parameters
    ----------
    manifest : DataFrame
        One row a picture.
    size : int
        Side of the network's input, px.

    Returns
    -------
    ndarray of shape (n_images, size, size, 3), float32
        RGB in [0, 1].
    """
    made = []
    for row in manifest.to_dict("records"):
        recipe = Preprocessing((View(size),), trim=True)
        made += recipe.make_views(recipe.read(Path(row["path"])))
    return np.stack(made)


def compute_fidelity(manifest: pd.DataFrame) -> float:
    """Return how far the default backbone is from the original tool's network.

    Parameters
    ----------
    manifest : DataFrame
        Pictures to compare on.

    Returns
    -------
    float
        Largest difference of any feature of any picture at 224 px, between the TF-Hub
        module and the frozen graph that its weights are from.
    """
    tf = import_tensorflow()
    batch = make_batch(manifest)
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
