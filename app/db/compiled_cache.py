"""The statements that SQLAlchemy has compiled, found again by the statement itself."""

from typing import Any

from cachetools import LRUCache


class CompiledCache:
    """What SQLAlchemy's `compiled_cache` option takes, for statements that are built once and executed often.

    Its own cache is asked by the structure of a statement: a tuple of thousands of elements, hashed at each execution,
    which is a tenth of what creating a patient takes. But a statement keeps that tuple, so it is known by its identity.
    """

    def __init__(self, max_size: int) -> None:
        """Keep so many compiled; each takes a quarter of a megabyte."""
        self._by_key: LRUCache[Any, Any] = LRUCache(max_size)
        self._by_identity: LRUCache[Any, tuple[Any, Any]] = LRUCache(2 * max_size)
        """With the structure too, so that its identity is not another's one day."""

    def get(self, key: Any) -> Any:
        """What was compiled for a key of SQLAlchemy's, if it is still there."""
        cached = self._by_identity.get(self._identity_key(key))
        if cached is not None:
            return cached[1]
        compiled = self._by_key.get(key)
        if compiled is not None:
            self._by_identity[self._identity_key(key)] = key, compiled
        return compiled

    def __setitem__(self, key: Any, compiled: Any) -> None:
        self._by_key[key] = compiled
        self._by_identity[self._identity_key(key)] = key, compiled

    @staticmethod
    def _identity_key(key: Any) -> Any:
        dialect, structure, *rest = key
        return dialect, id(structure), *rest
