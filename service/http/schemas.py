"""HTTP bodies -> queries, recommendations -> JSON. The shapes that /docs.json and BentoML's clients know."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import bentoml
import orjson
from bentoml.validators import ContentType
from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema
from starlette.requests import Request

from service.encoder.picture_file import FORMATS
from service.errors import BadQuery, Malformed, UnsupportedMedia, shown
from service.http.multipart import Part, read_form, read_multipart
from service.recommender.query import DEFAULT_K, MAX_K, Query, SimilarQuery, parse_query, parse_similar
from service.recommender.recommendation import Embedding, Recommendation

Picture = Annotated[Path, ContentType("image/*")]
MULTIPART, FORM = "multipart/form-data", "application/x-www-form-urlencoded"
TEXT_TYPES = ("application/json", "text/plain")
MAX_TEXT = 1024 * 1024  # bytes of a field
TEXT_FIELDS = ("user_id", "session_id", "item_id", "relation")
# Not `| None`: BentoML's clients recognise a file, and document a field, by its bare type only.
ABSENT: Any = None
Asked = TypeVar("Asked")


class Body(bentoml.IODescriptor, Generic[Asked]):
    """A request body. The declared fields are its documentation; `query` is what they were parsed into."""

    parser: ClassVar[Callable[..., Any]]
    query: SkipJsonSchema[Any] = None

    @classmethod
    async def read(cls, request: Request) -> Asked:
        """The query of a request. Raises BadQuery."""
        values, image = await read_body(request)
        query: Asked = cls.parser(values, image=image)
        return query

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any = None) -> "Body[Asked]":
        """For BentoML. Raises BadQuery."""
        return cls.model_construct(query=await cls.read(request))


class EventIn(BaseModel):
    """One thing that the user did lately, to an item or by sending a photo."""

    item_id: str | None = None
    vector: list[float] | None = Field(None, description="in place of an item: of a photo, as `remember` gave it")
    encoder: str | None = Field(None, description="beside a vector: the encoder that made it, as `remember` gave it")
    event: str = Field("view", description="view, like, cart, purchase or dismiss")
    timestamp: float | None = Field(None, description="seconds since 1970")


class RecommendBody(Body[Query]):
    """What to recommend for: a picture, a user, events, any of them or none."""

    parser = staticmethod(parse_query)
    image: Picture = Field(ABSENT, description=f"{FORMATS}; as a file of a multipart body")
    item_id: str = Field(ABSENT, description="an item of the catalogue, in place of a picture")
    relation: str = Field("similar", description="what to answer with: `similar`, or `complements`, what goes with it")
    user_id: str = Field(ABSENT, description="the user, as in the interactions that trained the release")
    session_id: str = Field(ABSENT, description="of somebody who is not signed in, as in POST /events")
    events: list[EventIn] = Field(ABSENT, description="what the user did that POST /events was not told")
    k: int = Field(DEFAULT_K, ge=1, le=MAX_K, description="how many items")
    filter: dict[str, Any] = Field(ABSENT, description='{"category": ["dress"], "price": {"min": 10, "max": 50}}')
    exclude_seen: bool = Field(True, description="leave out items that the user has touched or dismissed")
    diversity: float = Field(0.0, ge=0, le=1, description="0: the best scores; 1: items that look unlike each other")
    personalization: float | None = Field(
        None, ge=0, le=1, description="with a photo and a user: likeness given for taste; null: as the release learned"
    )
    per_group: int = Field(ABSENT, ge=1, le=MAX_K, description="variants of one product at most; one if not said")
    distinct: bool = Field(False, description="one at most of the items that have nearly the same picture")
    box: list[float] = Field(ABSENT, description="[left, top, right, bottom] as fractions of the picture")
    remember: bool = Field(False, description="give the photo's vector back as an event that may be sent along later")


class SimilarBody(Body[SimilarQuery]):
    """What to look like: a picture or an item."""

    parser = staticmethod(parse_similar)
    image: Picture = Field(ABSENT, description=f"{FORMATS}; as a file of a multipart body")
    item_id: str = Field(ABSENT, description="an item of the catalogue, in place of a picture")
    k: int = Field(DEFAULT_K, ge=1, le=MAX_K, description="how many items")
    filter: dict[str, Any] = Field(ABSENT, description="as for /recommend")
    per_group: int = Field(ABSENT, ge=1, le=MAX_K, description="as for /recommend")
    distinct: bool = Field(False, description="as for /recommend")
    box: list[float] = Field(ABSENT, description="as for /recommend")


def _parse_embed(values: Mapping[str, Any], *, image: bytes | None) -> Query:
    if image is None:
        raise BadQuery("an image is needed, as a file of a multipart body", field="image")
    if unknown := sorted(set(values) - {"box"}):
        raise BadQuery(f"unknown field {shown(unknown[0])}; there are image, box", field=unknown[0][:80])
    return parse_query(values, image=image)


class EmbedBody(Body[Query]):
    """What to embed."""

    parser = staticmethod(_parse_embed)
    image: Picture = Field(
        ABSENT, description="needed: JPEG, PNG, WebP, GIF, HEIC or AVIF; as a file of a multipart body"
    )
    box: list[float] = Field(ABSENT, description="as for /recommend")


class ItemOut(BaseModel):
    """One item. The terms add up to the score."""

    item_id: str
    score: float
    terms: dict[str, float] = Field(description="what each named term contributed to the score")
    because: list[str] = Field(description="the user's past items nearest to it")
    title: str
    category: str | list[str] | None
    attributes: dict[str, Any]


class PictureOut(BaseModel):
    """What the picture of the query seems to be."""

    category: str | None
    confidence: float = Field(description="share of the nearest items' votes")
    in_catalogue: bool = Field(description="whether anything in this catalogue looks like it at all")
    event: dict[str, Any] | None = Field(None, description="asked for by `remember`; the picture itself is not kept")


class MatchOut(BaseModel):
    """The item that the picture shows."""

    item_id: str
    confidence: float = Field(description="0 to 1; the share of such claims that are right")


class RecommendationOut(BaseModel):
    """An answer."""

    release: str
    tier: str = Field(description="what it rests on: ranked, visual, taste or popular")
    items: list[ItemOut]
    query: PictureOut | None
    degraded: list[str] = Field(
        description="`encoder`: Triton was away, the service encoded by itself; `store`: it is away, changes are unseen"
    )
    unknown_items: list[str] = Field(description="items of the events that this release does not hold")
    match: MatchOut | None = Field(None, description="the item of the catalogue that the picture itself shows")


class EmbeddingOut(BaseModel):
    """A unit vector."""

    release: str
    fingerprint: str = Field(description="of the encoder; vectors of different encoders cannot be compared")
    embedding: list[float]
    degraded: list[str] = Field(description="as in /recommend")


def to_json(answer: Recommendation | Embedding) -> bytes:
    """The body of an answer."""
    return orjson.dumps(answer)


async def read_body(request: Request) -> tuple[dict[str, Any], bytes | None]:
    """The fields and the picture of a request: JSON, a form, or multipart. Raises BadQuery."""
    content_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    body = await request.body()
    if content_type == MULTIPART:
        return _fields_of_form(read_multipart(body, request.headers["content-type"]))
    if content_type == FORM:
        return _fields_of_form(read_form(body))
    if content_type != "application/json":
        raise UnsupportedMedia(f"expected application/json or multipart/form-data; got {content_type[:80]!r}")
    return _fields_of_json(body), None


def _fields_of_json(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    values = json_of(body, "the body")
    if not isinstance(values, dict):
        raise Malformed(f"the body must be a JSON object; got {type(values).__name__}")
    if values.get("image") is not None:
        raise BadQuery("image must be a file of a multipart body; URLs are not fetched", field="image")
    values.pop("image", None)
    return values


def _fields_of_form(parts: list[Part]) -> tuple[dict[str, Any], bytes | None]:
    values: dict[str, Any] = {}
    image = None
    for part in parts:
        if part.name in values or (part.name == "image" and image is not None):
            raise Malformed(f"{shown(part.name)} was sent more than once", field=part.name)
        if part.name == "image":
            image = picture_of(part)
        else:
            values[part.name] = _form_value(part.name, text_of(part))
    return values, image


def picture_of(part: Part) -> bytes:
    """Whatever has a file name, says that it is no text, or is none."""
    if part.filename is None and part.content_type in ("", "text/plain") and _is_text(part.data):
        raise BadQuery("image must be a file; URLs and text are not fetched or read", field="image")
    return part.data


def text_of(part: Part) -> str:
    """A field, also where a client sends it as a file of JSON."""
    if part.filename is not None and part.content_type not in TEXT_TYPES:
        raise BadQuery(f"{shown(part.name)} must not be a file; the picture belongs into `image`", field=part.name)
    if len(part.data) > MAX_TEXT:
        raise BadQuery(f"{shown(part.name)} has {len(part.data)} bytes; at most {MAX_TEXT} are read", field=part.name)
    try:
        return part.data.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"{shown(part.name)} is not UTF-8 ({error.reason})", field=part.name) from error


def _is_text(data: bytes) -> bool:
    try:
        return data.decode().isprintable()
    except UnicodeDecodeError:
        return False


def _form_value(name: str, text: str) -> Any:
    """Texts are taken as they stand (BentoML's client quotes them); other fields of a form are JSON."""
    if name not in TEXT_FIELDS:
        return json_of(text.encode(), name)
    quoted = len(text) >= 2 and text[0] == text[-1] == '"'
    if text == "null" or quoted:
        return json_of(text.encode(), name)
    return text


def json_of(text: bytes, name: str) -> Any:
    """A value from JSON. name: of what is read. Raises Malformed."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{name} is not JSON ({error})", field=None if name == "the body" else name) from error
