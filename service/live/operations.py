"""What can be asked of the store, checked against what is there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from service.errors import NotFound, shown
from service.live.unit_of_work import Attempt, ItemState, UnitOfWork


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of an item. vectors: (encoder, precision) -> bytes of a (dim,) float32; landmarks: as
    `Landmarks.packed`, None where they were not looked for."""

    digest: str
    content: bytes
    vectors: Mapping[tuple[str, str], bytes]
    landmarks: bytes | None = None


@dataclass(frozen=True, slots=True)
class PutItem:
    """Make an item, or give it other attributes. pictures: empty: it keeps those that it has."""

    item_id: str
    attributes: Mapping[str, Any]
    pictures: Sequence[Picture] = ()
    attempt: Attempt | None = None
    session_keys: Sequence[str] = ()

    @property
    def item_ids(self) -> Sequence[str]:
        """The one item."""
        return (self.item_id,)

    def do(self, work: UnitOfWork) -> dict[str, Any]:
        """As `Operation.do`."""
        before = work.items.get(self.item_id)
        digests = before.pictures if before is not None and not before.withdrawn else None
        if before is not None and before.withdrawn:
            digests = ()  # it begins anew
        if self.pictures:
            digests = tuple(dict.fromkeys(each.digest for each in self.pictures))
        for picture in self.pictures:
            _keep(work, picture)
        state = work.put(ItemState(self.item_id, complete=True, attributes=dict(self.attributes), pictures=digests))
        return {"item_id": self.item_id, "sequence": state.sequence}


@dataclass(frozen=True, slots=True)
class PatchItem:
    """Change some attributes of an item. known: whether the release holds it."""

    item_id: str
    attributes: Mapping[str, Any]
    known: bool
    attempt: Attempt | None = None
    session_keys: Sequence[str] = ()

    @property
    def item_ids(self) -> Sequence[str]:
        """The one item."""
        return (self.item_id,)

    def do(self, work: UnitOfWork) -> dict[str, Any]:
        """As `Operation.do`. Raises NotFound."""
        before = _present(work, self.item_id, self.known)
        state = work.put(replace(before, attributes={**before.attributes, **self.attributes}))
        return {"item_id": self.item_id, "sequence": state.sequence}


@dataclass(frozen=True, slots=True)
class WithdrawItem:
    """Have an item be answered no more. known: whether the release holds it."""

    item_id: str
    known: bool
    attempt: Attempt | None = None
    session_keys: Sequence[str] = ()

    @property
    def item_ids(self) -> Sequence[str]:
        """The one item."""
        return (self.item_id,)

    def do(self, work: UnitOfWork) -> dict[str, Any]:
        """As `Operation.do`. Raises NotFound."""
        _present(work, self.item_id, self.known)
        state = work.put(ItemState(self.item_id, withdrawn=True))
        return {"item_id": self.item_id, "sequence": state.sequence}


@dataclass(frozen=True, slots=True)
class NewEvent:
    """What somebody did. who: a user's key, or a session's; event: as the store names it; timestamp: seconds, None for
    now."""

    who: str
    item_id: str
    event: str
    value: float | None = None
    timestamp: float | None = None


@dataclass(frozen=True, slots=True)
class AddEvents:
    """Keep events. session_keys: those of their keys that are sessions'."""

    events: Sequence[NewEvent]
    session_keys: Sequence[str] = ()
    attempt: Attempt | None = None
    item_ids: Sequence[str] = ()

    def do(self, work: UnitOfWork) -> dict[str, Any]:
        """As `Operation.do`."""
        for each in self.events:
            who = work.links.get(each.who, each.who)
            when = work.now if each.timestamp is None else each.timestamp
            work.add_event(who, each.item_id, each.event, each.value, when)
        return {"accepted": len(self.events), "sequence": work.last}


@dataclass(frozen=True, slots=True)
class LinkSession:
    """Have a session, and what was done in it, be a user's."""

    session_key: str
    user_key: str
    attempt: Attempt | None = None
    item_ids: Sequence[str] = ()
    session_keys: Sequence[str] = ()

    def do(self, work: UnitOfWork) -> dict[str, Any]:
        """As `Operation.do`."""
        return {"sequence": work.join(self.session_key, self.user_key)}


@dataclass(frozen=True, slots=True)
class EraseUser:
    """Forget a user. mark: by which later releases know that they were."""

    user_key: str
    mark: str
    attempt: Attempt | None = None
    item_ids: Sequence[str] = ()
    session_keys: Sequence[str] = ()

    def do(self, work: UnitOfWork) -> dict[str, Any]:
        """As `Operation.do`."""
        return dict(work.erase(self.user_key, self.mark))


@dataclass(frozen=True, slots=True)
class KeepSeen:
    """Leave for others what was found out of pictures that are there already."""

    pictures: Sequence[Picture]
    attempt: Attempt | None = None
    item_ids: Sequence[str] = ()
    session_keys: Sequence[str] = ()

    def do(self, work: UnitOfWork) -> dict[str, Any]:
        """As `Operation.do`."""
        for picture in self.pictures:
            _keep(work, picture)
        return {"pictures": len(self.pictures)}


@dataclass(frozen=True, slots=True)
class Probe:
    """A change of nothing."""

    attempt: Attempt | None = None
    item_ids: Sequence[str] = ()
    session_keys: Sequence[str] = ()

    def do(self, work: UnitOfWork) -> dict[str, Any]:
        """As `Operation.do`."""
        return {"sequence": work.next_number()}


def _keep(work: UnitOfWork, picture: Picture) -> None:
    work.add_picture(picture.digest, picture.content, picture.landmarks)
    for (encoder, precision), vector in picture.vectors.items():
        work.add_vector(picture.digest, encoder, precision, vector)


def _present(work: UnitOfWork, item_id: str, known: bool) -> ItemState:
    """The state of an item that is there. Raises NotFound."""
    state = work.items.get(item_id)
    if state is None and known:
        return ItemState(item_id)
    if state is None or state.withdrawn:
        raise NotFound(
            f"there is no item {shown(item_id)}{', it was withdrawn' if state else ''}: PUT /items/{{id}} makes one",
            field="item_id",
        )
    return state
