"""The landmarks of every picture of a release, and of those that came since; which pictures are likely a photo's."""

import math
import threading
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np

from service.recommender.changes.growing import Growing
from service.recommender.index.landmarks import DESCRIPTION, FEATURES, PACKED, Landmarks
from service.recommender.index.vector_index import one_thread

CANDIDATES = 3  # pictures that a photo is held against, those with the most votes
VOTING = 64  # landmarks of each picture that can be voted for
VOTERS = 100  # landmarks of a photo that vote
BALLOTS = 2  # votes of each, for those described most alike
LOOKED_AT = 4 * BALLOTS  # ... once some pictures are not there any more, which may be among those most alike
FEWEST_VOTES = 1.8  # which 98 of 100 photos of an item give it, and 4 of 10 of something else give any
FAR = 64  # bits by which descriptions differ, from which they are not alike
EXACT_BELOW = 20_000  # descriptions that are all looked at
PROBES = 4  # of the lists into which more are sorted
PER_LIST = 60  # descriptions by which the middle of each list is found
GROWN = 2  # times as many descriptions of pictures that came since, at which they are sorted anew


class Gallery:
    """The landmarks of every picture of a release, memory-mapped, in the order of its index."""

    def __init__(self, packed: np.ndarray, descriptions: faiss.IndexBinary) -> None:
        """packed: (pictures, FEATURES, PACKED) uint8; descriptions: of `sorted_descriptions`."""
        self._packed = packed
        self._descriptions = descriptions
        self._new = Growing(np.empty((0, FEATURES, PACKED), np.uint8))  # pictures that came since
        self._new_descriptions: faiss.IndexBinary | None = None
        self._sorted = EXACT_BELOW // GROWN  # of those, how many there were when they were sorted last
        self._sorting: threading.Thread | None = None
        self._adding = threading.Lock()
        self._there = Growing(np.ones(len(packed), bool))
        self._gone = 0  # pictures that are not there any more

    @classmethod
    def open(cls, packed: Path, descriptions: Path) -> "Gallery":
        """Open landmarks.npy and landmarks.faiss of a release. Raises ValueError where they are none."""
        marks = np.load(packed, mmap_mode="r", allow_pickle=False)
        if marks.dtype != np.uint8 or marks.shape[1:] != (FEATURES, PACKED):
            raise ValueError(f"{packed.name} must be (pictures, {FEATURES}, {PACKED}) uint8; it is "
                             f"{marks.shape} {marks.dtype}")  # fmt: skip
        return cls(marks, faiss.read_index_binary(str(descriptions)))

    def __len__(self) -> int:
        return len(self._packed) + len(self._new)

    @property
    def lists(self) -> int:
        """Into how many lists what came since is sorted; 1 where all of it is looked at."""
        found = None if self._new_descriptions is None else faiss.downcast_IndexBinary(self._new_descriptions)
        return int(found.nlist) if isinstance(found, faiss.IndexBinaryIVF) else 1

    def picture(self, position: int) -> Landmarks:
        """Of the picture at this position of the index."""
        return Landmarks.unpacked(self.packed(position))

    def packed(self, position: int) -> np.ndarray:
        """The same as it is kept: (FEATURES, PACKED) uint8."""
        sealed = len(self._packed)
        found: np.ndarray = self._packed[position] if position < sealed else self._new.array[position - sealed]
        return found

    def add(self, packed: np.ndarray) -> int:
        """One more picture, (FEATURES, PACKED) uint8; returns its position."""
        with self._adding:
            position = len(self)
            self._new.append(packed[None])
            self._there.append(np.ones(1, bool))
            if self._new_descriptions is None:
                self._new_descriptions = _empty_like(self._descriptions)
            _add(self._new_descriptions, *_voted_for(packed[None], position))
            if self._sorting is None and self._new_descriptions.ntotal >= GROWN * self._sorted:
                self._sorting = threading.Thread(target=self._sort_anew, name="landmarks", daemon=True)
                self._sorting.start()
        return position

    def _sort_anew(self) -> None:
        """Put the pictures that came since into as many lists as they need; searches and changes go on meanwhile."""
        pictures, first = self._new.array, len(self._packed)
        made = sorted_descriptions(pictures, first=first)
        with self._adding:
            _add(made, *_voted_for(self._new.array[len(pictures) :], first + len(pictures)))
            self._new_descriptions, self._sorted, self._sorting = made, made.ntotal, None

    def show(self, position: int, there: bool) -> None:
        """Whether a picture may be found."""
        self._gone += int(self._there.array[position]) - int(there)
        self._there.array[position] = there

    def likely(self, photo: Landmarks, *, k: int = CANDIDATES) -> Iterator[list[int]]:
        """The positions of the pictures that most of a photo's landmarks vote for, most votes first: among the pictures
        of the release, and then, where others came since, among all."""
        distances, positions = self._most_alike(photo, self._descriptions)
        yield self._elected(distances, positions, k)
        if (new := self._new_descriptions) is not None:
            parts = (distances, positions), self._most_alike(photo, new)
            distances, positions = (np.concatenate(each, axis=1) for each in zip(*parts, strict=True))
            yield self._elected(distances, positions, k)

    def _most_alike(self, photo: Landmarks, descriptions: faiss.IndexBinary) -> tuple[np.ndarray, np.ndarray]:
        """For each landmark that votes the distances and owners of those described most alike: (n, m) each."""
        voters = photo.descriptions[:VOTERS]
        if not len(voters):
            return np.empty((0, BALLOTS), np.int32), np.empty((0, BALLOTS), np.int64)
        with one_thread():  # a millisecond's work is not worth waking others
            distances, positions = descriptions.search(voters, LOOKED_AT if self._gone else BALLOTS)
        there = positions >= 0
        if self._gone:
            there &= self._there.array[positions]
        return np.where(there, distances, 8 * DESCRIPTION), positions

    def _elected(self, distances: np.ndarray, positions: np.ndarray, k: int) -> list[int]:
        if distances.shape[1] > BALLOTS:  # of all parts, and of what is there, those described most alike
            order = np.argsort(distances, axis=1, kind="stable")[:, :BALLOTS]
            distances, positions = np.take_along_axis(distances, order, 1), np.take_along_axis(positions, order, 1)
        alike = distances < FAR
        found, voted = np.unique(positions[alike], return_inverse=True)
        votes = np.bincount(voted, 1 - distances[alike] / FAR)
        order = np.argsort(-votes, kind="stable")[:k]
        best: list[int] = found[order[votes[order] >= FEWEST_VOTES]].tolist()
        return best


