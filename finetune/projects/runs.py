"""The runs of a project: each trained to its end once, and none that there is no time for."""

import math
import shutil
import time
from pathlib import Path

from finetune.console.terminal import duration, say
from finetune.projects import pace
from finetune.projects.plans import Plan
from finetune.projects.project import Project
from finetune.records.dataset import Records
from finetune.runs.run import Run
from finetune.training import train as training
from finetune.training.loop import Conduct


def trained(project: Project, planned: Plan, data: Records, strategy, conduct: Conduct) -> Run:
    """The run of this plan, to its end; one that stands there with another recipe begins anew."""
    directory, started = project.directory / planned.name, time.monotonic()
    recipe, spent = project.memory.get('runs', {}).get(planned.name, ({}, 0.0))
    if not _goes_on(directory, recipe, planned):
        shutil.rmtree(directory, ignore_errors=True)
        recipe, spent = planned.recipe, 0.0
        project.remember_run(planned.name, recipe, spent)
    try:
        return training.train(directory, data, recipe, strategy, conduct)
    finally:
        project.remember_run(planned.name, recipe, spent + time.monotonic() - started)


def _goes_on(directory: Path, recipe: dict, planned: Plan) -> bool:
    """Whether the run there is that of the plan; of one that was stopped, the time that is left now changes no end."""
    if recipe == planned.recipe:
        return True
    is_same = {**recipe, 'epochs': 0} == {**planned.recipe, 'epochs': 0}
    if not is_same or not Run.exists(directory):
        return False
    run = Run(directory)
    return max(run.steps(), default=0) < run.recipe.max_steps


def that_fits(project: Project, planned: Plan, data: Records, image_size: int, deadline: float) -> Plan | None:
    """The plan, or what of it there is time for; says what is left out."""
    if 'validation' not in data.splits:
        say(f'Left out: {planned.says}: no validation pictures could say whether it is better than the head.')
        return None
    if deadline == math.inf:
        return planned
    left = deadline - time.monotonic()
    size = planned.recipe.get('image_size', image_size)
    fitting = pace.that_fits(
        planned, left, data.split('train').records, project.memory.get('pass_seconds', pace.PASS_SECONDS),
        (size / image_size) ** 2)
    minutes = f'{duration(max(left, 0))} of --minutes are left'
    if fitting is None:
        say(f'Left out: {planned.says}: {minutes}, and it takes longer.')
    elif fitting.epochs < planned.epochs:
        say(f'{planned.says.capitalize()}: {minutes}, enough for {fitting.epochs:g} of {planned.epochs:g} epochs.')
    return fitting
