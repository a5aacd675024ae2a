"""The whole request: a photo, a user, or both -> ranked items with their reasons."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from service.encoder import preprocessing
from service.encoder.decoding import Box
from service.encoder.selection import Candidate, Encoder, available_cpus
from service.errors import BadQuery
from service.recommender.candidates import VOTERS, Candidates, CandidateSearch, Near, ResolvedQuery
from service.recommender.changes.readers_writer import ReadersWriter
from service.recommender.photo import Observe, Photo, PhotoReader, timed
from service.recommender.query import COMPLEMENTS, SIMILAR, Query, SimilarQuery
from service.recommender.recommendation import Item, Recommendation
from service.recommender.release import Release
from service.recommender.scoring.scorer import Scorer
from service.recommender.scoring.terms import PRICE, Sources, log_price, scaled_popularity
from service.recommender.user import Users
from service.recommender.user_keys import DEFAULT_USER_KEY
from service.recommender.user_profile import Profile

# (queries, vectors of their photos, answers)
Listener = Callable[[Sequence[Query], Sequence[np.ndarray | None], Sequence[Recommendation]], None]
PhotoListener = Callable[[Sequence[Query | SimilarQuery], Sequence[np.ndarray | None], Sequence[Recommendation]], None]


class Recommender:
    """Answers queries from one release."""

    def __init__(
        self,
        release: Release,
        *,
        encoder: Encoder | None = None,
        precision: str = "fp32",
        user_key: str = DEFAULT_USER_KEY,
        max_pixels: int = preprocessing.MAX_PIXELS,
        observe: Observe = lambda stage, seconds: None,
    ) -> None:
        """encoder: default: the release's own in onnxruntime, on all CPUs; precision: of that encoder;
        observe: called with each stage's name and seconds.

        Raises ReleaseMismatch where `user_key` is not the one that the release was made with."""
        if encoder is None and release.encoders:
            encoder = Candidate("onnxruntime", precision, release.encoders[precision]).open(threads=available_cpus())
        items = release.items
        self.release, self.precision = release, precision
        self.also_degraded: Callable[[], list[str]] = list  # what is to be said of every answer
        self.changing = ReadersWriter()  # what was changed since is seen by a whole batch, or not at all
        self.sources = Sources(
            release.index,
            release.ranker,
            scaled_popularity(items.popularity),
            log_price(items.numbers(PRICE)),
            release.blend.factor_scale,
            items.categories(),
        )
        self.users = Users(release, user_key)
        self.photos = PhotoReader(release, encoder, max_pixels=max_pixels, observe=observe)
        self._search = CandidateSearch(release, self.sources)
        self.scorer = Scorer(release, self.sources, self._search)
        self._observe = observe

    @property
    def encoder(self) -> Encoder | None:
        """None for a release without pictures."""
        return self.photos.encoder

    def recommend(
        self,
        queries: Sequence[Query],
        *,
        vectors: Sequence[np.ndarray | None] | None = None,
        matches: Sequence[Mapping[str, Any] | None] | None = None,
        listener: Listener | None = None,
    ) -> list[Recommendation]:
        """Answer each query, in order.

        vectors: of the queries' photos, (dim,) each, where they are known already;
        matches: the items that these show, as answers say it;
        listener: called with the queries, the vectors and the answers. Raises BadQuery, NotFound."""
        for query in queries:
            self._search.require_known(query)
        photos = self.photos.look(queries) if vectors is None else _known_photos(vectors, matches)
        with self.changing.reading():
            answers = self._rank(queries, photos)
        if listener is not None:
            listener(queries, [None if photo is None else photo.vector for photo in photos], answers)
        return answers

    def _rank(self, queries: Sequence[Query], photos: Sequence[Photo | None]) -> list[Recommendation]:
        asked = [self._asked(query, photo) for query, photo in zip(queries, photos, strict=True)]
        with timed("search", self._observe):
            found = [self._search.candidates(each) for each in asked]
        for at, photo in enumerate(photos):
            asked[at], found[at] = self._settle(asked[at], found[at], photo)
        with timed("rank", self._observe):
            ranked = self.scorer.rank(asked, found)
        return [
            self._answer(each, photo, items, candidates.near)
            for each, photo, items, candidates in zip(asked, photos, ranked, found, strict=True)
        ]

    def similar(
        self, queries: Sequence[SimilarQuery], *, listener: PhotoListener | None = None
    ) -> list[Recommendation]:
        """Items that look like a photo or an item, nearest first. listener: as of `recommend`.

        Raises BadQuery, NotFound."""
        for query in queries:
            self._search.require_known(query)
        photos = self.photos.look(queries)
        with self.changing.reading():
            answers = [self._lookalikes(query, photo) for query, photo in zip(queries, photos, strict=True)]
        if listener is not None:
            listener(queries, [None if photo is None else photo.vector for photo in photos], answers)
        return answers

    def embed(self, pictures: Sequence[bytes], *, boxes: Sequence[Box | None] | None = None) -> np.ndarray:
        """Pictures -> (n, dim) float32 unit vectors. Raises BadQuery."""
        return self.photos.encode(self.photos.decode(pictures, boxes or [None] * len(pictures)))

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """(n, 224, 224, 3) uint8 -> (n, dim) float32 unit vectors. For a release with pictures."""
        return self.photos.encode(pixels)

    def degraded(self) -> list[str]:
        """What is to be said of an answer whose photo this thread has just had encoded."""
        return self.photos.degraded()

    def profile(self, user_id: str) -> Profile:
        """What is known of a user. Raises NotFound."""
        with self.changing.reading():
            return self.users.profile(user_id)

    def score(self, user_id: str, rows: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Factor scores and final scores of items for a user without a photo: (n,), (n,).

        For a user who is not known the factor scores are NaN, and the final ones are those of tier `popular`."""
        with self.changing.reading():
            return self.scorer.score(self.users.know(Query(user_id=user_id)), rows)

    def _asked(self, query: Query, photo: Photo | None) -> ResolvedQuery:
        vector = self._search.vector_of_item(query) if photo is None else photo.vector
        return ResolvedQuery(query, vector, self.users.know(query))

    def _settle(self, asked: ResolvedQuery, found: Candidates, photo: Photo | None) -> tuple[ResolvedQuery, Candidates]:
        """What is asked once the photo was looked at: whether it shows an item, or nothing of this catalogue."""
        if photo is not None and found.near is not None:
            asked = replace(asked, match=self.photos.match(photo))
            if asked.match is None and not self._search.in_catalogue(found.near):
                # what is near a photo of something else says nothing: it is answered as if it had not been sent
                asked = replace(asked, vector=None, query=replace(asked.query, relation=SIMILAR))
                return asked, replace(self._search.candidates(asked), near=found.near)
        return asked, self._search.complements(asked, found) if asked.tier == COMPLEMENTS else found

    def _answer(
        self, asked: ResolvedQuery, photo: Photo | None, items: list[Item], near: Near | None
    ) -> Recommendation:
        described = None
        if photo is not None and near is not None and self.release.manifest.index is not None:
            known = asked.match is not None or self._search.in_catalogue(near)
            described = self.photos.describe(near, in_catalogue=known)
            if asked.query.remember:
                described["event"] = self.photos.remember(photo)
        return Recommendation(
            release=self.release.number,
            tier=asked.tier,
            items=items,
            query=described,
            degraded=[*self.also_degraded(), *([] if photo is None else self.degraded())],
            unknown_items=self.users.unknown_items(asked.query),
            match=self.photos.describe_match(asked.match),
        )

    def _lookalikes(self, query: SimilarQuery, photo: Photo | None) -> Recommendation:
        items, index = self.release.items, self.release.index
        if index is None:
            raise BadQuery("this release was made from a catalogue without pictures: nothing looks alike")
        described, match = None, None
        vector = self._search.vector_of_item(query) if photo is None else photo.vector
        assert vector is not None, "there is a photo or an item"
        if photo is not None:
            match = self.photos.match(photo)
            if self.release.manifest.index is not None:
                near = self._search.nearest(vector, VOTERS)
                known = match is not None or self._search.in_catalogue(near)
                described = self.photos.describe(near, in_catalogue=known)
        allowed = self._search.allowed(query)
        with timed("search", self._observe):
            rows = self._search.nearest(vector, self._search.enough(query), allowed).rows
        if match is not None and (allowed is None or allowed[match.row]):
            rows = np.concatenate([[match.row], rows[rows != match.row]])
        rows = rows[self._search.collapsed(rows, np.arange(len(rows)), query)][: query.k]
        cosines = index.cosines(vector[None], rows)[0].tolist()
        found = [
            Item(score=cosine, terms={"likeness": cosine}, because=[], **items.describe(row))
            for row, cosine in zip(rows.tolist(), cosines, strict=True)
        ]
        degraded = [*self.also_degraded(), *(self.degraded() if photo is not None else [])]
        matched = self.photos.describe_match(match)
        return Recommendation(self.release.number, "visual", found, described, degraded, match=matched)


def _known_photos(
    vectors: Sequence[np.ndarray | None], matches: Sequence[Mapping[str, Any] | None] | None
) -> list[Photo | None]:
    shown = matches or [None] * len(vectors)
    return [
        None if vector is None else Photo(vector, None, match) for vector, match in zip(vectors, shown, strict=True)
    ]
