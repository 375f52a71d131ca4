"""What a good picture is, file by file."""

import dataclasses
import io
import random
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from finetune.console.errors import Reject
from finetune.pictures import gate
from finetune.pictures import png as png_file
from tests import toy

SIZE = (48, 32)
PLAIN = toy.picture(size=SIZE)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
TURNED_BY = {  # How a camera that writes orientation k has turned the upright picture.
    1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def jpeg(image: Image.Image = PLAIN, **options) -> bytes:
    return toy.encoded(image, 'JPEG', **{'quality': 95, 'subsampling': 0} | options)


def png(image: Image.Image = PLAIN, **options) -> bytes:
    return toy.encoded(image, 'PNG', **options)


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert('RGB')).astype(int)


def looks_like(picture: gate.Picture, expected: Image.Image, levels: float = 3.0) -> bool:
    expected = np.asarray(expected.convert('RGB')).astype(int)
    got = pixels(picture.encoded)
    return got.shape == expected.shape == (picture.height, picture.width, 3) and np.abs(got - expected).mean() < levels


def reason(data: bytes, **options) -> str:
    with pytest.raises(Reject) as caught:
        gate.admit(data, **options)
    return caught.value.reason


# ---- JPEG ----


@pytest.mark.parametrize('options', [{}, {'progressive': True}, {'subsampling': 2}, {'keep_rgb': True},
                                     {'restart_marker_rows': 1}, {'quality': 1}])
def test_an_upright_jpeg_keeps_its_compressed_bytes(options):
    picture = gate.admit(jpeg(**options))
    assert (picture.encoded, picture.height, picture.width, picture.notes) == (jpeg(**options), 32, 48, ())


def test_a_grey_jpeg_stays_grey_and_decodes_to_rgb():
    picture = gate.admit(jpeg(PLAIN.convert('L')))
    assert (picture.encoded, picture.notes) == (jpeg(PLAIN.convert('L')), ('converted_to_rgb',))


def test_metadata_and_what_follows_the_end_are_not_stored():
    data = jpeg(exif=exif(1), icc_profile=SRGB, dpi=(300, 300), comment=b'taken at home') + b'PK\3\4 a hidden archive'
    assert gate.admit(data).encoded == jpeg()


@pytest.mark.parametrize('orientation', range(1, 10))
def test_a_photo_that_was_held_sideways_is_stored_upright(orientation):
    turn = TURNED_BY.get(orientation)
    seen = PLAIN if turn is None else PLAIN.transpose(turn)
    picture = gate.admit(jpeg(seen, exif=exif(orientation)))
    assert looks_like(picture, PLAIN)
    assert ('exif_rotated' in picture.notes) == (2 <= orientation <= 8)


def test_damaged_exif_does_not_cost_the_picture():
    for damage in (b'', b'II', b'MM\0*\xff\xff\xff\xff', b'II*\0\x08\0\0\0\xff\xff' + bytes(range(200))):
        data = jpeg()
        data = data[:2] + b'\xff\xe1' + struct.pack('>H', len(damage) + 8) + b'Exif\0\0' + damage + data[2:]
        assert gate.admit(data).encoded == jpeg()


def test_cmyk_has_the_right_colours_with_and_without_the_adobe_marker():
    planes = [Image.eval(plane, lambda value: 255 - value) for plane in PLAIN.split()]
    data = jpeg(Image.merge('CMYK', [*planes, Image.new('L', SIZE, 0)]))
    start = data.index(b'\xff\xee')
    without_marker = data[:start] + data[start + 2 + struct.unpack('>H', data[start + 2:start + 4])[0]:]
    for cmyk in (data, without_marker):
        assert looks_like(gate.admit(cmyk), PLAIN)


def swapped_profile() -> bytes:
    swapped = SRGB.replace('sRGB'.encode('utf-16-be'), 'odd!'.encode('utf-16-be'))
    for one, other in ((b'rXYZ', b'bXYZ'), (b'rTRC', b'bTRC')):
        swapped = swapped.replace(one, b'????').replace(other, one).replace(b'????', other)
    return swapped


