"""Moving averages of the weights."""

import contextlib
from collections.abc import Iterator

from finetune.console.lazy import tf


class Averages:
    """Moving averages of the weights that change, warmed up: decay = min(`decay`, (1 + n) / (10 + n)) at step n.

    Batch-normalisation statistics are averaged too. Evaluation runs inside `applied()`.
    """

    def __init__(self, model, decay: float):
        self.decay = decay
        moving = {id(variable) for layer in model.get_layer('backbone').layers if layer.trainable
                  for variable in layer.non_trainable_variables if variable.dtype.startswith('float')}
        self.weights = [v for v in model.variables if v.trainable or id(v) in moving]
        self.averages = [tf.Variable(v.value, trainable=False, name='average') for v in self.weights]

    def start(self) -> None:
        """Sets the averages to the weights as they are."""
        for average, weight in zip(self.averages, self.weights, strict=True):
            average.assign(weight.value)

    def update(self, step) -> None:
        """Moves the averages towards the weights after `step` (a float tensor) updates."""
        decay = tf.minimum(self.decay, (1.0 + step) / (10.0 + step))
        for average, weight in zip(self.averages, self.weights, strict=True):
            average.assign_sub((1.0 - decay) * (average - tf.cast(weight.value, average.dtype)))

    def apply(self) -> None:
        """Sets the weights to their averages, for good."""
        for weight, average in zip(self.weights, self.averages, strict=True):
            weight.assign(average)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the averages inside the `with` block, and its own weights again after it."""
        own = [tf.identity(weight.value) for weight in self.weights]
        self.apply()
        try:
            yield
        finally:
            for weight, value in zip(self.weights, own, strict=True):
                weight.assign(value)
