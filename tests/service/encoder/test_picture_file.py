"""What stands around the pixels of a file: read as far as it says how to see them, and else never in the way."""

import random
import struct
import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pillow_heif
import pytest
from PIL import Image

from service.encoder import decoding, picture_file, preprocessing
from service.errors import TooLarge, UnreadablePicture, UnsupportedMedia
from tests import hostile
from tests.service.encoder.pictures import PROFILES, RED, assert_red_above_green, halves, heic, with_chunk


def exif(entries: bytes, count: int, *, order: str = "<") -> bytes:
    """An EXIF block of so many entries."""
    start = {"<": b"II*\0", ">": b"MM\0*"}[order]
    return b"Exif\0\0" + start + struct.pack(order + "I", 8) + struct.pack(order + "H", count) + entries


def with_segment(jpeg: bytes, marker: int, body: bytes) -> bytes:
    """A JPEG with one more segment."""
    return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def test_whatever_exif_holds_beside_the_orientation_a_photo_is_read() -> None:
    """A thousand blocks of random entries, of which one is the orientation: the photo is turned by it."""
    rng = random.Random(0)
    stored = hostile.encode(halves().transpose(Image.Transpose.ROTATE_180), "JPEG", quality=95)
    for _ in range(1000):
        order = rng.choice("<>")
        odd = [
            struct.pack(
                order + "HHI", rng.choice([0x0131, 0x010F, 0x8769, 0x011A, 0x9286, rng.randrange(0x113, 1 << 16)]),
                rng.randrange(20), rng.choice([0, 1, 2, 1 << 31, rng.randrange(1 << 16)]),
            ) + rng.randbytes(4)
            for _ in range(rng.randrange(8))
        ]  # fmt: skip
        turned = struct.pack(order + "HHIHH", 0x0112, 3, 1, 3, 0)
        odd.insert(rng.randrange(len(odd) + 1), turned)
        block = exif(b"".join(odd), len(odd), order=order) + rng.randbytes(rng.randrange(40))
        assert picture_file.read(with_segment(stored, 0xE1, block)).orientation == 3
    assert_red_above_green(with_segment(stored, 0xE1, block))


