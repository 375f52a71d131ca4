"""How many devices of this machine share the work."""

import functools
import os

from finetune.console.errors import Error
from finetune.console.lazy import tf


def strategy(num_gpus: int | None = None):
    """The tf.distribute.Strategy for `num_gpus` towers; None means all GPUs of this machine, or one CPU.

    Without GPUs the towers are logical CPU devices: no faster, but the same arithmetic.
    """
    if os.environ.get('TF_CONFIG'):
        raise Error('TF_CONFIG is set, but several machines cannot write one run yet. '
                    'Unset it to train on this machine.')
    gpus = tf.config.list_physical_devices('GPU')  # Asking for the logical ones would start TensorFlow.
    towers = num_gpus or max(len(gpus), 1)
    if towers == 1:
        return tf.distribute.get_strategy()
    if gpus and towers > len(gpus):
        raise Error(f'--num_gpus={towers}, but this machine has {len(gpus)}. Use --num_gpus={len(gpus)}.')
    devices = tf.config.list_logical_devices('GPU') if gpus else _logical_cpus(towers)
    return _mirrored(tuple(device.name for device in devices[:towers]))


@functools.cache
def _mirrored(devices: tuple[str, ...]):
    """One for all trainings of a process: every MirroredStrategy numbers its sums of gradients from the same number
    on, and TensorFlow takes those of a second one for those of the first.
    """
    return tf.distribute.MirroredStrategy(devices)


def _logical_cpus(count: int) -> list:
    if len(tf.config.list_physical_devices('CPU')) == 1:
        try:
            cpu = tf.config.list_physical_devices('CPU')[0]
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
        except RuntimeError:  # TensorFlow is already running with the devices it has.
            pass
    devices = tf.config.list_logical_devices('CPU')
    if len(devices) < count:
        raise Error(f'{count} towers on CPUs must be set up before TensorFlow starts; it runs with {len(devices)}.')
    return devices


def describe(strategy) -> str:
    towers = strategy.num_replicas_in_sync
    kind = 'GPU' if tf.config.list_logical_devices('GPU') else 'CPU'
    return kind if towers == 1 else f'{towers} towers on {kind}s'
