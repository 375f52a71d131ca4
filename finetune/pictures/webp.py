"""The size that a WebP file says it has."""

from finetune.console.errors import Reject


def size(data: bytes) -> tuple[int, int]:
    if int.from_bytes(data[4:8], 'little') + 8 > len(data):
        raise Reject('truncated', f'the WebP ends after {len(data)} bytes')
    kind, body = data[12:16], data[20:30]
    if kind == b'VP8X':
        return int.from_bytes(body[4:7], 'little') + 1, int.from_bytes(body[7:10], 'little') + 1
    if kind == b'VP8L':
        bits = int.from_bytes(body[1:5], 'little')
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(body[6:8], 'little') & 0x3FFF, int.from_bytes(body[8:10], 'little') & 0x3FFF
