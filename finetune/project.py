"""`finetune PHOTOS`, no verb at all: a folder of pictures -> a project: a model, how far to trust it, a report.

    understand → build → check → head → last blocks → evaluate → report

Each is done once, and again where pictures changed.
"""

import hashlib
import json
import math
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from finetune.building import identity, plan
from finetune.building import options as building_options
from finetune.building.understanding import Understood, understand
from finetune.checking import judgement
from finetune.console import command
from finetune.console.errors import Error, Stopped, UsageError
from finetune.console.terminal import printable, say, say_next, warn
from finetune.models import engines, packages
from finetune.projects import pictures, plans, worth
from finetune.projects import runs as project_runs
from finetune.projects.plans import Plan
from finetune.projects.project import Project
from finetune.projects.worth import Outcome
from finetune.records.dataset import Records
from finetune.reporting import report, sentences
from finetune.reporting.contents import Candidate, Contents
from finetune.runs import recipe as recipes
from finetune.runs.history import MetricsFile
from finetune.training import pretrained, towers
from finetune.training.loop import Conduct

LOG_EVERY_STEPS = 50
NO_PART_OF_THE_RESULT = {'output', 'given', 'arguments', 'num_threads', 'num_preprocess_threads'}

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
FLAGS.leave_out('subset', 'fine_tune', 'freeze_backbone')
FLAGS.group('device')
FLAGS.integer('num_gpus', None, 'towers that share each batch (default: all GPUs, or one CPU)', least=1)
FLAGS.choice('engine', None, engines.ENGINES, engines.HELP)
FLAGS.integer('num_preprocess_threads', None, 'threads that decode (default: chosen while running)', least=1)


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(FLAGS, make, argv)


def make(flags: SimpleNamespace) -> None:
    """Understands what was named, and does what is left to be done."""
    started = time.monotonic()
    photos = _check_usage(flags)
    project = Project.of(photos, flags.output)
    with project.locked():
        understood = understand(
            photos, project.unpacked, flags.labels_csv, recursive=flags.recursive,
            follow_symlinks=not flags.no_symlinks, max_bytes=flags.max_bytes)
        options = pictures.build_options(flags, understood, project)
        if project.memory.get('done') == _asked(flags, options):
            say(f'Nothing has changed since {project.memory["time"]}.')
        else:
            _introduce(photos, understood, project, flags)
            _carry_out(project, flags, options, started)
        _conclude(project)


def _carry_out(project: Project, flags: SimpleNamespace, options: SimpleNamespace, started: float) -> None:
    """The steps, in their order."""
    deadline = started + 60 * flags.minutes if flags.minutes else math.inf
    typed = {'pretrained': 'imagenet'} | {name: getattr(flags, name) for name in recipes.FIELDS if name in flags.given}
    head = plans.head(typed)
    _find_weights(head)
    strategy = towers.strategy(flags.num_gpus)
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
    number = worth.of_head(runs[0], data, seen, features)
    print(f'The head is {worth.in_words(number)}.', flush=True)
    recipe, failed = runs[0].recipe, False
    for planned in plans.after_the_head(
            flags.effort, typed, recipe, str(runs[0].directory), data.split('train').records):
        fitting = project_runs.that_fits(project, planned, data, recipe.image_size, deadline)
        if fitting:
            _heading(fitting.says.capitalize())
            try:
                runs.append(project_runs.trained(project, fitting, data, strategy, conduct))
            except Stopped:
                raise
            except Error as error:  # A full disk, a loss that is not finite: the head is there all the same.
                warn(f'{fitting.says} could not be trained: {error}')
                failed = True

    _heading('Evaluation')
    outcome = worth.evaluated(runs, number, data, conduct.engine, conduct.threads, strategy)
    contents = _contents(project, data, checked, outcome)
    report.write(project.report, contents)
    project.choose(outcome.winner.run.directory.name)
    project.remember(done=None if failed else _asked(flags, options), time=time.strftime('%Y-%m-%d %H:%M'),
                     summary=[sentences.how_good(contents), sentences.first(contents)])


# Before ---------------------------------------------------------------------------------------------------------------


def _check_usage(flags: SimpleNamespace) -> str:
    if len(flags.arguments) != 1:
        raise UsageError(f'one folder of pictures is expected, and {len(flags.arguments)} were named: '
                         '`finetune PHOTOS`')
    return command.expanded(flags.arguments[0])


def _asked(flags: SimpleNamespace, options: SimpleNamespace) -> str:
    """All that decides what comes out, so that nothing is done twice."""
    values = {name: str(value) for name, value in sorted(vars(flags).items()) if name not in NO_PART_OF_THE_RESULT}
    weights = Path(flags.pretrained) if flags.pretrained else None
    state = [weights.stat().st_size, weights.stat().st_mtime_ns] if weights and weights.is_file() else []
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


def _find_weights(head: Plan) -> None:
    """Now, rather than after the work that they are needed for."""
    if head.recipe['pretrained'] == 'imagenet':
        recipe = recipes.plan(head.recipe, pretrained.network(head.recipe), train_records=1)
        say(f'First weights: imagenet, of {recipe.model} (--pretrained --model), '
            + ('from its installed package' if recipe.model in packages.PACKAGES else
               'which Keras fetches into ~/.keras/models where they are not there (9 MB for mobilenet_v2)'))
        pretrained.read(recipe)


def _heading(text: str) -> None:
    say(f'\n{text}\n{"-" * len(text)}')


# After ----------------------------------------------------------------------------------------------------------------


def _contents(project: Project, data: Records, checked: judgement.Checked, outcome: Outcome) -> Contents:
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
        commands=[' '.join(map(shlex.quote, ['finetune', *sys.argv[1:]]))],
        history=MetricsFile(run.directory / 'metrics.csv').rows())


def _conclude(project: Project) -> None:
    """How good it is, what to look at, what to do next."""
    how_good, first = project.memory['summary']
    print(f'\n{how_good}\n{first} The report: {printable(project.report)}', flush=True)
    say_next('finetune', 'predict', f'--checkpoint_dir={project.directory}', 'photo.jpg', 'folder/')


if __name__ == '__main__':
    raise SystemExit(main())
