"""The training loop, and the one step of a head that is solved for."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from finetune.console import signals
from finetune.console.errors import Stopped
from finetune.console.lazy import tf
from finetune.console.teams import ALONE, Team
from finetune.console.terminal import Progress, duration, printable, say, show
from finetune.features import regression
from finetune.models import classifier
from finetune.records import dataset
from finetune.runs.recipe import Recipe
from finetune.runs.run import Run
from finetune.runs.state import State
from finetune.training import confidence, towers, validation
from finetune.training.feeds import Feed
from finetune.training.journal import Journal, Listener
from finetune.training.opening import switch_off_unused

WORTH_SAYING = 20  # Seconds.


@dataclasses.dataclass(frozen=True)
class Conduct:
    """How a training is carried out; nothing in here decides which numbers it computes."""

    engine: str | None = None  # Of frozen layers.
    threads: int | None = None  # That decode and distort.
    feature_dir: Path | None = None
    jit_compile: bool = False
    log_every_steps: int = 10
    histograms: bool = False
    save_interval_secs: float = 120
    deadline: float = math.inf  # By time.monotonic(): the training ends there, saved, before its last step.


def train_steps(run: Run, state: State, feed: Feed, strategy, conduct: Conduct, team: Team = ALONE) -> None:
    """Steps until the end, a signal, or a loss that is not finite; measures and saves at the end of every epoch.

    What `team` does here is a meeting: the machines come to each in the same order, and one alone passes through.
    """
    recipe = run.recipe
    step = int(state.step.numpy())
    update = training_step(feed.network, state, recipe, strategy, run.records['per_class'], conduct.jit_compile)
    updates = in_one_call(update, strategy)
    validate = validation.function(state, feed, strategy, run.labels, team)
    with signals.deferred() as stop, Progress('Training', recipe.max_steps, 'steps') as progress:
        progress.start_at(step)
        journal = Journal(run, state, feed, progress, conduct.log_every_steps, conduct.histograms, team) if (
            team.is_chief) else Listener(recipe, feed, progress)
        batch_iterator = iter(towers.distributed(feed.training(step), strategy))
        while step < recipe.max_steps and not (recipe.patience and team.told(journal.patience_is_over())):
            if feed.kept:  # Steps of a head are far below a millisecond: a call from Python takes longer.
                steps = journal.steps_to_next_line(step)
                loss = updates(batch_iterator, tf.constant(steps))
            else:
                batch = journal.next_batch(batch_iterator)
                team.comes_to_a_step()
                steps, loss = 1, update(batch)
            step += steps
            journal.steps_done(step, steps, loss)
            is_late = time.monotonic() > conduct.deadline
            if journal.epoch_ends(step) or step == recipe.max_steps or is_late:
                if not feed.from_features:
                    dataset.check_unchanged(feed.directory, run.records['fingerprint'])
                loss = journal.finite(step, loss)
                journal.measure(step, loss, validate())
            if journal.seconds_since_save() > conduct.save_interval_secs:
                journal.save(step)
            if asked := team.stopping(stop.number):
                journal.save_at_last(step)
                team.met()
                raise _stopped(run, step, asked)
            if is_late:
                say('The time is up: ending early.')
                break
        journal.save_at_last(step)
    if team.is_chief:
        confidence.of_steps(run, feed, towers.of_this_machine(strategy))


def solve_head(run: Run, state: State, feed: Feed, strategy, conduct: Conduct, team: Team = ALONE) -> None:
    """One step, to the head that fits best; a signal on the way waits for it. On one machine, always."""
    validate = validation.function(state, feed, strategy, run.labels, team)
    features, labels = feed.kept.rows['features'], feed.kept.rows['label']
    with signals.deferred() as stop, Progress('Training', 1, 'step') as progress:
        journal = Journal(run, state, feed, progress, conduct.log_every_steps, conduct.histograms, team)
        head = regression.fit(
            features, labels, len(run.labels), run.recipe.seed, label_smoothing=run.recipe.label_smoothing,
            class_weights=run.recipe.weights_of_classes(run.records['per_class']),
            tell=_teller(regression.folds_asked(features, labels)))
        logits = state.model.get_layer('head').get_layer('logits')
        logits.kernel.assign(head.kernel)
        logits.bias.assign(head.bias)
        switch_off_unused(run, state)
        if state.averages:
            state.averages.start()
        state.step.assign(1)
        confidence.of_solved_head(run, features, labels, head.weight_decay)
        journal.measure(1, head.loss, validate())
        journal.save_at_last(1)
        if asked := team.stopping(stop.number):
            raise _stopped(run, 1, asked)


def _stopped(run: Run, step: int, number: int) -> Stopped:
    return Stopped(f'stopped at step {step}, which is saved in {printable(run.directory)}; '
                   'the same command goes on from there', number)


def _teller(folds: int) -> Callable[[regression.Trial], None]:
    """Prints each trial; after the first one says how long all takes, where that is worth saying."""
    is_first = True

    def tell(trial: regression.Trial) -> None:
        nonlocal is_first
        show(f'{datetime.now()}: weight decay {trial.weight_decay:.1e}, held-out loss = {trial.loss:.4f} '
             f'precision @ 1 = {trial.precision_at_1:.4f} [{trial.records} examples]')
        # Other decays begin where this one ended, and the head to all pictures where the best did; folds from nothing.
        to_come = 2 * trial.seconds + (0.6 + 0.8 * folds) * trial.seconds / trial.share
        if is_first and to_come > WORTH_SAYING:
            say(f'The head takes about {duration(to_come)} more.')
        is_first = False

    return tell


def training_step(
    network, state: State, recipe: Recipe, strategy, per_class: list[int], jit_compile: bool
) -> Callable:
    """A function batch -> loss that does one update of `network` on all towers."""
    variables = [variable for _, group in state.groups for variable in group]
    kernels = [variable for variable in variables if 'kernel' in variable.name]
    weights = (1.0, recipe.aux_weight) if state.auxiliary else (1.0,)
    class_weights = recipe.weights_of_classes(per_class)
    count = strategy.num_replicas_in_sync

    def loss_of(logits, batch):
        def of(labels):
            return cross_entropy(logits, labels, recipe.label_smoothing, per_class, class_weights)

        if 'other' not in batch:
            return of(batch['label'])
        return batch['share'] * of(batch['label']) + (1 - batch['share']) * of(batch['other'])

    @tf.function(jit_compile=jit_compile)
    def gradients(batch):
        """This tower's part of the whole batch's loss, and its gradients: summed over the towers they are whole."""
        with tf.GradientTape() as tape:
            answers = classifier.training_logits(network, batch['image'], state.auxiliary)
            losses = [weight * loss_of(logits, batch) for weight, logits in zip(weights, answers, strict=True)]
            loss = tf.reduce_sum(losses) / recipe.batch_size
            if recipe.weight_decay_in_loss:
                penalty = tf.add_n([tf.nn.l2_loss(kernel.value) for kernel in kernels])
                loss += recipe.weight_decay_in_loss * penalty / count
        return loss, tape.gradient(loss, [variable.value for variable in variables])

    def tower(batch):
        loss, grads = gradients({name: value for name, value in batch.items() if name != 'filename'})
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


def cross_entropy(
    logits, labels, smoothing: float, per_class: list[int], class_weights: Sequence[float] | None = None
):
    """Of each picture, in nats [b]. Smoothing spreads over the classes that occur, never over an unused background."""
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if smoothing:
        occurring = tf.constant([count > 0 for count in per_class])
        spread = -tf.reduce_mean(tf.boolean_mask(tf.nn.log_softmax(logits), occurring, axis=1), axis=1)
        losses = (1 - smoothing) * losses + smoothing * spread
    return losses if class_weights is None else losses * tf.gather(tf.constant(class_weights), labels)


def clipped(grads: list, norm: float, count: int) -> list:
    """Gradients of one tower whose sum over `count` towers has at most this global norm."""
    summed = tf.distribute.get_replica_context().all_reduce('SUM', grads)
    return [gradient / count for gradient in tf.clip_by_global_norm(summed, norm)[0]]
