"""Photos to a trained head as Keras users do it well; prints one line of JSON.

The pictures are decoded in full by Keras's own parallel pipeline, MobileNet's features
are predicted once, and scikit-learn fits a logistic regression. The weights are
random, which changes no time: Keras's ImageNet weights would be a download.

``python benchmarks/keras_way.py PHOTOS``
"""

import json
import os
import sys
import time

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402

SIDE, BATCH_SIZE = 224, 32


def main() -> None:
    """Do it and print what it took."""
    photos = keras.utils.image_dataset_from_directory(
        sys.argv[1],
        image_size=(SIDE, SIDE),
        batch_size=BATCH_SIZE,
        shuffle=False,
        verbose=False,
    )
    names = [os.path.basename(os.path.dirname(path)) for path in photos.file_paths]
    network = keras.applications.MobileNet(
        weights=None, include_top=False, pooling="avg", input_shape=(SIDE, SIDE, 3)
    )
    preprocess = keras.applications.mobilenet.preprocess_input
    start = time.perf_counter()
    ready = photos.map(lambda pixels, _: preprocess(pixels)).prefetch(2)
    X = network.predict(ready, verbose=0)
    middle = time.perf_counter()
    y = np.searchsorted(sorted(set(names)), names)
    LogisticRegression(max_iter=1000).fit(X, y)
    end = time.perf_counter()
    print(json.dumps({"features": middle - start, "head": end - middle}))


if __name__ == "__main__":
    main()
