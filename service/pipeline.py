"""The whole request: a photo, a shopper, or both -> ranked items with their reasons."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from service import images
from service.answers import Item, Recommendation
from service.encoder import SAME, Candidate, Encoder, available_cpus
from service.errors import BadQuery, NotFound, ReleaseMismatch, shown
from service.profiles import Profile, describe
from service.queries import Event, Query, SimilarQuery
from service.ranker import DEFAULT_USER_KEY, DISMISS, Objective, Shopper, diversify, hash_user, key_check, last_words
from service.release import Release
from service.terms import (
    PRICE,
    Sources,
    because,
    best,
    blend,
    log_price,
    own_vector,
    scaled_popularity,
    term_values,
    vote,
)

POOL = 500  # candidates from each source, before they are ranked
VOTERS = 10  # neighbours that vote on the category of a picture, in the reply
KIND_VOTERS = 25  # ... and for the term `kind`
GOLDEN_OVERLAP = 0.9
_NOTHING = np.empty(0, np.int64)
# (queries, vectors of their pictures, answers)
Listener = Callable[[Sequence[Query], Sequence[np.ndarray | None], Sequence[Recommendation]], None]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A query, the vector of its picture, and who asks, as far as they are known."""

    query: Query
    vector: np.ndarray | None
    shopper: Shopper | None

    @property
    def tier(self) -> str:
        """What the answer rests on."""
        if self.vector is not None:
            return "ranked" if self.shopper else "visual"
        return "taste" if self.shopper else "popular"


@dataclass(frozen=True, slots=True)
class _Near:
    """Items near a picture, nearest first: (n,) each."""

    rows: np.ndarray
    cosines: np.ndarray


