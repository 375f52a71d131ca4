"""`finetune train`: records -> run."""

from pathlib import Path
from types import SimpleNamespace

from finetune.console import command, machine, teams
from finetune.console.errors import UsageError
from finetune.console.lazy import tf
from finetune.console.terminal import printable
from finetune.models import engines
from finetune.records import dataset
from finetune.runs import recipe as recipes
from finetune.runs.run import Run
from finetune.training import briefing, towers
from finetune.training import train as training
from finetune.training.loop import Conduct

FLAGS = command.Flags(
    'finetune train --data_dir=RECORDS --train_dir=RUN [--pretrained=WEIGHTS --fine_tune] [flags]',
    'Trains a classifier on records that `finetune build` made. '
    'The same command again goes on where the last one stopped.')
FLAGS.group('places')
FLAGS.path('data_dir', None, 'records directory, the --output_directory of `finetune build`')
FLAGS.path('train_dir', None, 'run directory, made if it is not there (default: checkpoints/NAME of --data_dir)')
FLAGS.switch('verify', False, 'compare the sha256 of every shard with dataset.json first')
FLAGS.path('feature_dir', None, 'where the outputs of frozen layers are kept; they may be deleted at any time '
             '(default: features in --data_dir)')
recipes.add_flags(FLAGS)
FLAGS.group('device')
FLAGS.integer('num_gpus', None, 'towers that share each batch (default: all GPUs, or one CPU)', least=1)
FLAGS.choice('engine', None, engines.ENGINES, engines.HELP)
FLAGS.integer(
    'num_preprocess_threads', None, 'threads that decode and distort (default: chosen while running)', least=1)
FLAGS.switch('jit_compile', False, 'compile the step with XLA')
FLAGS.switch('log_device_placement', False, 'print the device of every operation')
FLAGS.group('several machines')
FLAGS.number(
    'worker_timeout_secs', 900, 'longest wait for a machine of TF_CONFIG that does not come, or hangs (docs/scale.md)',
    least=1)
FLAGS.group('run')
FLAGS.switch('override', False, 'go on with a run although flags differ from those it was started with')
FLAGS.integer('log_every_steps', 10, 'steps between two lines', least=1)
FLAGS.switch('histograms', False, 'show in TensorBoard, after every epoch, how the weights are spread and how much of '
             'the output of each ReLU behind the frozen part is zero')
FLAGS.number(
    'save_interval_secs', 120, 'longest time between two checkpoints; epochs of 10 seconds and more end with one',
    least=0)
FLAGS.alias('pretrained_model_checkpoint_path', 'pretrained')
FLAGS.alias('learning_rate', 'initial_learning_rate')
FLAGS.alias('lr', 'initial_learning_rate')


def main(argv: list[str] | None = None) -> int:
    return command.run(FLAGS, train, argv)


def train(flags: SimpleNamespace) -> Run:
    _check_usage(flags)
    data = dataset.open_records(flags.data_dir)
    if flags.verify:
        dataset.verify(data)
    directory = Path(flags.train_dir or Path('checkpoints', Path(flags.data_dir).resolve().name))
    typed = {name: getattr(flags, name) for name in recipes.FIELDS if name in flags.given}
    conduct = Conduct(
        flags.engine, flags.num_preprocess_threads, flags.feature_dir and Path(flags.feature_dir), flags.jit_compile,
        flags.log_every_steps, flags.histograms, flags.save_interval_secs)
    with teams.assembled(_same_everywhere(flags, data), flags.worker_timeout_secs) as team:
        if team.count == 1:
            strategy = towers.strategy(flags.num_gpus)
        else:
            strategy = towers.over_machines(flags.num_gpus, flags.worker_timeout_secs)
        tf.debugging.set_log_device_placement(flags.log_device_placement)
        run = training.train(directory, data, typed, strategy, conduct, flags.override, team)
        if team.is_chief:
            briefing.conclude(run, data)
    return run


def _same_everywhere(flags: SimpleNamespace, data: dataset.Records) -> dict[str, str]:
    """What must not differ between the machines of one training."""
    if not teams.is_asked_for():
        return {}
    may_differ = {'data_dir', 'train_dir', 'feature_dir', 'num_preprocess_threads', 'verify', 'log_every_steps'}
    typed = sorted(f'--{name}={getattr(flags, name)}' for name in flags.given - may_differ)
    deciding = 'finetune', 'tensorflow', 'keras', 'numpy', 'pillow', 'openvino'
    return {'the flags': ' '.join(typed), 'the fingerprint of --data_dir': data.fingerprint,
            **{f'the version of {name}': str(machine.versions()[name]) for name in deciding},
            'the kernels': machine.kernels(), 'the number of GPUs': str(len(tf.config.list_physical_devices('GPU')))}


def _check_usage(flags: SimpleNamespace) -> None:
    if flags.arguments:
        raise UsageError(f'{printable(flags.arguments[0])!r} is no flag. Values are given as --flag=value, '
                         'switches as --flag and --noflag.')
    if not flags.data_dir:
        raise UsageError('--data_dir is missing: the directory that `finetune build` wrote records into')
    if flags.subset == 'test':
        raise UsageError('--subset=test: what was trained on the test pictures cannot be tested with them. They are '
                         'for `finetune eval --subset=test`')


if __name__ == '__main__':
    raise SystemExit(main())