def test_colours_are_what_the_profile_says_and_not_what_the_numbers_say():
    """A profile that names the red primary blue: the numbers of a red picture mean blue."""
    picture = gate.admit(jpeg(Image.new('RGB', SIZE, (200, 0, 0)), icc_profile=swapped_profile()))
    red, _, blue = pixels(picture.encoded).mean((0, 1))
    assert red < 60 and blue > 150
    assert 'converted_to_srgb' in picture.notes


@pytest.mark.parametrize('name', ['sRGB', 'odd!'])
def test_a_linear_profile_is_converted_and_a_true_srgb_one_changes_nothing_whatever_they_are_called(name):
    renamed = SRGB.replace('sRGB'.encode('utf-16-be'), name.encode('utf-16-be'))
    curve = renamed.index(b'para') + 12
    linear = renamed[:curve] + struct.pack('>5i', 1 << 16, 1 << 16, 0, 1 << 16, 0) + renamed[curve + 20:]
    grey = Image.new('RGB', SIZE, (55, 55, 55))
    converted = gate.admit(jpeg(grey, icc_profile=linear))
    assert pixels(converted.encoded).mean() == pytest.approx(128, abs=2)
    assert 'converted_to_srgb' in converted.notes
    assert gate.admit(jpeg(icc_profile=renamed)).encoded == jpeg()


@pytest.mark.parametrize('data', [
    png(icc_profile=swapped_profile()), toy.encoded(PLAIN, 'TIFF', icc_profile=SRGB)], ids=['converted', 'kept'])
def test_what_is_stored_as_png_has_no_profile_whose_date_would_make_other_bytes_of_it(data):
    assert png_file.parse(gate.admit(data, format='PNG').encoded).icc is None


def test_a_profile_of_noise_is_dropped():
    assert gate.admit(jpeg(icc_profile=random.Random(0).randbytes(70_000))).encoded == jpeg()


@pytest.mark.parametrize('data', [jpeg(), jpeg(progressive=True), png(), png(PLAIN.quantize(16))],
                         ids=['baseline', 'progressive', 'png', 'palette png'])
def test_a_picture_cut_short_anywhere_is_rejected(data):
    admitted = []
    for length in range(1, len(data)):
        try:
            gate.admit(data[:length])
            admitted.append(length)
        except Reject:
            pass
    assert not admitted


def segments(data: bytes) -> list[int]:
    """Where each begins, up to the one before the compressed data."""
    places, position = [], 2
    while data[position + 1] != 0xDA:
        places.append(position)
        position += 2 + int.from_bytes(data[position + 2:position + 4], 'big')
    return [*places, position]


@pytest.mark.parametrize('stray', [b'\0', b'\0\0\0\0', b'Photo\xff\0shop', bytes(60_000)])
def test_bytes_that_belong_to_nothing_between_segments_cost_no_picture(stray):
    for position in segments(jpeg()):
        picture = gate.admit(jpeg()[:position] + stray + jpeg()[position:])
        assert (picture.encoded, picture.digest) == (jpeg(), gate.admit(jpeg()).digest)
        assert picture.notes == ('stray_bytes',)


def test_any_number_of_fill_bytes_before_a_marker_is_as_it_should_be():
    picture = gate.admit(jpeg()[:20] + 100_000 * b'\xff' + jpeg()[20:])
    assert (picture.encoded, picture.notes) == (jpeg(), ())
    started = time.monotonic()
    assert reason(jpeg()[:20] + (10 << 20) * b'\xff' + b'\0') == 'corrupt'
    assert time.monotonic() - started < 1


def test_what_holds_more_noise_than_a_wrong_length_leaves_behind_is_no_jpeg():
    for position in segments(jpeg()):
        assert reason(jpeg()[:position] + bytes(70_000) + jpeg()[position:]) == 'corrupt'
    assert reason(jpeg()[:20] + bytes(5000)) == 'corrupt'


def test_the_scans_of_an_endless_progressive_jpeg_are_not_decoded():
    data = jpeg(progressive=True)
    scan = data[data.rindex(b'\xff\xda'):-2]
    assert reason(data[:-2] + 10_000 * scan + data[-2:]) == 'corrupt'


# ---- PNG ----


def chunk(kind: bytes, body: bytes, crc: int | None = None) -> bytes:
    crc = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', crc)


