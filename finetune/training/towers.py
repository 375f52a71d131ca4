"""How many devices share the work: of this machine, or of all machines of a team."""

import functools
import signal

from finetune.console.errors import Error
from finetune.console.lazy import tf


def strategy(num_gpus: int | None = None):
    """The tf.distribute.Strategy for `num_gpus` towers; None means all GPUs of this machine, or one CPU.

    Without GPUs the towers are logical CPU devices: no faster, but the same arithmetic.
    """
    gpus = tf.config.list_physical_devices('GPU')  # Asking for the logical ones would start TensorFlow.
    towers = num_gpus or max(len(gpus), 1)
    if towers == 1:
        return tf.distribute.get_strategy()
    if gpus and towers > len(gpus):
        raise Error(f'--num_gpus={towers}, but this machine has {len(gpus)}. Use --num_gpus={len(gpus)}.')
    devices = tf.config.list_logical_devices('GPU') if gpus else _logical_cpus(towers)
    return _mirrored(tuple(device.name for device in devices[:towers]))


def over_machines(num_gpus: int | None, timeout_secs: float):
    """The strategy over the towers of all machines in TF_CONFIG, of which all are there by now.

    To be made before anything starts TensorFlow.
    """
    gpus = tf.config.list_physical_devices('GPU')
    if num_gpus and num_gpus > max(len(gpus), 1):
        raise Error(f'--num_gpus={num_gpus}, but this machine has {len(gpus)}; on several machines a CPU is one tower.')
    if gpus and num_gpus:
        tf.config.set_visible_devices(gpus[:num_gpus], 'GPU')
    # Later than ours, which can say who it is that hangs.
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=timeout_secs + 60)
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    except tf.errors.UnknownError as error:  # Its server.
        raise Error(f'the address of this machine in TF_CONFIG cannot be listened at ({error.message}): another '
                    'process is there. End it, or take another port on all machines.') from None
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # TensorFlow catches it, to no end.
    return strategy


def distributed(dataset, strategy):
    """Its batches for the towers of all machines; of several, each has its own dataset, of a batch a tower."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return strategy.experimental_distribute_dataset(dataset)
    # Of unknown length, the machines would ask each other before every batch whether there is one.
    endless = dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    return strategy.distribute_datasets_from_function(lambda context: endless)


def of_this_machine(strategy):
    """What passes over pictures here, where others have no part in it."""
    is_over_machines = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    return tf.distribute.get_strategy() if is_over_machines else strategy


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


def describe(strategy, machines: int = 1) -> str:
    towers = strategy.num_replicas_in_sync
    kind = 'GPU' if tf.config.list_logical_devices('GPU') else 'CPU'
    if of_this_machine(strategy) is not strategy:
        return f'{towers} {kind}s of {machines} machines (TF_CONFIG)'
    if machines > 1:
        return f'{kind} of the chief; the {machines} machines (TF_CONFIG) have computed the features'
    return kind if towers == 1 else f'{towers} towers on {kind}s'
