"""Learning-rate schedules, optimizers, and moving averages of the weights."""

import contextlib
from collections.abc import Iterator

from finetune.lazy import keras, tf

OPTIMIZERS = ('rmsprop', 'sgd', 'momentum', 'nesterov', 'adam')


def exponential_decay(rate: float, decay_steps: int, factor: float):
    """`rate * factor ** floor(step / decay_steps)`: a staircase, as in the original."""
    return keras.optimizers.schedules.ExponentialDecay(rate, decay_steps, factor, staircase=True)


def optimizer(name: str, learning_rate, *, decay: float = 0.9, momentum: float = 0.9, epsilon: float = 1.0):
    """An optimizer by name; `learning_rate` is a number or a schedule over the optimizer's own steps.

    `decay` and `epsilon` are RMSProp's; its epsilon of 1.0 (inside the square root) makes it close to momentum with a
    step of the learning rate's size. `momentum` is also that of `momentum` and `nesterov`.
    """
    if name == 'rmsprop':
        return keras.optimizers.RMSprop(learning_rate, rho=decay, momentum=momentum, epsilon=epsilon, name='rmsprop')
    if name == 'adam':
        return keras.optimizers.Adam(learning_rate, name='adam')
    momentum = 0.0 if name == 'sgd' else momentum
    return keras.optimizers.SGD(learning_rate, momentum=momentum, nesterov=name == 'nesterov', name=name)


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