def grey_png(width: int, height: int, depth: int, rows: bytes, interlaced: int = 0, crc: int | None = None) -> bytes:
    return raw_png(width, height, depth, 0, rows, interlaced, crc)


def raw_png(width: int, height: int, depth: int, colour: int, rows: bytes, interlaced: int = 0, crc=None) -> bytes:
    header = struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, interlaced)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(rows), crc)
            + chunk(b'IEND', b''))


def test_missing_rows_of_a_png_are_not_stored_as_black():
    assert reason(grey_png(4, 4, 8, 2 * b'\0\1\2\3\4')) == 'truncated'


def test_a_png_with_a_wrong_checksum_is_rejected():
    assert reason(grey_png(4, 4, 8, 4 * b'\0\1\2\3\4', crc=1)) == 'corrupt'


def test_a_damaged_text_in_a_png_does_not_cost_the_picture():
    data = png()
    assert looks_like(gate.admit(data[:33] + chunk(b'tEXt', b'a\0b', crc=1) + data[33:]), PLAIN)


def raw_profile(profile: bytes, name: bytes = b'exif') -> bytes:
    """As ImageMagick writes what it has no chunk for."""
    lines = [profile.hex()[start:start + 72].encode() for start in range(0, 2 * len(profile), 72)]
    return b'\n%s\n%8d\n%s\n' % (name, len(profile), b'\n'.join(lines))


@pytest.mark.parametrize('deflated', [False, True])
@pytest.mark.parametrize(('name', 'start'), [(b'exif', b'Exif\0\0'), (b'exif', b''), (b'APP1', b'Exif\0\0')])
def test_a_png_that_imagemagick_made_of_a_sideways_photo_is_stored_upright(deflated, name, start):
    text = raw_profile(start + exif(6).removeprefix(b'Exif\0\0'), name)
    text = chunk(b'zTXt', b'Raw profile type %s\0\0' % name + zlib.compress(text)) if deflated else \
        chunk(b'tEXt', b'Raw profile type %s\0' % name + text)
    data = png(PLAIN.transpose(TURNED_BY[6]))
    picture = gate.admit(data[:33] + chunk(b'tEXt', b'Comment\0first') + text + data[33:])
    assert looks_like(picture, PLAIN)
    assert 'exif_rotated' in picture.notes


def test_a_text_in_a_png_that_is_no_exif_or_inflates_to_gigabytes_costs_neither_the_picture_nor_time():
    endless = zlib.compress(b'\nexif\n 6\n' + bytes(64 << 20))
    started = time.monotonic()
    for kind, text in ((b'tEXt', b''), (b'tEXt', b'\nexif\n 3\nzzz'), (b'tEXt', b'\n\n4d4'), (b'zTXt', b'\0noise'),
                       (b'zTXt', b''), (b'zTXt', b'\0' + endless), (b'tEXt', b'\nexif\n 5\n' + b'4d4d' * 100_000)):
        bad = 50 * chunk(kind, b'Raw profile type exif\0' + text)
        picture = gate.admit(png()[:33] + bad + png()[33:])
        assert picture.encoded == gate.admit(png()).encoded
    assert time.monotonic() - started < 2


def test_sixteen_bits_are_scaled_and_not_clipped_to_white():
    ramp = np.tile(np.arange(256, dtype='>u2') * 257, (32, 1))
    rows = b''.join(b'\0' + row.tobytes() for row in ramp)
    picture = gate.admit(grey_png(256, 32, 16, rows))
    assert looks_like(picture, Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (32, 1))))
    assert 'scaled_to_8_bit' in picture.notes


def deep_png(values: np.ndarray, orientation: int = 1) -> bytes:
    """Of 16 bits: [h, w, 1 to 4], grey, grey and alpha, colours, colours and alpha."""
    height, width, samples = values.shape
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in values)
    data = raw_png(width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[samples], rows)
    return data[:33] + chunk(b'eXIf', exif(orientation).removeprefix(b'Exif\0\0')) + data[33:]


