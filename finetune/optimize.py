"""Learning-rate schedules, optimizers, and moving averages of the weights."""

import contextlib
from collections.abc import Iterator, Mapping

from finetune.lazy import LazyModule, keras, tf

schedules = LazyModule('finetune.schedules')

OPTIMIZERS = ('rmsprop', 'sgd', 'momentum', 'nesterov', 'adam', 'adadelta')
SCHEDULES = ('exponential', 'piecewise', 'cosine', 'inverse_time', 'constant')


def schedule(
    name: str, rate: float, *, steps_per_epoch: float, max_steps: int, epochs_per_decay: float, decay_factor: float,
    pieces: Mapping[float, float], warmup_epochs: float,
):
    """A schedule by name, which begins at `rate`; epochs become steps here.

    `epochs_per_decay` is that of exponential and inverse_time, `decay_factor` that of exponential. `pieces` holds by
    epoch which multiple of `rate` holds from there on.
    """
    decay_steps = max(1, int(steps_per_epoch * epochs_per_decay))
    made = {
        'exponential': lambda: exponential_decay(rate, decay_steps, decay_factor),
        'piecewise': lambda: piecewise(
            rate, {int(steps_per_epoch * epoch): multiple for epoch, multiple in pieces.items()}),
        'cosine': lambda: keras.optimizers.schedules.CosineDecay(rate, max_steps),
        'inverse_time': lambda: keras.optimizers.schedules.InverseTimeDecay(rate, decay_steps, 1.0),
        'constant': lambda: exponential_decay(rate, 1, 1.0),
    }[name]()
    warmup_steps = int(steps_per_epoch * warmup_epochs)
    return schedules.WarmUp(made, warmup_steps) if warmup_steps else made


def piecewise(rate: float, pieces: Mapping[int, float]):
    """`rate`, and from each step of `pieces` on that multiple of it."""
    steps = sorted(pieces)
    # Keras changes the rate after a step, not at it.
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        [step - 1 for step in steps], [rate, *(rate * pieces[step] for step in steps)])


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
    if name == 'adadelta':
        return keras.optimizers.Adadelta(learning_rate, name='adadelta')
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
