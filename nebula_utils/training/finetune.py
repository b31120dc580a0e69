"""Fine-tune the last blocks of MobileNet v1 on the study's own pictures.

A frozen backbone describes nebulae in terms of ImageNet's cats and cars; here its last
blocks learn better ones, from pictures framed, coloured and dusted at random
(`batches`). What comes out is a SavedModel in TF-Hub's feature-vector format with its
linear head beside it: everything takes it that takes a backbone.
"""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nebula_utils.config import DEFAULT_BACKBONE, RANDOM_STATE, cache_dir
from nebula_utils.dataset.manifest import Dataset
from nebula_utils.errors import BackboneError
from nebula_utils.features.backbone import resolve_backbone
from nebula_utils.features.engines import import_tensorflow, load_module
from nebula_utils.features.weights import (
    STRIDES,
    compute_weights_sha256,
    export_feature_vector,
    write_whole_folder,
)
from nebula_utils.files import DAMAGED, make_key, write_atomic
from nebula_utils.training import batches
from nebula_utils.training.heads import make_linear_head

log = logging.getLogger(__name__)

Weights = list[tuple[np.ndarray, np.ndarray]]

HEAD = "assets.extra/head.npz"  # in the folder of a fine-tuned backbone
FIRST_BLOCK = 6  # of the 13 blocks that is trained
CHECKPOINT_STEPS = 100  # between two checkpoints
LEARNING_RATE = 2e-4  # at its highest
WARM_UP = 50  # steps in which it rises
WEIGHT_DECAY = 0.01  # of AdamW; biases don't decay
DROPOUT = 0.2  # of the features
SMOOTHING = 0.1  # of the labels


