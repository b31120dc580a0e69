"""Photos to a trained head with this repository; prints one line of JSON.

``nebula extract`` and `training.fit_logistic`, in one process.

``python benchmarks/ours.py PHOTOS FEATURES.npz``
"""

import contextlib
import io
import json
import sys
import time
from pathlib import Path

import numpy as np

from nebula_utils.training.fitting import fit_logistic
from nebula_utils.workflow import cli


def main() -> None:
    """Do it and print what it took."""
    photos, out = sys.argv[1:]
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        status = cli.main(["extract", photos, "--out", out])
    if status:
        sys.exit(status)
    middle = time.perf_counter()
    with np.load(out) as found:
        X = found["features"]
        folders = [Path(path).parent.name for path in found["path"]]
    names, y = np.unique(folders, return_inverse=True)
    fit_logistic(X, y, tuple(names))
    end = time.perf_counter()
    print(json.dumps({"features": middle - start, "head": end - middle}))


if __name__ == "__main__":
    main()
