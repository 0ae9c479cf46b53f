"""Cursors of the feed: opaque tokens that say after which change to continue.

Unlike the cursor of a list, a cursor of the feed belongs to no principal, so that it survives a new API key. It
contains the hospital scope: the changes before the cursor say nothing about the patients of other hospitals, so a
principal whose hospitals have changed needs a new copy.
"""

from app.changes.numbering import FeedPosition
from app.changes.reading import ChangeFeed, FeedQuery
from app.errors import FeedExpiredError, FieldError, ValidationFailedError
from app.listing.cursors import Cursors, InvalidCursorError

FEED_PATH = "/changes/"
MAX_BATCHES_PER_COPY = 20
"""Maximum number of batches of changes that are numbered before a copy or `after=now` begins, in about two seconds.

What is not numbered by then is in the copy or was committed before, and the feed lists it as well.
"""
_PURPOSE = [FEED_PATH.encode()]


async def seal_position(cursors: Cursors, position: FeedPosition, hospitals: frozenset[str] | None) -> str:
    """Return the cursor for a position, which principals with this hospital scope can use."""
    return await cursors.encrypt([*position, _scope(hospitals)], _PURPOSE)


async def newest_cursor(feed: ChangeFeed, cursors: Cursors, hospitals: frozenset[str] | None) -> str:
    """Return the cursor of the newest change, to be used with a copy of the records that is read after this call."""
    state = await feed.numbering.refresh(max_batches=MAX_BATCHES_PER_COPY)
    return await seal_position(cursors, state.newest, hospitals)


async def open_position(
    cursors: Cursors, cursor: str, query: FeedQuery, location: tuple[str, str] = ("query", "after")
) -> FeedPosition:
    """Return the position in a cursor, which was sent in `location`.

    Raises:
        ValidationFailedError: the text is not a cursor of the feed.
        FeedExpiredError: the cursor was made for another hospital scope.
    """
    try:
        position, batch, scope = await cursors.decrypt(cursor, _PURPOSE)
    except InvalidCursorError:
        message = "Must be now, or a cursor from a Next-Cursor or Changes-Cursor header"
        raise ValidationFailedError([FieldError(location, message, "cursor")]) from None
    if scope != _scope(query.hospitals):
        raise FeedExpiredError
    return FeedPosition(position, batch)


def _scope(hospitals: frozenset[str] | None) -> list[str] | None:
    """Return the hospital scope as a JSON value."""
    return None if hospitals is None else sorted(hospitals)
