"""The models of the inference protocol that answer, over the same pipeline and batcher as the native routes.

    encoder      IMAGES UINT8 [n, 224, 224, 3] -> EMBEDDINGS FP32 [n, dim]
    recommender  IMAGE BYTES [n] (empty: none), USER_ID BYTES [n] (empty: none), K INT32 [1], FILTER BYTES [n] (JSON),
                 EVENTS BYTES [n] (JSON, a list as in /recommend), PERSONALIZATION FP32 [1],
                 OPTIONS BYTES [n] (JSON, an object of any other fields of /recommend)
                 -> ITEM_ID BYTES [n, k], SCORE FP32 [n, k], TIER BYTES [n], RELEASE BYTES [n],
                    ANSWER BYTES [n] (JSON, all that /recommend answers), where it is asked for
    similar      IMAGE or ITEM_ID BYTES [n], K, FILTER, OPTIONS -> ITEM_ID, SCORE, ANSWER where it is asked for

Where a row has fewer than k items, ITEM_ID is padded with "" and SCORE with NaN.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from service.encoder.preprocessing import PREPROCESSING
from service.errors import BadQuery, Malformed, shown
from service.open_inference.server import ANY, Arrays, Model, Output, Ran, Spec
from service.open_inference.tensors import BYTES, texts
from service.recommender.query import DEFAULT_K, Query, SimilarQuery, parse_query, parse_similar
from service.recommender.recommendation import Recommendation
from service.serving.answering import Answering
from service.serving.batcher import MicroBatcher
from service.serving.loaded_release import LoadedRelease

LARGEST_BATCH = 32
SIDE = PREPROCESSING.crop
K = Spec("K", "INT32", (1,), optional=True)
PERSONALIZATION = Spec("PERSONALIZATION", "FP32", (1,), optional=True)
IMAGE, USER_ID, ITEM_ID, FILTER, EVENTS, OPTIONS = (
    Spec(name, BYTES, (ANY,), optional=True) for name in ("IMAGE", "USER_ID", "ITEM_ID", "FILTER", "EVENTS", "OPTIONS")
)
RANKED = (Spec("ITEM_ID", BYTES, (ANY, ANY)), Spec("SCORE", "FP32", (ANY, ANY)))
SAID = (Spec("TIER", BYTES, (ANY,)), Spec("RELEASE", BYTES, (ANY,)))
ANSWER = Spec("ANSWER", BYTES, (ANY,), optional=True)


Ask = Callable[[Any, float, Callable[[float], None]], Awaitable[Recommendation]]  # (query, seconds, waited)


def models(release: LoadedRelease, answering: Answering, also: Sequence[Model] = ()) -> dict[str, Model]:
    """Those that this release can serve: without pictures, neither encoder nor similar. also: others beside them."""
    found = [_recommender(answering), *also]
    if (encoder := release.recommender.encoder) is not None:
        found += [_similar(release, answering.batcher), _encoder(release, answering.batcher, dim=encoder.dim)]
    return {model.name: model for model in found}


def _encoder(release: LoadedRelease, batcher: MicroBatcher, *, dim: int) -> Model:
    async def run(inputs: Arrays, seconds: float) -> Ran:
        waits: list[float] = []
        vectors, degraded = await batcher.submit(
            release.encode, inputs["IMAGES"], deadline=seconds, waited=waits.append
        )
        return Ran({"EMBEDDINGS": vectors}, "", max(waits), degraded)

    images = Spec("IMAGES", "UINT8", (ANY, SIDE, SIDE, 3))
    embeddings = Spec("EMBEDDINGS", "FP32", (ANY, dim))
    return Model("encoder", (images,), (embeddings,), run, LARGEST_BATCH, batched=True)


def _recommender(answering: Answering) -> Model:
    async def ask(query: Query, seconds: float, waited: Callable[[float], None]) -> Recommendation:
        return await answering.recommend(query, deadline=seconds, waited=waited)

    async def run(inputs: Arrays, seconds: float) -> Ran:
        answers, waited = await _all(ask, _queries(parse_query, inputs, "USER_ID"), seconds)
        said = {"TIER": texts([a.tier for a in answers]), "RELEASE": texts([a.release for a in answers])}
        return Ran(_ranked(answers, _k(inputs)) | said, answers[0].tier, waited, _degraded(answers))

    inputs = (IMAGE, USER_ID, K, FILTER, EVENTS, PERSONALIZATION, OPTIONS)
    return Model("recommender", inputs, (*RANKED, *SAID, ANSWER), run, LARGEST_BATCH)


def _similar(release: LoadedRelease, batcher: MicroBatcher) -> Model:
    async def ask(query: SimilarQuery, seconds: float, waited: Callable[[float], None]) -> Recommendation:
        return await batcher.submit(release.similar, query, deadline=seconds, waited=waited)

    async def run(inputs: Arrays, seconds: float) -> Ran:
        answers, waited = await _all(ask, _queries(parse_similar, inputs, "ITEM_ID"), seconds)
        return Ran(_ranked(answers, _k(inputs)), answers[0].tier, waited, _degraded(answers))

    return Model("similar", (IMAGE, ITEM_ID, K, FILTER, OPTIONS), (*RANKED, ANSWER), run, LARGEST_BATCH)


def _queries(parse: Callable[..., Any], inputs: Arrays, id_name: str) -> list[Any]:
    """Each row as the native routes would read it. Raises BadQuery, which says in which row."""
    names = ("IMAGE", id_name, "FILTER", "EVENTS", "OPTIONS")
    sizes = {len(inputs[name]) for name in names if name in inputs}
    if len(sizes) > 1:
        raise Malformed(f"{', '.join(names)} must have as many rows as each other; got {sorted(sizes)}")
    rows = range(sizes.pop() if sizes else 1)
    of_all: dict[str, Any] = {"k": _k(inputs)}
    if "PERSONALIZATION" in inputs:
        of_all["personalization"] = float(inputs["PERSONALIZATION"][0])
    return [_parsed(parse, row, {name: inputs[name][row] for name in names if name in inputs}, of_all) for row in rows]


def _k(inputs: Arrays) -> int:
    return int(inputs["K"][0]) if "K" in inputs else DEFAULT_K


def _parsed(parse: Callable[..., Any], row: int, sent: dict[str, bytes], of_all: dict[str, Any]) -> Any:
    """sent: the row's elements; empty means none; of_all: what all rows have in common."""
    image = sent.pop("IMAGE", b"")
    fields = {name.lower(): sent.pop(name, b"") for name in ("FILTER", "EVENTS")}
    options = sent.pop("OPTIONS", b"")
    try:
        values: dict[str, Any] = of_all | {name.lower(): given.decode() for name, given in sent.items() if given}
        values |= {name: json.loads(text) for name, text in fields.items() if text}
        return parse(values | _options(json.loads(options) if options else {}, values), image=image or None)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is one of them
        raise Malformed(f"row {row}: ids must be UTF-8, FILTER, EVENTS and OPTIONS JSON ({error})") from error
    except BadQuery as error:
        raise type(error)(f"row {row}: {error}", field=error.field) from error


