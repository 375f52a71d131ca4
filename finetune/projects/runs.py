"""The runs of a project: each trained to its end once, and none that there is no time for."""

import dataclasses
import math
import time
from pathlib import Path

from finetune.console.terminal import duration, say
from finetune.projects import pace
from finetune.projects.plans import Plan
from finetune.projects.project import Project
from finetune.records.dataset import Records
from finetune.runs.recipe import Recipe
from finetune.runs.run import Run
from finetune.training import train as training
from finetune.training.loop import Conduct


def trained(project: Project, planned: Plan, data: Records, strategy, conduct: Conduct) -> Run:
    """The run of this plan, to its end; one that stands there with another recipe makes room for it."""
    directory, started = project.directory / planned.name, time.monotonic()
    told, spent = project.memory.get('runs', {}).get(planned.name, ({}, 0.0))
    is_cut_short = told.get('epochs', 0) < planned.epochs and _is_done(directory)
    if not _is_of(told, planned) or is_cut_short:
        project.set_aside(planned.name)
        told, spent = planned.recipe, 0.0
    recipe = planned.recipe | _length(told)
    project.remember_run(planned.name, recipe, spent)
    was_done = _is_done(directory)
    try:
        return training.train(directory, data, recipe, strategy, conduct)
    finally:
        if not was_done:
            project.remember_run(planned.name, recipe, spent + time.monotonic() - started)


def _is_of(told: dict, planned: Plan) -> bool:
    """Whether a run was told what the plan says, wherever the project lies now, and but for its length."""
    but_for = {'epochs': 0, 'pretrained': ''} if 'trainable_from' in planned.recipe else {'epochs': 0}
    return bool(told) and told | but_for == planned.recipe | but_for


def _length(told: dict) -> dict:
    """Of one that was stopped, the time that is left now changes no end."""
    return {name: told[name] for name in ('epochs',) if name in told}


def _is_done(directory: Path) -> bool:
    if not Run.exists(directory):
        return False
    run = Run(directory)
    return max(run.steps(), default=0) >= run.recipe.max_steps


def that_fits(
    project: Project, planned: Plan, data: Records, head: Recipe, deadline: float
) -> Plan | None:
    """The plan, or what of it there is time for; says what is left out."""
    if 'validation' not in data.splits:
        say(f'Left out: {planned.says}: no validation pictures could say whether it is better than the head.')
        return None
    if deadline == math.inf:
        return planned
    told, _ = project.memory.get('runs', {}).get(planned.name, ({}, 0.0))
    if _is_of(told, planned) and Run.exists(project.directory / planned.name):  # It is done, or goes on.
        return dataclasses.replace(planned, recipe=planned.recipe | _length(told))
    left = deadline - time.monotonic()
    size_factor = (planned.recipe.get('image_size', head.image_size) / head.image_size) ** 2
    measured = project.memory.get('pass_seconds', {}).get(pace.name_of(head), pace.PASS_SECONDS)
    fitting = pace.that_fits(planned, left, data.split('train').records, measured, size_factor)
    minutes = f'{duration(max(left, 0))} of --minutes are left'
    if fitting is None:
        say(f'Left out: {planned.says}: {minutes}, and it takes longer.')
    elif fitting.epochs < planned.epochs:
        say(f'{planned.says.capitalize()}: {minutes}, enough for {fitting.epochs:g} of {planned.epochs:g} epochs.')
    return fitting