@pytest.mark.parametrize(
    "block", [b"", b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", exif(b"", 9999)]
)
def test_exif_that_breaks_off_turns_nothing(block: bytes) -> None:
    """A block of any length is passed over."""
    assert_red_above_green(with_segment(hostile.encode(halves(), "JPEG", quality=95), 0xE1, block))


@pytest.mark.parametrize(
    "kind", [b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"gAMA", b"pHYs", b"tIME", b"sPLT", b"quIr"]
)
def test_no_chunk_beside_the_pixels_stops_a_png(kind: bytes) -> None:
    """Text of any length, profiles and times that are damaged or carry a wrong checksum are passed over."""
    png = hostile.encode(halves(), "PNG")
    long_text = b"Comment\0\0" + zlib.compress(b"x" * 3_000_000)
    for body in (b"", b"\0" * 50, long_text, b"profile\0\0" + zlib.compress(b"y" * 9_000_000)):
        assert_red_above_green(with_chunk(png, kind, body))
        assert_red_above_green(with_chunk(png, kind, body, crc=7))


def test_the_orientation_of_a_png_and_a_webp_is_applied() -> None:
    """Their EXIF blocks say how they were held, as a JPEG's does."""
    upside_down = halves().transpose(Image.Transpose.ROTATE_180)
    held = Image.Exif()
    held[0x0112] = 3
    for format in ("PNG", "WEBP"):
        assert_red_above_green(hostile.encode(upside_down, format, exif=held, quality=95))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("size", [(320, 320), (2000, 1500)])
def test_a_jpeg_that_lacks_its_end_alone_is_read(progressive: bool, size: tuple[int, int]) -> None:
    """Without its last two bytes every pixel is there; so it is with one byte, or with zeros in their place."""
    jpeg = hostile.encode(hostile.gradient(*size), "JPEG", progressive=progressive)
    whole = preprocessing.decode(jpeg)
    for cut in (jpeg[:-2], jpeg[:-1], jpeg[:-2] + b"\0\0"):
        np.testing.assert_array_equal(preprocessing.decode(cut), whole)


@pytest.mark.parametrize("share", [0.99, 0.9, 0.5])
def test_a_jpeg_that_is_cut_off_says_how_much_is_there(share: float) -> None:
    """The share of its rows, within some."""
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    jpeg = hostile.encode(Image.fromarray(noise), "JPEG", quality=50)
    with pytest.raises(UnreadablePicture, match="cut off") as refused:
        preprocessing.decode(jpeg[: int(share * len(jpeg))])
    said = int(str(refused.value).partition("about ")[2].partition(" %")[0])
    assert said == pytest.approx(100 * share, abs=4)


def test_what_follows_a_jpeg_is_not_looked_at() -> None:
    """Phones append a film or a second picture."""
    jpeg = hostile.encode(halves(), "JPEG", quality=95)
    noise = random.Random(0).randbytes(3_000_000)
    for behind in (noise, jpeg, b"\xff\xda" * 1000):
        assert_red_above_green(jpeg + behind)


def test_a_jpeg_of_a_thousand_scans_is_refused() -> None:
    """Each scan goes over the whole picture again: a minute of work in a small file."""
    jpeg = hostile.encode(hostile.gradient(), "JPEG", progressive=True)
    scans = jpeg[jpeg.index(b"\xff\xda") : -2]
    with pytest.raises(UnreadablePicture, match="scans"):
        preprocessing.decode(jpeg[:-2] + scans * 200 + jpeg[-2:])


def test_what_phones_send_is_read() -> None:
    """HEIC and AVIF, upright, with their profiles."""
    assert_red_above_green(heic(halves()))
    assert_red_above_green(hostile.encode(halves(), "AVIF", quality=90))
    profile = PROFILES["ProPhoto"]
    avif = hostile.encode(halves(), "AVIF", quality=95, icc_profile=profile)
    for data in (heic(halves(), icc_profile=profile), avif):
        assert preprocessing.decode(data)[:80, :, 0].mean() > RED[0] + 10  # ProPhoto's red is redder


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_photo_of_a_phone_is_turned_once(orientation: int) -> None:
    """HEIC and AVIF say in the container how they are turned, and EXIF repeats it."""
    undo = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[orientation]
    stored = halves().transpose(undo)
    held = Image.Exif()
    held[0x0112] = orientation
    assert_red_above_green(hostile.encode(stored, "AVIF", quality=90, exif=held.tobytes()))
    pillow_heif.register_heif_opener()
    assert_red_above_green(hostile.encode(stored, "HEIF", quality=90, exif=held.tobytes()))


def test_odd_exif_does_not_stop_an_avif() -> None:
    """Its decoder would read the block, and stumble."""
    held = Image.Exif()
    held[0x0131] = "a camera"
    avif = hostile.encode(halves(), "AVIF", quality=90, exif=held.tobytes())
    at = avif.index(held.tobytes()[6:14])
    odd = exif(struct.pack("<HHII", 0x0131, 5, 1, 1 << 30), 1)[6:]
    assert_red_above_green(avif[:at] + odd + avif[at + len(odd) :])


@pytest.mark.parametrize("format", ["HEIC", "AVIF", "WEBP"])
def test_a_damaged_phone_photo_is_refused(format: str) -> None:
    """Cut anywhere, or with bytes changed, it gives a picture or a clear error, never anything else."""
    whole = heic(hostile.gradient()) if format == "HEIC" else hostile.encode(hostile.gradient(), format)
    rng = random.Random(1)
    with pytest.raises(UnreadablePicture):
        preprocessing.decode(whole[: len(whole) // 2])
    for _ in range(60):
        damaged = bytearray(whole[: rng.choice([len(whole), rng.randrange(20, len(whole))])])
        for _ in range(rng.randrange(1, 10)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        with suppress(UnreadablePicture, TooLarge, UnsupportedMedia):
            preprocessing.decode(bytes(damaged))


MEASURE = """
import sys
from pathlib import Path
from service.encoder.preprocessing import decode
from service.errors import TooLarge
data = Path(sys.argv[1]).read_bytes()
decode(Path(sys.argv[2]).read_bytes())  # what decoders load once
def held(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1]) * 1024
Path("/proc/self/clear_refs").write_text("5")
before = held("VmRSS")
try:
    decode(data)
    print("decoded", held("VmHWM") - before)
except TooLarge:
    print("refused", held("VmHWM") - before)
"""
# kind -> megapixels, next to the most that are accepted
LARGEST = {
    "JPEG": 49.9, "JPEG, progressive": 46, "JPEG, progressive, 4:4:4": 23, "PNG, 16-bit grey": 49.9,
    "PNG, 16-bit RGBA": 34.5, "GIF": 49.9, "WebP": 17, "WebP, lossless": 17, "WebP with transparency": 17,
    "HEIC": 19.5, "AVIF": 13.5,
}  # fmt: skip
QUICK = ("JPEG, progressive", "PNG, 16-bit RGBA")


def drawn(kind: str, side: int) -> bytes:
    """A picture of side x side pixels of a kind."""
    if kind == "PNG, 16-bit grey":
        return cv2.imencode(".png", np.zeros((side, side), np.uint16))[1].tobytes()
    if kind == "PNG, 16-bit RGBA":
        return cv2.imencode(".png", np.zeros((side, side, 4), np.uint16))[1].tobytes()
    image = Image.new("RGBA" if kind == "WebP with transparency" else "RGB", (side, side), 80)
    if kind == "HEIC":
        return heic(image)
    options: dict = {"AVIF": {"speed": 10}, "PNG, 8-bit RGB": {"compress_level": 1}}.get(kind, {})
    options |= {"progressive": True} if "progressive" in kind else {}
    options |= {"subsampling": 0} if "4:4:4" in kind else {}
    options |= {"lossless": True, "method": 0, "quality": 0} if "lossless" in kind else {}
    return hostile.encode(image, kind.partition(",")[0].partition(" ")[0].upper(), **options)


@pytest.mark.parametrize("kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in LARGEST])
def test_decoding_the_largest_picture_of_a_kind_stays_within_its_memory(kind: str, tmp_path: Path) -> None:
    """By the kernel's count, at most 150 MB beyond the picture's bytes."""
    (tmp_path / "big").write_bytes(drawn(kind, int((LARGEST[kind] * 1e6) ** 0.5)))
    (tmp_path / "small").write_bytes(drawn(kind, 64))
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "big"), str(tmp_path / "small")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert said[0] == "decoded"
    assert int(said[1]) <= decoding.MEMORY


def test_what_cannot_be_decoded_in_that_memory_is_refused_by_its_header(tmp_path: Path) -> None:
    """A hundred kilobytes that would unfold to a gigabyte cost nothing."""
    bomb = cv2.imencode(".png", np.zeros((7000, 7000, 3), np.uint16))[1].tobytes()
    (tmp_path / "big").write_bytes(bomb)
    (tmp_path / "small").write_bytes(hostile.encode(halves(), "PNG"))
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "big"), str(tmp_path / "small")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert said[0] == "refused"
    assert int(said[1]) < 10_000_000


def test_a_small_box_of_a_large_photo_stays_within_the_memory() -> None:
    """The photo is then decoded at half its size, and the box is cut from that."""
    jpeg = hostile.encode(Image.new("RGB", (7000, 7000), RED), "JPEG")
    pixels = preprocessing.decode(jpeg, box=(0.5, 0.5, 0.52, 0.52))
    np.testing.assert_allclose(pixels.mean(axis=(0, 1)), RED, atol=3)
