"""The names of columns in the output: unique, whoever reads them, and none that the output itself needs."""

from collections.abc import Callable, Iterable, Sequence

RESERVED = frozenset(
    {"record_id", "source_file", "source_row", "embedding", "token_count", "response",
     "input_tokens", "output_tokens"}
)  # fmt: skip


def stored_names(
    names: Sequence[str], taken: Iterable[str] = (), rename: Callable[[str], str] = str
) -> dict[str, str]:
    """The output's name of each source column: what `rename` says, or `user_<name>` where the output needs that.

    Output names differ in more than upper and lower case: SQL engines do not tell those apart. The name
    that comes first keeps it.
    """
    renamed = {name: rename(name) for name in names}
    used = {name.casefold() for name in taken}
    result: dict[str, str] = {}
    for name, stored in renamed.items():
        if stored.casefold() not in RESERVED | used:
            used.add(stored.casefold())
            result[name] = stored
    for name, stored in renamed.items():
        if name not in result:
            candidate, number = f"user_{stored}", 2
            while candidate.casefold() in used:
                candidate, number = f"user_{stored}_{number}", number + 1
            used.add(candidate.casefold())
            result[name] = candidate
    return result


def distinct_names(names: Iterable[str]) -> list[str]:
    """The same names, of which a repeated one gets a number: a, a_2, a_3."""
    found: dict[str, None] = {}
    numbers: dict[str, int] = {}  # the last one that each name was given
    for base in names:
        name = base
        while name in found:
            numbers[base] = numbers.get(base, 1) + 1
            name = f"{base}_{numbers[base]}"
        found[name] = None
    return list(found)