@dataclass(frozen=True, slots=True)
class _Candidates:
    """What is worth ranking for a query, and the items nearest to its picture, whatever was asked to be left out."""

    rows: np.ndarray
    near: _Near | None


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The items of an answer, best first. rows, scores: (k,); parts: (k, terms), which add up to the scores."""

    rows: np.ndarray
    scores: np.ndarray
    names: list[str]
    parts: np.ndarray


class Recommender:
    """Answers queries from one release."""

    def __init__(
        self, release: Release, *, encoder: Encoder | None = None, precision: str = "fp32",
        user_key: str = DEFAULT_USER_KEY,
        max_pixels: int = images.MAX_PIXELS, observe: Callable[[str, float], None] = lambda stage, seconds: None,
    ) -> None:  # fmt: skip
        """encoder: default: the release's own in onnxruntime, on all CPUs; precision: of that encoder;
        observe: called with each stage's name and seconds.

        Raises ReleaseMismatch where `user_key` is not the one that the release was made with."""
        self.release = release
        items = release.items
        self.sources = Sources(
            release.index,
            release.ranker,
            scaled_popularity(items.popularity),
            log_price(items.numbers(PRICE)),
            release.blend.factor_scale,
            items.categories(),
        )
        if encoder is None and release.encoders:
            encoder = Candidate("onnxruntime", precision, release.encoders[precision]).open(threads=available_cpus())
        self.encoder = encoder
        self.precision = precision
        self.max_pixels = max_pixels
        self._observe = observe
        self.listener: Listener | None = None  # told of every answer
        self.user_key = user_key
        ranker = release.manifest.ranker
        if ranker and ranker["user_key"] != key_check(user_key):
            raise ReleaseMismatch(
                "the release's user ids were hashed with another key, so every shopper would be unknown; "
                "set VITRINE_USER_KEY to the key that it was trained with"
            )

    def recommend(
        self, queries: Sequence[Query], *, vectors: Sequence[np.ndarray | None] | None = None
    ) -> list[Recommendation]:
        """Answer each query, in order. vectors: of the queries' pictures, (dim,) each, where they are known already."""
        if vectors is None:
            vectors = self._look(queries)
        shoppers = [self._know(query) for query in queries]
        asked = [_Asked(*each) for each in zip(queries, vectors, shoppers, strict=True)]
        with self._timed("search"):
            found = [self._candidates(each) for each in asked]
            for at, worth in enumerate(found):
                # what is near a photo of something else says nothing: who asks is answered as if it had not been sent
                if worth.near is not None and not self._in_catalogue(worth.near):
                    asked[at] = replace(asked[at], vector=None)
                    found[at] = replace(self._candidates(asked[at]), near=worth.near)
        with self._timed("rank"):
            ranked = self._rank(asked, found)
        number = self.release.number
        answers = [
            Recommendation(
                number,
                each.tier,
                items,
                self._describe(vector, worth.near, remember=each.query.remember),
                self.degraded() if vector is not None else [],
                self._unknown(each.query),
            )
            for each, vector, items, worth in zip(asked, vectors, ranked, found, strict=True)
        ]
        if self.listener is not None:
            self.listener(queries, vectors, answers)
        return answers

    def similar(self, queries: Sequence[SimilarQuery]) -> list[Recommendation]:
        """Items that look like a picture or an item, nearest first."""
        vectors = self._look(queries)
        return [self._lookalikes(query, vector) for query, vector in zip(queries, vectors, strict=True)]

    def embed(self, pictures: Sequence[bytes], *, boxes: Sequence[images.Box | None] | None = None) -> np.ndarray:
        """Pictures -> (n, dim) float32 unit vectors."""
        return self._encode(pictures, boxes or [None] * len(pictures))

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """(n, 224, 224, 3) uint8 -> (n, dim) float32 unit vectors. For a release with pictures."""
        assert self.encoder is not None, "a release without pictures has no encoder"
        with self._timed("encode"):
            return self.encoder.encode(pixels)

    def degraded(self) -> list[str]:
        """What is to be said of an answer whose picture this thread has just had encoded."""
        return ["encoder"] if self.encoder is not None and self.encoder.degraded else []

    def score(self, user_id: str, rows: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Factor scores and final scores of items for a shopper without a photo: (n,), (n,).

        For a shopper who is not known the factor scores are NaN, and the final ones are those of tier `popular`."""
        shopper = self._know(Query(user_id=user_id))
        asked = np.asarray(rows, dtype=np.int64)
        [values] = term_values(self.sources, [asked], [None], [shopper], [None])
        _, parts = blend(values, self.release.blend.tiers["taste" if shopper else "popular"])
        factor = np.full(len(asked), np.nan, np.float32)
        if shopper is not None and self.release.ranker is not None:
            factor = self.release.ranker.scores(shopper, asked)
        return factor, parts.sum(axis=1)

    def profile(self, user_id: str) -> Profile:
        """What this release holds about a shopper. Raises NotFound for one without history."""
        ranker = self.release.ranker
        shopper = self._know(Query(user_id=user_id))
        if ranker is None or shopper is None or not len(shopper.seen):
            raise NotFound(f"this release holds no history of user {shown(user_id)}", field="user_id")
        return describe(
            shopper, release=self.release.number, items=self.release.items, ranker=ranker,
            segments=self.release.segments, cutoff=self.release.manifest.data["cutoff"],
        )  # fmt: skip

    def likeness_vectors(self, rows: np.ndarray) -> np.ndarray:
        """Unit vectors by which two items are alike: of their pictures, else of their factors."""
        if self.release.index is not None:
            return np.nan_to_num(self.release.index.vectors(rows))
        if self.release.ranker is None:
            return np.zeros((len(rows), 1), np.float32)
        unit: np.ndarray = self.release.ranker.item_factors[rows] * self.release.ranker.inverse_lengths[rows, None]
        return unit

    def prove(self) -> None:
        """Send the golden cases through the whole chain. Raises ReleaseMismatch where the answers are others."""
        golden, folder = self.release.golden, self.release.path / "golden"
        pictures = [(folder / case.picture).read_bytes() if case.picture else None for case in golden.cases]
        sent = [picture for picture in pictures if picture is not None]
        if sent:
            cosines = np.einsum("nd,nd->n", self.embed(sent), golden.vectors[self.precision])
            if cosines.min() < SAME[self.precision]:
                raise ReleaseMismatch(
                    f"golden picture {int(cosines.argmin())}: cosine {cosines.min():.5f} with its recorded vector, at "
                    f"least {SAME[self.precision]} expected; the encoder or the preprocessing is not the release's"
                )
        for picture, case in zip(pictures, golden.cases, strict=True):
            query = Query(image=picture, events=tuple(Event(item) for item in case.events), k=len(case.items) or 1)
            answer = [item.item_id for item in self.recommend([query])[0].items]
            overlap = len(set(answer) & set(case.items)) / len(case.items) if case.items else float(not answer)
            # how far another precision may answer otherwise was settled when it was packaged
            if overlap < GOLDEN_OVERLAP and (picture is None or self.precision == "fp32"):
                raise ReleaseMismatch(
                    f"golden case {case.picture or case.events}: {overlap:.2f} of the recorded items came back, "
                    f"at least {GOLDEN_OVERLAP} expected"
                )

    def _look(self, queries: Sequence[Query] | Sequence[SimilarQuery]) -> list[np.ndarray | None]:
        """The vector of each query's picture, or None."""
        asked = [query for query in queries if query.image is not None]
        pictures = [query.image for query in asked if query.image is not None]
        vectors = iter(self._encode(pictures, [query.box for query in asked]) if asked else ())
        return [next(vectors) if query.image is not None else None for query in queries]

    def _encode(self, pictures: Sequence[bytes], boxes: Sequence[images.Box | None]) -> np.ndarray:
        if self.encoder is None:
            raise BadQuery("this release was made from a catalogue without pictures: it cannot look", field="image")
        with self._timed("decode"):
            decoded = [
                images.decode(picture, box=box, max_pixels=self.max_pixels, preprocessing=self.release.preprocessing)
                for picture, box in zip(pictures, boxes, strict=True)
            ]
            pixels = decoded[0][None] if len(decoded) == 1 else np.stack(decoded)
        return self.encode(pixels)

    def _know(self, query: Query) -> Shopper | None:
        """What is known of the shopper: from training, from the events of the query, from both, or nothing."""
        if query.user_id is None and not query.events:
            return None
        ranker, items = self.release.ranker, self.release.items
        row = None
        if ranker is not None and query.user_id is not None:
            row = ranker.user_row(hash_user(query.user_id, self.user_key))
        known = [(items.find(event.item_id), event.event) for event in query.events if event.item_id is not None]
        events = [(item, name) for item, name in known if item is not None]
        photos = self._photos(query.events)
        rows = np.array([item for item, _ in events], dtype=np.int64)
        names = [name for _, name in events]
        if ranker is None:
            seen, words = last_words(rows, Objective(1, 0, 1).confidence(names))
            shopper = Shopper(np.empty(0, np.float32), seen[words > 0], seen)
        elif events or row is None:
            shopper = ranker.shopper_with_events(row, rows, ranker.objective.confidence(names))
        else:
            shopper = ranker.shopper(row)
        # someone of whom neither history, profile nor photos say a thing is nobody in particular
        if not len(shopper.seen) and not shopper.factor.any() and photos is None:
            return None
        return replace(shopper, photos=photos)

    def _unknown(self, query: Query) -> list[str]:
        """Items of the query's events that this release does not hold."""
        named = dict.fromkeys(event.item_id for event in query.events if event.item_id is not None)
        return [item for item in named if self.release.items.find(item) is None]

    def _photos(self, events: Sequence[Event]) -> np.ndarray | None:
        """Unit vectors of the photos among the events that were not dismissed, or None. Raises BadQuery."""
        sent = [event for event in events if event.vector is not None and event.event != DISMISS]
        if not sent:
            return None
        encoder = self.release.manifest.encoder
        if encoder is None:
            raise BadQuery(
                "this release was made from a catalogue without pictures: it knows no vectors", field="events"
            )
        others = {str(event.encoder)[:12] for event in sent if event.encoder != encoder["fingerprint"]}
        if others:
            raise BadQuery(
                f"events: a vector was made by encoder {', '.join(sorted(others))}, and release {self.release.number} "
                f"has encoder {encoder['fingerprint'][:12]}: they cannot be compared; send the photo again",
                field="events",
            )
        vectors = [event.vector for event in sent if event.vector is not None]
        if any(len(vector) != encoder["dim"] for vector in vectors):
            raise BadQuery(
                f"events: a vector of this release has {encoder['dim']} numbers; got {[len(v) for v in vectors]}",
                field="events",
            )
        photos = np.array(vectors, dtype=np.float32)
        return photos / np.linalg.norm(photos, axis=1, keepdims=True)

    def _candidates(self, asked: "_Asked") -> "_Candidates":
        """Rows worth ranking: the picture's neighbours, the shopper's taste, and what is popular if they are few."""
        k, vector, shopper = asked.query.k, asked.vector, asked.shopper
        allowed = self.release.items.mask(asked.query.filter)
        if shopper is not None and asked.query.exclude_seen:
            allowed = np.ones(len(self.release.items), bool) if allowed is None else allowed.copy()
            allowed[shopper.seen] = False
        pool = max(POOL, 2 * k)
        found = []
        voters = None
        if vector is not None:
            near = self._nearest(vector, pool, allowed)
            found.append(near.rows)
            voters = near if allowed is None else self._nearest(vector, KIND_VOTERS)
        if shopper is not None and self.release.ranker is not None:
            found.append(self.release.ranker.top(shopper, k=pool, allowed=allowed))
        if shopper is not None and vector is None and self.release.index is not None:
            own = own_vector(self.release.index, shopper)
            if own.any():
                found.append(self._nearest(own, pool, allowed).rows)
        # in the order of rows, so that equal scores are answered in it as well
        rows = np.sort(found[0]) if len(found) == 1 else np.unique(np.concatenate([_NOTHING, *found]))
        if len(rows) < k:
            popular = self.release.items.by_popularity
            rows = np.union1d(rows, (popular if allowed is None else popular[allowed[popular]])[:pool])
        return _Candidates(rows, voters)

    def _nearest(self, vector: np.ndarray, k: int, allowed: np.ndarray | None = None) -> "_Near":
        assert self.release.index is not None
        rows, cosines = self.release.index.search(vector[None], k=k, allowed=allowed)
        found = rows[0] >= 0
        return _Near(rows[0][found], cosines[0][found])

    def _rank(self, asked: Sequence["_Asked"], found: Sequence["_Candidates"]) -> list[list[Item]]:
        """The k best of each query's candidates, described, with the parts of their scores and the reasons."""
        rows, shoppers = [each.rows for each in found], [each.shopper for each in asked]
        votes = [
            None if each.vector is None or worth.near is None else self._vote(worth.near)
            for each, worth in zip(asked, found, strict=True)
        ]
        values = term_values(self.sources, rows, [each.vector for each in asked], shoppers, votes)
        chosen = [self._best(*each) for each in zip(asked, rows, values, strict=True)]
        reasons = because(self.sources, [each.rows for each in chosen], shoppers)
        ids, describe = self.release.items.ids, self.release.items.describe
        return [
            [
                Item(
                    score=score, terms=dict(zip(each.names, parts, strict=True)),
                    because=[ids[row] for row in past], **describe(row),
                )
                for row, score, parts, past in zip(
                    each.rows.tolist(), each.scores.tolist(), each.parts.tolist(), pasts, strict=True
                )
            ]
            for each, pasts in zip(chosen, reasons, strict=True)
        ]  # fmt: skip

    def _best(self, asked: "_Asked", rows: np.ndarray, values: Mapping[str, np.ndarray]) -> "_Chosen":
        query = asked.query
        names, parts = blend(values, self._weights(asked))
        scores = parts.sum(axis=1)
        order = best(scores, max(POOL, 2 * query.k) if query.diversity > 0 else query.k)
        if query.diversity > 0 and len(order):
            vectors = self.likeness_vectors(rows[order])
            order = order[diversify(scores[order], vectors, k=query.k, diversity=query.diversity)]
        return _Chosen(rows[order], scores[order], names, parts[order])

    def _weights(self, asked: "_Asked") -> Mapping[str, float]:
        """Of the terms. Raises BadQuery where a release that learned no trade is told how to make it."""
        blend, wanted = self.release.blend, asked.query.personalization
        if wanted is None or asked.tier != "ranked":
            return blend.tiers[asked.tier]
        if blend.trade is None:
            raise BadQuery(
                f"release {self.release.number} was trained before `personalization`: leave it out, or train it anew",
                field="personalization",
            )
        return blend.trade.weights(wanted)

    def _vote(self, near: "_Near") -> np.ndarray:
        assert self.sources.kinds is not None
        return vote(self.sources.kinds, near.rows[:KIND_VOTERS], near.cosines[:KIND_VOTERS])

    def _lookalikes(self, query: SimilarQuery, vector: np.ndarray | None) -> Recommendation:
        items, index = self.release.items, self.release.index
        allowed = items.mask(query.filter)
        if index is None:
            raise BadQuery("this release was made from a catalogue without pictures: nothing looks alike")
        described = self._describe(vector, None if vector is None else self._nearest(vector, VOTERS))
        if vector is None:
            row = items.row(query.item_id or "")
            vector = index.vectors(np.array([row]))[0]
            if np.isnan(vector[0]):
                raise BadQuery(f"item {query.item_id!r} has no picture to compare", field="item_id")
            allowed = np.ones(len(items), bool) if allowed is None else allowed.copy()
            allowed[row] = False
        with self._timed("search"):
            rows, cosines = index.search(vector[None], k=query.k, allowed=allowed)
        found = [
            Item(score=float(cosine), terms={"likeness": float(cosine)}, because=[], **items.describe(int(row)))
            for row, cosine in zip(rows[0], cosines[0], strict=True)
            if row >= 0
        ]
        degraded = self.degraded() if query.image is not None else []
        return Recommendation(self.release.number, "visual", found, described, degraded)

    def _describe(
        self, vector: np.ndarray | None, near: "_Near | None", *, remember: bool = False
    ) -> dict[str, Any] | None:
        """What a picture seems to be: the category that its neighbours vote for, and whether it belongs here at all."""
        if vector is None or near is None or self.release.manifest.index is None:
            return None
        votes: dict[str, float] = {}
        total = 0.0
        for row, cosine in zip(near.rows[:VOTERS].tolist(), near.cosines[:VOTERS].tolist(), strict=True):
            weight = max(cosine, 0.0)
            total += weight
            category = self.release.items.describe(row)["category"]
            for name in [category] if isinstance(category, str) else (category or ())[:1]:
                votes[name] = votes.get(name, 0.0) + weight
        first = max(votes, key=lambda name: (votes[name], name)) if votes else None
        described: dict[str, Any] = {
            "category": first,
            "confidence": votes[first] / total if first is not None and total else 0.0,
            "in_catalogue": self._in_catalogue(near),
        }
        if remember:  # the photo itself is not kept: who sends this event along next time is known by its vector
            assert self.release.manifest.encoder is not None, "it made the vector"
            kept = [round(float(part), 4) for part in vector]
            encoder = self.release.manifest.encoder["fingerprint"]
            described["event"] = {"event": "view", "vector": kept, "encoder": encoder}
        return described

    def _in_catalogue(self, near: "_Near") -> bool:
        """Whether what is near a picture is near enough for it to show something of this kind of catalogue."""
        index = self.release.manifest.index
        return index is None or bool(near.cosines.max(initial=-1) >= index["in_catalogue_at"])

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._observe(stage, time.perf_counter() - started)
