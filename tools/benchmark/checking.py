"""What `finetune check` finds of faults that were put into the photos, and what it says of the photos as they are."""

import io
import json
import resource
import time
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from finetune.checking import album, duplicates, judgement, label_errors, learning_curve, neighbours, shortcuts
from finetune.checking.album import Album
from finetune.console.lazy import tf
from finetune.features import regression
from finetune.features.store import Pooled
from finetune.models import cuts, engines
from finetune.pictures.views import decode, view
from finetune.records import examples
from finetune.records.dataset import Records
from finetune.training import feeds
from tools.benchmark.networks import prepared
from tools.benchmark.place import Place, printed_by
from tools.benchmark.turns import spread

SEEDS = range(3)
FLIPPED = 0.05
COPIED = 300  # Photos, of each of which eleven kinds of copy are made.
DRAWN = 100_000


def check(place: Place) -> Iterator[dict]:
    """Everything by MobileNetV2's features: label errors, copies, the learning curve, shortcuts, time and memory."""
    recipe, model, data = prepared(
        place, '--model=mobilenet_v2', f'--pretrained={place.mobilenet}', '--freeze_backbone')
    parts, engine = cuts.parts(model), engines.choose_for_features(None)
    pooled = feeds.pooled(recipe, data, place.records / 'features', engine, None)
    features, trained = pooled.of_last_layer, data.split('train').records  # Of all pictures these come first.
    started = time.monotonic()
    seen = album.read(data, tuple(data.splits))
    checked = judgement.judge(seen, pooled, recipe.image_size, shrunk=False, seed=1)
    seconds = time.monotonic() - started
    yield {'what': f'check of {len(features)} photos beyond their features', 'unit': 'seconds', 'goal': 20.0, 'n': 1,
           'ours': round(seconds, 1)}
    yield from _label_errors(features[:trained], seen.labels[:trained])
    yield from _label_errors_called_in_all(checked, len(features))
    all_layers = engines.frozen(parts.frozen, engine)
    yield from _copies(lambda images: all_layers(images)[:, -pooled.last_channels:], recipe, data, features, checked)
    yield from _learning_curves(pooled.rows, seen.labels)
    yield from _shortcuts(seen, data, checked.head_accuracy)
    yield json.loads(printed_by('tools.benchmark.checking'))  # In a process of its own, whose memory is its alone.


# Label errors ---------------------------------------------------------------------------------------------------------


def _label_errors(features: np.ndarray, labels: np.ndarray) -> Iterator[dict]:
    rows = neighbours.unit_rows(features)
    near = neighbours.by_cosine(rows, label_errors.NEIGHBOURS)
    ridge = label_errors.Ridge(rows)
    honest = label_errors.margins(ridge, *near, labels)
    for name, flip, auroc, found in (('at random', _flip_any, 0.985, 0.94),
                                     ('between the two most confused classes', _flip_confused, 0.960, 0.70)):
        measured = []
        for seed in SEEDS:
            flipped = flip(labels, honest, np.random.default_rng(seed))
            wrong = flipped != labels
            told = label_errors.margins(ridge, *near, flipped)
            order, called = np.argsort(-told.suspicion), told.called
            in_all = label_errors.estimate(ridge, *near, flipped, told, seed)[1]
            measured.append((
                _auroc(told.suspicion, wrong), wrong[order[:2 * wrong.sum()]].sum() / wrong.sum(),
                wrong[called].mean(), called[wrong].mean(), in_all / wrong.sum()))
        columns = [spread(np.array(column)) for column in zip(*measured, strict=True)]
        what = f'labels of 5 % of {len(labels)} photos flipped {name}'
        yield {'what': f'{what}: AUROC; share found in the first 2k', 'unit': 'share', 'goal': [auroc, found],
               'n': len(SEEDS), 'ours': columns[:2]}
        yield {'what': f'{what}: rightly called, share of them called; estimated wrong to flipped', 'unit': 'share',
               'goal': [0.85, 0.55] if flip is _flip_any else '', 'n': len(SEEDS), 'ours': columns[2:]}
    yield {'what': f'called of {len(labels)} photos as they are', 'unit': 'photos', 'goal': 'below 10', 'n': 1,
           'ours': int(honest.called.sum())}


def _label_errors_called_in_all(checked: judgement.Checked, count: int) -> Iterator[dict]:
    called = sum(finding.kind == 'label_error' for finding in checked.found)
    yield {'what': f'called of {count} photos, validation included', 'unit': 'photos', 'goal': 'below 10', 'n': 1,
           'ours': called}


