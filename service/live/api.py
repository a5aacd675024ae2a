"""What can be asked of the live part, over whatever protocol: item changes, events, sessions, erasure."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from starlette.concurrency import run_in_threadpool

from service.errors import BadQuery, StoreAway
from service.live.follower import Follower
from service.live.operations import EraseUser, LinkSession, PatchItem, Picture, PutItem, WithdrawItem
from service.live.overlay import Overlay
from service.live.requests.attributes import check_attributes
from service.live.requests.item_lines import LINES, Line, check_item_id, parse_line
from service.live.requests.sent_events import parse_events
from service.live.store import Store
from service.live.unit_of_work import Attempt, Operation
from service.live.writer import GroupCommit
from service.recommender.query import check_id
from service.recommender.user_keys import erasure_mark, hash_session, hash_user

AT_ONCE = 16  # lines whose pictures are looked at together
APPLIED_WITHIN = 5.0  # seconds for which a reply waits until this process answers accordingly

Reply = dict[str, Any]


class LookAt(Protocol):
    """Pictures -> the same, decoded and embedded, when it is their turn. Raises BadQuery, Busy."""

    async def __call__(self, contents: Sequence[bytes]) -> list[Picture]: ...


class LiveApi:
    """Everything raises StoreAway where nothing can be kept, and Overloaded where too much waits."""

    def __init__(
        self,
        store: Store,
        follower: Follower,
        writer: GroupCommit,
        *,
        overlay: Callable[[], Overlay],
        look_at: LookAt,
        user_key: str,
    ) -> None:
        """overlay: of the release that answers now; user_key: of the hashes of user ids."""
        self._store, self._follower, self._writer = store, follower, writer
        self._overlay, self._look_at, self._user_key = overlay, look_at, user_key

    async def put_item(
        self, item_id: str, attributes: Any, pictures: Sequence[bytes], attempt: Attempt | None = None
    ) -> Reply:
        """Make an item, or give it these attributes in place of all that it has; without pictures it keeps its own.

        Raises BadQuery."""
        item_id = check_item_id(item_id)
        checked = check_attributes(attributes, self._overlay().kinds)
        looked = await self._look_at(pictures) if pictures else []
        return await self._change(PutItem(item_id, _without_null(checked), looked, attempt))

    async def patch_item(self, item_id: str, attributes: Any, attempt: Attempt | None = None) -> Reply:
        """Change some attributes; null takes one away. Raises BadQuery, NotFound."""
        checked = check_attributes(attributes, self._overlay().kinds)
        if not checked:
            raise BadQuery("there is no attribute to change", field="attributes")
        return await self._change(PatchItem(item_id, checked, self._overlay().holds(item_id), attempt))

    async def withdraw_item(self, item_id: str, attempt: Attempt | None = None) -> Reply:
        """Have an item be answered no more. Raises NotFound."""
        return await self._change(WithdrawItem(item_id, self._overlay().holds(item_id), attempt))

    async def change_items(self, lines: Sequence[bytes], attempt: Attempt | None = None) -> list[Reply]:
        """Many changes at once, each a JSON object -> of each line its reply, or what is wrong with it.

        attempt: of all together. Raises BadQuery where there are too many."""
        if len(lines) > LINES:
            raise BadQuery(f"at most {LINES} lines are taken at once; got {len(lines)}")
        attempts = [attempt and Attempt(f"{attempt.key[:56]}:{at}", attempt.digest) for at in range(len(lines))]
        found: list[Any] = []  # of each line its operation, or what is wrong with it; then its reply
        for start in range(0, len(lines), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            found += await asyncio.gather(*map(self._operation, lines[part], attempts[part]))
        right = [at for at, operation in enumerate(found) if not isinstance(operation, BadQuery)]
        for at, reply in zip(right, await self._writer.submit_all([found[at] for at in right]), strict=True):
            found[at] = reply
        replies: list[Reply] = [
            {"line": at, "error": str(reply), "field": reply.field}
            if isinstance(reply, BadQuery)
            else {"line": at, **reply}
            for at, reply in enumerate(found, 1)
        ]
        await self._until_applied(max((int(reply.get("sequence") or 0) for reply in replies), default=0))
        return replies

    async def _operation(self, text: bytes, attempt: Attempt | None) -> Operation | BadQuery:
        try:
            return await self._operation_of(parse_line(text, self._overlay().kinds), attempt)
        except BadQuery as error:
            return error

    async def _operation_of(self, line: Line, attempt: Attempt | None) -> Operation:
        known = self._overlay().holds(line.item_id)
        if line.operation == "withdraw":
            return WithdrawItem(line.item_id, known, attempt)
        if line.operation == "patch":
            return PatchItem(line.item_id, line.attributes, known, attempt)
        looked = await self._look_at(line.pictures) if line.pictures else []
        return PutItem(line.item_id, _without_null(line.attributes), looked, attempt)

    async def wait_for(self, number: int) -> None:
        """Until this process answers with the change of this number. Raises Busy where that takes too long."""
        if not await self._follower.applied(self._overlay(), number, within=APPLIED_WITHIN):
            raise StoreAway(f"change {number} is not there within {APPLIED_WITHIN:g} s: ask again later")

    async def add_events(self, values: Any, attempt: Attempt | None = None) -> Reply:
        """Keep what somebody did. Raises BadQuery."""
        operation, ignored = parse_events(values, user_key=self._user_key, now=time.time(), attempt=attempt)
        reply: Reply = await self._writer.submit(operation)
        return {**reply, "ignored": ignored}

    async def link(self, session_id: str, user_id: str, attempt: Attempt | None = None) -> Reply:
        """Have a session, and what was done in it, be a user's. Raises BadQuery."""
        session = hash_session(check_id(session_id, "session_id"), self._user_key)
        user = hash_user(check_id(user_id, "user_id"), self._user_key)
        return await self._change(LinkSession(session, user, attempt))

    async def erase(self, user_id: str) -> Reply:
        """Forget a user: their events and sessions, and what any release knows of them. Raises BadQuery."""
        user = hash_user(check_id(user_id, "user_id"), self._user_key)
        reply = await self._change(EraseUser(user, erasure_mark(user)))
        await run_in_threadpool(self._store.compact)
        return reply

    async def export(self, user_id: str) -> Reply:
        """All that is held of a user, apart from the release. Raises BadQuery."""
        user = hash_user(check_id(user_id, "user_id"), self._user_key)
        held = await run_in_threadpool(self._store.held, user)
        erased = await run_in_threadpool(self._store.is_erased, erasure_mark(user))
        return {**held, "erased": erased}

    def picture(self, item_id: str) -> bytes | None:
        """The first picture of an item that has others than in the release, or None. Raises StoreAway."""
        digest = self._overlay().first_picture(item_id)
        return None if digest is None else self._store.picture(digest)

    async def _change(self, operation: Operation) -> Reply:
        reply: Reply = await self._writer.submit(operation)
        await self._until_applied(reply["sequence"])
        return reply

    async def _until_applied(self, number: int) -> None:
        """What is acknowledged holds for whoever asks this process next. Where that takes long, as while pictures of
        another encoder are embedded, the reply does not wait: it is kept, and comes."""
        await self._follower.applied(self._overlay(), number, within=APPLIED_WITHIN)


def _without_null(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}
