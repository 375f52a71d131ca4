"""What a training changes: the model, its optimizers, its averages, the step."""

from collections.abc import Sequence

from finetune.console.lazy import tf
from finetune.models import classifier
from finetune.models.averages import Averages
from finetune.runs import recipe as recipes


def build_model(recipe: recipes.Recipe, classes: int, strategy=None):
    """The recipe's classifier with random weights on all towers, frozen where the recipe says so."""
    classifier.start_afresh(recipe.seed, recipe.mixed_precision)
    with (strategy or tf.distribute.get_strategy()).scope():
        model = classifier.build(
            recipe.model, classes, image_size=recipe.image_size, width=recipe.width, dropout=recipe.dropout,
            batch_norm_trains=recipe.batch_norm == 'train', batch_norm_momentum=recipe.batch_norm_momentum,
            feature_layers=tuple(filter(None, recipe.feature_layers.split(','))), seed=recipe.seed)
    if recipe.freeze_backbone:
        model.get_layer('backbone').trainable = False
    elif recipe.trainable_from:
        classifier.freeze_before(model, recipe.trainable_from)
    return model


class State:
    """Everything that a training step reads and writes, saved and restored whole.

    Keras leaves the seeds of dropout out of its own weight files; here they are variables like all others.
    """

    def __init__(
        self, model, groups: Sequence[tuple] = (), averages: Averages | None = None,
        auxiliary: classifier.Auxiliary | None = None,
    ):
        """`groups` holds (optimizer, the variables it updates)."""
        self.model, self.groups, self.averages, self.auxiliary = model, groups, averages, auxiliary
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name='step')

    def all(self) -> 'tf.train.Checkpoint':
        parts = {f'optimizer_{i}': [v.value for v in optimizer.variables]
                 for i, (optimizer, _) in enumerate(self.groups)}
        if self.auxiliary:
            parts['auxiliary'] = {v.path: v.value for v in self.auxiliary.head.variables}
        return tf.train.Checkpoint(**self._weights(averages=True), **parts)

    def variables(self) -> list:
        """All of these, in an order that the recipe alone decides."""
        return [
            self.step, *(v.value for v in self.model.variables),
            *(v.value for optimizer, _ in self.groups for v in optimizer.variables),
            *(self.averages.averages if self.averages else ()),
            *((v.value for v in self.auxiliary.head.variables) if self.auxiliary else ())]

    def weights(self, averages: bool) -> 'tf.train.Checkpoint':
        """Without optimizer and auxiliary head: what evaluation and prediction read."""
        return tf.train.Checkpoint(**self._weights(averages))

    def _weights(self, averages: bool) -> dict:
        parts = {'step': self.step, 'model': {v.path: v.value for v in self.model.variables}}
        if averages and self.averages:
            parts['averages'] = dict(zip((w.path for w in self.averages.weights), self.averages.averages, strict=True))
        return parts

    def is_finite(self) -> bool:
        return all(bool(tf.reduce_all(tf.math.is_finite(v.value))) for v in self.model.variables
                   if v.dtype.startswith('float'))
