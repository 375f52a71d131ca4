"""`finetune train`: records -> run.

From the command line to a gradient it is three calls: `train`, `train_steps`, and the tower's `gradients`.
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

from finetune.console import command, machine, signals
from finetune.console.errors import Error, Stopped, UsageError
from finetune.console.lazy import tf
from finetune.console.terminal import Progress, printable, say, warn
from finetune.features import regression
from finetune.models import classifier, cuts, engines
from finetune.models.averages import Averages
from finetune.records import dataset
from finetune.runs import recipe as recipes
from finetune.runs.run import Run, lock
from finetune.runs.state import State, build_model
from finetune.training import briefing, confidence, feeds, optimize, pretrained, towers
from finetune.training.feeds import Feed
from finetune.training.journal import Journal

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


def train(flags: SimpleNamespace) -> None:
    """Opens the records, opens or makes the run, restores what there is to restore, and trains."""
    _check_usage(flags)
    data = dataset.open_records(flags.data_dir)
    if flags.verify:
        dataset.verify(data)
    tf.debugging.set_log_device_placement(flags.log_device_placement)
    strategy = towers.strategy(flags.num_gpus)
    directory = Path(flags.train_dir or Path('checkpoints', Path(flags.data_dir).resolve().name))
    with lock(directory):  # Before anything is written there.
        run = _open_run(directory, flags, data)
        if run.recipe.optimizer != 'regression':
            _check_towers(run.recipe, strategy)
        source = pretrained.read(run.recipe) if run.recipe.pretrained and not run.steps() else None
        state = build_state(run, data.split(run.recipe.subset).records, strategy)
        start = _start(run, state, source)
        parts = cuts.parts(state.model) if run.recipe.feature_cache == 'on' else None
        briefing.introduce(run, state, data, strategy, start, parts)
        if run.recipe.optimizer != 'regression' or not run.steps():  # A head that is solved for is done.
            _work(run, state, data, parts, strategy, flags)
    briefing.conclude(run, data)


def _work(run: Run, state: State, data, parts: cuts.Parts | None, strategy, flags: SimpleNamespace) -> None:
    """Everything that takes long."""
    try:
        feed = _feed(run.recipe, state.model, data, parts, flags)
        work = solve_head if run.recipe.optimizer == 'regression' else train_steps
        work(run, state, feed, strategy, flags)
    except tf.errors.OpError as error:
        dataset.check_unchanged(data.directory, data.fingerprint)
        if isinstance(error, tf.errors.DataLossError):
            dataset.verify(data)  # If a shard is damaged, this names it.
        raise


def build_state(run: Run, train_records: int, strategy) -> State:
    """Everything that training changes, new."""
    model = build_model(run.recipe, len(run.labels), strategy)
    return state_of(model, run.recipe, train_records, strategy)


def state_of(model, recipe: recipes.Recipe, train_records: int, strategy) -> State:
    """The model, an optimizer for the heads, one for the backbone where it trains, and the averages."""
    groups = []
    with strategy.scope():
        auxiliary = classifier.with_auxiliary_head(
            model, recipe.model, recipe.batch_norm_momentum, recipe.seed) if recipe.aux_weight else None
        head, backbone = (model.get_layer(part).trainable_variables for part in ('head', 'backbone'))
        if auxiliary:
            head = head + auxiliary.head.trainable_variables
        for variables, factor in ((head, 1.0), (backbone, recipe.backbone_learning_rate_factor)):
            if variables and recipe.optimizer != 'regression':
                rate = optimize.schedule(
                    recipe.learning_rate_schedule, recipe.initial_learning_rate * factor,
                    steps_per_epoch=train_records / recipe.batch_size, max_steps=recipe.max_steps,
                    epochs_per_decay=recipe.num_epochs_per_decay, decay_factor=recipe.learning_rate_decay_factor,
                    pieces=recipe.pieces(), warmup_epochs=recipe.warmup_epochs)
                optimizer = optimize.optimizer(
                    recipe.optimizer, rate,
                    decay=recipe.rmsprop_decay, momentum=recipe.momentum, epsilon=recipe.rmsprop_epsilon)
                optimizer.build(variables)
                groups.append((optimizer, variables))
        averages = Averages(model, recipe.moving_average_decay) if recipe.moving_average_decay else None
        return State(model, groups, averages, auxiliary)


def _switch_off_unused(run: Run, state: State) -> None:
    """The outputs of labels without training pictures, which are not to be the answer."""
    unused = [label for label, count in enumerate(run.records['per_class']) if not count]
    heads = [state.model.get_layer('head'), *([state.auxiliary.head] if state.auxiliary else [])]
    for head in heads:
        classifier.switch_off(head, unused)


# The loop -------------------------------------------------------------------------------------------------------------


def train_steps(run: Run, state: State, feed: Feed, strategy, flags: SimpleNamespace) -> None:
    """Steps until the end, a signal, or a loss that is not finite; measures and saves at the end of every epoch."""
    recipe = run.recipe
    step = int(state.step.numpy())
    update = training_step(feed.network, state, recipe, strategy, run.records['per_class'], flags.jit_compile)
    updates = in_one_call(update, strategy)
    with signals.deferred() as stop, Progress('Training', recipe.max_steps, 'steps') as progress:
        progress.start_at(step)
        journal = Journal(run, state, feed, strategy, progress, flags.log_every_steps, flags.histograms)
        batch_iterator = iter(strategy.experimental_distribute_dataset(feed.training(step)))
        while step < recipe.max_steps and not journal.patience_is_over():
            if feed.kept:  # Steps of a head are far below a millisecond: a call from Python takes longer.
                steps = journal.steps_to_next_line(step)
                loss = updates(batch_iterator, tf.constant(steps))
            else:
                steps, loss = 1, update(journal.next_batch(batch_iterator))
            step += steps
            journal.steps_done(step, steps, loss)
            if journal.epoch_ends(step) or step == recipe.max_steps:
                if not feed.from_features:
                    dataset.check_unchanged(Path(flags.data_dir), run.records['fingerprint'])
                journal.measure(step, loss)
            if journal.seconds_since_save() > flags.save_interval_secs:
                journal.save(step)
            if stop.number:
                journal.save_at_last(step)
                raise _stopped(run, step, stop)
        journal.save_at_last(step)
    confidence.of_steps(run, feed, strategy)


def solve_head(run: Run, state: State, feed: Feed, strategy, flags: SimpleNamespace) -> None:
    """One step, to the head that fits best; a signal on the way waits for it."""
    features, labels = feed.kept.rows['features'], feed.kept.rows['label']
    with signals.deferred() as stop, Progress('Training', 1, 'step') as progress:
        journal = Journal(run, state, feed, strategy, progress, flags.log_every_steps, flags.histograms)
        head = regression.fit(
            features, labels, len(run.labels), run.recipe.seed, label_smoothing=run.recipe.label_smoothing, tell=_tell)
        logits = state.model.get_layer('head').get_layer('logits')
        logits.kernel.assign(head.kernel)
        logits.bias.assign(head.bias)
        _switch_off_unused(run, state)
        if state.averages:
            state.averages.start()
        state.step.assign(1)
        confidence.of_solved_head(run, features, labels, head.weight_decay)
        journal.measure(1, head.loss)
        journal.save_at_last(1)
        if stop.number:
            raise _stopped(run, 1, stop)


def _stopped(run: Run, step: int, stop: signals.StopRequest) -> Stopped:
    return Stopped(f'stopped at step {step}, which is saved in {printable(run.directory)}; '
                   'the same command goes on from there', stop.number)


def _tell(trial: regression.Trial) -> None:
    print(f'{datetime.now()}: weight decay {trial.weight_decay:.1e}, held-out loss = {trial.loss:.4f} '
          f'precision @ 1 = {trial.precision_at_1:.4f} [{trial.records} examples]', flush=True)


def training_step(
    network, state: State, recipe: recipes.Recipe, strategy, per_class: list[int], jit_compile: bool
) -> Callable:
    """A function batch -> loss that does one update of `network` on all towers."""
    variables = [variable for _, group in state.groups for variable in group]
    kernels = [variable for variable in variables if 'kernel' in variable.name]
    weights = (1.0, recipe.aux_weight) if state.auxiliary else (1.0,)
    count = strategy.num_replicas_in_sync

    @tf.function(jit_compile=jit_compile)
    def gradients(images, labels):
        """This tower's part of the whole batch's loss, and its gradients: summed over the towers they are whole."""
        with tf.GradientTape() as tape:
            answers = classifier.training_logits(network, images, state.auxiliary)
            losses = [weight * cross_entropy(logits, labels, recipe.label_smoothing, per_class)
                      for weight, logits in zip(weights, answers, strict=True)]
            loss = tf.reduce_sum(losses) / recipe.batch_size
            loss += recipe.weight_decay * tf.add_n([tf.nn.l2_loss(kernel.value) for kernel in kernels]) / count
        return loss, tape.gradient(loss, [variable.value for variable in variables])

    def tower(batch):
        loss, grads = gradients(batch['image'], batch['label'])
        if recipe.gradient_clip:
            grads = clipped(grads, recipe.gradient_clip, count)
        for optimizer, group in state.groups:
            optimizer.apply(grads[:len(group)], group)  # Sums the towers' gradients.
            grads = grads[len(group):]
        return loss

    @tf.function
    def update(batch):
        loss = strategy.reduce('SUM', strategy.run(tower, args=(batch,)), axis=None)
        state.step.assign_add(1)
        if state.averages:
            state.averages.update(tf.cast(state.step, tf.float32))
        return loss

    return update


def in_one_call(update: Callable, strategy) -> Callable:
    """A function (iterator over batches, steps) -> last loss."""
    def updates(batch_iterator, steps):
        loss = 0.0
        for _ in tf.range(steps):
            loss = update(next(batch_iterator))
        return loss

    # Towers wait for each other inside a step, which they cannot do inside the loop of a graph.
    return updates if strategy.num_replicas_in_sync > 1 else tf.function(updates)


def cross_entropy(logits, labels, smoothing: float, per_class: list[int]):
    """Of each picture, in nats [b]. Smoothing spreads over the classes that occur, never over an unused background."""
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if not smoothing:
        return losses
    occurring = tf.constant([count > 0 for count in per_class])
    spread = -tf.reduce_mean(tf.boolean_mask(tf.nn.log_softmax(logits), occurring, axis=1), axis=1)
    return (1 - smoothing) * losses + smoothing * spread


def clipped(grads: list, norm: float, count: int) -> list:
    """Gradients of one tower whose sum over `count` towers has at most this global norm."""
    summed = tf.distribute.get_replica_context().all_reduce('SUM', grads)
    return [gradient / count for gradient in tf.clip_by_global_norm(summed, norm)[0]]


# Before and after -----------------------------------------------------------------------------------------------------


def _check_usage(flags: SimpleNamespace) -> None:
    if flags.arguments:
        raise UsageError(f'{printable(flags.arguments[0])!r} is no flag. Values are given as --flag=value, '
                         'switches as --flag and --noflag.')
    if not flags.data_dir:
        raise UsageError('--data_dir is missing: the directory that `finetune build` wrote records into')
    if flags.subset == 'test':
        raise UsageError('--subset=test: what was trained on the test pictures cannot be tested with them. They are '
                         'for `finetune eval --subset=test`')


def _open_run(directory: Path, flags: SimpleNamespace, data) -> Run:
    """The run in the directory if it has got anywhere, else a new one there."""
    typed = {name: getattr(flags, name) for name in recipes.FIELDS if name in flags.given}
    if Run.exists(directory) and Run(directory).steps():
        run = Run(directory)
        split = data.split(run.recipe.subset)
        _check_same(run, typed, data, flags.override)
        if run.recipe.optimizer == 'regression' and run.records['fingerprint'] != data.fingerprint:
            raise Error(f'the head in {printable(run.directory)} was solved on other records and does not go on. '
                        'Use another --train_dir.')
        if flags.pretrained:
            say(f'--pretrained is not used: {printable(directory)} has a checkpoint')
        kernels = machine.kernels()
        _say_if_kernels_change(run, kernels)
        run.change(recipes.extend(run.recipe, typed, split.records), _remembered(data, split), kernels)
        return run
    split = data.split(flags.subset)
    if sum(count > 0 for count in split.per_class) < 2:
        raise Error(f'{printable(flags.data_dir)} has training pictures of one class only; '
                    'there is nothing to tell apart.')
    recipe = recipes.plan(typed, pretrained.network(typed.get('pretrained', '')), split.records)
    return Run.create(directory, recipe, data.labels, _remembered(data, split))


def _say_if_kernels_change(run: Run, kernels: str) -> None:
    if run.kernels not in (kernels, None):
        say(f'This run was trained with {run.kernels} kernels and goes on with {kernels}, which round otherwise: it '
            'will be as good, not to the last bit what it would have been (TF_ENABLE_ONEDNN_OPTS chooses, on a CPU).')


def _remembered(data, split) -> dict:
    return {'fingerprint': data.fingerprint, 'treatment': data.treatment, 'per_class': list(split.per_class)}


def _check_same(run: Run, typed: dict, data, override: bool) -> None:
    """A run goes on with the labels, the records and the recipe that it began with."""
    place = printable(run.directory)
    if run.labels != data.labels:
        raise Error(f'{place} was trained on other labels ({", ".join(map(printable, run.labels[1:9]))}) '
                    f'than these records have ({", ".join(map(printable, data.labels[1:9]))}). '
                    f'Use another --train_dir, with --pretrained={place} --fine_tune to start from it.')
    occurring = [[bool(count) for count in counts]
                 for counts in (run.records['per_class'], data.split(run.recipe.subset).per_class)]
    if occurring[0] != occurring[1]:
        raise Error(f'other classes have training pictures now than when {place} began. Use another --train_dir, with '
                    f'--pretrained={place} --fine_tune to start from it.')
    changed = recipes.differences(run.recipe, typed)
    if override:
        for name, old, new in changed:
            warn(f'--{name}={new} is not used: the run goes on with {old}')
        return
    if run.records['fingerprint'] != data.fingerprint:
        raise Error(f'the records in {printable(data.directory)} are not those that {place} began with. '
                    'Use another --train_dir, or --override to go on with the new ones.')
    if changed:
        listed = '; '.join(f'--{name} was {old} and is now {new}' for name, old, new in changed)
        raise Error(f'{place} began with another recipe: {listed}. Leave the flag out, use another --train_dir, '
                    'or --override to go on with the old value.')


def _feed(recipe: recipes.Recipe, model, data, parts: cuts.Parts | None, flags: SimpleNamespace) -> Feed:
    engine = engines.choose(flags.engine, recipe.mixed_precision)
    _warn_of_unused(flags, recipe, parts)
    if parts is None:
        return feeds.of_pictures(model, recipe, data, flags.num_preprocess_threads)
    directory = Path(flags.feature_dir or Path(flags.data_dir, 'features'))
    return feeds.of_features(parts, recipe, data, directory, engine, flags.num_preprocess_threads)


def _warn_of_unused(flags: SimpleNamespace, recipe: recipes.Recipe, parts: cuts.Parts | None) -> None:
    unused, reason = (), ''
    if parts is None:
        unused, reason = recipes.OF_FEATURES, 'no outputs of frozen layers are kept'
    elif recipe.views == 1:
        unused, reason = recipes.OF_DISTORTION, 'the central view alone is kept of each picture (--views)'
    for name in unused:
        if name in flags.given:
            warn(f'--{name} is not used: {reason}')


def _check_towers(recipe: recipes.Recipe, strategy) -> None:
    count = strategy.num_replicas_in_sync
    if recipe.batch_size % count:
        raise Error(f'--batch_size={recipe.batch_size} cannot be split over {count} towers. '
                    f'Use --batch_size={max(1, recipe.batch_size // count) * count}.')


def _start(run: Run, state: State, source: pretrained.Source | None) -> list[str]:
    """Carries out the start table; returns what to say about it."""
    step = run.resume(state)
    if step is not None:
        return [f'goes on from step {step} in {printable(run.directory)}']
    lines = ['random weights']
    if source:
        lines = pretrained.restore(state.model, source, run.labels, run.recipe.fine_tune).lines()
    _switch_off_unused(run, state)
    if state.averages:
        state.averages.start()
    return lines


if __name__ == '__main__':
    raise SystemExit(main())
