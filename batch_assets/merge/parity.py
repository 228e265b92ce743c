"""What was found when a merged version was compared with the model's own library; kept with the version.

It lies in the version's `metadata.json`, so that a version of the same content is not compared
again, whoever merges it. Comparing takes the model, and is done above (`control/parity.py`).
"""

from dataclasses import asdict, dataclass

import orjson
import pydantic

from batch_assets import paths
from batch_assets.storage import Storage

_KEY = "parity"


@dataclass(frozen=True)
class ParityOutcome:
    """`message` is for a person. Where nothing could be compared, `compared` is 0, and the message says so.

    `lowest_cosine` is the lowest one between our vectors, computed in `dtype`, and the library's in
    float32, over `compared` records; None where there is none, and where it is no number.
    """

    passed: bool
    message: str
    lowest_cosine: float | None = None
    threshold: float = 0.0
    compared: int = 0
    dtype: str = ""

    @property
    def sentence(self) -> str:
        """What was found, with its verdict."""
        if self.passed:
            return f"parity passed: {self.message}"
        return f"parity FAILED: {self.message}" if self.compared else f"parity {self.message}"


_OUTCOME = pydantic.TypeAdapter(ParityOutcome)


def read_parity(storage: Storage, version: str) -> ParityOutcome | None:
    """What was found of a version; None where it was not compared, as versions of earlier releases were not."""
    found = storage.read_versioned(paths.merged_metadata(version))
    try:
        content = orjson.loads(found[0]) if found is not None else None
        return (
            _OUTCOME.validate_python(content[_KEY]) if isinstance(content, dict) and _KEY in content else None
        )
    except (orjson.JSONDecodeError, pydantic.ValidationError):
        return None


def write_parity(storage: Storage, version: str, outcome: ParityOutcome) -> None:
    """Keep it. Where somebody else writes at the same time theirs is as good, and stays."""
    path = paths.merged_metadata(version)
    found = storage.read_versioned(path)
    if found is None:
        return
    try:
        content = orjson.loads(found[0])
    except orjson.JSONDecodeError:
        return
    if not isinstance(content, dict):
        return
    data = orjson.dumps({**content, _KEY: asdict(outcome)}, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
    storage.replace(path, data + b"\n", found[1])
