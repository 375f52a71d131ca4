"""Learning-rate schedules and optimizers by name."""

from collections.abc import Mapping

from finetune.console.lazy import LazyModule, keras

schedules = LazyModule('finetune.training.schedules')


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


def optimizer(name: str, learning_rate, *, decay: float = 0.9, momentum: float = 0.9, epsilon: float = 1.0,
              weight_decay: float = 0.0):
    """An optimizer by name; `learning_rate` is a number or a schedule over the optimizer's own steps.

    `decay` and `epsilon` are RMSProp's; its epsilon of 1.0 (inside the square root) makes it close to momentum with a
    step of the learning rate's size. `momentum` is also that of `momentum` and `nesterov`. `weight_decay` is that of
    adamw, decoupled from the gradient (Loshchilov and Hutter, 2019); of biases and batch norms nothing decays.
    """
    if name == 'rmsprop':
        return keras.optimizers.RMSprop(learning_rate, rho=decay, momentum=momentum, epsilon=epsilon, name='rmsprop')
    if name == 'adam':
        return keras.optimizers.Adam(learning_rate, name='adam')
    if name == 'adamw':
        made = keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay, name='adamw')
        made.exclude_from_weight_decay(var_names=['bias', 'gamma', 'beta'])
        return made
    if name == 'adadelta':
        return keras.optimizers.Adadelta(learning_rate, name='adadelta')
    momentum = 0.0 if name == 'sgd' else momentum
    return keras.optimizers.SGD(learning_rate, momentum=momentum, nesterov=name == 'nesterov', name=name)
