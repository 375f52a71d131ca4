"""Archives, good and hostile: what becomes of them on the disk."""

import bz2
import errno
import gzip
import io
import json
import lzma
import os
import shutil
import stat
import tarfile
import warnings
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from finetune.building import archives
from finetune.console import errors
from tests import toy

PICTURE = toy.encoded(toy.picture())
COMPRESSIONS = {'.tar': bytes, '.tar.gz': gzip.compress, '.tar.bz2': bz2.compress, '.tar.xz': lzma.compress}


def zip_of(path: Path, files: dict[str, bytes], **options) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, 'w', **options) as archive:
        warnings.simplefilter('ignore')  # Of a name that comes twice.
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tar_of(path: Path, *members: tuple[tarfile.TarInfo | str, bytes], compress=bytes, **options) -> Path:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w', **options) as archive:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            if info.isreg():
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    path.write_bytes(compress(buffer.getvalue()))
    return path


def special(name: str, kind: bytes, to: str = '') -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info, b''


def unpack(archive: Path, **options) -> archives.Unpacked:
    return archives.unpack(archive, archives.kind_of(archive), archive.parent / 'unpacked', '--output', **options)


def refused(archive: Path, **options) -> str:
    """The sentence; nothing may lie where the folder should be, or beside it."""
    before = set(archive.parent.iterdir())
    with pytest.raises(errors.Error) as caught:
        unpack(archive, **options)
    assert set(archive.parent.iterdir()) == before
    return str(caught.value)


def files(archive: Path) -> dict[bytes, bytes]:
    """By name below the folder, without the note."""
    top = os.fsencode(archive.parent / 'unpacked')
    found = {}
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)  # noqa: PTH118
            assert stat.S_ISREG(os.lstat(path).st_mode)
            found[os.path.relpath(path, top)] = Path(os.fsdecode(path)).read_bytes()
    assert found.pop(archives.NOTE.encode())
    return found


# ---- good ones ----


@pytest.mark.parametrize('suffix', COMPRESSIONS)
def test_every_kind_of_tar_is_told_by_its_content_and_unpacked(tmp_path, suffix):
    path = tar_of(tmp_path / 'photos.bin', special('cat', tarfile.DIRTYPE), ('cat/0.jpg', PICTURE),
                  ('./dog/1.jpg', b'dog'), compress=COMPRESSIONS[suffix])
    assert archives.kind_of(path) == 'tar'
    done = unpack(path)
    assert files(path) == {b'cat/0.jpg': PICTURE, b'dog/1.jpg': b'dog'}
    assert (done.kind, done.files, done.left_out) == ('tar', 2, {})


