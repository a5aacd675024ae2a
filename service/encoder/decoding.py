"""The bytes of a picture -> its pixels, within a bound of memory."""

import io
from dataclasses import dataclass

import cv2
import numpy as np
import pillow_heif
from PIL import Image

from service.encoder import picture_file
from service.encoder.colour import SRGB, to_srgb
from service.encoder.picture_file import FORMATS, JPEG_END, PictureFile
from service.errors import BadQuery, TooLarge, UnreadablePicture

MEMORY = 150_000_000  # bytes that decoding one picture may take beyond the picture's own
SPARE = 10_000_000  # of them, for the part that is being worked on
STRIP = 250_000  # pixels that are worked on at once
Area = tuple[int, int, int, int]  # left, top, right, bottom, pixels as they are stored
# Measured, bytes a pixel at the worst moment (tests/service/encoder/test_picture_file.py does it again): Pillow keeps
# palettes, grey and single bits in one byte, 16-bit grey in two, all else in four; the others hold several copies.
HELD = {"1": 1, "L": 1, "P": 1, "I;16": 2}
HELD_BY_FORMAT = {"WEBP": 8.0, "GIF": 2.0, "AVIF": 10.0, "HEIC": 7.0}
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture, as it is stored: not yet upright, in its own colours."""

    image: Image.Image | np.ndarray  # (height, width, 3 or 4) uint8 where Pillow did not decode it
    orientation: int
    profile: bytes | None

    @classmethod
    def open(cls, data: bytes, *, needed: float, max_pixels: int) -> "Picture":
        """Decode a file. needed: pixels of the shorter side that are of use."""
        file = picture_file.read(data)
        try:
            return _DECODERS.get(file.format, _decode_with_pillow)(file, needed, max_pixels)
        except BadQuery:
            raise
        except Exception as error:
            # Decoders raise whatever they stumble over: OSError, SyntaxError, struct.error, zlib.error, ...
            raise UnreadablePicture(
                f"the picture cannot be decoded ({error}); expected a whole {FORMATS}: send the file again",
                field="image",
            ) from error

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        if isinstance(self.image, Image.Image):
            return self.image.size
        return self.image.shape[1], self.image.shape[0]

    def centre(self, box: Box | None, share: float) -> Area:
        """The square in the middle of `box`, so much of its shorter side."""
        left, top, right, bottom = _stored(box or (0.0, 0.0, 1.0, 1.0), self.orientation)
        width, height = self.size
        left, right, top, bottom = left * width, right * width, top * height, bottom * height
        side = max(1, round(min(right - left, bottom - top) * share))
        x = min(round((left + right - side) / 2), width - side)
        y = min(round((top + bottom - side) / 2), height - side)
        return x, y, x + side, y + side

    def pixels(self, area: Area, shrink: int) -> np.ndarray:
        """A part of the picture, over white, `shrink` times smaller: (rows, columns, 3) uint8, or 4 channels of CMYK.
        Worked on strip by strip, so that the whole is in memory once."""
        left, top, right, bottom = area
        shrink = max(1, shrink)
        rows = max(1, STRIP // max(1, (right - left) * shrink)) * shrink
        strips = []
        for start in range(top, bottom, rows):
            strip = _flat(self._part((left, start, right, min(start + rows, bottom))))
            strips.append(np.asarray(strip.reduce(shrink) if shrink > 1 else strip))
        return np.concatenate(strips) if len(strips) > 1 else strips[0]

    def finish(self, pixels: np.ndarray, *, colour: str = SRGB) -> np.ndarray:
        """Pixels of the picture -> upright, in sRGB: (rows, columns, 3) uint8."""
        converted = to_srgb(pixels, self.profile if colour == SRGB else None, _channels(self.image))
        return np.ascontiguousarray(_upright(converted, self.orientation))

    def _part(self, area: Area) -> Image.Image:
        if isinstance(self.image, Image.Image):
            return self.image.crop(area)
        left, top, right, bottom = area
        return Image.fromarray(np.ascontiguousarray(self.image[top:bottom, left:right]))


def _decode_with_pillow(file: PictureFile, needed: float, max_pixels: int) -> Picture:
    """JPEG, PNG, GIF, AVIF."""
    image = Image.open(io.BytesIO(file.data), formats=(file.format,))
    _check_size(image.width, image.height, max_pixels)
    if file.format == "JPEG":
        _draft(image, file, needed)
        if not file.ended:
            return Picture(_decode_without_end(image, file), file.orientation, file.profile)
    else:
        held = HELD_BY_FORMAT.get(file.format) or HELD.get(image.mode, 4)
        _check_memory(image.width, image.height, held, file.format)
    image.load()
    if file.deep and isinstance(colour := image.info.get("transparency"), tuple):
        image.info["transparency"] = tuple(value >> 8 for value in colour)  # the pixels have eight bits by now
    if file.format == "AVIF":  # the decoder has read the container
        turned = picture_file.orientation_of(image.info.get("exif", b""))
        return Picture(image, turned, image.info.get("icc_profile"))
    return Picture(image, file.orientation, file.profile)


def _draft(image: Image.Image, file: PictureFile, needed: float) -> None:
    """Have a JPEG scaled by 1/2, 1/4, 1/8 while it is decoded, so long as enough pixels remain, or until it fits into
    memory."""
    width, height = image.size
    coefficients = file.held * width * height
    copies = 1 if file.ended else 4
    if coefficients > MEMORY - SPARE:
        _refuse_memory(width, height, file.held, "a JPEG of several scans (progressive)")
    scale = 1
    while scale < 8 and (
        min(width, height) // (2 * scale) >= needed
        or coefficients + copies * 4 * width * height / scale**2 > MEMORY - SPARE
    ):
        scale *= 2
    if scale > 1:
        image.draft(image.mode, (width // scale, height // scale))


def _decode_without_end(image: Image.Image, file: PictureFile) -> Image.Image:
    """Decode a JPEG that stops before its end marker. Where pixels are missing, what is appended shows in the picture:
    two that were completed differently are then not the same. Raises UnreadablePicture."""
    scaled = image.size
    completed = []
    for filler in (b"", b"\x55" * 64):
        begun = file.data.rstrip(b"\xff")  # the first half of the marker
        again = Image.open(io.BytesIO(begun + filler + JPEG_END), formats=("JPEG",))
        again.draft(again.mode, scaled)
        again.load()
        completed.append(again)
    first, second = completed
    if first.tobytes() != second.tobytes():
        rows = np.asarray(first), np.asarray(second)
        same = int(np.argmax((rows[0] != rows[1]).reshape(first.height, -1).any(axis=1)))
        raise UnreadablePicture(
            f"the picture is cut off: about {100 * same / first.height:.0f} % of its rows are there in "
            f"{len(file.data)} bytes; send the whole file again",
            field="image",
        )
    return first


def _decode_webp(file: PictureFile, needed: float, max_pixels: int) -> Picture:
    """OpenCV decodes into one copy, Pillow into four."""
    width, height = _webp_size(file.data)
    _check_size(width, height, max_pixels)
    _check_memory(width, height, HELD_BY_FORMAT["WEBP"], "WebP")
    decoded = cv2.imdecode(np.frombuffer(file.data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise ValueError("damaged or cut off")
    swap = cv2.COLOR_BGRA2RGBA if decoded.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return Picture(cv2.cvtColor(decoded, swap, dst=decoded), file.orientation, file.profile)


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height (RFC 9649, sections 2.5 to 2.7). The header was found to be there."""
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF


