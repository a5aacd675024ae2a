"""Ending without a request lost: on SIGTERM the service says that it is not ready, and tells its callers to leave.

uvicorn closes kept connections the moment it is told to end, and a request that is on its way over one is lost. So for
a moment every answer asks for its connection to be closed, while new ones are still taken; then uvicorn is told.
"""

import asyncio
import signal
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

CLOSE = (b"connection", b"close")


class Drain:
    """Whether this process is about to end."""

    def __init__(self) -> None:
        self.begun = False

    def on_sigterm(self, seconds: float) -> None:
        """From now on SIGTERM begins the drain, and so many seconds later does what it did before. To be called in
        the main thread, from the event loop."""
        before: Any = signal.getsignal(signal.SIGTERM)
        if not callable(before):  # nothing to hand on to: not under a server
            return
        loop = asyncio.get_running_loop()

        def begin(number: int, frame: Any) -> None:
            again, self.begun = self.begun, True
            if again:  # whoever asks twice does not want to wait
                before(number, frame)
            else:
                loop.call_soon_threadsafe(loop.call_later, seconds, before, number, frame)

        signal.signal(signal.SIGTERM, begin)


class DrainLayer:
    """ASGI middleware. Asks callers to close their connections once the drain has begun."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self.app = app
        self.drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start" and self.drain.begun:
                message["headers"] = [*message["headers"], CLOSE]
            await send(message)

        await self.app(scope, receive, closing if scope["type"] == "http" else send)