def _flip_any(labels: np.ndarray, honest: label_errors.Margins, random) -> np.ndarray:
    flipped, classes = labels.copy(), np.unique(labels)
    chosen = random.choice(len(labels), round(FLIPPED * len(labels)), replace=False)
    steps = random.integers(1, len(classes), len(chosen))
    flipped[chosen] = classes[(np.searchsorted(classes, labels[chosen]) + steps) % len(classes)]
    return flipped


def _flip_confused(labels: np.ndarray, honest: label_errors.Margins, random) -> np.ndarray:
    mistaken = honest.ridge < 0
    confused = np.zeros((labels.max() + 1,) * 2, int)
    np.add.at(confused, (labels[mistaken], honest.better[mistaken]), 1)
    one, other = np.unravel_index((confused + confused.T).argmax(), confused.shape)
    flipped = labels.copy()
    chosen = random.choice(np.flatnonzero(np.isin(labels, (one, other))), round(FLIPPED * len(labels)), replace=False)
    flipped[chosen] = one + other - labels[chosen]
    return flipped


def _auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    ranks = np.argsort(np.argsort(scores))
    positives = positive.sum()
    return float((ranks[positive].sum() - positives * (positives - 1) / 2) / (positives * (~positive).sum()))


# Copies ---------------------------------------------------------------------------------------------------------------


def _saved(image: Image.Image, quality: int = 90) -> bytes:
    file = io.BytesIO()
    image.save(file, 'JPEG', quality=quality)
    return file.getvalue()


def _cropped(share: float) -> Callable[[Image.Image], bytes]:
    def crop(image: Image.Image) -> bytes:
        """Without `share` of each side, the same at both ends."""
        across, down = (round(side * share / 2) for side in image.size)
        return _saved(image.crop((across, down, image.width - across, image.height - down)))

    return crop