def fine_tune(
    dataset: Dataset,
    backbone: str = DEFAULT_BACKBONE,
    steps: int = 900,
    batch_size: int = 32,
    size: int = 192,
    random_state: int = RANDOM_STATE,
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
    steps : int
        Steps of AdamW; its learning rate rises for `WARM_UP` of them and then falls
        to 0 as half a cosine does.
    batch_size, size : int
        Samples a step, and their side in px.
    random_state : int
        Seed of everything.
    log_dir : Path, optional
        Where TensorBoard finds loss, accuracy and learning rate.

    Returns
    -------
    Path
        SavedModel folder in ``$NEBULA_CACHE/backbones``, named after everything that
        decides it: the pictures' bytes and labels, the weights at the start, the
        settings, this code, and what the processor computes in. `heads.load_head`
        reads the head that was trained with it from `HEAD` in it, not calibrated.

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
    `CHECKPOINT_STEPS` steps, the next call goes on.
    """
    start = resolve_backbone(backbone)
    rows, settings = dataset.manifest, [steps, batch_size, size, random_state]
    precision = find_precision()
    key = make_key(
        [Path(path) for path in rows["path"]],
        (dataset.y, dataset.groups, dataset.class_names, rows["other_kind"].tolist()),
        (compute_weights_sha256(start), settings, precision),
        (Path(__file__), batches),
    )
    checkpoint = cache_dir() / "fine-tuning" / f"{key[:32]}.npz"

    def export(folder: Path) -> None:
        weights, n_classes = _read_weights(start), len(dataset.class_names)
        model = make_model(weights, n_classes, steps, random_state, precision)
        begin = _load_checkpoint(checkpoint, model)
        if begin < steps:
            _save_checkpoint(checkpoint, model, begin)  # a full disk is told before
            pool = batches.make_pool(dataset)
            draw = partial(batches.draw_batch, pool, batch_size, size, random_state)
            _train(model, draw, range(begin, steps), checkpoint, log_dir)
        *trained, (coef, intercept) = _read_model(model)
        export_feature_vector(trained, folder)
        make_linear_head(dataset.class_names, coef, intercept).save(folder / HEAD)
        text = json.dumps({"key": key, "precision": precision, "settings": settings})
        (folder / "assets.extra/fine_tuning.json").write_text(text, encoding="utf-8")

    folder = cache_dir() / "backbones" / f"fine-tuned-{key[:16]}"
    write_whole_folder(folder, export)
    checkpoint.unlink(missing_ok=True)
    return folder


def find_precision() -> str:
    """Return "bfloat16" where the processor computes in it, else "float32"."""
    try:
        about = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return "float32"
    return "bfloat16" if "amx_bf16" in about or "avx512_bf16" in about else "float32"


def make_model(
    weights: Weights, n_classes: int, steps: int, random_state: int, precision: str
) -> Any:
    """Return MobileNet v1 with a softmax layer as a compiled Keras model.

    ``weights`` are 27 pairs, as `weights.read_frozen_weights` gives them; convolutions
    compute in ``precision``, weights stay float32.

    Two things make a step fast where the processor has bfloat16: the late pointwise
    convolutions are dense layers, whose gradient is a matrix product, and strided
    depthwise convolutions stay float32, as TensorFlow's gradient of one in bfloat16
    takes thirty times as long.
    """
    keras = import_tensorflow().keras
    layers = keras.layers
    kind = "mixed_bfloat16" if precision == "bfloat16" else "float32"
    first, *others = [bias.shape[0] for _, bias in weights]
    images = keras.Input((None, None, 3))
    x = layers.Rescaling(2.0, -1.0)(images)
    stack = [layers.Conv2D(first, 3, 2, "same", dtype=kind)]
    for block, (stride, width) in enumerate(zip(STRIDES, others[1::2], strict=True), 1):
        slow = kind if stride == 1 else "float32"
        stack.append(layers.DepthwiseConv2D(3, stride, "same", dtype=slow))
        late = block >= FIRST_BLOCK
        point = layers.Dense if late else partial(layers.Conv2D, kernel_size=1)
        stack.append(point(width, dtype=kind))
    for layer in stack:
        x = layers.ReLU(6.0, dtype="float32" if layer is stack[-1] else kind)(layer(x))
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(DROPOUT, seed=random_state)(x)
    model = keras.Model(images, layers.Dense(n_classes, kernel_initializer="zeros")(x))
    for number, (layer, (kernel, bias)) in enumerate(zip(stack, weights, strict=True)):
        layer.set_weights([kernel.reshape(layer.kernel.shape), bias])
        layer.trainable = number > 2 * (FIRST_BLOCK - 1)
    fall, begin = max(1, steps - WARM_UP), LEARNING_RATE / WARM_UP
    rate = keras.optimizers.schedules.CosineDecay(
        begin, fall, warmup_target=LEARNING_RATE, warmup_steps=WARM_UP
    )
    adam = keras.optimizers.AdamW(rate, weight_decay=WEIGHT_DECAY, beta_2=0.99)
    adam.exclude_from_weight_decay(var_names=["bias"])
    loss = keras.losses.CategoricalCrossentropy(True, label_smoothing=SMOOTHING)
    model.compile(adam, loss, metrics=["accuracy"])
    adam.build(model.trainable_variables)
    return model


def _read_weights(folder: Path) -> Weights:
    pairs = getattr(load_module(folder), "weights", ())
    if len(pairs) != 1 + 2 * len(STRIDES):
        raise BackboneError(
            f"{folder} can't be fine-tuned: only {DEFAULT_BACKBONE} can, or a network "
            "that was fine-tuned from it"
        )
    return [(kernel.numpy(), bias.numpy()) for kernel, bias in pairs]


def _read_model(model: Any) -> Weights:
    """Return the 27 pairs and the softmax layer's; a dense kernel is one pixel."""
    *pairs, head = [layer.get_weights() for layer in model.layers if layer.weights]
    pairs = [(k if k.ndim == 4 else k[None, None], bias) for k, bias in pairs]
    return [*pairs, tuple(head)]


def _train(
    model: Any,
    draw: batches.Draw,
    steps: range,
    checkpoint: Path,
    log_dir: Path | None,
) -> None:
    summary = import_tensorflow().summary
    writer = summary.create_noop_writer()
    if log_dir is not None:
        writer = summary.create_file_writer(str(log_dir))
    with (
        ThreadPoolExecutor(1) as thread,  # draws the next batch beside the training
        tqdm(desc="fine-tuning", total=steps.stop, disable=None) as bar,
        writer.as_default(),
    ):
        bar.update(steps.start)
        batch = thread.submit(draw, steps.start)
        for number in steps:
            drawn, batch = batch.result(), thread.submit(draw, number + 1)
            rate = float(model.optimizer.learning_rate)
            model.reset_metrics()
            loss, accuracy = model.train_on_batch(*drawn)
            values = {"loss": loss, "accuracy": accuracy, "learning rate": rate}
            for name, value in values.items():
                summary.scalar(name, value, number)
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()
            if (number + 1) % CHECKPOINT_STEPS == 0 or number + 1 == steps.stop:
                _save_checkpoint(checkpoint, model, number + 1)
    writer.close()


def _list_state(model: Any) -> list[Any]:
    """List every variable that decides the next steps; also the dropout's seed."""
    return [*model.variables, *model.optimizer.variables]


def _save_checkpoint(path: Path, model: Any, step: int) -> None:
    state = {str(i): v.numpy() for i, v in enumerate(_list_state(model))}
    with write_atomic(path) as temporary:
        np.savez(temporary, step=np.array(step), **state)


def _load_checkpoint(path: Path, model: Any) -> int:
    """Set the model as it was; return the step that comes next, 0 without a file."""
    state = _list_state(model)
    try:
        with np.load(path, allow_pickle=False) as stored:  # zip checks each array
            step = int(stored["step"])
            arrays = [stored[str(i)] for i in range(len(state))]
        for variable, array in zip(state, arrays, strict=True):
            variable.assign(array)
    except FileNotFoundError:
        return 0
    except DAMAGED as error:
        log.warning("%s is damaged (%s): trained from the start", path, error)
        return 0
    log.info("fine-tuning goes on at step %d", step)
    return step
