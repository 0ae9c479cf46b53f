"""The choice of a response's media type by the request's `Accept` header (RFC 9110, 12.5.1)."""

from collections.abc import Iterable
from functools import lru_cache

from fastapi import Request

JSON_MEDIA_TYPE = "application/json"


def choose_media_type(request: Request, special: Iterable[str]) -> str:
    """Return the media type of a response that is JSON unless the client prefers one of the `special` media types.

    A special media type is chosen only if the header names it: clients that accept everything (`*/*`) get JSON. If the
    header gives several media types the same weight, the first one in `special` is chosen.
    """
    return _choose(",".join(request.headers.getlist("accept")), tuple(special))


@lru_cache(maxsize=256)
def _choose(header: str, special: tuple[str, ...]) -> str:
    weights = dict(map(_parse, header.lower().split(",")))
    chosen = max(special, key=lambda media_type: weights.get(media_type, 0.0))
    weight = weights.get(chosen, 0.0)
    json_weight = next((weights[name] for name in (JSON_MEDIA_TYPE, "application/*", "*/*") if name in weights), 0.0)
    return chosen if weight > 0 and weight >= json_weight else JSON_MEDIA_TYPE


def _parse(element: str) -> tuple[str, float]:
    """Return the media type and the weight of an element of the header, such as `text/html;q=0.5`."""
    media_type, *parameters = (text.strip() for text in element.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return media_type, float(value)
            except ValueError:
                return media_type, 0.0
    return media_type, 1.0