def _options(options: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that have no tensor of their own. Raises Malformed."""
    if not isinstance(options, dict):
        raise Malformed(f"OPTIONS must be a JSON object; got {shown(options)}")
    if twice := sorted({*options} & {*values, "image"}):
        raise Malformed(f"{shown(twice[0])} has a tensor of its own: it does not belong into OPTIONS")
    return options


async def _all(ask: Ask, queries: Sequence[Any], seconds: float) -> tuple[list[Recommendation], float]:
    """The answers, and the longest wait. Each row waits like a request of its own; the first that fails ends all."""
    waits: list[float] = []
    if len(queries) == 1:  # without a task, which costs a turn of the event loop
        return [await ask(queries[0], seconds, waits.append)], max(waits)
    tasks = [asyncio.ensure_future(ask(query, seconds, waits.append)) for query in queries]
    try:
        return list(await asyncio.gather(*tasks)), max(waits)
    finally:
        for task in tasks:
            task.cancel()


def _degraded(answers: Sequence[Recommendation]) -> list[str]:
    return sorted({part for answer in answers for part in answer.degraded})


def _ranked(answers: Sequence[Recommendation], k: int) -> dict[str, Output]:
    """ITEM_ID and SCORE: (n, k), padded; ANSWER: (n,), made when it is asked for."""
    items, scores = np.full((len(answers), k), b"", object), np.full((len(answers), k), np.nan, np.float32)
    for row, answer in enumerate(answers):
        for column, item in enumerate(answer.items):
            items[row, column], scores[row, column] = item.item_id.encode(), item.score
    return {"ITEM_ID": items, "SCORE": scores, "ANSWER": lambda: np.array([orjson.dumps(a) for a in answers], object)}
