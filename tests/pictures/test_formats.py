"""AVIF, HEIC, TIFF, JPEG 2000 and the PPM family: read as what they are, and judged before a decoder sees them."""

import contextlib
import dataclasses
import io
import random
import resource
import struct
import sys

import numpy as np
import pytest
from PIL import Image, ImageCms

from finetune.console.errors import Reject
from finetune.pictures import boxes, decoders, formats, gate
from finetune.pictures import tiff as tiff_file
from tests import toy

pillow_heif = pytest.importorskip('pillow_heif')
pillow_heif.register_heif_opener()

SIZE = (48, 32)
PLAIN = toy.picture(size=SIZE)
FORMATS = ('AVIF', 'HEIF', 'TIFF', 'JPEG2000', 'PPM')
WITHOUT_LOSS = {
    'AVIF': {'quality': 95, 'subsampling': '4:4:4'}, 'HEIF': {'quality': 95, 'chroma': 444}, 'TIFF': {},
    'JPEG2000': {}, 'PPM': {},
}
LITTLE_MEMORY = 64 << 20  # By which a bomb that is refused from its header may let this process grow.


def encoded(format: str, image: Image.Image = PLAIN, **options) -> bytes:
    return toy.encoded(image, format, **WITHOUT_LOSS[format] | options)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert('RGB')).astype(int)


def levels_off(picture: gate.Picture, expected: Image.Image) -> float:
    got, expected = pixels(picture.encoded), np.asarray(expected.convert('RGB')).astype(int)
    assert got.shape == expected.shape == (picture.height, picture.width, 3)
    return float(np.abs(got - expected).mean())


def rejected(data: bytes, **options) -> Reject:
    with pytest.raises(Reject) as caught:
        gate.admit(data, **options)
    return caught.value


# ---- as they look ----


@pytest.mark.parametrize('format', FORMATS)
def test_a_picture_is_let_in_as_it_looks(format):
    assert formats.sniff(encoded(format)) == format
    picture = gate.admit(encoded(format))
    assert levels_off(picture, PLAIN) < 4
    assert picture.notes == ()
    assert gate.admit(encoded(format), format='PNG').encoded.startswith(b'\x89PNG')


@pytest.mark.parametrize('format', FORMATS)
def test_the_same_picture_with_other_metadata_has_the_same_digest(format):
    options = {} if format in ('JPEG2000', 'PPM') else {'exif': with_orientation(1, artist=True)}
    data = encoded(format, **options)
    assert gate.admit(data).digest == gate.admit(encoded(format)).digest
    assert gate.admit(data).digest != gate.admit(encoded(format, toy.picture(1, SIZE))).digest


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK'])
@pytest.mark.parametrize('compression', [None, 'tiff_lzw', 'tiff_adobe_deflate', 'packbits'])
def test_every_usual_tiff_has_the_right_colours(mode, compression):
    image = PLAIN.convert(mode)
    picture = gate.admit(encoded('TIFF', image, **{'compression': compression} if compression else {}))
    assert levels_off(picture, image) < 4
    assert ('converted_to_rgb' in picture.notes) == (mode != 'RGB' and 'A' not in mode)


@pytest.mark.parametrize(('mode', 'compression'), [('1', 'group4'), ('1', 'group3'), ('RGB', 'jpeg'), ('L', 'jpeg')])
def test_tiffs_of_scanners_are_read(mode, compression):
    image = PLAIN.convert(mode)
    assert levels_off(gate.admit(encoded('TIFF', image, compression=compression)), image) < 6


@pytest.mark.parametrize('kind', [b'P1', b'P2', b'P3', b'P4', b'P5', b'P6'])
def test_every_kind_of_ppm_is_read(kind):
    image = PLAIN.convert({b'1': '1', b'4': '1', b'2': 'L', b'5': 'L'}.get(kind[1:], 'RGB'))
    values = np.asarray(image)
    if kind in (b'P1', b'P2', b'P3'):
        body = b' '.join(b'%d' % value for value in ((~values if kind == b'P1' else values).ravel()))
    else:
        body = np.packbits(~values, axis=1).tobytes() if kind == b'P4' else values.tobytes()
    depth = b'' if kind in (b'P1', b'P4') else b'255\n'
    assert levels_off(gate.admit(kind + b'\n# by a program\n48 32\n' + depth + body), image) < 4


