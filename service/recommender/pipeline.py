"""The whole request: a photo, a shopper, or both -> ranked items with their reasons."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from service.encoder import preprocessing
from service.encoder.selection import SAME, Candidate, Encoder, available_cpus
from service.errors import BadQuery, NotFound, ReleaseMismatch, shown
from service.recommender.candidates import POOL, VOTERS, Asked, Candidates, Near, Retrieval
from service.recommender.factors import (
    DEFAULT_USER_KEY,
    DISMISS,
    Objective,
    Shopper,
    diversify,
    hash_user,
    key_check,
    last_words,
)
from service.recommender.index.recognition import Match
from service.recommender.query import COMPLEMENTS, SIMILAR, Event, Query, SimilarQuery
from service.recommender.recommendation import Item, Recommendation
from service.recommender.release import Release
from service.recommender.scoring import (
    PRICE,
    Sources,
    because,
    best,
    blend,
    log_price,
    scaled_popularity,
    term_values,
)
from service.recommender.user_profile import Profile, describe

GOLDEN_OVERLAP = 0.9
# (queries, vectors of their pictures, answers)
Listener = Callable[[Sequence[Query], Sequence[np.ndarray | None], Sequence[Recommendation]], None]


@dataclass(frozen=True, slots=True)
class _Look:
    """A picture, as far as it was looked at. vector: (dim,); pixels: as the encoder saw it, None where the vector was
    known without them; match: the item that it shows, as an answer said it, where that was known as well."""

    vector: np.ndarray
    pixels: np.ndarray | None = None
    match: Mapping[str, Any] | None = None


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
        max_pixels: int = preprocessing.MAX_PIXELS, observe: Callable[[str, float], None] = lambda stage, seconds: None,
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
        self._retrieval = Retrieval(release, self.sources)
        self.encoder = encoder
        self.precision = precision
        self.max_pixels = max_pixels
        self._observe = observe
        self.user_key = user_key
        ranker = release.manifest.ranker
        if ranker and ranker["user_key"] != key_check(user_key):
            raise ReleaseMismatch(
                "the release's user ids were hashed with another key, so every shopper would be unknown; "
                "set VITRINE_USER_KEY to the key that it was trained with"
            )

    def recommend(
        self, queries: Sequence[Query], *, vectors: Sequence[np.ndarray | None] | None = None,
        matches: Sequence[Mapping[str, Any] | None] | None = None, listener: Listener | None = None,
    ) -> list[Recommendation]:  # fmt: skip
        """Answer each query, in order. vectors: of the queries' pictures, (dim,) each, where they are known already;
        matches: the items that these show, as answers say it; listener: called with the answers."""
        for query in queries:
            self._retrieval.require_known(query)
        if vectors is None:
            looks = self._look(queries)
            vectors = [None if look is None else look.vector for look in looks]
        else:
            shown = matches or [None] * len(queries)
            looks = [
                None if vector is None else _Look(vector, None, match)
                for vector, match in zip(vectors, shown, strict=True)
            ]
        shoppers = [self._know(query) for query in queries]
        asked = [
            Asked(query, self._retrieval.vector_of_item(query) if vector is None else vector, shopper)
            for query, vector, shopper in zip(queries, vectors, shoppers, strict=True)
        ]
        with self._timed("search"):
            found = [self._retrieval.candidates(each) for each in asked]
        for at, look in enumerate(looks):
            asked[at], found[at] = self._settle(asked[at], found[at], look)
        with self._timed("rank"):
            ranked = self._rank(asked, found)
        number = self.release.number
        answers = [
            Recommendation(
                number,
                each.tier,
                items,
                self._describe(look, worth.near, known=each.match is not None, remember=each.query.remember),
                self.degraded() if look is not None else [],
                self._unknown(each.query),
                self._matched(each.match),
            )
            for each, look, items, worth in zip(asked, looks, ranked, found, strict=True)
        ]
        if listener is not None:
            listener(queries, vectors, answers)
        return answers

    def _settle(self, asked: Asked, found: Candidates, look: _Look | None) -> tuple[Asked, Candidates]:
        """What is asked once the photo was looked at: whether it shows an item, or nothing of this catalogue."""
        if look is not None and found.near is not None:
            asked = replace(asked, match=self._match(look))
            if asked.match is None and not self._retrieval.in_catalogue(found.near):
                # what is near a photo of something else says nothing: it is answered as if it had not been sent
                asked = replace(asked, vector=None, query=replace(asked.query, relation=SIMILAR))
                return asked, replace(self._retrieval.candidates(asked), near=found.near)
        return asked, self._retrieval.complements(asked, found) if asked.tier == COMPLEMENTS else found

    def similar(self, queries: Sequence[SimilarQuery]) -> list[Recommendation]:
        """Items that look like a picture or an item, nearest first."""
        for query in queries:
            self._retrieval.require_known(query)
        looks = self._look(queries)
        return [self._lookalikes(query, look) for query, look in zip(queries, looks, strict=True)]

    def embed(
        self, pictures: Sequence[bytes], *, boxes: Sequence[preprocessing.Box | None] | None = None
    ) -> np.ndarray:
        """Pictures -> (n, dim) float32 unit vectors."""
        return self.encode(self._decode(pictures, boxes or [None] * len(pictures)))

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

    def _look(self, queries: Sequence[Query] | Sequence[SimilarQuery]) -> list[_Look | None]:
        """Each query's picture, where it has one."""
        asked = [query for query in queries if query.image is not None]
        if not asked:
            return [None] * len(queries)
        pictures = [query.image for query in asked if query.image is not None]
        pixels = self._decode(pictures, [query.box for query in asked])
        looks = iter([_Look(*each) for each in zip(self.encode(pixels), pixels, strict=True)])
        return [next(looks) if query.image is not None else None for query in queries]

    def _decode(self, pictures: Sequence[bytes], boxes: Sequence[preprocessing.Box | None]) -> np.ndarray:
        """(n, side, side, 3) uint8, as the encoder sees them."""
        if self.encoder is None:
            raise BadQuery("this release was made from a catalogue without pictures: it cannot look", field="image")
        with self._timed("decode"):
            decoded = [
                preprocessing.decode(
                    picture, box=box, max_pixels=self.max_pixels, preprocessing=self.release.preprocessing
                )
                for picture, box in zip(pictures, boxes, strict=True)
            ]
            return decoded[0][None] if len(decoded) == 1 else np.stack(decoded)

    def _match(self, look: _Look) -> Match | None:
        """The item that a picture shows, where the release can tell."""
        if look.pixels is None:
            row = None if look.match is None else self.release.items.find(look.match["item_id"])
            return None if row is None or look.match is None else Match(row, look.match["confidence"])
        if self.release.recogniser is None:
            return None
        with self._timed("match"):
            return self.release.recogniser.match(look.pixels)

    def _matched(self, match: Match | None) -> dict[str, Any] | None:
        """As an answer says it."""
        if match is None:
            return None
        return {"item_id": self.release.items.ids[match.row], "confidence": match.confidence}

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

    def _rank(self, asked: Sequence[Asked], found: Sequence[Candidates]) -> list[list[Item]]:
        """The k best of each query's candidates, described, with the parts of their scores and the reasons; before
        them the item that the picture shows."""
        rows = [self._retrieval.with_match(*each) for each in zip(asked, found, strict=True)]
        shoppers = [each.shopper for each in asked]
        votes = [
            None if each.vector is None or worth.near is None else self._retrieval.vote(worth.near)
            for each, worth in zip(asked, found, strict=True)
        ]
        weights = [self._weights(each) for each in asked]
        needed = {name for each in weights for name, weight in each.items() if weight}
        values = term_values(self.sources, rows, [each.vector for each in asked], shoppers, votes, only=needed)
        for each, worth in zip(values, found, strict=True):
            if worth.together is not None:
                each["together"] = worth.together
        chosen = [self._best(*each) for each in zip(asked, rows, values, weights, strict=True)]
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

    def _best(
        self, asked: Asked, rows: np.ndarray, values: Mapping[str, np.ndarray], weights: Mapping[str, float]
    ) -> "_Chosen":
        query = asked.query
        names, parts = blend(values, weights)
        scores = parts.sum(axis=1)
        ranked = scores
        if asked.match is not None:  # it comes first, whatever the weights say
            ranked = np.where(rows == asked.match.row, np.float32(np.inf), scores)
        wanted = max(POOL, 2 * query.k) if query.diversity > 0 else query.k
        order = best(ranked, len(rows) if self._retrieval.collapses(query) else wanted)
        order = self._retrieval.collapsed(rows, order, query)[:wanted]
        if query.diversity > 0 and len(order):
            vectors = self.likeness_vectors(rows[order])
            worth = scores[order]
            if asked.match is not None:
                worth[0] = worth.max()  # of equals diversity takes the first
            order = order[diversify(worth, vectors, k=query.k, diversity=query.diversity)]
        return _Chosen(rows[order], scores[order], names, parts[order])

    def _weights(self, asked: Asked) -> Mapping[str, float]:
        """Of the terms. Raises BadQuery where a release that learned no trade is told how to make it."""
        blend, wanted = self.release.blend, asked.query.personalization
        if asked.tier == COMPLEMENTS:
            return {"together": 1.0}
        shopper = asked.shopper
        if asked.tier == "taste" and shopper is not None and not len(shopper.history) and shopper.photos is not None:
            # photos are all that is known: they count as one that is sent does
            return {**blend.tiers["taste"], "own_likeness": blend.tiers["visual"].get("likeness", 1.0)}
        if wanted is None or asked.tier != "ranked":
            return blend.tiers[asked.tier]
        if blend.trade is None:
            raise BadQuery(
                f"release {self.release.number} was trained before `personalization`: leave it out, or train it anew",
                field="personalization",
            )
        return blend.trade.weights(wanted)

    def _lookalikes(self, query: SimilarQuery, look: _Look | None) -> Recommendation:
        items, index = self.release.items, self.release.index
        if index is None:
            raise BadQuery("this release was made from a catalogue without pictures: nothing looks alike")
        described, match = None, None
        vector = self._retrieval.vector_of_item(query) if look is None else look.vector
        assert vector is not None, "there is a picture or an item"
        if look is not None:
            match = self._match(look)
            described = self._describe(look, self._retrieval.nearest(vector, VOTERS), known=match is not None)
        allowed = self._retrieval.allowed(query)
        with self._timed("search"):
            rows = self._retrieval.nearest(vector, self._retrieval.enough(query), allowed).rows
        if match is not None and (allowed is None or allowed[match.row]):
            rows = np.concatenate([[match.row], rows[rows != match.row]])
        rows = rows[self._retrieval.collapsed(rows, np.arange(len(rows)), query)][: query.k]
        cosines = index.cosines(vector[None], rows)[0].tolist()
        found = [
            Item(score=cosine, terms={"likeness": cosine}, because=[], **items.describe(row))
            for row, cosine in zip(rows.tolist(), cosines, strict=True)
        ]
        degraded = self.degraded() if look is not None else []
        return Recommendation(self.release.number, "visual", found, described, degraded, match=self._matched(match))

    def _describe(
        self, look: _Look | None, near: Near | None, *, known: bool, remember: bool = False
    ) -> dict[str, Any] | None:
        """What a picture seems to be: the category that its neighbours vote for, and whether it belongs here at all.

        known: whether it shows an item of the catalogue."""
        if look is None or near is None or self.release.manifest.index is None:
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
            "in_catalogue": known or self._retrieval.in_catalogue(near),
        }
        if remember:  # the photo itself is not kept: who sends this event along next time is known by its vector
            assert self.release.manifest.encoder is not None, "it made the vector"
            kept = [round(float(part), 4) for part in look.vector]
            encoder = self.release.manifest.encoder["fingerprint"]
            described["event"] = {"event": "view", "vector": kept, "encoder": encoder}
        return described

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._observe(stage, time.perf_counter() - started)