@pytest.mark.parametrize('samples', [1, 2, 3, 4])
@pytest.mark.parametrize('interlaced', [0, 1])
def test_values_of_16_bits_keep_the_levels_that_they_have(samples, interlaced):
    """Depth, X-ray and thermal pictures use a part of the range: 12 bits kept 16 levels, and a picture was black."""
    values = np.random.default_rng(0).integers(0, 4096, (8, 8, samples))
    if samples in (2, 4):
        values[..., -1] = 65_535
    data = deep_png(values)
    if interlaced:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
        rows = b''.join(b'\0' + row.astype('>u2').tobytes() for left, top, across, down in passes
                        for row in values[top::down, left::across])
        data = raw_png(8, 8, 16, data[25], rows, interlaced=1)
    picture = gate.admit(data, format='PNG', sixteen_bit_max=4095)
    expected = np.broadcast_to(values[..., :3] if samples > 2 else values[..., :1], (8, 8, 3)) >> 4
    np.testing.assert_array_equal(pixels(picture.encoded), expected)
    assert 'scaled_to_8_bit' in picture.notes and 'dark_16_bit' not in picture.notes


@pytest.mark.parametrize(('highest', 'white', 'noted'), [
    (166, 65_535, {'dark_16_bit', 'uses_8_of_16_bits'}), (4095, 65_535, {'dark_16_bit', 'uses_12_of_16_bits'}),
    (8191, 65_535, {'dark_16_bit', 'uses_13_of_16_bits'}), (8192, 65_535, set()), (65_535, 65_535, set()),
    (4095, 4095, set()), (166, 4095, {'dark_16_bit', 'uses_8_of_16_bits'}), (4096, 4095, {'clipped_16_bit'}),
    (0, 65_535, set()),
])
@pytest.mark.parametrize('samples', [1, 3])
def test_a_picture_of_16_bits_that_comes_out_nearly_black_or_too_bright_is_noted(highest, white, noted, samples):
    values = np.zeros((4, 4, samples), int)
    values[2, 2, -1] = highest
    notes = gate.admit(deep_png(values), sixteen_bit_max=white).notes
    assert {note for note in notes if '16_bit' in note} == noted


def test_what_is_brighter_than_white_is_white():
    values = np.array([[[0], [4095], [4096], [65_535]]] * 4)
    assert pixels(gate.admit(deep_png(values), format='PNG', sixteen_bit_max=4095).encoded)[0, :, 0].tolist() == [
        0, 255, 255, 255]


def test_the_transparent_colour_of_16_bits_becomes_white_and_one_that_is_nearly_it_stays():
    values = np.array([[[512, 0, 7], [512, 0, 8], [513, 0, 7], [25_600, 0, 7]]] * 4)
    data = deep_png(values)
    picture = gate.admit(data[:33] + chunk(b'tRNS', struct.pack('>HHH', 512, 0, 7)) + data[33:], format='PNG')
    assert pixels(picture.encoded)[0].tolist() == [[255, 255, 255], [2, 0, 0], [2, 0, 0], [100, 0, 0]]
    assert 'alpha_flattened' in picture.notes


def test_what_is_transparent_becomes_white_and_hidden_colours_stay_hidden():
    alpha = Image.new('L', SIZE, 255)
    alpha.paste(0, (24, 0, 48, 32))
    image = PLAIN.copy()
    image.putalpha(alpha)
    expected = PLAIN.copy()
    expected.paste('white', (24, 0, 48, 32))
    for data in (png(image), toy.encoded(image, 'WEBP', lossless=True, exact=True)):
        picture = gate.admit(data)
        assert looks_like(picture, expected)
        assert 'alpha_flattened' in picture.notes


@pytest.mark.parametrize('depth', [8, 16])
def test_the_transparent_grey_of_a_png_becomes_white_at_every_depth(depth):
    """Black is transparent; the darkest grey that is not, and has the same high byte, stays."""
    values = np.array([[0, 1, 100, 200]] * 4 if depth == 8 else [[0, 1, 25_600, 51_200]] * 4, f'>u{depth // 8}')
    data = grey_png(4, 4, depth, b''.join(b'\0' + row.tobytes() for row in values))
    picture = gate.admit(data[:33] + chunk(b'tRNS', struct.pack('>H', 0)) + data[33:], format='PNG')
    assert pixels(picture.encoded)[0, :, 0].tolist() == [255, 1 if depth == 8 else 0, 100, 200]
    assert 'alpha_flattened' in picture.notes


