"""What a run keeps while it trains: lines, metrics.csv, TensorBoard summaries, checkpoints, the best one.

Nothing in here is a meeting of machines: the chief has a Journal, the others a Listener, which keeps nothing.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from datetime import datetime

from finetune.console.errors import Diverged, Error
from finetune.console.lazy import tf
from finetune.console.teams import ALONE, Team
from finetune.console.terminal import Progress, printable, say, show, warn
from finetune.runs.history import MetricsFile
from finetune.runs.recipe import Recipe
from finetune.runs.run import Run
from finetune.runs.state import State
from finetune.runs.summaries import Summaries
from finetune.training import histograms
from finetune.training.feeds import Feed
from finetune.training.validation import Scores

MUCH_WAITING = 0.5  # Share of the time.
STEPS_TO_WARM_UP = 20
SECONDS_BETWEEN_SAVES = 10  # At ends of epochs that take less: saving must not take longer than training.


class Journal:
    """Called by the training loop after every step; `measure` and `save` when it is time to."""

    def __init__(
        self, run: Run, state: State, feed: Feed, progress: Progress, log_every_steps: int,
        shows_histograms: bool = False, team: Team = ALONE,
    ):
        self.run, self.state, self.feed, self.progress, self.team = run, state, feed, progress, team
        self.recipe, self.log_every_steps = run.recipe, log_every_steps
        self.summaries = Summaries(run.directory)
        self._zeros_of = histograms.zeros_behind_relus(feed.network) if shows_histograms else None
        self._shown = None  # The pictures whose zeros are counted.
        self.table = MetricsFile(run.directory / 'metrics.csv')
        self.table.forget_after(int(state.step.numpy()))
        self._lap = self._saved = time.monotonic()
        self._lap_step = self._saved_step = self._first_step = int(state.step.numpy())
        self._examples_per_sec = 0.0
        self._waited = 0.0  # Seconds for pictures, since the last line.
        self._spoke_of_waiting = False
        self._measured = True  # Since patience was last asked; a run that goes on may have ended before.
        self._best = self._best_that_is_there()
        if self._best and self.recipe.keep_best and self.run.best_step != self._best[1]:
            self.run.keep_as_best(self._best[1])  # A kill came between the row and the link.
        if self.recipe.patience and not feed.validation:
            warn('--patience is not used: there are no validation pictures')

    def next_batch(self, batch_iterator):
        """The next batch, and how long it took to come."""
        asked = time.monotonic()
        batch = next(batch_iterator)
        self._waited += time.monotonic() - asked
        return batch

    def steps_to_next_line(self, step: int) -> int:
        """How many steps there are from `step` to the next one that is logged, measured or the last."""
        logged = step - step % self.log_every_steps + self.log_every_steps
        measured = math.ceil((self._epochs(step) + 1) * self.feed.records / self.recipe.batch_size)
        return min(logged, measured, self.recipe.max_steps) - step

    def steps_done(self, step: int, steps: int, loss) -> None:
        """`step` is the last of `steps` new ones, `loss` its loss."""
        self.progress.advance(steps, self._note())
        if step % self.log_every_steps == 0:
            loss = self.finite(step, loss)
            now = time.monotonic()
            steps, seconds = step - self._lap_step, now - self._lap
            self._lap, self._lap_step = now, step
            self._examples_per_sec = steps * self.recipe.batch_size / seconds
            self._tell_of_waiting(step, self._waited / seconds)
            self._waited = 0.0
            show(f'{datetime.now()}: step {step}, loss = {loss:.2f} '
                 f'({self._examples_per_sec:.1f} examples/sec; {seconds / steps:.3f} sec/batch)')
            self._draw_curves(step, {'loss': loss, 'learning_rate': self._learning_rate()})

    def _tell_of_waiting(self, step: int, share: float) -> None:
        """Once, where the pictures come too slowly; the first steps always wait for them.

        Not on a GPU: there we run ahead of the device and wait for pictures that it does not need yet.
        """
        warming_up = step - self._first_step < STEPS_TO_WARM_UP
        if share < MUCH_WAITING or self._spoke_of_waiting or warming_up or tf.config.list_physical_devices('GPU'):
            return
        self._spoke_of_waiting = True
        if self.feed.from_features:
            say(f'Input is the bottleneck: {share:.0%} of the time goes into reading kept features. '
                'A --feature_dir on a faster disk helps, or fewer --views.')
            return
        say(f'Input is the bottleneck: {share:.0%} of the time goes into waiting for pictures. '
            'Records built with --short_side are read faster; --num_preprocess_threads sets how many threads decode.')

    def epoch_ends(self, step: int) -> bool:
        return self._epochs(step) > self._epochs(step - 1)

    def measure(self, step: int, loss, scores: Scores | None) -> None:
        """Writes the figures down, and keeps the checkpoint if it is the best."""
        self._measured = True
        epoch = self._epochs(step) if self.epoch_ends(step) else round(self._times_seen(step))
        row = {'step': step, 'epoch': epoch, 'loss': f'{self.finite(step, loss):.6g}'}
        if self.state.groups:
            row |= {'learning_rate': f'{self._learning_rate():.6g}',
                    'examples_per_sec': f'{self._examples_per_sec:.1f}'}
        if scores:
            row |= {'validation_loss': f'{scores.loss:.6g}',
                    'validation_precision_at_1': f'{scores.precision_at_1:.6f}',
                    'validation_recall_at_5': f'{scores.recall_at_5:.6f}'}
            self._draw_curves(step, {'Precision @ 1': scores.precision_at_1, 'Recall @ 5': scores.recall_at_5,
                                     'validation_loss': scores.loss})
        precision = scores and round(scores.precision_at_1, 6)
        is_best = scores and (self._best is None or precision > self._best[0])
        with self._on_any_disk(step):
            self.table.append(row)  # Before the checkpoint: rows after the last one are dropped when a run goes on.
        is_over = self.epoch_ends(step) or self._is_nearest_end(step, epoch)
        is_kept = is_over and self.recipe.keep_every_epochs and epoch % self.recipe.keep_every_epochs == 0
        if is_best or is_kept or self.seconds_since_save() > SECONDS_BETWEEN_SAVES:
            self.save(step)
        with self._on_any_disk(step):
            if is_kept:
                self.run.keep(step)
            if is_best and self.recipe.keep_best:
                self.run.keep_as_best(step)
        if is_best and self.run.best_step in (step, None):  # Else it could not be saved, and is nobody's best.
            self._best = precision, step
        if scores:
            show(f'{datetime.now()}: step {step}, epoch {epoch}, validation precision @ 1 = '
                 f'{scores.precision_at_1:.4f} recall @ 5 = {scores.recall_at_5:.4f} [{scores.records} examples]'
                 f'{self._compared(step)}')
        if self._zeros_of and self.summaries:
            self._draw_histograms(step)
        self._lap, self._lap_step = time.monotonic(), step  # Measuring does not count as training time.
        self._waited = 0.0

    def save(self, step: int) -> None:
        if step == self._saved_step:
            return
        if not self.state.is_finite():
            raise self._diverged(step, 'the weights are')
        self._saved = time.monotonic()
        with self._on_any_disk(step):
            self.run.save(self.state)
            self._saved_step = step
            self.team.saved(step)

    def save_at_last(self, step: int) -> None:
        """There is no later occasion: raises Error where the disk is still full."""
        self.save(step)
        if step == self._saved_step:
            return
        kept = self.run.steps()
        newest = f'the newest checkpoint is step {kept[-1]}' if kept else 'there is no checkpoint'
        raise Error(f'step {step} could not be saved in {printable(self.run.directory)}; {newest}. Make room; the same '
                    'command goes on from there.')

    @contextlib.contextmanager
    def _on_any_disk(self, step: int) -> Iterator[None]:
        """A disk that is full does not end the training: it goes on, and tries again at the next occasion."""
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            warn(f'step {step} could not be saved ({_reason(error)}); training goes on and tries again later')

    def _draw_curves(self, step: int, values: dict[str, float]) -> None:
        self._draw(step, lambda summaries: summaries.scalars(step, values))

    def _draw_histograms(self, step: int) -> None:
        """Of what trains, and of the pictures that validate first, or else train first."""
        if self._shown is None:
            self._shown = next(iter(self.feed.validation or self.feed.training(0)))['image']
        zeros = self._zeros_of(self._shown)
        variables = [*self.state.model.trainable_variables]
        if self.state.auxiliary:
            variables += self.state.auxiliary.head.trainable_variables
        self._draw(step, lambda summaries: histograms.write(summaries, step, variables, zeros))

    def _draw(self, step: int, write: Callable[[Summaries], None]) -> None:
        """What TensorBoard shows is not worth a training: where the disk is full it ends, which is told once."""
        if not self.summaries:
            return
        try:
            write(self.summaries)
        except (OSError, tf.errors.OpError) as error:
            self.summaries = None
            warn(f'the curves for TensorBoard end at step {step} ({_reason(error)}); training goes on')

    def seconds_since_save(self) -> float:
        return time.monotonic() - self._saved

    def patience_is_over(self) -> bool:
        patience = self.recipe.patience
        if not patience or not self._measured:
            return False
        self._measured = False
        if self._best is None or sum(int(row['step']) > self._best[1] for row in self._validated()) < patience:
            return False
        say(f'No better precision@1 for {patience} epochs (--patience): ending early.')
        return True

    def _note(self) -> str:
        return f'{self._examples_per_sec:.0f} examples/s' + (f', best {self._best[0]:.4f}' if self._best else '')

    def _compared(self, step: int) -> str:
        if not self._best:
            return ' (not saved)'
        precision, best_step = self._best
        return ' (best so far)' if best_step == step else f' (best: {precision:.4f} at step {best_step})'

    def _epochs(self, step: int) -> int:
        return int(self._times_seen(step))

    def _times_seen(self, step: int) -> float:
        """Every picture, on average; by a head that is solved for, at once."""
        return times_seen(step, self.recipe, self.feed) if self.state.groups else float(step)

    def _is_nearest_end(self, step: int, epoch: int) -> bool:
        """Whether no other step ends closer to the end of this epoch, as the last of a training may."""
        return abs(self._times_seen(step) - epoch) * self.feed.records <= self.recipe.batch_size / 2

    def _learning_rate(self) -> float:
        """Of the head; not a number where it is solved for at once."""
        return float(self.state.groups[0][0].learning_rate) if self.state.groups else math.nan

    def _validated(self) -> list[dict]:
        return [row for row in self.table.rows() if row['validation_precision_at_1']]

    def _best_that_is_there(self) -> tuple[float, int] | None:
        """(precision@1, step) of the best measurement with a checkpoint, the earliest of equals."""
        there = {*self.run.steps(), self.run.best_step}
        measured = ((float(row['validation_precision_at_1']), int(row['step'])) for row in self._validated())
        return max((one for one in measured if one[1] in there), key=lambda one: (one[0], -one[1]), default=None)

    def finite(self, step: int, loss) -> float:
        """The loss, if it is; else the training has diverged."""
        loss = float(loss)  # Waits for the device; only when we log or save.
        if not math.isfinite(loss):
            raise self._diverged(step, f'the loss ({loss}) is')
        return loss

    def _diverged(self, step: int, what: str) -> Diverged:
        kept = self.run.steps()
        last = f'the last finite checkpoint is step {kept[-1]}' if kept else 'no checkpoint was written yet'
        return Diverged(f'training diverged: at step {step} {what} not finite '
                        f'(learning rate {self._learning_rate():g}); {last} '
                        f'in {printable(self.run.directory)}. Start again in another --train_dir, '
                        'with a lower --initial_learning_rate.')


class Listener:
    """The journal of a machine that writes nothing: the chief's says it all."""

    def __init__(self, recipe: Recipe, feed: Feed, progress: Progress):
        self.recipe, self.feed, self.progress = recipe, feed, progress

    def next_batch(self, batch_iterator):
        return next(batch_iterator)

    def epoch_ends(self, step: int) -> bool:
        return int(times_seen(step, self.recipe, self.feed)) > int(times_seen(step - 1, self.recipe, self.feed))

    def steps_done(self, step: int, steps: int, loss) -> None:
        if self.progress.is_live:  # Lines of all machines often end in one file.
            self.progress.advance(steps)

    def finite(self, step: int, loss):
        return loss

    def measure(self, step: int, loss, scores: Scores | None) -> None:
        pass

    def seconds_since_save(self) -> float:
        return 0.0

    def save(self, step: int) -> None:
        pass

    def save_at_last(self, step: int) -> None:
        pass

    def patience_is_over(self) -> bool:
        return False


def times_seen(step: int, recipe: Recipe, feed: Feed) -> float:
    """How often every picture was, on average."""
    return step * recipe.batch_size / feed.records


def _reason(error: Exception) -> str:
    """TensorFlow puts the names of operations and files before it."""
    return printable(str(error).partition('\n')[0].rpartition('; ')[2])[:200]
