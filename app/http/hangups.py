"""Clients that hang up: their work stops."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.middleware import BODY_METHODS


class Hangups:
    """Stop the work for a client that has gone: its answer would reach nobody, and others wait for the connection.

    Looked for only where the work takes a while; once an answer has begun, the server and streams notice themselves.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        watch = _Watch(receive)

        async def receive_first() -> Message:
            message = await receive()
            if not message.get("more_body", False):
                watch.start()  # not before: it would take the body away
            return message

        async def send_unwatched(message: Message) -> None:
            watch.stop()
            await send(message)

        if scope["method"] not in BODY_METHODS:
            watch.start()
        try:
            await self.app(scope, receive_first, send_unwatched)
        except asyncio.CancelledError:
            if not watch.client_gone:
                raise
            watch.task.uncancel()
        finally:
            watch.stop()


class _Watch:
    """Cancels the task that made it when the client hangs up."""

    AFTER = 0.1
    """Seconds of work after which it begins: most requests are done by then, and pay nothing."""

    def __init__(self, receive: Receive) -> None:
        task = asyncio.current_task()
        assert task is not None, "an application runs in a task"  # noqa: S101
        self.task = task
        self.client_gone = False
        self._receive = receive
        self._timer: asyncio.TimerHandle | None = None
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.AFTER, self._begin)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()

    def _begin(self) -> None:
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.client_gone = True
        self.task.cancel()