def test_rows_of_every_png_kind_are_counted_right():
    """A wrong count would reject good pictures as truncated: odd widths, packed bits, interlaced passes."""
    for width, height in ((1, 1), (3, 2), (5, 9), (8, 8), (17, 1)):
        for mode in ('1', 'L', 'P', 'RGB', 'RGBA', 'LA', 'I;16'):
            image = Image.new(mode, (width, height))
            assert gate.admit(png(image)).width == width
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
        rows = b''.join(bytes(1 + len(range(left, width, across))) * len(range(top, height, down))
                        for left, top, across, down in passes if range(left, width, across))
        assert gate.admit(grey_png(width, height, 8, rows, interlaced=1)).height == height
        assert reason(grey_png(width, height, 8, rows[:-1], interlaced=1)) == 'truncated'


# ---- other formats ----


def test_the_first_picture_of_an_animation_is_taken():
    later = [toy.picture(number, SIZE, 'royalblue') for number in (1, 2)]
    for format, options in (('GIF', {}), ('WEBP', {'lossless': True}), ('PNG', {})):
        data = toy.encoded(PLAIN, format, save_all=True, append_images=later, **options)
        picture = gate.admit(data)
        assert looks_like(picture, PLAIN, levels=6)  # A GIF has 256 colours.
        assert 'first_frame' in picture.notes


def test_what_a_phone_puts_behind_a_photo_is_no_animation_to_warn_of():
    data = toy.encoded(PLAIN, 'MPO', save_all=True, append_images=[toy.picture(1, SIZE)])
    assert gate.admit(data).notes == ('extra_picture',)


def test_a_gif_whose_second_picture_is_damaged_still_has_its_first():
    data = toy.encoded(PLAIN, 'GIF', save_all=True, append_images=[toy.picture(1, SIZE)])
    assert looks_like(gate.admit(data[:-200]), PLAIN, levels=6)


def test_a_gif_frame_smaller_than_its_canvas_gives_the_canvas():
    data = bytearray(toy.encoded(PLAIN, 'GIF'))
    data[6:10] = struct.pack('<HH', 100, 90)
    picture = gate.admit(bytes(data))
    assert (picture.width, picture.height) == (100, 90)


def test_bmp_is_read_and_a_short_one_rejected():
    data = toy.encoded(PLAIN, 'BMP')
    assert looks_like(gate.admit(data), PLAIN)
    assert reason(data[:-50]) == 'truncated'


@pytest.mark.parametrize(('data', 'named'), [
    (b'\xff\x0a' + bytes(60), 'JPEG XL'), (b'\0\0\1\0' + bytes(60), 'ICO'), (b'%PDF-1.7', 'PDF'),
    (b'\0\0\0\x18ftypisom' + bytes(60), 'film'), (b'<?xml version="1.0"?><svg/>', 'SVG'), (b'%!PS-Adobe', 'EPS'),
])
def test_a_format_that_is_not_read_here_is_called_by_its_name(data, named):
    with pytest.raises(Reject, match=named) as caught:
        gate.admit(data)
    assert caught.value.reason == 'unsupported_format'


@pytest.mark.parametrize(('data', 'cause'), [
    (b'<!DOCTYPE html><title>404', 'HTML'), (b'version https://git-lfs.github.com/spec/v1', 'git lfs pull'),
    (b'\x1f\x8b\x08' + bytes(20), 'gzip'), (b'/9j/4AAQSkZJRg', 'base64'), (b'\n' + jpeg(), 'no known'),
])
def test_what_is_no_picture_is_rejected_with_the_likely_cause(data, cause):
    with pytest.raises(Reject, match=cause) as caught:
        gate.admit(data)
    assert caught.value.reason == 'not_an_image'


# ---- limits ----


def huge_header(format: str) -> bytes:
    """A small file whose header claims 60,000 x 60,000 pixels."""
    if format == 'PNG':
        data = png()
        header = struct.pack('>II', 60_000, 60_000) + data[24:29]
        return data[:8] + chunk(b'IHDR', header) + data[33:]
    if format == 'JPEG':
        data = jpeg()
        start = data.index(b'\xff\xc0') + 5
        return data[:start] + struct.pack('>HH', 60_000, 60_000) + data[start + 4:]
    if format == 'GIF':
        data = toy.encoded(PLAIN, 'GIF')
        return data[:6] + struct.pack('<HH', 60_000, 60_000) + data[10:]
    data = toy.encoded(PLAIN, 'BMP')
    return data[:18] + struct.pack('<ii', 60_000, 60_000) + data[26:]


