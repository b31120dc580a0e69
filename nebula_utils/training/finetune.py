"""Fine-tune the last blocks of MobileNet v1 on the study's own pictures.

A frozen backbone describes nebulae in terms of ImageNet's cats and cars; here its last
blocks learn better ones, from pictures framed, coloured and dusted at random
(`batches`). What comes out is a SavedModel in TF-Hub's feature-vector format with its
linear head beside it: everything takes it that takes a backbone.
"""

import contextlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nebula_utils.config import DEFAULT_BACKBONE, RANDOM_STATE, cache_dir
from nebula_utils.dataset.manifest import Dataset
from nebula_utils.dataset.splits import repeated_group_kfold
from nebula_utils.errors import BackboneError
from nebula_utils.features.backbone import load_backbone, resolve_backbone
from nebula_utils.features.extraction import extract_features
from nebula_utils.features.quiet import import_tensorflow
from nebula_utils.features.views import Preprocessing, View
from nebula_utils.features.weights import (
    STRIDES,
    compute_weights_sha256,
    export_feature_vector,
    load_module,
    write_whole_folder,
)
from nebula_utils.files import DAMAGED, make_key, write_atomic
from nebula_utils.training import batches, network
from nebula_utils.training.heads import Head, load_head, make_linear_head
from nebula_utils.training.network import TrainableNetwork, Weights

log = logging.getLogger(__name__)

HEAD = "assets.extra/head.npz"  # in the folder of a fine-tuned backbone
LEARNING_RATE = 2e-4  # at its highest
WARM_UP = 50  # steps in which it rises
# What a fine-tuned network is shown of a picture. More crops gave no better answers;
# with less grey more than a tenth of them flip without colour.
TEST_VIEWS = tuple(
    View(crop=crop, colour=name)
    for name in ("as_is", "grey")
    for crop in ("whole", "centre")
)

Curves = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class FineTuning:
    """How a network is fine-tuned.

    Attributes
    ----------
    steps : int
        Steps of AdamW; its learning rate falls to 0 as half a cosine does.
    batch_size, size : int
        Samples a step, and their side in px.
    first_block : int
        First of the 13 blocks that is trained, 1 or larger.
    dust : bool
        Whether dark nebulae and star fields are simulated.
    interval : int
        Steps between two checkpoints.
    random_state : int
        Seed of everything.
    """

    steps: int = 900
    batch_size: int = 32
    size: int = 192
    first_block: int = 6
    dust: bool = True
    interval: int = 100
    random_state: int = RANDOM_STATE


def fine_tune(
    dataset: Dataset,
    backbone: str = DEFAULT_BACKBONE,
    settings: FineTuning = FineTuning(),  # noqa: B008 - frozen, so safe as a default
    log_dir: Path | None = None,
) -> Path:
    """Fine-tune a network on a dataset, or find what was fine-tuned before.

    Parameters
    ----------
    dataset : Dataset
        Pictures to train on; every class needs at least one.
    backbone : str
        As for `backbone.load_backbone`: this project's MobileNet v1, or a network that
        was fine-tuned from it.
    settings : FineTuning
        How.
    log_dir : Path, optional
        Where TensorBoard finds loss, accuracy and learning rate.

    Returns
    -------
    Path
        SavedModel folder in ``$NEBULA_CACHE/backbones``, named after everything that
        decides it: the pictures' bytes and labels, the weights at the start, the
        settings, this code, and what the processor computes in. Its head is read by
        `load_fine_tuned_head`.

    Raises
    ------
    BackboneError
        If the network is not this project's MobileNet v1.
    CacheError
        If the cache can't be written or the disk is full.

    Notes
    -----
    On one machine equal input gives equal bits, interrupted or not: each batch is
    drawn from the seed and its own number. An interruption costs at most
    ``settings.interval`` steps, the next call goes on.
    """
    start = resolve_backbone(backbone)
    precision = find_precision()
    rows = dataset.manifest
    key = make_key(
        [Path(path) for path in rows["path"]],
        (dataset.y, dataset.groups, dataset.class_names, rows["other_kind"].tolist()),
        (compute_weights_sha256(start), replace(settings, interval=1), precision),
        (Path(__file__), batches, network),
    )
    checkpoint = cache_dir() / "fine-tuning" / f"{key[:32]}.npz"

    def export(folder: Path) -> None:
        *trained, (coef, intercept) = _train(
            _read_weights(start), dataset, settings, precision, checkpoint, log_dir
        )
        export_feature_vector(trained, folder)
        head = make_linear_head(dataset.class_names, coef, intercept)
        head.save(folder / HEAD)
        about = {"key": key, "precision": precision, **asdict(settings)}
        text = json.dumps(about, indent=1) + "\n"
        (folder / "assets.extra/fine_tuning.json").write_text(text, encoding="utf-8")

    folder = cache_dir() / "backbones" / f"fine-tuned-{key[:16]}"
    write_whole_folder(folder, export)
    checkpoint.unlink(missing_ok=True)
    return folder


def load_fine_tuned_head(folder: Path) -> Head:
    """Return the head that was trained with a network, not calibrated.

    Raises
    ------
    ModelError
        If the folder, from `fine_tune`, has none.
    """
    return load_head(Path(folder) / HEAD)


