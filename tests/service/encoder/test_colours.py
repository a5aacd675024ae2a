"""Colour profiles, sixteen bits and transparency: pixels come out as the sRGB picture that was meant."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from service.encoder import preprocessing
from tests import hostile
from tests.service.encoder.pictures import PROFILES, RED, assert_red_above_green, halves, with_chunk


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_colour_profile_is_converted_to_srgb(name: str, format: str) -> None:
    """A picture stored in the colours of a profile comes out as the sRGB picture that it was made from."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(PROFILES[name]))
    soft = Image.new("RGB", (320, 320), (190, 90, 80))
    soft.paste((80, 140, 90), (0, 160, 320, 320))
    stored = ImageCms.profileToProfile(soft, ImageCms.createProfile("sRGB"), profile)
    assert stored is not None
    stored.info.clear()  # Pillow would write the profile that it remembers
    options = {"lossless": True} if format == "WEBP" else {"quality": 95}
    data = hostile.encode(stored, format, icc_profile=PROFILES[name], **options)
    untagged = preprocessing.decode(hostile.encode(stored, format, **options)).astype(int)
    plain = preprocessing.decode(hostile.encode(soft, "PNG")).astype(int)
    pixels = preprocessing.decode(data).astype(int)
    inner = (slice(20, 100), slice(None))
    assert np.abs(pixels[inner] - plain[inner]).max() <= 4
    assert np.abs(untagged[inner] - plain[inner]).max() > 8  # so the profile mattered
    thumbnail = np.asarray(Image.open(io.BytesIO(preprocessing.thumbnail(data))).convert("RGB"), int)
    assert np.abs(thumbnail[20:100] - np.array((190, 90, 80))).max() <= 6


@pytest.mark.parametrize("profile", [b"x", b"\0" * 200, PROFILES["Adobe RGB"][:150], PROFILES["ProPhoto"][:-100]])
def test_a_damaged_profile_is_passed_over(profile: bytes) -> None:
    """The picture is read as if it had none."""
    assert_red_above_green(hostile.encode(halves(), "JPEG", icc_profile=profile, quality=95), tolerance=40)


def test_a_profile_of_other_channels_is_passed_over() -> None:
    """A grey picture with a profile of RGB is grey."""
    grey = hostile.encode(Image.new("L", (300, 300), 77), "PNG", icc_profile=PROFILES["Adobe RGB"])
    assert preprocessing.decode(grey).mean() == pytest.approx(77, abs=1)


def test_a_release_made_before_profiles_were_read_sees_as_it_did() -> None:
    """Its manifest names no colour: the stored numbers are taken as they are."""
    data = hostile.encode(Image.new("RGB", (300, 300), RED), "PNG", icc_profile=PROFILES["ProPhoto"])
    before = preprocessing.Preprocessing.from_json({"shorter_side": 256, "crop": 224, "resample": "area, bilinear"})
    np.testing.assert_array_equal(preprocessing.decode(data, preprocessing=before)[0, 0], RED)
    assert np.abs(preprocessing.decode(data)[0, 0].astype(int) - RED).max() > 8


def test_sixteen_bit_greys_with_transparency_are_laid_over_white() -> None:
    """As an entry of its own, and as a channel."""
    grey = np.full((300, 300), 20_000, np.uint16)
    grey[150:] = 40_000
    png = hostile.encode(Image.fromarray(grey), "PNG")
    pixels = preprocessing.decode(with_chunk(png, b"tRNS", struct.pack(">H", 20_000)))
    assert pixels[:80].min() == 255
    assert pixels[-80:].mean() == pytest.approx(40_000 / 257, abs=1)
    both = np.dstack([grey] * 3 + [np.where(grey == 20_000, 0, 65_535).astype(np.uint16)])
    pixels = preprocessing.decode(cv2.imencode(".png", both)[1].tobytes())
    assert pixels[:80].min() == 255
    assert pixels[-80:].mean() == pytest.approx(40_000 / 257, abs=1)


def test_sixteen_bit_colours_with_a_transparent_one_are_laid_over_white() -> None:
    """The transparent colour has sixteen bits as well."""
    colour = np.zeros((300, 300, 3), np.uint16)
    colour[:150] = (40 * 257, 30 * 257, 200 * 257)  # OpenCV writes blue first
    png = cv2.imencode(".png", colour)[1].tobytes()
    pixels = preprocessing.decode(with_chunk(png, b"tRNS", struct.pack(">HHH", 200 * 257, 30 * 257, 40 * 257)))
    assert pixels[:80].min() == 255
    assert pixels[-80:].max() == 0
