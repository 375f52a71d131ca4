"""`finetune check`: pictures or records -> findings about the data, before anything but a head is trained."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from finetune.building.understanding import understand
from finetune.checking import findings, judgement
from finetune.console import command, files
from finetune.console.errors import UsageError
from finetune.console.terminal import count, printable, say, show
from finetune.evaluation import metrics
from finetune.models import engines
from finetune.projects import pictures
from finetune.projects.project import Project
from finetune.records import dataset
from finetune.records.dataset import Records
from finetune.runs import recipe as recipes
from finetune.training import feeds, pretrained

REQUIRABLE = dict.fromkeys(findings.figures([]), math.inf)

FLAGS = command.Flags(
    'finetune check PHOTOS|RECORDS [--pretrained=WEIGHTS] [flags]',
    'Looks for what harms a training, and changes nothing: the same picture twice, above all in two splits or two '
    'classes, probable label errors, odd pictures, shortcuts, classes too small; and says what more pictures would '
    'bring.')
FLAGS.group('what')
FLAGS.path('data_dir', None, 'records directory, the --output_directory of `finetune build`; it may also stand alone')
FLAGS.path('output', None, 'of PHOTOS: directory of the project, which `finetune PHOTOS` goes on with (default: '
           'checkpoints/NAME of PHOTOS)')
FLAGS.switch('verify', False, 'compare the sha256 of every shard with dataset.json first')
recipes.add_flags(FLAGS, ('model', 'width', 'image_size', 'crop_fraction', 'feature_layers', 'pretrained'))
FLAGS.group('results')
FLAGS.path('check_dir', None, 'directory of findings.csv and findings.json (default: check in the records or in '
           'the project)')
FLAGS.path('feature_dir', None, 'where the features are kept that `finetune train --freeze_backbone` uses too '
           '(default: features in the records or in the project)')
FLAGS.string('require', '', 'counts to keep to, say "duplicates=0,leaks=0"; else the exit code is 3. There are '
             f'{", ".join(REQUIRABLE)}')
FLAGS.switch('json', False, 'print findings.json, on one line, instead of lines')
FLAGS.group('device')
FLAGS.choice('engine', None, engines.ENGINES, engines.HELP)
FLAGS.integer('num_preprocess_threads', None, 'threads that decode (default: chosen while running)', least=1)


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(FLAGS, check, argv)


def check(flags: SimpleNamespace) -> dict:
    """Looks at every picture, at the features of every picture, and at both together; returns findings.json."""
    required, place = _check_usage(flags)
    if (Path(place) / dataset.MANIFEST).exists():
        return _look(flags, required, Path(place), Path(place) / judgement.DIRECTORY, Path(place) / 'features')
    project = Project.of(place, flags.output)
    with project.locked(place):
        told = pictures.as_before(project)
        understood = understand(place, project.unpacked, told.labels_csv, recursive=told.recursive,
                                follow_symlinks=not told.no_symlinks, max_bytes=told.max_bytes)
        for line in understood.lines:
            say(line)
        pictures.built(project, pictures.build_options(told, understood, project))
        return _look(flags, required, project.records, project.check, project.features)


def _look(
    flags: SimpleNamespace, required: Sequence[metrics.Requirement], records: Path, check_dir: Path, feature_dir: Path
) -> dict:
    data = dataset.open_records(records)
    if flags.verify:
        dataset.verify(data)
    directory = Path(flags.check_dir or check_dir)
    files.prepare(directory, 'the findings are written there', '--check_dir')
    recipe = _recipe(flags, data)
    kept_in = Path(flags.feature_dir or feature_dir)
    engine = engines.choose_for_features(flags.engine)
    features = feeds.pooled(recipe, data, kept_in, engine, flags.num_preprocess_threads)
    seen = judgement.look(data, flags.num_preprocess_threads, directory)
    say(f'Comparing {count(len(seen.labels), "picture")}')
    checked = judgement.judge(seen, features, recipe.image_size, judgement.is_shrunk(data), recipe.seed)
    found = _tell(flags, directory, data, recipe, checked, required)
    metrics.check(required, checked.figures)
    return found


def _check_usage(flags: SimpleNamespace) -> tuple[list[metrics.Requirement], str]:
    given = [*flags.arguments, *([flags.data_dir] if flags.data_dir else [])]
    if len(given) != 1:
        raise UsageError('finetune check takes one folder of pictures, or of the records that a build made of some'
                         + (f'; {len(given)} were given' if given else ''))
    required = metrics.requirements(flags.require, REQUIRABLE, metrics.OF_COUNTS, 'duplicates=0,leaks=0')
    return required, command.expanded(given[0])


def _recipe(flags: SimpleNamespace, data: Records) -> recipes.Recipe:
    """That of a head on kept features, so that both share them."""
    typed = {name: getattr(flags, name) for name in recipes.FIELDS if name in flags.given}
    typed = {'pretrained': 'sample'} | typed | {'fine_tune': True, 'freeze_backbone': True}
    first = next(iter(data.splits.values()))
    return recipes.plan(typed, pretrained.network(typed), first.records)


def _tell(
    flags: SimpleNamespace, directory: Path, data: Records, recipe: recipes.Recipe, checked: judgement.Checked,
    required: Sequence[metrics.Requirement],
) -> dict:
    found = judgement.as_json(checked, data, recipe, required)
    try:
        written = judgement.write(directory, checked, found)
    finally:  # They are written although nobody reads them, and shown although the disk is full.
        show(json.dumps(found) if flags.json else judgement.as_text(checked))
    say(f'Wrote {", ".join(map(printable, written))}')
    return found


if __name__ == '__main__':
    raise SystemExit(main())
