"""How long things take here, by what was measured here, and what there is time for."""

from finetune.projects.plans import FEWEST_EPOCHS, Plan
from finetune.runs.recipe import Recipe

# How long a step takes a picture, and how long the frozen layers take a view of it, in passes of one picture through
# the whole frozen network: measured of MobileNetV2 with 64 pictures a step.
STEP, PASS_OF_VIEW = 0.6, 0.8
PASS_SECONDS = 0.01  # Where nothing was measured.
AT_THE_END_SECONDS = 20.0  # For evaluation and report.


def name_of(recipe: Recipe) -> str:
    """What a measured time belongs to."""
    return f'{recipe.model} {recipe.width:g} {recipe.image_size}'


def seconds_of(plan: Plan, pictures: int, pass_seconds: float, size_factor: float = 1.0) -> float:
    """That a plan takes; `size_factor` is the area of its pictures as a multiple of those that were measured."""
    return pictures * pass_seconds * size_factor * (plan.views * PASS_OF_VIEW + plan.epochs * STEP)


def that_fits(
    plan: Plan, seconds_left: float, pictures: int, pass_seconds: float, size_factor: float = 1.0
) -> Plan | None:
    """The plan, or the same of fewer epochs, that ends in time; None where no such one is worth it."""
    for epochs in range(int(plan.epochs), FEWEST_EPOCHS - 1, -1):
        shorter = plan.shortened(epochs)
        if seconds_of(shorter, pictures, pass_seconds, size_factor) <= seconds_left - AT_THE_END_SECONDS:
            return shorter
    return None
