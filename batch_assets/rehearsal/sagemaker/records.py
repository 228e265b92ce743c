"""A record on its way through a job: the input filter, the join with what came back, the output filter.

JSON records gain the key SageMakerOutput (one that is no object becomes SageMakerInput beside
it), CSV rows gain columns. A filter sees a CSV row as a list.
"""

import csv
from typing import Any

import orjson

from batch_assets.rehearsal.sagemaker.containers import JSON_TYPES, to_csv
from batch_assets.rehearsal.sagemaker.json_path import PathInvalid, find


class RecordBroken(Exception):
    """A record that cannot be filtered or joined; its object fails."""


class Processing:
    """DataProcessing of one job, for records of one content type."""

    def __init__(self, given: dict[str, Any], content_type: str) -> None:
        self.joins = given.get("JoinSource", "None") == "Input"
        self._input_filter: str = given.get("InputFilter", "$")
        self._output_filter: str = given.get("OutputFilter", "$")
        self._content_type = content_type

    def sent(self, record: str) -> str:
        """What the container gets of a record."""
        if self._input_filter == "$":
            return record
        return self._write(self._find(self._input_filter, self._read(record)))

    def stored(self, record: str, answer: str) -> str:
        """What stands in the output for a record."""
        if not self.joins and self._output_filter == "$":
            return answer
        value = self._read(answer)
        if self.joins:
            value = self._joined(self._read(record), value)
        return self._write(self._find(self._output_filter, value))

    def _joined(self, record: Any, answer: Any) -> Any:
        if self._content_type == "text/csv":
            return [*record, *answer]
        if isinstance(record, dict):
            return {**record, "SageMakerOutput": answer}
        return {"SageMakerInput": record, "SageMakerOutput": answer}

    def _find(self, path: str, value: Any) -> Any:
        try:
            return find(path, value)
        except PathInvalid as error:
            raise RecordBroken(f"{path} could not be applied: {error}") from error

    def _read(self, text: str) -> Any:
        if self._content_type == "text/csv":
            return [cell for row in csv.reader([text]) for cell in row]
        if self._content_type in JSON_TYPES:
            try:
                return orjson.loads(text)
            except orjson.JSONDecodeError as error:
                raise RecordBroken(f"a record is no JSON: {error}") from error
        raise RecordBroken(
            f"records of {self._content_type or 'no content type'} can not be filtered or joined"
        )

    def _write(self, value: Any) -> str:
        if self._content_type == "text/csv":
            return to_csv(value if isinstance(value, list) else [value])  # pyright: ignore[reportUnknownArgumentType]
        return orjson.dumps(value).decode()