@pytest.mark.parametrize('compression', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_is_unpacked_whatever_it_is_called(tmp_path, compression):
    path = zip_of(tmp_path / 'photos.tar.gz', {'a/': b'', 'a/0.jpg': PICTURE, 'b/1.jpg': b'b'}, compression=compression)
    assert archives.kind_of(path) == 'zip'
    assert unpack(path).files == 2 and files(path) == {b'a/0.jpg': PICTURE, b'b/1.jpg': b'b'}


@pytest.mark.parametrize('content', [
    b'', PICTURE, b'text', gzip.compress(b'file,label\n', mtime=0), bytes(10240), b'PK', b'BZh',
    PICTURE + b'PK\x05\x06' + bytes(18)])
def test_what_is_no_archive_is_not_taken_for_one(tmp_path, content):
    (tmp_path / 'photos.zip').write_bytes(content)
    assert archives.kind_of(tmp_path / 'photos.zip') is None


def test_an_archive_is_unpacked_once_and_anew_when_it_changes(tmp_path, monkeypatch):
    path = zip_of(tmp_path / 'photos.zip', {'cat/0.jpg': PICTURE, 'cat/link/../x': b''})
    first = unpack(path)
    (tmp_path / 'unpacked' / 'cat' / 'mark').touch()
    assert unpack(path) == first and b'cat/mark' in files(path)
    os.utime(path, (1, 1))
    assert unpack(path) == first and b'cat/mark' in files(path)  # The same content, copied again.
    zip_of(path, {'dog/0.jpg': b'new'})
    assert unpack(path).files == 1 and files(path) == {b'dog/0.jpg': b'new'}
    assert unpack(path, max_bytes=3) and unpack(path).max_bytes > 3  # Other limits may let in other files.
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ['photos.zip', 'unpacked']


@pytest.mark.parametrize('note', ['', '[]', '{"version": 1}', '{"version": 1, "unpacked": {"kind": 1}}'])
def test_a_folder_whose_note_is_damaged_is_made_anew_or_left_alone(tmp_path, note):
    path = zip_of(tmp_path / 'photos.zip', {'cat/0.jpg': PICTURE})
    unpack(path)
    (tmp_path / 'unpacked' / archives.NOTE).write_text(note)
    if json.loads(note or '[]'):
        assert unpack(path).files == 1
    else:
        assert 'holds files that come from no archive' in refused(path)


def test_files_of_the_user_are_never_replaced(tmp_path):
    path = zip_of(tmp_path / 'photos.zip', {'cat/0.jpg': PICTURE})
    (tmp_path / 'unpacked').mkdir()
    (tmp_path / 'unpacked' / 'mine.txt').touch()
    assert 'holds files that come from no archive' in refused(path) and '--output' in refused(path)
    assert (tmp_path / 'unpacked' / 'mine.txt').exists()


def test_names_in_any_encoding_survive(tmp_path):
    names = ['кот'.encode(), 'кот'.encode('cp1251'), b'\xff\n\x1b[2J', b'plain']
    tar = tar_of(tmp_path / 'a.tar', *((name.decode('utf-8', 'surrogateescape') + '/0.jpg', name) for name in names),
                 format=tarfile.GNU_FORMAT, errors='surrogateescape')
    unpack(tar)
    assert files(tar) == {name + b'/0.jpg': name for name in names}
    (tmp_path / 'z').mkdir()
    path = zip_of(tmp_path / 'z' / 'a.zip', {
        f'{"X" * len(name)}{place}/0.jpg': name for place, name in enumerate(names)})
    content = path.read_bytes()
    for place, name in enumerate(names):
        content = content.replace(b'X' * len(name) + b'%d/0.jpg' % place, name + b'%d/0.jpg' % place)
    path.write_bytes(content)  # As programs write it that say of no name what it is in.
    unpack(path)
    assert files(path) == {name + b'%d/0.jpg' % place: name for place, name in enumerate(names)}


def test_a_zip_with_the_separators_of_windows_has_its_folders(tmp_path):
    path = zip_of(tmp_path / 'a.zip', {'p\\cat\\0.jpg': PICTURE, 'p\\..\\..\\..\\evil.jpg': b'evil'})
    assert unpack(path).left_out == {'outside': 1}
    assert files(path) == {b'p/cat/0.jpg': PICTURE}


def test_what_macos_puts_beside_files_is_passed_over_and_counted(tmp_path):
    path = zip_of(tmp_path / 'a.zip', {
        'p/cat/0.jpg': PICTURE, '__MACOSX/p/cat/._0.jpg': b'x', 'p/.DS_Store': b'x', 'p/cat/._0.jpg': b'x'})
    done = unpack(path)
    assert files(path) == {b'p/cat/0.jpg': PICTURE} and done.left_out == {'system_file': 3}
    assert list(done.remarks()) == ['3 files which macOS puts beside others, for example __MACOSX/p/cat/._0.jpg']


# ---- hostile ones ----


OUTSIDE = ['/evil', '../evil', 'cat/../../evil', 'cat/..', '../../../../../../tmp/evil', '//evil', 'cat/../dog/x']


@pytest.mark.parametrize('name', OUTSIDE)
@pytest.mark.parametrize('kind', ['zip', 'tar'])
def test_no_name_leads_out_of_the_folder(tmp_path, kind, name):
    path = (zip_of(tmp_path / 'a.zip', {'cat/0.jpg': PICTURE, name: b'evil'}) if kind == 'zip' else
            tar_of(tmp_path / 'a.tar', ('cat/0.jpg', PICTURE), (name, b'evil')))
    done = unpack(path)
    assert files(path) == {b'cat/0.jpg': PICTURE} and done.left_out == {'outside': 1}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [path.name, 'unpacked']


def test_links_and_devices_in_a_tar_are_left_out_and_what_lies_behind_a_link_stays_in_the_folder(tmp_path):
    (tmp_path / 'target').mkdir()
    path = tar_of(tmp_path / 'a.tar', special('cat', tarfile.SYMTYPE, f'{tmp_path}/target'), ('cat/0.jpg', PICTURE),
                  special('cat/hard.jpg', tarfile.LNKTYPE, '/etc/passwd'), special('up', tarfile.SYMTYPE, '..'),
                  special('cat/null', tarfile.CHRTYPE), special('cat/disk', tarfile.BLKTYPE),
                  special('cat/pipe', tarfile.FIFOTYPE), special('cat/odd', b'Z'))
    done = unpack(path)
    assert files(path) == {b'cat/0.jpg': PICTURE} and not any((tmp_path / 'target').iterdir())
    assert done.left_out == {'link': 3, 'special': 4}
    assert '3 files which are links, for example cat' in list(done.remarks())


def test_links_in_a_zip_are_left_out(tmp_path):
    info = zipfile.ZipInfo('cat/link.jpg')
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = zip_of(tmp_path / 'a.zip', {info: b'/etc/passwd', 'cat/0.jpg': PICTURE})
    assert unpack(path).left_out == {'link': 1} and files(path) == {b'cat/0.jpg': PICTURE}


@pytest.mark.parametrize('second', ['cat/0.jpg', 'cat/./0.jpg', 'cat//0.jpg', './cat/0.jpg', 'cat/0.jpg/x.jpg', 'cat'])
@pytest.mark.parametrize('kind', ['zip', 'tar'])
def test_a_name_that_comes_again_replaces_nothing(tmp_path, kind, second):
    if kind == 'zip':
        path = tmp_path / 'a.zip'
        with warnings.catch_warnings(), zipfile.ZipFile(path, 'w') as archive:
            warnings.simplefilter('ignore')
            archive.writestr('cat/0.jpg', PICTURE)
            archive.writestr(second, b'evil')
    else:
        path = tar_of(tmp_path / 'a.tar', ('cat/0.jpg', PICTURE), (second, b'evil'))
    assert unpack(path).left_out == {'again': 1} and files(path) == {b'cat/0.jpg': PICTURE}


@pytest.mark.parametrize('name', [
    'a' * 300 + '.jpg', 'x/' * 40 + '0.jpg', 'x/' * 3000 + '0.jpg', '.archive.json', './.archive.json/x.jpg'])
def test_a_name_that_no_folder_can_hold_is_counted(tmp_path, name):
    path = tar_of(tmp_path / 'a.tar', ('cat/0.jpg', PICTURE), (name, b'x'))
    assert unpack(path).left_out == {'bad_name': 1} and files(path) == {b'cat/0.jpg': PICTURE}


@pytest.mark.parametrize('kind', ['zip', 'tar'])
def test_a_file_that_is_too_big_is_left_out_with_the_flag_that_lets_it_in(tmp_path, kind):
    big = bytes(5000)
    path = (zip_of(tmp_path / 'a.zip', {'big.bmp': big, 'cat/0.jpg': b'small'}) if kind == 'zip' else
            tar_of(tmp_path / 'a.tar', ('big.bmp', big), ('cat/0.jpg', b'small')))
    remark, = unpack(path, max_bytes=4999).remarks()
    assert remark == '1 file larger than 4,999 bytes (--max_bytes), for example big.bmp'
    assert files(path) == {b'cat/0.jpg': b'small'}


@pytest.mark.parametrize('kind', ['zip', 'tar'])
def test_a_bomb_is_stopped_by_what_it_really_writes(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(archives, 'FREELY_BYTES', 100_000)
    content = bytes(3_000_000)
    path = (zip_of(tmp_path / 'a.zip', {'cat/0.jpg': content, 'cat/1.jpg': content}, compression=zipfile.ZIP_DEFLATED)
            if kind == 'zip' else
            tar_of(tmp_path / 'a.tgz', ('cat/0.jpg', content), ('cat/1.jpg', content), compress=gzip.compress))
    assert 'more than 100 times as large' in refused(path)


def test_a_bomb_behind_what_is_left_out_is_stopped_too(tmp_path, monkeypatch):
    """What is passed over in a compressed tar has to be decompressed, for hours."""
    monkeypatch.setattr(archives, 'FREELY_BYTES', 100_000)
    path = tar_of(tmp_path / 'a.tgz', ('cat/0.jpg', PICTURE), ('big', bytes(30_000_000)), compress=gzip.compress)
    assert 'more than 100 times as large' in refused(path, max_bytes=5000)


def test_a_zip_that_claims_less_than_it_holds_writes_no_more_than_it_claims(tmp_path):
    path = zip_of(tmp_path / 'a.zip', {'cat/0.jpg': bytes(50_000)}, compression=zipfile.ZIP_DEFLATED)
    path.write_bytes(path.read_bytes().replace((50_000).to_bytes(4, 'little'), (10).to_bytes(4, 'little')))
    assert 'damaged' in refused(path)


def test_an_archive_for_which_there_is_no_room_is_refused_before_the_disk_is_full(tmp_path, monkeypatch):
    path = zip_of(tmp_path / 'a.zip', {'cat/0.jpg': bytes(50_000)})
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: SimpleNamespace(free=40_000))
    assert 'Make room, or choose another --output' in refused(path)


def test_a_disk_that_is_full_after_all_is_told(tmp_path, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, 'No space left on device')

    path = zip_of(tmp_path / 'a.zip', {'cat/0.jpg': PICTURE})
    monkeypatch.setattr(archives, '_chunks', full)
    assert refused(path) == (f'{tmp_path}/unpacked: No space left on device; nothing was changed. Make room, or choose '
                             'another --output.')


def test_an_archive_of_millions_of_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, 'MOST_ENTRIES', 3)
    assert 'holds more than 3 files' in refused(zip_of(tmp_path / 'a.zip', dict.fromkeys('abcd', b'x')))


