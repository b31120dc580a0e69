"""Import TensorFlow without what it prints; nothing else knows how."""

import contextlib
import os
import sys
from collections.abc import Iterator
from types import ModuleType


@contextlib.contextmanager
def silence_stderr() -> Iterator[None]:
    """Send file descriptor 2 to nowhere while the block runs.

    Notes
    -----
    TensorFlow's C++ side writes a line with time and process number to the
    descriptor itself when it is imported, whatever ``TF_CPP_MIN_LOG_LEVEL`` says;
    in a notebook such a line would differ in every run.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def import_tensorflow() -> ModuleType:
    """Import TensorFlow quietly and make its operations deterministic.

    Returns
    -------
    module
        ``tensorflow``, with ``enable_op_determinism`` on, so that two runs on one
        machine give equal bits.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with silence_stderr():
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    # "Assets written to: /tmp/…" would stand in a notebook's output.
    tf.get_logger().setLevel("ERROR")
    return tf


def import_tensorflow_hub() -> ModuleType:
    """Import TensorFlow Hub quietly (it imports TensorFlow and warns on the way)."""
    import warnings

    import_tensorflow()
    with silence_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pkg_resources is deprecated; we pin it
        import tensorflow_hub
    return tensorflow_hub