def _decode_heic(file: PictureFile, needed: float, max_pixels: int) -> Picture:
    """The container says how it is turned, and the decoder does it."""
    opened = pillow_heif.open_heif(file.data, convert_hdr_to_8bit=True)
    width, height = opened.size
    _check_size(width, height, max_pixels)
    _check_memory(width, height, HELD_BY_FORMAT["HEIC"], "HEIC")
    pixels = np.asarray(opened)
    if pixels.ndim == 2:
        pixels = pixels[..., None].repeat(3, axis=2)
    return Picture(pixels, 1, opened.info.get("icc_profile"))


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise TooLarge(
            f"the picture has {width * height / 1e6:.1f} megapixels ({width} x {height}); "
            f"at most {max_pixels / 1e6:g} are accepted: scale it down",
            field="image",
        )


def _check_memory(width: int, height: int, held: float, kind: str) -> None:
    if width * height * held > MEMORY - SPARE:
        _refuse_memory(width, height, held, kind)


def _refuse_memory(width: int, height: int, held: float, kind: str) -> None:
    most = (MEMORY - SPARE) / held
    raise TooLarge(
        f"the picture has {width * height / 1e6:.1f} megapixels ({width} x {height}); as {kind} at most "
        f"{most / 1e6:.0f} are accepted, since decoding more takes over {MEMORY // 10**6} MB: scale it down, "
        "or send a plain JPEG",
        field="image",
    )


def _flat(image: Image.Image) -> Image.Image:
    """Any Pillow mode -> RGB (or CMYK, which stays): 16 bits scaled rather than clipped, transparency over white."""
    if image.mode == "CMYK" or (image.mode == "RGB" and "transparency" not in image.info):
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        # convert("RGB") would clip 16-bit greys to white; keep their upper byte
        grey = np.asarray(image).astype(np.float32)
        scaled = np.clip(np.rint(grey / 257), 0, 255).astype(np.uint8)
        if (clear := image.info.get("transparency")) is not None:
            scaled[grey == clear] = 255
        return Image.fromarray(scaled).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _channels(image: Image.Image | np.ndarray) -> str:
    """What the picture's profile is of: Pillow's name of the channels."""
    if not isinstance(image, Image.Image):
        return "RGB"
    return "CMYK" if image.mode == "CMYK" else "L" if image.mode in ("1", "L", "LA", "I;16", "I") else "RGB"


def _stored(box: Box, orientation: int) -> Box:
    """A box of the upright picture -> of the picture as it is stored."""
    left, top, right, bottom = box
    return {
        2: (1 - right, top, 1 - left, bottom),
        3: (1 - right, 1 - bottom, 1 - left, 1 - top),
        4: (left, 1 - bottom, right, 1 - top),
        5: (top, left, bottom, right),
        6: (top, 1 - right, bottom, 1 - left),
        7: (1 - bottom, 1 - right, 1 - top, 1 - left),
        8: (1 - bottom, left, 1 - top, right),
    }.get(orientation, box)


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror (rows, columns, 3) as the orientation says (JEITA CP-3451, Orientation)."""
    return {
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p, -1),
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        8: lambda p: np.rot90(p, 1),
    }.get(orientation, lambda p: p)(pixels)


_DECODERS = {"WEBP": _decode_webp, "HEIC": _decode_heic}
