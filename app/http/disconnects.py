"""Cancellation of requests after their client has disconnected."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.middleware import BODY_METHODS


class CancelOnDisconnect:
    """Cancels requests after their client has disconnected.

    Nobody would read the response, and other requests may be waiting for the request's database connection. Only
    requests that take longer than a tenth of a second are watched. They are watched until the response starts, because
    from then on the server and the streams detect a disconnect themselves.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        watcher = _DisconnectWatcher(receive)

        async def receive_then_watch() -> Message:
            message = await receive()
            if not message.get("more_body", False):
                watcher.start()  # not earlier, because the watcher would consume the body
            return message

        async def send_and_stop_watching(message: Message) -> None:
            watcher.stop()
            await send(message)

        if scope["method"] not in BODY_METHODS:
            watcher.start()
        try:
            await self.app(scope, receive_then_watch, send_and_stop_watching)
        except asyncio.CancelledError:
            if not watcher.is_client_gone:
                raise
            watcher.task.uncancel()
        finally:
            watcher.stop()


class _DisconnectWatcher:
    """Waits for the client to disconnect, and then cancels the task that created the watcher."""

    WATCH_AFTER_SECONDS = 0.1
    """Seconds from `start` until watching begins. Most requests end earlier and so cost no second task."""

    def __init__(self, receive: Receive) -> None:
        task = asyncio.current_task()
        assert task is not None, "an application runs in a task"  # noqa: S101
        self.task = task
        self.is_client_gone = False
        self._receive = receive
        self._timer: asyncio.TimerHandle | None = None
        self._watch_task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.WATCH_AFTER_SECONDS, self._start_watching)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._watch_task is not None:
            self._watch_task.cancel()

    def _start_watching(self) -> None:
        self._watch_task = asyncio.create_task(self._cancel_on_disconnect())

    async def _cancel_on_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.is_client_gone = True
        self.task.cancel()
