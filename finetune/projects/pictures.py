"""The pictures of a project: built, looked at, checked; each once, and again where they changed."""

import contextlib
import time
from types import SimpleNamespace

from finetune.building import account, identity, plan
from finetune.building import build as building
from finetune.building import options as building_options
from finetune.building.understanding import Understood
from finetune.checking import findings, judgement
from finetune.checking.album import Album
from finetune.console import files
from finetune.console.command import Flags
from finetune.console.errors import Error
from finetune.console.files import write_atomically
from finetune.console.terminal import count, printable, say, show
from finetune.features import store
from finetune.features.store import Pooled
from finetune.models import engines
from finetune.projects import pace
from finetune.projects.plans import Plan
from finetune.projects.project import Project
from finetune.records import dataset
from finetune.records.dataset import Records
from finetune.runs import recipe as recipes
from finetune.training import feeds, pretrained

ENOUGH_TO_TIME = 200  # Pictures: of fewer, most of the time goes into building the network.
SHORT_SIDE = 512  # Pixels: more than any network here looks at; larger pictures would only take longer to decode.


def build_options(flags: SimpleNamespace, understood: Understood, project: Project) -> SimpleNamespace:
    """What a build is to be told: what was typed, what was understood, and the places of the project."""
    typed = {name: getattr(flags, name) for name in plan.DIRECTORIES if getattr(flags, name, None)}
    chosen = {
        'source': 'folders', 'train_directory': None, 'tfds': None, 'tfds_dir': None, 'tfds_splits': None,
        'overwrite': False, 'output_directory': str(project.records), 'group_near_duplicates': None,
        'seed': flags.seed if 'seed' in flags.given else building_options.SEED,
        'short_side': flags.short_side if 'short_side' in flags.given else SHORT_SIDE,
    }
    options = SimpleNamespace(**(vars(flags) | chosen | understood.flags | typed))
    if project.near_duplicates.exists():
        grouped = SimpleNamespace(**vars(options) | {'group_near_duplicates': str(project.near_duplicates)})
        with contextlib.suppress(Error):  # They are of other pictures by now.
            plan.make(grouped)
            return grouped
    return options


def untold() -> SimpleNamespace:
    """The flags of a build of which none was typed."""
    flags = Flags('finetune build', '')
    building_options.add_flags(flags)
    return flags.parse([])


def as_before(project: Project) -> SimpleNamespace:
    """The flags of the build that made the records, so that whoever asks again gets these."""
    told = project.memory.get('built_with', {})
    return SimpleNamespace(**vars(untold()) | told | {'given': set(told.get('given', ()))})


def built(project: Project, options: SimpleNamespace) -> Records:
    """The records, built now unless these pictures are what they were built of."""
    photos = identity.of(plan.make(options))
    if project.memory.get('photos') == photos:
        with contextlib.suppress(Error):
            data = dataset.open_records(project.records)
            if data.fingerprint == project.memory.get('records'):
                say(f'As before: {printable(data.directory)}')
                return data
    built = building.build(options)
    show(account.counts_line(built.told, printable(project.records / dataset.SKIPPED)))
    data = dataset.open_records(project.records)
    told = {name: getattr(options, name) for name in vars(untold()) if name not in ('given', 'arguments', 'argv')}
    project.remember(photos=photos, records=data.fingerprint, built_with=told | {'given': sorted(options.given)})
    return data


def looked_at(
    project: Project, flags: SimpleNamespace, options: SimpleNamespace, data: Records, head: Plan
) -> tuple[Records, Album, Pooled]:
    """The records without near-duplicates in two of their splits, every picture seen, and its features."""
    seen, features = _features(project, flags, data, head)
    copies = judgement.copies(seen, features)
    leaks = sum(finding.kind == 'leak' for finding in copies)
    if not leaks or not plan.make(options).percents:  # Where folders say what validates, nothing is moved.
        return data, seen, features
    say(f'{count(leaks, "near-duplicate")} lie across the splits: building again, so that each group stays on one side '
        f'({project.near_duplicates.name})')
    write_atomically(project.near_duplicates, findings.as_csv(seen, copies).encode())
    options.group_near_duplicates = str(project.near_duplicates)
    data = built(project, options)
    return data, *_features(project, flags, data, head)


def _features(project: Project, flags: SimpleNamespace, data: Records, head: Plan) -> tuple[Album, Pooled]:
    is_first, started = not project.features.exists(), time.monotonic()
    recipe = planned(head, data)
    features = feeds.pooled(
        recipe, data, project.features, engines.choose_for_features(flags.engine), flags.num_preprocess_threads)
    if is_first and len(features.rows) >= ENOUGH_TO_TIME:
        passes = {pace.name_of(recipe): (time.monotonic() - started) / len(features.rows)}
        project.remember(pass_seconds=project.memory.get('pass_seconds', {}) | passes)
    files.prepare(project.check, 'the findings are written there', '--output')
    return judgement.look(data, flags.num_preprocess_threads, project.check), features


def forget_what_was_before(project: Project, data: Records) -> None:
    """Kept features of other records, and runs on them, but for the one that answers until there is a new one."""
    store.forget_others(project.features, data)
    project.set_aside_runs_on_other(data.fingerprint)


def planned(head: Plan, data: Records) -> recipes.Recipe:
    records = data.split('train').records
    return recipes.plan(head.recipe, pretrained.network(head.recipe), records)


def checked(
    project: Project, data: Records, seen: Album, features: Pooled, recipe: recipes.Recipe
) -> judgement.Checked:
    say(f'Comparing {count(len(seen.labels), "picture")}')
    checked = judgement.judge(seen, features, recipe.image_size, judgement.is_shrunk(data), recipe.seed)
    judgement.write(project.check, checked, judgement.as_json(checked, data, recipe))
    show(judgement.as_text(checked))
    return checked
