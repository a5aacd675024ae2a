"""What stands around the pixels of a picture file: its format, how it was held, its colour profile.

Photos carry text, thumbnails and maker's notes that have nothing to do with what they show, and that decoders stumble
over. Here the file is walked by its own structure; only orientation and profile are read, and what is not needed to see
the picture is left out of the bytes that the decoder gets.

JPEG: ITU-T T.81, annex B. PNG: W3C, third edition. WebP: RFC 9649. HEIC, AVIF: ISO 23008-12. EXIF: JEITA CP-3451.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from service.errors import UnreadablePicture, UnsupportedMedia

FORMATS = "JPEG, PNG, WebP, GIF, HEIC or AVIF"
MAX_PROFILE = 4 * 1024 * 1024  # bytes; the largest printers' profiles have 3 MB
MAX_PARTS = 100_000  # segments or chunks of a file
MAX_SCANS = 100  # of a JPEG; each goes over the whole picture again, and encoders make about ten
ORIENTATION = 0x0112

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
EXIF_HEADER, PROFILE_HEADER = b"Exif\0\0", b"ICC_PROFILE\0"
STANDALONE = frozenset((0x01, *range(0xD0, 0xDA)))  # markers without a length
MARKER = re.compile(rb"\xff+[\x01-\xfe]")
AFTER_SCAN = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")  # in a scan 0xff is followed by 0 or by a restart marker
START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
EOI, SOS, APP0, APP1, APP2, APP14, APP15, COM = 0xD9, 0xDA, 0xE0, 0xE1, 0xE2, 0xEE, 0xEF, 0xFE
JPEG_END = b"\xff\xd9"
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
AVIF_BRANDS = (b"avif", b"avis")
# an item of the box of metadata, whose type says that it is EXIF
EXIF_ITEM = re.compile(rb"(infe[\s\S]{8,10}?)Exif")


@dataclass(frozen=True, slots=True)
class PictureFile:
    """An encoded picture. data: without what decoders stumble over; orientation: 1 to 8, as EXIF counts;
    profile: ICC, or None; held: bytes a pixel that the decoder needs beside its output; deep: 16 bits a channel;
    ended: whether the file has its end."""

    format: str
    data: bytes
    orientation: int = 1
    profile: bytes | None = None
    held: float = 0.0
    deep: bool = False
    ended: bool = True


def read(data: bytes) -> PictureFile:
    """Find out what a file is. Raises UnsupportedMedia, UnreadablePicture."""
    if not data:
        raise UnreadablePicture(f"the picture is empty (0 bytes); send a {FORMATS}", field="image")
    for fits, walk in _WALKS:
        if fits(data):
            try:
                return walk(data)
            except (struct.error, IndexError, ValueError) as error:
                raise UnreadablePicture(
                    f"the picture's header cannot be read; expected a whole {FORMATS}: send the file again",
                    field="image",
                ) from error
    raise UnsupportedMedia(
        f"not a picture that we read: expected {FORMATS}, got {len(data)} bytes that begin with {data[:12]!r}",
        field="image",
    )


def orientation_of(exif: bytes) -> int:
    """How the camera was held, 1 to 8; 1 where the block does not say. Nothing else of it is looked at."""
    exif = exif.removeprefix(EXIF_HEADER)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        [at] = struct.unpack_from(f"{order}I", exif, 4)
        [entries] = struct.unpack_from(f"{order}H", exif, at)
        for entry in range(entries):
            tag, kind, count = struct.unpack_from(f"{order}HHI", exif, at + 2 + 12 * entry)
            if tag == ORIENTATION and kind in (3, 4) and count:
                [value] = struct.unpack_from(order + "HI"[kind - 3], exif, at + 10 + 12 * entry)
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:  # the block breaks off
        pass
    return 1


def _jpeg(data: bytes) -> PictureFile:
    """Segments up to the end of the picture, and nothing after it; of the application segments JFIF, Adobe's and the
    profile remain, since they say how colours are meant."""
    kept: list[bytes | memoryview] = [data[:2]]
    view = memoryview(data)
    orientation, profile, sampling, progressive = 1, {}, [], False
    scans, several, ended = 0, False, False
    for marker, start, end in _segments(data):
        if marker == EOI:
            ended = True
            break
        if marker in (APP1, APP2):
            body = data[start + 4 : end]
            if marker == APP1 and body.startswith(EXIF_HEADER):
                orientation = orientation_of(body)
            elif marker == APP2 and body.startswith(PROFILE_HEADER) and len(body) > 14:
                profile[body[12]] = body[14:]
        elif marker in START_OF_FRAME:
            progressive = marker not in (0xC0, 0xC1)
            channels = range(data[start + 9])
            sampling = [(data[start + 11 + 3 * c] >> 4, data[start + 11 + 3 * c] & 15) for c in channels]
        elif marker == SOS:
            scans += 1
            several = several or progressive or data[start + 4] < len(sampling)
            if scans > MAX_SCANS:
                raise UnreadablePicture(f"the JPEG has more than {MAX_SCANS} scans; send it as fewer", field="image")
        if marker in (APP0, APP14) or not (APP0 <= marker <= APP15 or marker == COM):
            kept.append(view[start:end])
    if not scans:
        raise ValueError("no scan")
    if ended:
        kept.append(JPEG_END)
    held = 0.0
    if sampling and several:  # all coefficients are kept until the last scan, in 16 bits
        widest = max(h for h, _ in sampling) * max(v for _, v in sampling)
        held = sum(2 * h * v for h, v in sampling) / max(1, widest)
    parts = b"".join(profile[number] for number in sorted(profile))
    return PictureFile("JPEG", b"".join(kept), orientation, _bounded(parts), held, ended=ended)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each segment of a JPEG; a scan has its pixels with it."""
    at = 2
    for _ in range(MAX_PARTS):
        if (found := MARKER.search(data, at)) is None:
            return
        at, marker = found.start(), data[found.end() - 1]
        end = (
            found.end()
            if marker in STANDALONE
            else found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
        )
        if end > len(data):
            return
        if marker == SOS:
            after = AFTER_SCAN.search(data, end)
            end = after.start() if after else len(data)
        yield marker, at, end
        at = end
    raise ValueError("too many segments")