@pytest.mark.parametrize('format', ['PNG', 'JPEG', 'GIF', 'BMP'])
def test_the_pixels_are_counted_before_any_decoder_makes_room_for_them(format):
    started = time.monotonic()
    assert reason(huge_header(format)) == 'too_many_pixels'
    assert time.monotonic() - started < 0.5


def test_a_34_byte_webp_that_decodes_to_gigabytes_is_rejected():
    bits = (16_383 - 1) | (16_383 - 1) << 14
    body = b'VP8L' + struct.pack('<I', 5) + b'\x2f' + struct.pack('<I', bits) + b'\0'
    assert reason(b'RIFF' + struct.pack('<I', len(body) + 4) + b'WEBP' + body) == 'too_many_pixels'


def test_a_png_with_two_headers_does_not_hide_its_size_behind_the_first():
    """The first claims 1 x 1 pixels and is judged; decoders make room for what the second claims."""
    data = png(Image.new('L', (100, 100)))
    small = chunk(b'IHDR', struct.pack('>II', 1, 1) + data[24:29])
    assert reason(data[:8] + small + data[8:], limits=gate.Limits(max_pixels=100)) == 'corrupt'


def test_a_png_is_not_decoded_where_the_decoder_reads_another_size_than_was_judged(monkeypatch):
    judged = dataclasses.replace(png_file.parse(png()), width=24)
    monkeypatch.setattr(png_file, 'parse', lambda data: judged)
    assert reason(png()) == 'corrupt'


def test_a_reason_names_no_flag_which_its_caller_may_not_have():
    with pytest.raises(Reject) as caught:
        gate.admit(jpeg(), gate.Limits(max_pixels=10))
    assert caught.value.detail.endswith('the limit is 10')


def test_limits_are_the_callers():
    assert reason(jpeg(), limits=gate.Limits(max_pixels=48 * 32 - 1)) == 'too_many_pixels'
    assert gate.admit(jpeg(), limits=gate.Limits(max_pixels=48 * 32)).width == 48


# ---- shrinking ----


@pytest.mark.parametrize(('size', 'options', 'expected'), [
    ((640, 480), {'short_side': 120}, (160, 120)), ((480, 640), {'short_side': 120}, (120, 160)),
    ((640, 480), {'max_side': 320}, (320, 240)), ((640, 480), {'max_side': 100, 'short_side': 120}, (100, 75)),
    ((64, 48), {'short_side': 120, 'max_side': 100}, (64, 48)), ((1000, 2), {'max_side': 100}, (100, 1)),
])
@pytest.mark.parametrize('format', ['JPEG', 'PNG'])
def test_pictures_are_shrunk_to_what_was_asked_and_never_enlarged(size, options, expected, format):
    image = Image.linear_gradient('L').resize(size).convert('RGB')
    picture = gate.admit(toy.encoded(image, format), **options)
    assert (picture.width, picture.height) == expected
    assert looks_like(picture, image.resize(expected, Image.Resampling.LANCZOS), levels=4)


def test_a_small_enough_picture_keeps_its_bytes_when_others_shrink():
    assert gate.admit(jpeg(), short_side=32).encoded == jpeg()


def test_a_sideways_photo_is_shrunk_and_turned():
    image = toy.picture(size=(320, 240))
    picture = gate.admit(jpeg(image.transpose(TURNED_BY[6]), exif=exif(6)), short_side=60)
    assert looks_like(picture, image.resize((80, 60), Image.Resampling.LANCZOS), levels=6)


# ---- which picture it is ----


def digest(data: bytes, **options) -> bytes:
    return gate.admit(data, **options).digest


def with_segment(data: bytes, marker: int, body: bytes) -> bytes:
    return data[:2] + struct.pack('>BBH', 0xFF, marker, len(body) + 2) + body + data[2:]