def predict_fine_tuned(
    folder: Path, paths: Sequence[str], views: tuple[View, ...] = TEST_VIEWS
) -> np.ndarray:
    """Classify pictures with a fine-tuned network, as they are and in grey.

    Parameters
    ----------
    folder : Path
        From `fine_tune`.
    paths : sequence of str
        Image files that can be read.
    views : tuple of View
        Whose answers are averaged.

    Returns
    -------
    ndarray of shape (2, n_images, n_classes), float64
        Probabilities of the pictures as they are, and without colour.
    """
    grey = tuple(view._replace(colour="grey") for view in views)
    made = tuple(dict.fromkeys((*views, *grey)))
    preprocessing = Preprocessing(made, trim=True)
    X = extract_features(paths, load_backbone(str(folder)), preprocessing).X
    head = load_fine_tuned_head(folder)
    asked = ([made.index(view) for view in these] for these in (views, grey))
    return np.stack([head.predict_proba(X[:, columns]) for columns in asked])


def cross_validate_fine_tuned(
    dataset: Dataset,
    n_splits: int = 5,
    backbone: str = DEFAULT_BACKBONE,
    settings: FineTuning = FineTuning(),  # noqa: B008 - frozen, so safe as a default
) -> np.ndarray:
    """Fine-tune once a fold, so that no network has seen what it is asked about.

    A network that was fine-tuned on all pictures knows them, so its embeddings can't
    be cross-validated; this can, in ``n_splits`` times the time. What an interrupted
    run has finished is kept.

    Parameters
    ----------
    dataset : Dataset
        Pictures; split by nebula.
    n_splits : int
        Folds.
    backbone, settings
        As for `fine_tune`.

    Returns
    -------
    ndarray of shape (2, n_images, n_classes), float64
        Out-of-fold probabilities of the pictures as they are, and without colour.
    """
    y_proba = np.empty((2, len(dataset.y), len(dataset.class_names)))
    seed = settings.random_state
    folds = repeated_group_kfold(dataset.y, dataset.groups, n_splits, 1, seed)
    for _, _, train, test in folds:
        rows = dataset.manifest.iloc[train].reset_index(drop=True)
        folder = fine_tune(replace(dataset, manifest=rows), backbone, settings)
        paths = dataset.manifest["path"].iloc[test].tolist()
        y_proba[:, test] = predict_fine_tuned(folder, paths)
    return y_proba


def find_precision() -> str:
    """Return "bfloat16" where the processor computes in it, else "float32"."""
    try:
        about = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return "float32"
    return "bfloat16" if "amx_bf16" in about or "avx512_bf16" in about else "float32"


def _read_weights(folder: Path) -> Weights:
    pairs = getattr(load_module(folder), "weights", ())
    if len(pairs) != 1 + 2 * len(STRIDES):
        raise BackboneError(
            f"{folder} can't be fine-tuned: only {DEFAULT_BACKBONE} can, or a network "
            "that was fine-tuned from it"
        )
    return [(kernel.numpy(), bias.numpy()) for kernel, bias in pairs]


def _train(
    weights: Weights,
    dataset: Dataset,
    settings: FineTuning,
    precision: str,
    checkpoint: Path,
    log_dir: Path | None,
) -> Weights:
    """Return the weights after the last step, the head's among them."""
    n_classes = len(dataset.class_names)
    model = TrainableNetwork(weights, n_classes, settings.first_block, precision)
    begin = _load_checkpoint(checkpoint, model)
    if begin == settings.steps:
        return model.get_weights()
    _save_checkpoint(checkpoint, model, begin)  # a full disk is told before the work
    pool = batches.make_pool(dataset, settings.dust)
    seed = settings.random_state
    draw = partial(batches.draw_batch, pool, settings.batch_size, settings.size, seed)
    with (
        ThreadPoolExecutor(1) as thread,  # draws the next batch beside the training
        tqdm(desc="fine-tuning", total=settings.steps, disable=None) as bar,
        _write_curves(log_dir) as write,
    ):
        bar.update(begin)
        batch = thread.submit(draw, begin)
        for number in range(begin, settings.steps):
            drawn, batch = batch.result(), thread.submit(draw, number + 1)
            rate = compute_rate(number, settings.steps)
            loss, accuracy = model.step(*drawn, rate, number)
            write(number, {"loss": loss, "accuracy": accuracy, "learning rate": rate})
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()
            if (number + 1) % settings.interval == 0 or number + 1 == settings.steps:
                _save_checkpoint(checkpoint, model, number + 1)
    return model.get_weights()


def compute_rate(number: int, steps: int) -> float:
    """Return the learning rate of a step, from 0: a short rise, then half a cosine."""
    fall = (1 + math.cos(math.pi * number / steps)) / 2
    return LEARNING_RATE * min(1.0, (number + 1) / WARM_UP) * fall


@contextlib.contextmanager
def _write_curves(log_dir: Path | None) -> Iterator[Curves]:
    if log_dir is None:
        yield lambda number, values: None
        return
    tf = import_tensorflow()
    writer = tf.summary.create_file_writer(str(log_dir))

    def write(number: int, values: dict[str, float]) -> None:
        with writer.as_default(step=number):
            for name, value in values.items():
                tf.summary.scalar(name, value)

    try:
        yield write
    finally:
        writer.close()


def _save_checkpoint(path: Path, model: TrainableNetwork, step: int) -> None:
    state = {str(i): variable.numpy() for i, variable in enumerate(model.state)}
    with write_atomic(path) as temporary:
        np.savez(temporary, step=np.array(step), **state)


def _load_checkpoint(path: Path, model: TrainableNetwork) -> int:
    """Set the network as it was; return the step that comes next, 0 without a file."""
    try:
        with np.load(path, allow_pickle=False) as stored:  # zip checks each array
            step = int(stored["step"])
            arrays = [stored[str(i)] for i in range(len(model.state))]
        for variable, array in zip(model.state, arrays, strict=True):
            variable.assign(array)
    except FileNotFoundError:
        return 0
    except DAMAGED as error:
        log.warning("%s is damaged (%s): trained from the start", path, error)
        return 0
    log.info("fine-tuning goes on at step %d", step)
    return step
