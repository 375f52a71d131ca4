"""Directories that are not DIRECTORY/CLASS/PICTURE: what they are instead, and which flags were likely meant."""

import re
from collections.abc import Iterator

from finetune.building.sources import Skip
from finetune.building.sources.folders import BROKEN_LINKS, LAYOUT, Listing, Others
from finetune.building.sources.labels import label_of
from finetune.console.errors import Error
from finetune.console.terminal import printable, some

WORDS = {  # That name a part of a data set, by split; the first one that is found is meant.
    'train': ('train', 'training'),
    'validation': ('validation', 'val', 'valid', 'dev'),
    'test': ('test', 'testing', 'tests'),
}
SPLIT_OF = {word: split for split, words in WORDS.items() for word in words}
BESIDE_THEM = {'set', 'data', 'dataset', 'split', 'image', 'images', 'pictures', 'photos'}  # 'train_images', 'test_set'


def check_classes(listing: Listing) -> None:
    """Raises Error where all class folders are called as the parts of a data set are: 'test' is hardly a class."""
    called_so = parts(listing)
    if not called_so:
        return
    if likely := _likely_flags(listing):
        meant = f'Did you mean {likely}?'
    elif _folders_inside(listing):
        meant = 'None of those with class folders is for training: call one of them train.'
    else:
        meant = f'They hold pictures and no class folders. {LAYOUT}'
    way_out = 'list them in a --labels_file' + ('' if any(listing.pictures.values()) else ' and add --recursive')
    raise Error(f'{_shown(listing)}: its folders are called as the parts of a data set are: {some(called_so)}. {meant} '
                f'If they are classes, {way_out}.')


def parts(listing: Listing) -> list[bytes]:
    """The folders that are the parts of a data set: all are called so, or, beside others, those that hold only folders.

    Beside others it takes one for training and another part: 'train' and 'bus' may be classes, and so may 'test' alone.
    """
    found = filled(listing)
    called_so = [folder for folder in found if _part_of_a_set(folder)]
    if called_so == found:
        return found if len(found) > 1 or {_part_of_a_set(folder) for folder in found} & set(WORDS['train']) else []
    surely = [folder for folder in called_so if all(b'/' in name for name in listing.pictures[folder])]
    splits = {SPLIT_OF[_part_of_a_set(folder)] for folder in surely}
    return surely if 'train' in splits and len(splits) > 1 else []


def folder_of_each(listing: Listing) -> dict[str, bytes]:
    """By split, the part of a data set that holds class folders for it."""
    inner = _folders_inside(listing)
    by_word = {_part_of_a_set(folder): folder for folder in parts(listing) if folder in inner}
    found = {split: [by_word[word] for word in words if word in by_word] for split, words in WORDS.items()}
    return {split: folders[0] for split, folders in found.items() if folders}


def left_out(listing: Listing) -> Iterator[tuple[bytes, str]]:
    """The folders beside the parts that are read, and why they are not."""
    inner, read = _folders_inside(listing), folder_of_each(listing).values()
    for folder in filled(listing):
        if folder not in read:
            yield folder, ('it is called as no part of a data set is' if not _part_of_a_set(folder) else
                           'it holds no class folders' if folder not in inner else 'another folder is that part')


def wrapped(listing: Listing) -> bytes | None:
    """The one folder that holds everything, and only folders, as archives often have it."""
    found = filled(listing)
    return found[0] if len(found) == 1 and not listing.stray and not listing.pictures[found[0]] else None


def filled(listing: Listing) -> list[bytes]:
    """The folders that are not empty."""
    inner = _folders_inside(listing)
    return [folder for folder, names in listing.pictures.items() if names or folder in inner]


def check_pictures(listing: Listing) -> None:
    """Raises Error where no class folder has a picture, and says what there is instead."""
    if any(listing.pictures.values()):
        return
    shown = _shown(listing)
    if skip := _first(listing, 'unreadable'):
        raise Error(f'{shown} has no picture that can be found: {printable(skip.path)}: {skip.detail}. Get the right '
                    'to read the class folders.')
    if inner := sorted(_folders_inside(listing)):
        check_classes(listing)
        raise Error(f'{shown}: its folders hold only folders. ' + (
            f'Did you mean {_flag(listing.flag, listing, inner[0])}?' if len(inner) == 1 else
            f'If {some(inner)} are the classes, add --recursive; if the folders in them are, bring those into one '
            'folder.'))
    if listing.stray:
        raise Error(f'{shown} holds {listing.stray} pictures but no class folders. {LAYOUT} Or name the class of '
                    'each in a CSV file: --labels_csv=FILE')
    if skip := _first(listing, *BROKEN_LINKS):
        raise Error(f'{shown} holds no pictures, and {printable(skip.path)} is {skip.detail}. {LAYOUT}')
    if others := _not_read(listing):
        raise Error(f'{shown} holds no pictures that are read here, but {others}. Convert pictures to JPEG or PNG, and '
                    f'give them names that end so: .jpg, .png. {LAYOUT}')
    raise Error(f'{shown} holds no pictures. {LAYOUT}')


def _first(listing: Listing, *reasons: str) -> Skip | None:
    return next((skip for skip in listing.skipped if skip.reason in reasons), None)


def _not_read(listing: Listing) -> Others:
    """Every file whose name alone says that it is not read, wherever it lies."""
    others = Others(listing.beside.counts + listing.others.counts, listing.beside.examples | listing.others.examples)
    for skip in listing.skipped:
        if skip.reason == 'unsupported_format':
            others.add(skip.path)
    return others


def _folders_inside(listing: Listing) -> set[bytes]:
    """The class folders that hold folders, whether these were read or not."""
    not_read = {skip.path.split(b'/')[-2] for skip in listing.skipped if skip.reason == 'nested_folder'}
    return not_read | {folder for folder, names in listing.pictures.items() if any(b'/' in name for name in names)}


def _part_of_a_set(folder: bytes) -> str:
    """'train' of a folder called train_images or Train2017; '' for any other name."""
    words = [word for word in re.findall(r'[^\W\d_]+', label_of(folder).lower()) if word not in BESIDE_THEM]
    return words[0] if len(words) == 1 and words[0] in SPLIT_OF else ''


def _likely_flags(listing: Listing) -> str:
    """For a set given one level too high: the flags for its parts, of those that hold class folders."""
    train, validation, test = map(folder_of_each(listing).get, WORDS)
    flags = {
        'train_directory': {'train_directory': train, 'validation_directory': train and validation,
                            'test_directory': train and test},
        'validation_directory': {'validation_directory': validation or test or train},
        'test_directory': {'test_directory': test or validation or train},
    }[listing.flag or 'train_directory']
    return ' '.join(_flag(flag, listing, folder) for flag, folder in flags.items() if folder)


def _flag(flag: str, listing: Listing, folder: bytes = b'') -> str:
    return f'--{flag}={printable(listing.directory_of(folder) if folder else listing.directory)}'


def _shown(listing: Listing) -> str:
    return _flag(listing.flag, listing) if listing.flag else printable(listing.directory)