def _empty_like(descriptions: faiss.IndexBinary) -> faiss.IndexBinary:
    """An index without descriptions that sorts them into the same lists, if there are any."""
    bits = 8 * DESCRIPTION
    sorting = faiss.downcast_IndexBinary(descriptions)
    if not isinstance(sorting, faiss.IndexBinaryIVF):
        return faiss.IndexBinaryIDMap2(_kept(faiss.IndexBinaryFlat(bits)))
    middles = faiss.downcast_IndexBinary(sorting.quantizer)
    codes = faiss.vector_to_array(middles.xb).reshape(-1, DESCRIPTION)
    quantizer = faiss.IndexBinaryFlat(bits)
    quantizer.add(codes)
    index = faiss.IndexBinaryIVF(_kept(quantizer), bits, sorting.nlist)
    index.nprobe, index.is_trained = sorting.nprobe, True
    return index


def sorted_descriptions(packed: np.ndarray, *, first: int = 0) -> faiss.IndexBinary:
    """What is voted on: the strongest descriptions of each picture, by its position; where there are many, sorted into
    lists. packed: (pictures, FEATURES, PACKED) uint8; first: position of the first of them."""
    descriptions, owners = _voted_for(packed, first)
    bits = 8 * DESCRIPTION
    if len(descriptions) < EXACT_BELOW:
        index = faiss.IndexBinaryIDMap2(_kept(faiss.IndexBinaryFlat(bits)))
    else:
        lists = 2 ** round(math.log2(len(descriptions)) / 2)
        index = faiss.IndexBinaryIVF(_kept(faiss.IndexBinaryFlat(bits)), bits, lists)
        index.nprobe = PROBES
        with one_thread():  # the middles of the lists depend on the order in which threads come
            index.train(descriptions[:: max(1, len(descriptions) // (PER_LIST * lists))])
    _add(index, descriptions, owners)
    return index


def _add(index: faiss.IndexBinary, descriptions: np.ndarray, owners: np.ndarray) -> None:
    if len(descriptions):
        with one_thread():
            index.add_with_ids(descriptions, owners)


def _voted_for(packed: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """The strongest descriptions of pictures, (n, DESCRIPTION) uint8, and the position of the picture of each."""
    voting = packed[:, :VOTING]
    there = voting[:, :, 0] > 0
    owners = np.repeat(np.arange(first, first + len(packed)), there.sum(axis=1)).astype(np.int64)
    return np.ascontiguousarray(voting[there][:, 4:]), owners


def _kept(inner: faiss.IndexBinary) -> faiss.IndexBinary:
    """For another index, which frees it."""
    inner.this.disown()
    return inner