def _png(data: bytes) -> PictureFile:
    """The chunks without which there is no picture; their checksums are the decoder's matter."""
    kept: list[bytes | memoryview] = [PNG_SIGNATURE]
    view = memoryview(data)
    at, orientation, profile, deep = len(PNG_SIGNATURE), 1, None, False
    for _ in range(MAX_PARTS):
        if at + 8 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if kind in PNG_NEEDED:
            kept.append(view[at:end])
        if kind == b"IHDR":
            deep = data[at + 16] == 16
        elif kind == b"eXIf":
            orientation = orientation_of(data[at + 8 : end - 4])
        elif kind == b"iCCP":
            profile = _inflated(data[at + 8 : end - 4].partition(b"\0")[2][1:])
        at = end
        if kind == b"IEND":
            break
    else:
        raise ValueError("too many chunks")
    return PictureFile("PNG", b"".join(kept), orientation, profile, deep=deep)


def _webp(data: bytes) -> PictureFile:
    """All of it: the decoder does not look at what is around the pixels."""
    at, orientation, profile = 12, 1, None
    for _ in range(MAX_PARTS):
        if at + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind == b"EXIF":
            orientation = orientation_of(data[at + 8 : at + 8 + length])
        elif kind == b"ICCP":
            profile = _bounded(data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    return PictureFile("WEBP", data, orientation, profile)


def _gif(data: bytes) -> PictureFile:
    return PictureFile("GIF", data)


def _heic(data: bytes) -> PictureFile:
    """The decoder turns by what the container says; EXIF repeats it, and must not turn again (ISO 23008-12, 6.5.10)."""
    return PictureFile("HEIC", data)


def _avif(data: bytes) -> PictureFile:
    """The decoder turns nothing, but says how; it would read EXIF, which is made an item of no known kind."""
    at = 0
    for _ in range(MAX_PARTS):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"meta":
            hidden = EXIF_ITEM.sub(rb"\1free", data[at : at + length])
            return PictureFile("AVIF", b"".join((data[:at], hidden, data[at + length :])))
        if length < 8:  # 64-bit lengths and "to the end" are of boxes that hold pixels
            break
        at += length
    raise ValueError("no box of metadata")


def _inflated(data: bytes) -> bytes | None:
    """zlib data of a bounded size, or None where it is damaged or larger."""
    try:
        inflate = zlib.decompressobj()
        found = inflate.decompress(data, MAX_PROFILE)
    except zlib.error:
        return None
    return found if found and inflate.eof else None


def _bounded(profile: bytes) -> bytes | None:
    return profile if 0 < len(profile) <= MAX_PROFILE else None


def _brand(data: bytes) -> bytes:
    return data[8:12] if data[4:8] == b"ftyp" else b""


def _brands(data: bytes) -> list[bytes]:
    """The major brand and those that the file is also compatible with."""
    if not _brand(data):
        return []
    end = min(int.from_bytes(data[:4], "big"), 512)
    return [_brand(data), *(data[at : at + 4] for at in range(16, end, 4))]


def _is_avif(data: bytes) -> bool:
    return any(brand in AVIF_BRANDS for brand in _brands(data))


def _is_heic(data: bytes) -> bool:
    return any(brand in HEIC_BRANDS for brand in _brands(data))


_WALKS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], PictureFile]], ...] = (
    (lambda data: data.startswith(b"\xff\xd8\xff"), _jpeg),
    (lambda data: data.startswith(PNG_SIGNATURE), _png),
    (lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", _webp),
    (lambda data: data.startswith((b"GIF87a", b"GIF89a")), _gif),
    (_is_avif, _avif),  # before HEIC: both may say mif1
    (_is_heic, _heic),
)