@pytest.mark.parametrize('original', [
    jpeg(), jpeg(progressive=True), jpeg(PLAIN.convert('L')), jpeg(PLAIN.convert('CMYK')), jpeg(exif=exif(6)),
    jpeg(icc_profile=swapped_profile()),
], ids=['plain', 'progressive', 'grey', 'cmyk', 'sideways', 'in another colour space'])
def test_a_jpeg_that_a_program_tagged_is_the_same_picture(original):
    tagged = [
        with_segment(original, 0xFE, b'taken at home'), with_segment(original, 0xE1, b'http://ns.adobe.com/xap/1.0/'),
        with_segment(original, 0xED, b'Photoshop 3.0'), original + b'PK\3\4',
    ]
    assert {digest(data) for data in tagged} == {digest(original)}


def test_a_jpeg_without_the_header_of_jfif_is_the_same_picture():
    """As cameras write them, and programs that leave all out which is not needed to decode."""
    header = b'\xff\xe0\0\x10JFIF\0'
    original = jpeg()
    assert original[2:].startswith(header)
    bare = original[:2] + original[20:]
    assert looks_like(gate.admit(bare), PLAIN, levels=8)
    assert digest(bare) == digest(original)


def test_another_density_camera_or_thumbnail_makes_no_other_picture():
    camera = Image.Exif()
    camera[0x0110] = 'A camera'
    assert digest(jpeg(dpi=(300, 300))) == digest(jpeg(exif=camera.tobytes())) == digest(jpeg())
    assert digest(jpeg(exif=exif(1))) == digest(jpeg(icc_profile=SRGB)) == digest(jpeg())


def test_what_turns_or_colours_the_same_compressed_bytes_makes_another_picture():
    shown = [jpeg(exif=exif(number)) for number in range(1, 9)] + [jpeg(icc_profile=swapped_profile())]
    assert len({digest(data) for data in shown}) == 9


def test_a_picture_saved_without_loss_in_any_way_is_the_same_picture():
    saved = [png(compress_level=0), png(compress_level=9, dpi=(300, 300)), png(PLAIN.convert('RGBA')),
             png(PLAIN.transpose(TURNED_BY[6]), exif=exif(6)), toy.encoded(PLAIN, 'BMP'),
             toy.encoded(PLAIN, 'WEBP', lossless=True)]
    assert {digest(data) for data in saved} == {digest(png())}
    assert len({digest(png()), digest(png(PLAIN.rotate(180))), digest(png(toy.picture(1, SIZE)))}) == 3


def test_blank_pictures_of_two_shapes_are_two():
    assert digest(png(Image.new('L', (4, 6)))) != digest(png(Image.new('L', (6, 4))))


@pytest.mark.parametrize('original', [
    jpeg(), jpeg(exif=exif(6)), jpeg(PLAIN.convert('CMYK')), png(), png(PLAIN, exif=exif(6)),
    toy.encoded(PLAIN, 'GIF')], ids=['jpeg', 'sideways jpeg', 'cmyk', 'png', 'sideways png', 'gif'])
def test_how_a_picture_is_stored_does_not_decide_which_it_is(original):
    """Else a flag would move it to the other split."""
    ways = [{'short_side': 8}, {'max_side': 20}, {'format': 'PNG'}, {'limits': gate.Limits(max_bytes=10_000)}]
    assert {digest(original, **options) for options in ways} == {digest(original)}


def test_pictures_of_16_bits_that_all_come_out_black_are_not_one():
    def dark(value: int) -> bytes:
        return deep_png(np.array([[[value], [0]]] * 2))

    assert gate.admit(dark(1), format='PNG').encoded == gate.admit(dark(2), format='PNG').encoded
    assert digest(dark(1)) != digest(dark(2))
    assert digest(dark(1)) == digest(dark(1), sixteen_bit_max=100)
    assert digest(dark(1)) == digest(dark(1)[:33] + chunk(b'tEXt', b'a\0b') + dark(1)[33:])


@pytest.mark.parametrize('samples', [1, 2, 3, 4])
def test_a_sideways_picture_of_16_bits_is_the_upright_one(samples):
    values = np.random.default_rng(0).integers(0, 65_536, (4, 6, samples))
    turned = np.rot90(values, -1)
    assert digest(deep_png(turned, orientation=8)) == digest(deep_png(values)) != digest(deep_png(turned))