def test_a_header_as_large_as_the_memory_is_not_read(tmp_path):
    info = tarfile.TarInfo('x')
    info.type, info.size = tarfile.XHDTYPE, 40_000_000
    path = tmp_path / 'a.tgz'
    path.write_bytes(gzip.compress(info.tobuf() + bytes(40_000_000)))
    assert 'damaged' in refused(path)


def test_a_size_below_nothing_does_not_go_round_for_ever(tmp_path):
    info = tarfile.TarInfo('cat/1.jpg')
    info.size = -1024
    good = tar_of(tmp_path / 'good.tar', ('cat/0.jpg', PICTURE)).read_bytes()
    path = tmp_path / 'a.tar'
    path.write_bytes(good[:-10240 + len(good) % 10240 or None][:512 + -(-len(PICTURE) // 512) * 512]
                     + info.tobuf(format=tarfile.GNU_FORMAT) + bytes(1024))
    assert 'damaged' in refused(path)


def test_an_encrypted_zip_is_told(tmp_path):
    path = zip_of(tmp_path / 'a.zip', {'cat/0.jpg': PICTURE})
    content = bytearray(path.read_bytes())
    for magic, offset in ((b'PK\x03\x04', 6), (b'PK\x01\x02', 8)):
        content[content.index(magic) + offset] |= 1
    path.write_bytes(content)
    assert 'is encrypted' in refused(path)


def test_a_compression_that_is_not_read_here_is_counted(tmp_path):
    path = zip_of(tmp_path / 'a.zip', {'cat/0.jpg': PICTURE, 'cat/1.jpg': b'other'})
    content = bytearray(path.read_bytes())
    for magic, offset in ((b'PK\x03\x04', 8), (b'PK\x01\x02', 10)):
        content[content.index(magic) + offset] = 93  # Zstandard.
    path.write_bytes(content)
    assert unpack(path).left_out == {'coding': 1} and files(path) == {b'cat/1.jpg': b'other'}


@pytest.mark.parametrize('suffix', ['.zip', *COMPRESSIONS])
@pytest.mark.parametrize('part', [0.3, 0.6, 0.9])
def test_an_archive_that_is_cut_short_is_told_and_leaves_nothing(tmp_path, suffix, part):
    noise = {f'cat/{number}.jpg': os.urandom(4000) for number in range(5)}
    whole = (zip_of(tmp_path / 'whole', noise) if suffix == '.zip' else
             tar_of(tmp_path / 'whole', *noise.items(), compress=COMPRESSIONS[suffix]))
    content = whole.read_bytes()
    end = len(content) if suffix != '.tar' else 5 * 4608  # Behind it there are zeros; 0.6 of it lies between two files.
    path = tmp_path / f'a{suffix}'
    path.write_bytes(content[:int(part * end)])
    assert f'{path} cannot be read to its end: it is cut short, damaged' in refused(path)


@pytest.mark.parametrize('suffix', ['.zip', '.tar.gz', '.tar.bz2', '.tar.xz'])
def test_a_changed_byte_is_found_by_the_checksum(tmp_path, suffix):
    noise = [('cat/0.jpg', os.urandom(700_000)), ('cat/1.jpg', os.urandom(700_000))]
    path = (zip_of(tmp_path / 'a', dict(noise)) if suffix == '.zip' else
            tar_of(tmp_path / 'a', *noise, compress=COMPRESSIONS[suffix]))
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 4] ^= 0xff
    path.write_bytes(content)
    assert 'damaged' in refused(path)


def test_a_header_that_is_damaged_is_not_the_end_of_a_tar(tmp_path):
    """The library takes it for the end, and the pictures behind it would be missing in silence."""
    path = tar_of(tmp_path / 'a.tar', ('cat/0.jpg', b'x' * 512), ('cat/1.jpg', PICTURE))
    content = bytearray(path.read_bytes())
    content[1024 + 10] ^= 1
    path.write_bytes(content)
    assert 'damaged' in refused(path)


@pytest.mark.parametrize('names', [[], ['../evil'], ['cat/']])
def test_an_archive_of_nothing_is_told(tmp_path, names):
    told = refused(zip_of(tmp_path / 'a.zip', dict.fromkeys(names, b'')))
    assert 'holds no file that can be unpacked' in told and ('lead out' in told) == (names == ['../evil'])


def test_a_second_process_does_not_write_into_the_same_folder(tmp_path):
    path = zip_of(tmp_path / 'a.zip', {'cat/0.jpg': PICTURE})
    with archives.staging.replacing(tmp_path / 'unpacked', '--output'), pytest.raises(errors.Error) as told:
        unpack(path)
    assert 'pid' in str(told.value) and 'choose another --output.' in str(told.value)
