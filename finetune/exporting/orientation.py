"""The EXIF orientation of a JPEG, found inside a graph, by the rules of `pictures.jpeg`."""

from finetune.console.lazy import tf

APP1, SOS, EOI = 0xE1, 0xDA, 0xD9
EXIF = tuple(b'Exif\0\0')
TAG, SHORT = 0x0112, 3
BIG, LITTLE = ord('M'), ord('I')
FAR = 1 << 24  # Beyond any segment.


def of_jpeg(data):
    """1 to 8 of the bytes of a JPEG, uint8 [n]; 1, upright, where it is missing or makes no sense. Scalar int32."""
    segment = _first_exif(data)
    end = segment + 2 + _number(data, segment + 2, 2)
    tiff = segment + 4 + len(EXIF)
    order = _byte(data, tiff)
    is_little = order == LITTLE
    first = tiff + _number(data, tiff + 4, 4, is_little)
    entries = first + 2 + 12 * tf.range(_number(data, first, 2, is_little))
    entries = tf.boolean_mask(entries, entries + 10 <= end)
    entry = tf.boolean_mask(entries, _number(data, entries, 2, is_little) == TAG)[:1]  # The first one, or none.
    is_short = _number(data, entry + 2, 2, is_little) == SHORT
    value = tf.reduce_sum(tf.where(is_short, _number(data, entry + 8, 2, is_little), 0))
    is_exif = _begins_exif(data, segment) & (order == _byte(data, tiff + 1)) & (is_little | (order == BIG))
    return tf.where(is_exif & (value >= 1) & (value <= 8), value, 1)


def _first_exif(data):
    """Where its segment begins, or the first place without a segment before the picture."""
    def is_another(place):
        marker = _byte(data, place + 1)
        is_segment = (_byte(data, place) == 0xFF) & (marker != SOS) & (marker != EOI) & (place + 4 <= tf.size(data))
        return is_segment & ~_begins_exif(data, place)

    def following(place):
        is_filling = _byte(data, place + 1) == 0xFF  # Any number of FF may stand before a marker.
        return [tf.where(is_filling, place + 1, place + 2 + tf.maximum(_number(data, place + 2, 2), 2))]

    return tf.while_loop(is_another, following, [tf.constant(2)])[0]


def _begins_exif(data, place):
    return ((_byte(data, place) == 0xFF) & (_byte(data, place + 1) == APP1)
            & tf.reduce_all(_byte(data, place + 4 + tf.range(len(EXIF))) == tf.constant(EXIF)))


def _number(data, places, count: int, is_little=False):
    """Of so many bytes at these places; at most `FAR`."""
    values = [tf.cast(_byte(data, places + i), tf.int64) for i in range(count)]
    forward, backward = (sum(value * 256**i for i, value in enumerate(each)) for each in (values[::-1], values))
    return tf.cast(tf.minimum(tf.where(is_little, backward, forward), FAR), tf.int32)


def _byte(data, places):
    """Those at these places, int32; 0 outside."""
    is_inside = (places >= 0) & (places < tf.size(data))
    return tf.where(is_inside, tf.cast(tf.gather(data, tf.where(is_inside, places, 0)), tf.int32), 0)
