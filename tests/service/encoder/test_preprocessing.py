"""Every readable picture gives the right RGB; everything else a clear error."""

import io

import numpy as np
import pytest
from PIL import Image

from service.encoder import preprocessing
from service.errors import BadQuery, TooLarge, UnreadablePicture, UnsupportedMedia
from tests import hostile
from tests.service.encoder.pictures import GREEN, RED, halves


def corners(pixels: np.ndarray) -> tuple[list[int], list[int]]:
    """The mean colour of the upper and of the lower part."""
    return pixels[:80].mean(axis=(0, 1)).round().tolist(), pixels[-80:].mean(axis=(0, 1)).round().tolist()


def assert_red_above_green(data: bytes, tolerance: int = 8) -> None:
    pixels = preprocessing.decode(data)
    assert pixels.shape == (224, 224, 3)
    assert pixels.dtype == np.uint8
    above, below = corners(pixels)
    np.testing.assert_allclose(above, RED, atol=tolerance)
    np.testing.assert_allclose(below, GREEN, atol=tolerance)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_each_format_gives_its_colours(format: str) -> None:
    """JPEG, PNG and WebP decode to the colours that were put in."""
    assert_red_above_green(hostile.encode(halves(), format, quality=95))


def test_a_gif_gives_its_first_frame() -> None:
    """Of an animation, the first picture counts."""
    later = Image.new("RGB", (300, 300), (0, 0, 255))
    assert_red_above_green(hostile.encode(halves(), "GIF", save_all=True, append_images=[later]))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    """A photo comes out upright, however the camera was held."""
    undo = {1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90,
            7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270}[orientation]  # fmt: skip
    stored = halves() if undo is None else halves().transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_red_above_green(hostile.encode(stored, "JPEG", exif=exif, quality=95))


def test_transparency_is_laid_over_white() -> None:
    """What is transparent is white, not black, and half transparent is half white."""
    image = Image.new("RGBA", (300, 300), (0, 0, 0, 0))
    image.paste((0, 0, 0, 128), (0, 150, 300, 300))
    above, below = corners(preprocessing.decode(hostile.encode(image, "PNG")))
    assert above == [255, 255, 255]
    np.testing.assert_allclose(below, [127, 127, 127], atol=2)


def test_a_palette_with_transparency_is_laid_over_white() -> None:
    """A palette picture's transparent entry is white as well."""
    image = halves().quantize(4)
    index = image.getpixel((0, 0))
    above, below = corners(preprocessing.decode(hostile.encode(image, "PNG", transparency=index)))
    assert above == [255, 255, 255]
    np.testing.assert_allclose(below, GREEN, atol=8)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    """A 16-bit grey of a half is a grey of 128."""
    image = Image.fromarray(np.full((300, 300), 32_896, np.uint16))
    assert preprocessing.decode(hostile.encode(image, "PNG")).mean() == pytest.approx(128, abs=1)


def test_cmyk_and_grey_become_rgb() -> None:
    """Printers' CMYK and plain grey give the colours that an eye would see."""
    cmyk = Image.new("CMYK", (300, 300), (0, 255, 255, 0))
    np.testing.assert_allclose(
        preprocessing.decode(hostile.encode(cmyk, "JPEG")).mean(axis=(0, 1)), [254, 0, 0], atol=3
    )
    grey = Image.new("L", (300, 300), 77)
    np.testing.assert_allclose(preprocessing.decode(hostile.encode(grey, "PNG")).mean(axis=(0, 1)), [77] * 3, atol=1)
    bits = Image.new("1", (300, 300), 1)
    assert preprocessing.decode(hostile.encode(bits, "PNG")).min() == 255


def test_a_large_jpeg_is_scaled_while_it_is_decoded() -> None:
    """The decoder's own down-scaling gives what full decoding would, within a few levels."""
    large = hostile.gradient(2400, 1800)
    whole = preprocessing.decode(hostile.encode(large, "PNG"))
    scaled = preprocessing.decode(hostile.encode(large, "JPEG", quality=95))
    assert np.abs(whole.astype(int) - scaled).mean() < 2


def test_a_box_cuts_the_upright_picture() -> None:
    """The lower half of the picture alone is green."""
    pixels = preprocessing.decode(hostile.encode(halves(), "PNG"), box=(0, 0.55, 1, 1))
    np.testing.assert_allclose(pixels.mean(axis=(0, 1)), GREEN, atol=1)


@pytest.mark.parametrize("box", [[0, 0, 1], [0.5, 0, 0.5, 1], [0, 0, 1, 1.1], [0, 0, "1", 1], [0, 0, True, 1], "box"])
def test_an_impossible_box_is_refused(box: object) -> None:
    """A box must be four fractions that enclose something."""
    with pytest.raises(BadQuery, match="box must be"):
        preprocessing.check_box(box)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (223, 225)])
def test_odd_shapes_still_give_a_square(size: tuple[int, int]) -> None:
    """Tiny and thin pictures are pictures."""
    assert preprocessing.decode(hostile.encode(Image.new("RGB", size, RED), "PNG")).shape == (224, 224, 3)


@pytest.mark.parametrize("name", sorted(hostile.pictures()))
def test_a_hostile_picture_is_refused_by_kind(name: str) -> None:
    """Each gives the error that its HTTP status stands for, and nothing else escapes."""
    data, status = hostile.pictures()[name]
    kinds = {415: UnsupportedMedia, 422: UnreadablePicture, 413: TooLarge}
    if name == "3 megabytes after a jpeg":  # a matter of the body's length, not of the picture
        preprocessing.decode(data)
        return
    with pytest.raises(kinds[status]):
        preprocessing.decode(data, max_pixels=4_000_000)


def test_a_thumbnail_is_small_upright_and_the_same_each_time() -> None:
    """Thumbnails are deterministic JPEGs of at most 256 pixels."""
    data = hostile.encode(halves((900, 600)), "PNG")
    jpeg = preprocessing.thumbnail(data)
    assert jpeg == preprocessing.thumbnail(data)
    assert Image.open(io.BytesIO(jpeg)).size == (256, 171)