def _captioned(image: Image.Image) -> bytes:
    image, band = image.copy(), max(12, image.height // 10)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, image.height - band, image.width, image.height), 'black')
    draw.text((band // 3, image.height - band), 'a caption below the picture', 'white')
    return _saved(image)


COPIES = {
    'JPEG quality 50': lambda image: _saved(image, 50),
    'half size': lambda image: _saved(image.resize((image.width // 2, image.height // 2))),
    'crop of 5 %': _cropped(0.05), 'crop of 10 %': _cropped(0.10), 'crop of 20 %': _cropped(0.20),
    'mirrored': lambda image: _saved(ImageOps.mirror(image)),
    'brighter by 20 %': lambda image: _saved(image.point(lambda value: min(255, round(1.2 * value)))),
    'darker by 20 %': lambda image: _saved(image.point(lambda value: round(0.8 * value))),
    'caption': _captioned,
    'gray': lambda image: _saved(image.convert('L').convert('RGB')),
    'JPEG quality 50 at half size': lambda image: _saved(image.resize((image.width // 2, image.height // 2)), 50),
}


def _copies(
    outputs_of: Callable, recipe, data: Records, features: np.ndarray, checked: judgement.Checked
) -> Iterator[dict]:
    stored = [examples.parse(record)['encoded'].numpy()
              for record in tf.data.TFRecordDataset(data.paths('train')).take(COPIED)]
    images = [Image.open(io.BytesIO(encoded)).convert('RGB') for encoded in stored]
    own = np.array([album.look(encoded) for encoded in stored])
    bound = duplicates.near_bound(neighbours.by_cosine(neighbours.unit_rows(features), 1)[1])
    rows, found = neighbours.unit_rows(features[:COPIED]), {}
    for name, copy in COPIES.items():
        encoded = [copy(image) for image in images]
        pictures = tf.stack([view(decode(each), recipe.image_size, recipe.crop_fraction) for each in encoded])
        outputs = np.concatenate([np.asarray(outputs_of(pictures[i:i + 25])) for i in range(0, COPIED, 25)])
        near = np.einsum('nc,nc->n', rows, neighbours.unit_rows(outputs)) >= bound
        theirs = np.array([album.look(each) for each in encoded])
        bits = np.unpackbits(own['bits'] ^ theirs['bits'], axis=1)
        still, turned = bits[:, :-duplicates.pdq.TURNED].sum(axis=1), bits[:, -duplicates.pdq.TURNED:].sum(axis=1)
        different = still + np.minimum(turned, duplicates.pdq.TURNED - turned)
        telling = np.minimum(own['hash_quality'], theirs['hash_quality']) >= duplicates.pdq.ENOUGH_QUALITY
        found[name] = float(np.mean(near | telling & (different <= duplicates.MOST_DIFFERENT_BITS)))
    yield {'what': f'copies found of {COPIED} photos: all kinds; by kind', 'unit': 'share', 'goal': 0.86, 'n': COPIED,
           'ours': [float(np.mean(list(found.values()))), found]}
    pairs = {finding.places for finding in checked.found if finding.kind in ('leak', 'contradiction', 'duplicate')}
    yield {'what': f'pairs reported among the {len(features)} photos themselves', 'unit': 'pairs', 'goal': '', 'n': 1,
           'ours': len(pairs)}


# Learning curve, shortcuts --------------------------------------------------------------------------------------------


def _learning_curves(features: np.ndarray, labels: np.ndarray) -> Iterator[dict]:
    """Half of the photos says what all of them give."""
    def answers(part: np.ndarray) -> np.ndarray:
        return regression.out_of_fold(
            features[part, None], labels[part], labels.max() + 1, 1, weight_decay=judgement.WEIGHT_DECAY).argmax(axis=1)

    truth = float(np.mean(answers(np.arange(len(labels))) != labels))
    inside, widths, said = [], [], []
    for seed in range(5):
        half = np.sort(np.random.default_rng(seed).permutation(len(labels))[:len(labels) // 2])
        curve = learning_curve.draw(lambda part, half=half: answers(half[part]), labels[half], seed)
        low, high = curve.interval
        inside.append(low <= truth <= high)
        widths.append(high - low)
        said.append(curve.doubled)
    yield {'what': f'learning curve of half: error of all ({truth:.4f}) inside the 80 % interval; its width; said',
           'unit': 'draws; error', 'goal': [4, 0.05, ''], 'n': 5,
           'ours': [sum(inside), max(widths), spread(np.array(said))]}


def _shortcuts(seen: Album, data: Records, head_accuracy: float) -> Iterator[dict]:
    """80 % of a class saved again, smaller and at another quality: each class in turn."""
    stored = [examples.parse(record)['encoded'].numpy() for split in data.splits
              for record in tf.data.TFRecordDataset(data.paths(split))]
    random, explained = np.random.default_rng(0), []
    for label in np.unique(seen.labels):
        changed = seen.glimpses.copy()
        of_class = np.flatnonzero(seen.labels == label)
        for place in random.choice(of_class, round(0.8 * len(of_class)), replace=False):
            image = Image.open(io.BytesIO(stored[place])).convert('RGB')
            size = round(0.8 * image.width), round(0.8 * image.height)
            changed[place] = album.look(_saved(image.resize(size), 60))
        explained.append(shortcuts.find(changed, seen.labels, head_accuracy, 1).explained)
    honest = shortcuts.find(seen.glimpses, seen.labels, head_accuracy, 1).explained
    yield {'what': 'shortcut: found of 5 classes saved otherwise; what it explains of the head there, of the photos as '
           'they are', 'unit': 'classes; share', 'goal': [5, f'above {shortcuts.WARN}', f'below {shortcuts.WARN}'],
           'n': 5, 'ours': [sum(share > shortcuts.WARN for share in explained), spread(np.array(explained)), honest]}


# Time and memory ------------------------------------------------------------------------------------------------------


def _very_many() -> dict:
    """Features and glimpses drawn at random, in ten classes."""
    random = np.random.default_rng(0)
    labels = random.integers(1, 11, DRAWN)
    features = np.empty((DRAWN, 1280), np.float16)
    centres = random.normal(size=(11, 1280)).astype(np.float32)
    for first in range(0, DRAWN, 1000):
        around = centres[labels[first:first + 1000]]
        features[first:first + 1000] = np.maximum(around + 4 * random.normal(size=around.shape).astype(np.float32), 0)
    glimpses = np.frombuffer(random.bytes(DRAWN * album.GLIMPSE.itemsize), album.GLIMPSE).copy()
    for name, value in {'hash_quality': 100, 'height': 240, 'width': 320, 'bytes': 50_000, 'is_png': False,
                        'jpeg_quality': 90, 'borders': 0, 'dark_end': 0.1, 'bright_end': 0.9, 'contrast': 0.2,
                        'colour': 0.2, 'sharpness': 0.8}.items():
        glimpses[name] = value
    names = [b'%d' % number for number in range(DRAWN)]
    seen = Album(('train',), tuple(map(str, range(11))), np.zeros(DRAWN, int), labels, names, glimpses)
    started = time.monotonic()
    judgement.judge(seen, Pooled(features, features.shape[1]), 224, shrunk=False, seed=1)
    seconds = time.monotonic() - started
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {'what': f'check of {DRAWN:,} drawn features', 'unit': 'seconds; MB', 'goal': [300, 2000], 'n': 1,
            'ours': [round(seconds, 1), round(megabytes)]}


if __name__ == '__main__':
    print(json.dumps(_very_many()))
