"""A cache of compiled statements that finds them by identity, for SQLAlchemy's documented `compiled_cache` option.

SQLAlchemy's own cache lacks this: it hashes the whole structure of a statement at each execution, even if the statement
was built once. This module depends on the private shape of SQLAlchemy's cache keys, `(dialect, structure, *rest)`; it
can go when SQLAlchemy stores the hash of the structure.
"""

from typing import Any

from cachetools import LRUCache


class CompiledCache:
    """A mapping for SQLAlchemy's `compiled_cache` option, for statements that are built once and executed often.

    SQLAlchemy's own cache is keyed by the structure of a statement: a tuple of thousands of elements, which takes 20 to
    47 µs to hash at each execution. But a statement keeps that tuple, so here the tuple's identity is the key.
    """

    def __init__(self, max_size: int) -> None:
        """Keep up to `max_size` compiled statements; each takes a quarter of a megabyte."""
        self._by_key: LRUCache[Any, Any] = LRUCache(max_size)
        self._by_identity: LRUCache[Any, tuple[Any, Any]] = LRUCache(2 * max_size)
        """Values include the key: this keeps its structure alive, so that no other object gets the same `id()`."""

    def get(self, key: Any) -> Any:
        """Return what was compiled for a cache key of SQLAlchemy, or None if it is not cached."""
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
