"""What each effort trains, one run after the other: the head, then more of the network where that may be better."""

import dataclasses

from finetune.models import zoo
from finetune.runs import recipe as recipes

EFFORTS = ('quick', 'good', 'best')
# Flags that mean nothing to a head on kept features.
OF_BLOCKS = ('trainable_from', 'views', 'mirrored_view', *recipes.OF_DISTORTION)
FEWEST_EPOCHS = 2  # Fewer are not worth their features.


@dataclasses.dataclass(frozen=True)
class Plan:
    """One run of a project."""

    name: str  # Of its directory.
    says: str  # What trains, in words.
    recipe: dict  # Of its fields those that are decided, as `recipes.plan` takes them.

    @property
    def epochs(self) -> float:
        return self.recipe.get('epochs', 0)

    @property
    def views(self) -> int:
        return self.recipe.get('views', 1)

    def shortened(self, epochs: int) -> 'Plan':
        return dataclasses.replace(self, recipe=self.recipe | {'epochs': float(epochs)})


HEAD = {'fine_tune': True, 'freeze_backbone': True}
BLOCKS = {  # Measured: docs/results.md. The last epoch is taken, not the best: so no choice flatters its figures.
    'optimizer': 'adamw', 'initial_learning_rate': 0.001, 'learning_rate_schedule': 'cosine', 'warmup_epochs': 0.3,
    'batch_size': 64, 'epochs': 6.0, 'weight_decay': 0.01, 'moving_average_decay': 0.99, 'gradient_clip': 1.0,
    'views': 4, 'keep_best': False,
}
FEW_RECORDS = 1500  # Below which steps of BLOCKS are too few and too long: they undo the head before they mend it.
OF_FEW = {'batch_size': 16, 'initial_learning_rate': 0.0003}


def head(typed: dict) -> Plan:
    """Flags of steps are for what comes after it: it is solved for at once."""
    not_its = {*recipes.STEPS_ALONE, *OF_BLOCKS, 'optimizer', 'mixed_precision'}
    its = {name: value for name, value in typed.items() if name not in not_its}
    if 'trainable_from' in typed and typed.get('pretrained') == 'imagenet':
        its = {'model': recipes.NETWORK} | its  # Another that happens to be installed would have other blocks.
    return Plan('head', 'the head', its | HEAD)


def after_the_head(
    effort: str, typed: dict, head: recipes.Recipe, head_directory: str, train_records: int, towers: int = 1
) -> list[Plan]:
    """`typed` wins over what is usual. Empty where the network has no last blocks to name."""
    first = typed.get('trainable_from') or zoo.find(head.model).last_blocks
    if effort == 'quick' or not first:
        return []
    usual = BLOCKS | (OF_FEW if train_records < FEW_RECORDS else {})
    usual['batch_size'] = max(usual['batch_size'] // towers, 1) * towers
    if recipes.flips(typed) and typed.get('views', usual['views']) > 1:
        usual['mirrored_view'] = True
    if 'max_steps' in typed:
        del usual['epochs']
    blocks = usual | typed | {'pretrained': head_directory, 'trainable_from': first}
    plans = [Plan('last_blocks', f'the last blocks, from {first} on', blocks)]
    if effort == 'best':
        longer = {} if 'max_steps' in typed else {'epochs': 12.0}
        larger = {'image_size': _larger(head.image_size), 'views': 6} | longer | typed
        plans.append(Plan('larger_pictures', f'the last blocks on pictures of {larger["image_size"]} pixels',
                          blocks | larger | {'pretrained': head_directory}))
    return plans


def _larger(image_size: int) -> int:
    """A quarter more, in steps of 32, by which networks halve their pictures."""
    return round(image_size * 1.25 / 32) * 32
