"""From one request file to its result lines: what the model says of each record, and what befalls it.

Where the files lie and what they cost is `runner.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import orjson

from batch_assets.rehearsal.books import Entry, digest_of
from batch_assets.rehearsal.fake_models import Answer, FakeModel
from batch_assets.rehearsal.faults import Scenario
from batch_assets.rehearsal.job import Counts, Job
from batch_assets.rehearsal.models import model_for
from batch_assets.rehearsal.record_faults import ERRORS, RecordFaults
from batch_assets.rehearsal.request_files import RequestFile

BATCH = 256


@dataclass(slots=True)
class Line:
    """One record on its way to a result line."""

    number: int
    record: dict[str, Any]
    digest: bytes
    error: dict[str, Any] | None = None
    answer: Answer | None = None


class FileWork:
    """The results of one request file: its first `done` records are processed, time did not suffice for the rest."""

    def __init__(self, scenario: Scenario, job: Job, file: RequestFile, records: int, done: int) -> None:
        model = model_for(job.request["modelId"], job.invocation_type)
        if model is None:
            raise ValueError(f"nothing stands for the model {job.request['modelId']}")
        self.model: FakeModel = model
        self.entries: list[Entry] = []
        self._scenario = scenario
        self._job = job
        self._file = file
        self._done = done
        self._faults = RecordFaults(scenario, job.name, file.name, records)
        self._records = records

    def write(self, content: Any, bounds: list[tuple[int, int]], out: IO[bytes], counts: Counts) -> None:
        """Write the result lines, keep the books' entries, add to the counts."""
        order = self._faults.order(np.arange(self._records))
        last: tuple[bytes, Entry | None] | None = None
        for start in range(0, len(order), BATCH):
            numbers = [int(number) for number in order[start : start + BATCH]]
            lines = [self._read(number, content[slice(*bounds[number])]) for number in numbers]
            self._compute(lines)
            for data, entry in self._written(lines, counts):
                if last:
                    out.write(last[0] + b"\n")
                last = data, entry
        if last:
            data, entry = last
            # The file ends within its last line, or whole.
            if self._faults.tail_is_cut():
                data = self._faults.cut(data)
                if entry:
                    entry.spoiled = True
                out.write(data)
            else:
                out.write(data + b"\n")

    def _read(self, number: int, data: bytes) -> Line:
        record = orjson.loads(data)
        record.setdefault("recordId", f"CALL{number:07d}")
        return Line(number, record, digest_of(record["modelInput"]))

    def _compute(self, lines: list[Line]) -> None:
        asked: list[Line] = []
        for line in lines:
            if line.number >= self._done:
                continue
            body = line.record["modelInput"]
            if self._job.fate.all_records_fail:
                line.error = self._faults.shaped(line.number, ERRORS["throttled"])
            elif refusal := self.model.refusal(body):
                line.error = self._faults.shaped(line.number, (400, refusal, False, False))
            elif (error := self._faults.error(line.number, line.digest)) is not None:
                line.error = error
            else:
                asked.append(line)
        bodies = [line.record["modelInput"] for line in asked]
        for line, answer in zip(asked, self.model.answers(bodies) if bodies else [], strict=True):
            line.answer = answer

    def _written(self, lines: list[Line], counts: Counts) -> Iterator[tuple[bytes, Entry | None]]:
        """Each result line, and the entry that is spoiled if it does not arrive."""
        again: list[tuple[bytes, Entry | None]] = []
        for line in lines:
            if line.answer is None and line.error is None and not self._left_as_error(line):
                continue
            entry, damage = self._enter(line, counts)
            data = self._result(line, damage)
            if damage == "missing_lines":
                continue
            yield data, entry
            if self._faults.doubled[line.number]:
                again.append((data, None))
            if self._faults.foreign[line.number]:
                again.append((self._result(line, None, record_id=f"99{line.number:09d}"), None))
        yield from again

    def _left_as_error(self, line: Line) -> bool:
        """Whether a record that time did not suffice for gets a line that says so."""
        way = self._scenario.jobs.unfinished
        if self._job.status == "Stopping" or way == "missing" or (way == "both" and line.number % 2):
            return False
        line.error = self._faults.shaped(line.number, ERRORS["expired"])
        return True

    def _enter(self, line: Line, counts: Counts) -> tuple[Entry | None, str | None]:
        counts.processed += 1
        if line.answer is None:
            counts.error += 1
            self.entries.append(Entry(line.digest, paid=False))
            return None, None
        damage = self._faults.damage(line.number)
        counts.success += 1
        counts.input_tokens += line.answer.input_tokens
        counts.output_tokens += line.answer.output_tokens
        entry = Entry(
            line.digest,
            paid=True,
            spoiled=damage is not None,
            input_tokens=line.answer.input_tokens,
            output_tokens=line.answer.output_tokens,
        )
        self.entries.append(entry)
        return entry, damage

    def _result(self, line: Line, damage: str | None, record_id: str | None = None) -> bytes:
        result: dict[str, Any] = {
            "recordId": record_id or line.record["recordId"],
            "modelInput": line.record["modelInput"],
        }
        if line.answer is not None:
            spoiled = damage == "bad_output"
            result["modelOutput"] = self._faults.spoil(line.answer.output) if spoiled else line.answer.output
        else:
            result["error"] = line.error
        data = orjson.dumps(result, option=orjson.OPT_SERIALIZE_NUMPY)
        return self._faults.cut(data) if damage == "garbled_lines" else data
