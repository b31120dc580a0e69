"""MobileNet v1 as it is trained: early blocks fixed, late ones with AdamW's memory."""

from typing import Any

import numpy as np

from nebula_utils.features.quiet import import_tensorflow
from nebula_utils.features.weights import STRIDES

Weights = list[tuple[np.ndarray, np.ndarray]]

DROPOUT = 0.2  # of the features
SMOOTHING = 0.1  # of the labels
# Of AdamW; biases don't decay.
WEIGHT_DECAY = 0.01
BETAS = (0.9, 0.99)
EPSILON = 1e-7


class TrainableNetwork:
    """The network, a linear head, and one step of training for both.

    Parameters
    ----------
    weights : list of (kernel, bias)
        27 pairs, as `backbone.read_frozen_weights` gives them.
    n_classes : int
        Columns of the head, which starts at zero.
    first_block : int
        First of the 13 blocks that is trained, 1 or larger.
    precision : {"float32", "bfloat16"}
        What the convolutions compute in; all that is kept is float32.

    Notes
    -----
    Two things make a step fast where the processor has bfloat16: a pointwise
    convolution is a matrix product, whose gradient is three times as fast as a
    convolution's, and strided depthwise convolutions stay float32, as TensorFlow's
    gradient of one in bfloat16 takes thirty times as long.
    """

    def __init__(
        self, weights: Weights, n_classes: int, first_block: int, precision: str
    ) -> None:
        self.tf = tf = import_tensorflow()
        self.precision = tf.as_dtype(precision)
        n_features = len(weights[-1][1])
        head = np.zeros((n_features, n_classes), "f4"), np.zeros(n_classes, "f4")
        self.pairs = [
            (tf.Variable(kernel), tf.Variable(bias))
            for kernel, bias in [*weights, head]
        ]
        self.first = first_block - 1
        self.trained = [v for pair in self.pairs[1 + 2 * self.first :] for v in pair]
        self.means = [tf.Variable(tf.zeros_like(v)) for v in self.trained]
        self.squares = [tf.Variable(tf.zeros_like(v)) for v in self.trained]
        self._step = tf.function(self._make_step, autograph=False)

    @property
    def state(self) -> list[Any]:
        """Every variable that changes."""
        return [*self.trained, *self.means, *self.squares]

    def get_weights(self) -> Weights:
        """Return the 27 pairs and the head's as arrays."""
        return [(kernel.numpy(), bias.numpy()) for kernel, bias in self.pairs]

    def step(
        self,
        images: np.ndarray,
        colours: np.ndarray,
        y: np.ndarray,
        learning_rate: float,
        number: int,
    ) -> tuple[float, float]:
        """Make one step.

        Parameters
        ----------
        images : ndarray of shape (n, size, size, 3), float32
            RGB in [0, 1].
        colours : ndarray of shape (n, 3, 3), float32
            What each picture's pixels are multiplied by.
        y : ndarray of shape (n,), int32
            Classes.
        learning_rate : float
            Of this step.
        number : int
            Of this step, from 0; decides the dropout.

        Returns
        -------
        loss, accuracy : float
            Of the batch before the step.
        """
        tf = self.tf
        given = [tf.constant(array) for array in (images, colours, y)]
        rate = tf.constant(learning_rate, tf.float32)
        loss, accuracy = self._step(*given, rate, tf.constant(number))
        return float(loss), float(accuracy)

    def embed(self, images: Any) -> Any:
        """Return features as the exported network gives them, (n, n_features)."""
        return self._run_late(self._run_early(images))

    def _make_step(
        self, images: Any, colours: Any, y: Any, rate: Any, number: Any
    ) -> tuple[Any, Any]:
        tf = self.tf
        shape = tf.shape(images)
        pixels = tf.matmul(tf.reshape(images, [shape[0], -1, 3]), colours)
        early = self._run_early(tf.reshape(tf.clip_by_value(pixels, 0, 1), shape))
        kernel, bias = self.pairs[-1]
        n_classes = bias.shape[0]
        target = tf.one_hot(y, n_classes) * (1 - SMOOTHING) + SMOOTHING / n_classes
        with tf.GradientTape() as tape:
            X = tf.nn.experimental.stateless_dropout(
                self._run_late(early), DROPOUT, tf.stack([number, 0])
            )
            logits = X @ kernel + bias
            losses = tf.nn.softmax_cross_entropy_with_logits(target, logits)
            loss = tf.reduce_mean(losses)
        time = tf.cast(number + 1, tf.float32)
        gradients = tape.gradient(loss, self.trained)
        state = zip(self.trained, gradients, self.means, self.squares, strict=True)
        for variable, gradient, mean, square in state:
            if len(variable.shape) > 1:
                variable.assign_sub(rate * WEIGHT_DECAY * variable)
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=mean.handle,
                v=square.handle,
                beta1_power=BETAS[0] ** time,
                beta2_power=BETAS[1] ** time,
                lr=rate,
                beta1=BETAS[0],
                beta2=BETAS[1],
                epsilon=EPSILON,
                grad=gradient,
            )
        right = tf.equal(tf.argmax(logits, 1, y.dtype), y)
        return loss, tf.reduce_mean(tf.cast(right, tf.float32))

    def _run_early(self, images: Any) -> Any:
        tf, kind = self.tf, self.precision
        kernel, bias = self.pairs[0]
        pixels = tf.cast(images * 2 - 1, kind)
        x = tf.nn.conv2d(pixels, tf.cast(kernel, kind), 2, "SAME")
        x = tf.nn.relu6(tf.nn.bias_add(x, tf.cast(bias, kind)))
        for block in range(self.first):
            x = self._convolve_depth(x, block, kind)
            kernel, bias = self.pairs[2 + 2 * block]
            x = tf.nn.conv2d(x, tf.cast(kernel, kind), 1, "SAME")
            x = tf.nn.relu6(tf.nn.bias_add(x, tf.cast(bias, kind)))
        return x

    def _run_late(self, x: Any) -> Any:
        tf, kind = self.tf, self.precision
        for block in range(self.first, len(STRIDES)):
            strided = STRIDES[block] > 1 and block > self.first
            x = self._convolve_depth(x, block, tf.float32 if strided else kind)
            kernel, bias = self.pairs[2 + 2 * block]
            n, height, width, channels = tf.unstack(tf.shape(x))
            flat = tf.reshape(tf.cast(x, kind), [-1, channels])
            x = self._multiply(flat, kernel[0, 0], tf.convert_to_tensor(bias))
            x = tf.reshape(x, [n, height, width, bias.shape[0]])
        return tf.reduce_mean(tf.cast(x, tf.float32), [1, 2])

    def _convolve_depth(self, x: Any, block: int, kind: Any) -> Any:
        tf, stride = self.tf, STRIDES[block]
        kernel, bias = self.pairs[1 + 2 * block]
        x, kernel = tf.cast(x, kind), tf.cast(kernel, kind)
        x = tf.nn.depthwise_conv2d(x, kernel, [1, stride, stride, 1], "SAME")
        return tf.nn.relu6(tf.nn.bias_add(x, tf.cast(bias, kind)))

    def _multiply(self, x: Any, kernel: Any, bias: Any) -> Any:
        """Return relu6(x·kernel + bias), whose gradient sums rows by a product too."""
        tf, kind = self.tf, self.precision

        @tf.custom_gradient
        def multiply(x: Any, kernel: Any, bias: Any) -> tuple[Any, Any]:
            small = tf.cast(kernel, kind)
            y = tf.nn.relu6(tf.nn.bias_add(tf.matmul(x, small), tf.cast(bias, kind)))

            def differentiate(upstream: Any) -> tuple[Any, Any, Any]:
                g = tf.raw_ops.Relu6Grad(gradients=upstream, features=y)
                ones = tf.ones([1, tf.shape(g)[0]], kind)
                return (
                    tf.matmul(g, small, transpose_b=True),
                    tf.cast(tf.matmul(x, g, transpose_a=True), tf.float32),
                    tf.cast(tf.matmul(ones, g)[0], tf.float32),
                )

            return y, differentiate

        return multiply(x, kernel, bias)
