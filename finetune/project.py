"""`finetune PHOTOS`, no verb at all: a folder of pictures -> a project: a model, how far to trust it, a report.

    understand → build → check → head → last blocks → evaluate → report

Each is done once, and again where pictures changed.
"""

import hashlib
import json
import math
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from finetune.building import identity, plan
from finetune.building import options as building_options
from finetune.building.understanding import Understood, understand
from finetune.checking import judgement
from finetune.console import command, teams
from finetune.console.errors import Error, Stopped, UsageError
from finetune.console.lazy import tf
from finetune.console.terminal import printable, say, say_next, show, warn
from finetune.models import engines, packages
from finetune.projects import pictures, plans, worth
from finetune.projects import runs as project_runs
from finetune.projects.plans import Plan
from finetune.projects.project import RUNS, Project
from finetune.projects.worth import Outcome
from finetune.records.dataset import Records
from finetune.reporting import report, sentences
from finetune.reporting.contents import Candidate, Contents
from finetune.runs import recipe as recipes
from finetune.runs.history import MetricsFile
from finetune.runs.run import Run
from finetune.training import pretrained, towers
from finetune.training.loop import Conduct

LOG_EVERY_STEPS = 50
NO_PART_OF_THE_RESULT = {'output', 'given', 'arguments', 'argv', 'num_threads', 'num_preprocess_threads'}

FLAGS = command.Flags(
    'finetune PHOTOS [--output=DIR] [--effort=quick|good|best] [--minutes=N] [flags]',
    'Does everything: looks through the pictures in PHOTOS (a folder with one folder a class, or with train, '
    'validation and test folders of that kind; a zip or tar of either), trains a classifier, says how good it is and '
    'how sure that is, and writes a report. Stop it at any time: the same command goes on, and takes in pictures that '
    'were added meanwhile.')
FLAGS.group('what')
FLAGS.path('output', None, 'directory of the project (default: checkpoints/NAME of PHOTOS)')
FLAGS.choice('effort', 'good', plans.EFFORTS, 'the head alone; then the last blocks of the network where they are '
             'better; then those on larger pictures too')
FLAGS.number('minutes', None, 'time there is; what does not fit is left out (default: as long as it takes)', least=0.1)
building_options.add_flags(FLAGS)
FLAGS.leave_out('source', 'train_directory', 'tfds', 'tfds_dir', 'tfds_splits', 'output_directory', 'overwrite', 'seed',
                'group_near_duplicates')
recipes.add_flags(FLAGS)
FLAGS.leave_out('recipe', 'subset', 'fine_tune', 'freeze_backbone', 'feature_cache', 'keep_best', 'patience')
FLAGS.group('device')
FLAGS.integer('num_gpus', None, 'towers that share each batch (default: all GPUs, or one CPU)', least=1)
FLAGS.choice('engine', None, engines.ENGINES, engines.HELP)
FLAGS.integer('num_preprocess_threads', None, 'threads that decode (default: chosen while running)', least=1)


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(FLAGS, make, argv)


def make(flags: SimpleNamespace) -> Path:
    """Understands what was named, and does what is left to be done; returns the directory of the project."""
    started = time.monotonic()
    photos = _check_usage(flags)
    project = Project.of(photos, flags.output)
    with project.locked(photos):
        understood = understand(
            photos, project.unpacked, flags.labels_csv, recursive=flags.recursive,
            follow_symlinks=not flags.no_symlinks, max_bytes=flags.max_bytes)
        options = pictures.build_options(flags, understood, project)
        if project.memory.get('done') == _asked(flags, options) and project.is_finished():
            say(f'Nothing has changed since {project.memory["time"]}.')
        else:
            _introduce(photos, understood, project, flags)
            _carry_out(project, flags, options, started)
        _conclude(project)
    return project.directory


def _carry_out(project: Project, flags: SimpleNamespace, options: SimpleNamespace, started: float) -> None:
    """The steps, in their order."""
    project.remember(done=None)
    deadline = started + 60 * flags.minutes if flags.minutes else math.inf
    typed = {'pretrained': 'imagenet'} | {name: getattr(flags, name) for name in recipes.FIELDS if name in flags.given}
    head = plans.head(typed)
    recipe = _begun_with(project, head, flags)
    strategy = towers.strategy(flags.num_gpus)

    def after_the_head(train_records: int) -> list[Plan]:
        return plans.after_the_head(
            flags.effort, typed, recipe, str(project.directory / head.name), train_records,
            strategy.num_replicas_in_sync)

    for planned in after_the_head(plans.FEW_RECORDS):  # Now, rather than after the head: a flag may be wrong.
        recipes.plan(planned.recipe, recipe, plans.FEW_RECORDS)
    conduct = Conduct(flags.engine, flags.num_preprocess_threads, project.features, log_every_steps=LOG_EVERY_STEPS,
                      deadline=deadline)

    _heading('Records')
    data = pictures.built(project, options)
    _heading('Check')
    data, seen, features = pictures.looked_at(project, flags, options, data, head)
    checked = pictures.checked(project, data, seen, features, pictures.planned(head, data))
    pictures.forget_what_was_before(project, data)

    _heading('The head')
    runs = [project_runs.trained(project, head, data, strategy, conduct)]
    number = worth.of_head(runs[0], data, checked, features)
    show(f'The head is {worth.in_words(number)}.')
    planned = after_the_head(data.split('train').records)
    fitting = (project_runs.that_fits(project, each, data, recipe, deadline) for each in planned)
    more = [_trained_if_it_can_be(project, each, data, strategy, conduct) for each in fitting if each]
    runs += filter(None, more)

    _heading('Evaluation')
    outcome = worth.evaluated(runs, number, data, conduct.engine, conduct.threads, strategy)
    contents = _contents(project, data, checked, outcome, flags.argv)
    report.write(project.report, contents)
    project.choose(outcome.winner.run.directory.name)
    project.remember(done=_asked(flags, options) if all(more) else None, time=time.strftime('%Y-%m-%d %H:%M'),
                     summary=[sentences.how_good(contents), sentences.first(contents)])


