"""What can go wrong, in one tree.

    VitrineError
    |- BadQuery              the question cannot be answered as asked
    |  |- Malformed          the body is not what its content type says
    |  |- UnsupportedMedia   not a picture that we read (JPEG, PNG, WebP, GIF, HEIC, AVIF)
    |  |- UnreadablePicture  a picture, but truncated or corrupt
    |  |- TooLarge           more bytes or pixels than the service accepts
    |  |- KeyNeeded          a key that was not sent, or is wrong
    |  `- NotFound           an item or user that this release does not hold
    |- Busy                  nothing is wrong with the question; ask again later
    |  |- Overloaded         more requests wait than may
    |  |- DeadlineMissed     the answer would come too late
    |  |- SlowBody           the body of the request pauses, or comes too slowly
    |  |- EncoderAway        the server that the encoder runs in is away
    |  |- StoreAway          the store of changes and events is away
    |  `- CallerGone         nobody waits for the answer any more
    |- EncoderUnavailable    the engine or precision that was asked for cannot serve this release here
    |- ReleaseError          a release that must not be served
    |  |- ReleaseDamaged     files missing, extra or changed since it was sealed
    |  |- ReleaseMismatch    parts that do not belong together
    |  |- ReleaseTooNew      written by a later format version
    |  `- ReleaseUntrusted   signed by nobody who is trusted here
    |- StoreTooNew           the store was written by a later version of this code
    |- UnsafeSettings        settings that would leave something open, or cannot be used
    |- CatalogueError        input that training cannot start from
    |- RegistryError         the registry cannot be asked, or does not hold what was asked for
    `- PromotionRefused      what must not be promoted, and why

Only `service.http.middleware.problems` knows which HTTP status stands for which of them.
"""

import re
import reprlib
from collections.abc import Mapping

LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def shown(value: object) -> str:
    """A value that somebody sent, short enough for a message."""
    return reprlib.repr(value)[:120]


def half_character(value: object) -> str | None:
    """The first text within a JSON value that is not Unicode: half of a surrogate pair; None where all is."""
    if isinstance(value, str):
        return None if value.isascii() or not LONE_SURROGATE.search(value) else value
    parts = [*value, *value.values()] if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return next((found for part in parts if (found := half_character(part)) is not None), None)


def is_number(value: object) -> bool:
    """A finite number that fits a float; JSON's true is none, nor is a whole number of 400 digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -1e300 < value < 1e300


class VitrineError(Exception):
    """Base of every error that this project raises on purpose; its text is fit for the person who caused it."""


class BadQuery(VitrineError):
    """The question cannot be answered as asked. `field` names the part of it that is at fault."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class Malformed(BadQuery):
    """The body of the request is not what its content type says."""


class UnsupportedMedia(BadQuery):
    """The bytes are not a picture in a format that we read."""


class UnreadablePicture(BadQuery):
    """The bytes begin like a picture but cannot be decoded."""


class TooLarge(BadQuery):
    """More bytes or pixels than the service accepts."""


class KeyNeeded(BadQuery):
    """The request needs a key that it does not send."""


class NotFound(BadQuery):
    """The release holds no such item or user."""


class Busy(VitrineError):
    """Nothing is wrong with the question, but it cannot be answered now."""


class Overloaded(Busy):
    """More requests wait than may."""


class DeadlineMissed(Busy):
    """The answer would come too late."""


class SlowBody(Busy):
    """The body of the request pauses, or comes too slowly, or had to make room for others."""


class EncoderAway(Busy):
    """The server that the encoder runs in cannot be reached, or is not the one that it should be."""


class StoreAway(Busy):
    """The store of changes and events cannot be reached, or does not answer in time."""


class CallerGone(Busy):
    """Nobody waits for the answer any more."""


class EncoderUnavailable(VitrineError):
    """The engine or the precision that was asked for cannot serve this release here."""


class ReleaseError(VitrineError):
    """The release must not be served."""


class ReleaseDamaged(ReleaseError):
    """Files are missing, extra, or differ from their digests."""


class ReleaseMismatch(ReleaseError):
    """The parts of the release, or its answers, do not fit each other."""


class ReleaseTooNew(ReleaseError):
    """The release was written in a format version that this code does not know."""


class ReleaseUntrusted(ReleaseError):
    """The release is not signed by one of the keys that are trusted here."""


class StoreTooNew(VitrineError):
    """The store was written by a later version of this code."""


class UnsafeSettings(VitrineError):
    """The settings would leave something open that should not be, or name a key that cannot be used."""


class CatalogueError(VitrineError):
    """The catalogue folder is not something that training can start from."""


class RegistryError(VitrineError):
    """The registry cannot be asked, or does not hold what was asked for."""


class PromotionRefused(VitrineError):
    """The release must not be promoted."""