@pytest.mark.parametrize('format', ['AVIF', 'HEIF', 'TIFF', 'JPEG2000'])
def test_what_is_transparent_becomes_white(format):
    alpha = Image.new('L', SIZE, 255)
    alpha.paste(0, (24, 0, 48, 32))
    image, expected = PLAIN.copy(), PLAIN.copy()
    image.putalpha(alpha)
    expected.paste('white', (24, 0, 48, 32))
    picture = gate.admit(encoded(format, image))
    assert levels_off(picture, expected) < 4
    assert 'alpha_flattened' in picture.notes


@pytest.mark.parametrize('format', ['AVIF', 'HEIF', 'TIFF'])
def test_the_first_of_several_pictures_is_taken(format):
    data = encoded(format, save_all=True, append_images=[toy.picture(1, SIZE, 'royalblue')])
    picture = gate.admit(data)
    assert levels_off(picture, PLAIN) < 4
    assert 'first_frame' in picture.notes


def with_orientation(orientation: int, artist: bool = False) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    if artist:
        tags[0x013B] = 'somebody'
    return tags.tobytes()


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('format', ['AVIF', 'HEIF', 'TIFF'])
def test_a_picture_that_was_held_sideways_is_turned_once(format, orientation):
    """By whom differs: Pillow turns a TIFF when it loads it, libheif a HEIC, and nobody but us an AVIF."""
    seen = PLAIN if orientation not in gate.UPRIGHT else PLAIN.transpose(inverse(gate.UPRIGHT[orientation]))
    picture = gate.admit(encoded(format, seen, exif=with_orientation(orientation)))
    assert levels_off(picture, PLAIN) < 4


def inverse(turn: Image.Transpose) -> Image.Transpose:
    quarters = {Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
                Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90}
    return quarters.get(turn, turn)