def _trained_if_it_can_be(project: Project, planned: Plan, data: Records, strategy, conduct: Conduct) -> Run | None:
    """None where something is in the way: whatever it is, the head is there."""
    _heading(planned.says.capitalize())
    try:
        return project_runs.trained(project, planned, data, strategy, conduct)
    except Stopped:
        raise
    except (Error, OSError, tf.errors.OpError) as error:
        warn(f'{planned.says} could not be trained: {printable(str(error))}')
        return None


# Before ---------------------------------------------------------------------------------------------------------------


def _check_usage(flags: SimpleNamespace) -> str:
    if len(flags.arguments) != 1:
        raise UsageError(f'one folder of pictures is expected, and {len(flags.arguments)} were named: '
                         '`finetune PHOTOS`')
    if teams.is_asked_for():
        raise UsageError('TF_CONFIG names several machines, and a project is made by one: unset it, or use '
                         '`finetune build` here and `finetune train` on all of them.')
    return command.expanded(flags.arguments[0])


def _asked(flags: SimpleNamespace, options: SimpleNamespace) -> str:
    """All that decides what comes out, so that nothing is done twice."""
    values = {name: str(value) for name, value in sorted(vars(flags).items()) if name not in NO_PART_OF_THE_RESULT}
    state = _state_of_weights(flags.pretrained)
    return hashlib.sha256(json.dumps([identity.of(plan.make(options)), values, state]).encode()).hexdigest()


def _introduce(photos: str, understood: Understood, project: Project, flags: SimpleNamespace) -> None:
    for line in understood.lines:
        say(line)
    follows = {'quick': 'the head is trained', 'good': 'the head is trained, then the last blocks',
               'best': 'the head is trained, then the last blocks, then those on larger pictures'}[flags.effort]
    time_left = f' within {flags.minutes:g} minutes (--minutes)' if flags.minutes else ''
    say(f'The pictures are checked, {follows}{time_left} (--effort={flags.effort}); all of it goes to '
        f'{printable(project.directory)} (--output).')
    say('Ctrl-C stops it at any time; the same command goes on from there.')


def _begun_with(project: Project, head: Plan, flags: SimpleNamespace) -> recipes.Recipe:
    """The recipe of the head. Finds its weights now, rather than after the work that they are needed for."""
    recipe = recipes.plan(head.recipe, pretrained.network(head.recipe), train_records=1)
    if recipe.pretrained == 'imagenet':
        say(f'First weights: imagenet, of {recipe.model} (--pretrained --model), '
            + ('from its installed package' if recipe.model in packages.PACKAGES else
               'which Keras fetches into ~/.keras/models where they are not there (9 MB for mobilenet_v2)'))
    pretrained.read(recipe)
    weights = [recipe.model, recipe.image_size, *_state_of_weights(recipe.pretrained)]
    if project.memory.get('weights', weights) != weights:  # What began with others is of no use.
        for name in RUNS:
            project.set_aside(name)
    project.remember(weights=weights)
    return recipe


def _state_of_weights(name: str | None) -> list[str]:
    """Changes when the file does, or the run is trained further."""
    if not name or not Path(name).exists():
        return [str(name)]
    found = sorted(Path(name).glob('*.index')) if Path(name).is_dir() else [Path(name)]
    return [f'{path} {path.stat().st_size} {path.stat().st_mtime_ns}' for path in found]


def _heading(text: str) -> None:
    say(f'\n{text}\n{"-" * len(text)}')


# After ----------------------------------------------------------------------------------------------------------------


def _contents(
    project: Project, data: Records, checked: judgement.Checked, outcome: Outcome, argv: Sequence[str]
) -> Contents:
    """Of the report."""
    candidates = [
        Candidate(entry.name.replace('_', ' '), number.precision, number.interval, number.measured_on,
                  project.memory['runs'][entry.name][1], won=entry is outcome.winner)
        for entry, number in zip(outcome.entries, outcome.of_each, strict=True)]
    run = outcome.winner.run
    return Contents(
        name=project.directory.name, data=data, checked=checked, run=run, loaded=outcome.loaded,
        subset=outcome.subset, outputs=outcome.done.outputs,
        scores=outcome.done.scores, found=outcome.done.found, candidates=candidates, comparison=outcome.comparison,
        commands=[' '.join(map(shlex.quote, ['finetune', *argv]))],
        history=MetricsFile(run.directory / 'metrics.csv').rows())


def _conclude(project: Project) -> None:
    """How good it is, what to look at, what to do next."""
    how_good, first = project.memory['summary']
    show(f'\n{how_good}\n{first} The report: {printable(project.report)}')
    say_next('finetune', 'predict', f'--checkpoint_dir={project.directory}', 'photo.jpg', 'folder/')
    say_next('finetune', 'export', str(project.directory), f'--output={project.directory}_exported')


if __name__ == '__main__':
    raise SystemExit(main())
