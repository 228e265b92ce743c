"""Lists in pages, as AWS gives them: a token says behind which item the next page begins."""

import base64
import json
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

Item = TypeVar("Item")


def page(
    items: Iterable[Item],
    position: Callable[[Item], tuple[Any, ...]],
    size: int,
    token: str | None,
    *,
    descending: bool,
) -> tuple[list[Item], str | None]:
    """A page of the items in the order of their positions, and the token of the next one; None: there is none.

    A token is a position, so pages stay true whatever comes or goes meanwhile. Positions are
    tuples that JSON can hold, unlike for each item. Raises ValueError for a token that is none.
    """
    ordered = sorted(items, key=position, reverse=descending)
    if token is not None:
        place = _place(token)
        try:
            ordered = [
                item for item in ordered if (position(item) < place if descending else position(item) > place)
            ]
        except TypeError as error:
            raise ValueError(f"the token {token!r} is of another list") from error
    found = ordered[:size]
    more = len(found) < len(ordered)
    following = base64.urlsafe_b64encode(json.dumps(position(found[-1])).encode()).decode() if more else None
    return found, following


def _place(token: str) -> tuple[Any, ...]:
    place = json.loads(base64.urlsafe_b64decode(token))
    if not isinstance(place, list):
        raise ValueError(f"{token!r} is no token")
    return tuple(place)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