def swapped_profile() -> bytes:
    """A profile that names the red primary blue."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    for one, other in ((b'rXYZ', b'bXYZ'), (b'rTRC', b'bTRC')):
        profile = profile.replace(one, b'????').replace(other, one).replace(b'????', other)
    return profile


@pytest.mark.parametrize('format', ['AVIF', 'HEIF', 'TIFF', 'JPEG2000'])
def test_colours_are_what_the_profile_says(format):
    red = Image.new('RGB', SIZE, (200, 0, 0))
    data = encoded(format, red, **{} if format == 'JPEG2000' else {'icc_profile': swapped_profile()})
    if format == 'JPEG2000':  # Pillow writes no profile into one.
        colour = b'\2\0\0' + swapped_profile()
        place = data.index(b'colr') - 4
        header = data.index(b'jp2h') - 4
        box = struct.pack('>I', 8 + len(colour)) + b'colr' + colour
        size = int.from_bytes(data[header:header + 4], 'big') - 15 + len(box)
        data = data[:header] + struct.pack('>I', size) + data[header + 4:place] + box + data[place + 15:]
    picture = gate.admit(data)
    mean_red, _, blue = pixels(picture.encoded).mean((0, 1))
    assert mean_red < 60 and blue > 150
    assert 'converted_to_srgb' in picture.notes


# ---- 16 bits ----


RAMP = np.tile(np.arange(256, dtype=np.uint16) * 257, (32, 1))
RAMP_SEEN = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (32, 1)))


def sixteen_bit_tiff(values: np.ndarray, order: str) -> bytes:
    """RGB or CMYK with 16 bits a band, which Pillow does not write."""
    height, width, bands = values.shape
    body, colours = values.astype(f'{order}u2').tobytes(), {3: 2, 4: 5}[bands]
    fields = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, bands, 8 + len(body)), (259, 3, 1, 1),
              (262, 3, 1, colours), (273, 4, 1, 8), (277, 3, 1, bands), (278, 4, 1, height), (279, 4, 1, len(body))]
    return tiff(fields, body + struct.pack(f'{order}{bands}H', *[16] * bands), order)


def tiff(fields: list[tuple[int, int, int, int]], body: bytes = b'', order: str = '<', following: int = 0) -> bytes:
    """Body at byte 8, then one directory of (tag, kind, count, value)."""
    start = {'<': b'II*\0', '>': b'MM\0*'}[order] + struct.pack(f'{order}I', 8 + len(body))
    directory = struct.pack(f'{order}H', len(fields))
    for tag, kind, count, value in fields:
        short = kind == 3 and count == 1
        directory += struct.pack(f'{order}HHI', tag, kind, count)
        directory += struct.pack(f'{order}HH', value, 0) if short else struct.pack(f'{order}I', value)
    return start + body + directory + struct.pack(f'{order}I', following)


@pytest.mark.parametrize('mode', ['I;16', 'I;16B'])
@pytest.mark.parametrize('compression', [None, 'tiff_lzw'])
def test_a_grey_tiff_of_sixteen_bits_is_scaled_like_a_png(mode, compression):
    grey = Image.fromarray(RAMP)
    image = grey if mode == 'I;16' else Image.frombytes(mode, grey.size, RAMP.astype('>u2').tobytes())
    picture = gate.admit(encoded('TIFF', image, **{'compression': compression} if compression else {}))
    assert levels_off(picture, RAMP_SEEN) < 3
    assert 'scaled_to_8_bit' in picture.notes
    assert picture.digest == gate.admit(toy.encoded(grey, 'PNG')).digest


@pytest.mark.parametrize('order', '<>')
def test_colours_of_sixteen_bits_are_scaled_and_dark_ones_are_told(order):
    colours = np.stack([RAMP, RAMP // 2, RAMP[:, ::-1]], -1)
    expected = Image.fromarray((colours >> 8).astype(np.uint8))
    assert levels_off(gate.admit(sixteen_bit_tiff(colours, order), format='PNG'), expected) == 0
    dark = gate.admit(sixteen_bit_tiff(colours >> 4, order))
    assert {'scaled_to_8_bit', 'dark_16_bit', 'uses_12_of_16_bits'} <= set(dark.notes)
    bright = gate.admit(sixteen_bit_tiff(colours >> 4, order), sixteen_bit_max=4095, format='PNG')
    assert levels_off(bright, expected) < 1


def test_of_sixteen_bits_of_printing_inks_the_high_ones_are_read():
    inks = np.stack([RAMP, RAMP // 2, RAMP[:, ::-1], RAMP * 0], -1)
    picture = gate.admit(sixteen_bit_tiff(inks, '<'))
    assert levels_off(picture, Image.fromarray((inks >> 8).astype(np.uint8), 'CMYK')) < 3
    assert 'scaled_to_8_bit' in picture.notes


def test_a_jpeg_2000_and_a_pgm_of_sixteen_bits_are_scaled():
    grey = Image.fromarray(RAMP)
    for data in (encoded('JPEG2000', grey), b'P5 256 32 65535\n' + RAMP.astype('>u2').tobytes()):
        picture = gate.admit(data)
        assert levels_off(picture, RAMP_SEEN) < 3
        assert 'scaled_to_8_bit' in picture.notes


@pytest.mark.parametrize('mode', ['I', 'F'])
def test_numbers_whose_white_nobody_knows_are_refused(mode):
    reject = rejected(encoded('TIFF', PLAIN.convert(mode)))
    assert reject.reason == 'unsupported_coding' and '8 or 16 bits' in reject.detail


# ---- damaged ----


@pytest.mark.parametrize('format', FORMATS)
def test_a_picture_cut_short_anywhere_is_rejected(format):
    data, admitted = encoded(format), []
    for length in range(1, len(data), 1 if len(data) < 2000 else 7):
        try:
            gate.admit(data[:length])
            admitted.append(length)
        except Reject:
            pass
    assert not admitted


@pytest.mark.parametrize('format', FORMATS)
def test_any_bytes_after_a_good_beginning_are_judged(format):
    """No exception but Reject."""
    data, rng = encoded(format), random.Random(0)
    for length in (4, 8, 12, 40, 100):
        for _ in range(40):
            rejected(data[:length] + rng.randbytes(rng.randrange(200)))


def test_without_its_library_heic_is_refused_with_the_way_to_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pillow_heif', None)
    decoders._make_ready.cache_clear()
    reject = rejected(encoded('HEIF'))
    assert reject.reason == 'unsupported_format' and "pip install 'finetune[heic]'" in reject.detail


@pytest.mark.filterwarnings('ignore::UserWarning:PIL')  # As the gate does; pytest begins with filters of its own.
@pytest.mark.parametrize('compression', ['tiff_lzw', 'tiff_adobe_deflate', 'jpeg'])
def test_what_a_library_thinks_of_a_bad_tiff_is_not_shown(compression, capfd):
    data = encoded('TIFF', compression=compression)
    for place in range(8, len(data), 5):
        with contextlib.suppress(Reject):
            gate.admit(data[:place] + b'\xaa' + data[place + 1:])
    assert capfd.readouterr() == ('', '')


# ---- more than is good ----


def claimed(format: str, side: int) -> bytes:
    """A small file whose header claims a square of this side."""
    data, both = encoded(format), struct.pack('>II', side, side)
    if format == 'TIFF':
        return tiff([(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 5), (262, 3, 1, 1),
                     (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, side), (279, 4, 1, 100)], bytes(100))
    if format == 'PPM':
        return b'P6 %d %d 255\n' % (side, side) + bytes(100)
    if format == 'JPEG2000':
        size = data.index(b'\xff\x51') + 6
        header = data.index(b'ihdr') + 4
        return data[:header] + both + data[header + 8:size] + both + bytes(8) + both + data[size + 24:]
    size = data.index(b'ispe') + 8
    return data[:size] + both + data[size + 8:]


@pytest.mark.parametrize('format', FORMATS)
def test_the_pixels_are_counted_before_any_decoder_makes_room_for_them(format, monkeypatch):
    monkeypatch.setattr(decoders, 'load', lambda image: pytest.fail('decoded'))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert rejected(claimed(format, 60_000)).reason == 'too_many_pixels'
    assert rejected(claimed(format, 1 << 30)).reason == 'too_many_pixels'
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < LITTLE_MEMORY


def test_a_small_tiff_with_a_huge_tile_is_not_decoded(monkeypatch):
    monkeypatch.setattr(decoders, 'load', lambda image: pytest.fail('decoded'))
    fields = [(256, 4, 1, 10), (257, 4, 1, 10), (258, 3, 1, 8), (259, 3, 1, 5), (262, 3, 1, 1), (277, 3, 1, 1),
              (322, 4, 1, 60_000), (323, 4, 1, 60_000), (324, 4, 1, 8), (325, 4, 1, 100)]
    assert rejected(tiff(fields, bytes(100))).reason == 'too_many_pixels'


@pytest.mark.parametrize(('tag', 'value', 'reason'), [
    (277, 60_000, 'unsupported_coding'), (258, 64, 'unsupported_coding'), (259, 34925, 'unsupported_coding'),
    (259, 6, 'unsupported_coding'), (278, 1, 'corrupt'), (257, 0, 'corrupt'), (273, 1 << 31, 'truncated'),
])
def test_a_tiff_that_a_decoder_might_choke_on_is_refused(tag, value, reason):
    fields = {256: (4, 1, 10), 257: (4, 1, 10), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, 1, 8),
              277: (3, 1, 1), 278: (4, 1, 10), 279: (4, 1, 100)}
    good = tiff([(number, *field) for number, field in fields.items()], bytes(100))
    assert gate.admit(good).width == 10
    fields[tag] = (*fields[tag][:2], value)
    assert rejected(tiff([(number, *field) for number, field in fields.items()], bytes(100))).reason == reason


def test_pages_of_a_tiff_that_follow_each_other_in_a_circle_are_not_followed():
    fields = [(256, 4, 1, 10), (257, 4, 1, 10), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
              (277, 3, 1, 1), (278, 4, 1, 10), (279, 4, 1, 100)]
    assert 'first_frame' in gate.admit(tiff(fields, bytes(100), following=108)).notes


def test_a_field_that_a_tiff_has_twice_does_not_hide_a_size():
    """Pillow believes the last, libtiff the first."""
    fields = [(256, 4, 1, 10), (256, 4, 1, 60_000), (257, 4, 1, 10)]
    assert rejected(tiff(fields)).reason == 'corrupt'


@pytest.mark.parametrize('length', [0, 1, 2, 7, 8, 15, 0xFFFFFFFF])
@pytest.mark.parametrize('format', ['AVIF', 'HEIF', 'JPEG2000'])
def test_a_box_of_any_length_ends(format, length):
    data = encoded(format)
    for kind in (b'meta', b'iprp', b'ipco', b'ispe', b'jp2h', b'ihdr', b'jp2c'):
        place = data.find(kind) - 4
        if place >= 0:
            for following in (bytes(8), b'\xff' * 8, struct.pack('>Q', 16)):
                rejected(data[:place] + struct.pack('>I', length) + kind + following + data[place + 16:])


def test_boxes_without_end_are_counted():
    data = encoded('AVIF')
    assert rejected(data[:32] + struct.pack('>I4s', 8, b'free') * (boxes.MOST_BOXES + 1)).reason == 'corrupt'


def test_a_jpeg_2000_of_very_many_tiles_is_refused():
    data = encoded('JPEG2000')
    size = data.index(b'\xff\x51') + 6
    tiles = size + 16
    header = data.index(b'ihdr') + 4
    both = struct.pack('>II', 5000, 5000)
    bomb = data[:header] + both + data[header + 8:size] + both + data[size + 8:tiles] + struct.pack('>II', 1, 1) + (
        data[tiles + 8:])
    assert rejected(bomb).reason == 'unsupported_coding'


@pytest.mark.parametrize('in_a_tile', [False, True])
def test_a_jpeg_2000_in_blocks_of_a_few_pixels_is_refused(in_a_tile, monkeypatch):
    """A decoder would take 10 GB for 16 million pixels of them."""
    monkeypatch.setattr(decoders, 'load', lambda image: pytest.fail('decoded'))
    data = encoded('JPEG2000', Image.new('RGB', (2000, 2000)), no_jp2=True, precinct_size=(64, 64))
    place = data.index(b'\xff\x52')
    length = int.from_bytes(data[place + 2:place + 4], 'big')
    coding = data[place:place + 14] + b'\x00' + b'\x11' * (length - 13)
    bomb = data[:place] + coding + data[place + 2 + length:]
    if in_a_tile:
        tile = data.index(b'\xff\x90')
        size = int.from_bytes(data[tile + 6:tile + 10], 'big') + len(coding)
        bomb = data[:tile + 6] + struct.pack('>I', size) + data[tile + 10:tile + 12] + coding + data[tile + 12:]
    assert rejected(bomb).reason == 'unsupported_coding'


def test_a_jpeg_2000_is_not_read_by_a_header_that_its_picture_contradicts():
    data = encoded('JPEG2000')
    header = data.index(b'ihdr') + 4
    assert rejected(data[:header] + struct.pack('>II', 16, 24) + data[header + 8:]).reason == 'corrupt'


@pytest.mark.parametrize('format', ['TIFF', 'JPEG2000'])
def test_a_picture_that_decodes_to_another_size_than_was_judged_is_rejected(format, monkeypatch):
    module, name = (tiff_file, 'parse') if format == 'TIFF' else (boxes, 'codestream')
    judged = dataclasses.replace(getattr(module, name)(encoded(format)), width=24)
    monkeypatch.setattr(module, name, lambda data: judged)
    assert rejected(encoded(format)).reason == 'corrupt'


@pytest.mark.parametrize('start', [b'II*\0', b'MM\0*'])
def test_a_raw_photo_is_not_taken_for_the_small_picture_in_it(start):
    order = '<' if start[:1] == b'I' else '>'
    fields = [(254, 4, 1, 1), (256, 4, 1, 10), (257, 4, 1, 10), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
              (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, 10), (279, 4, 1, 100)]
    assert rejected(tiff(fields, bytes(100), order)).reason == 'unsupported_format'
