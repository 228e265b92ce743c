"""`/v1/files`: clients' files, streamed to an output root and back. What is another tenant's is not there."""

import functools
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from batch_assets.requests.batches.files import INPUT, OUTPUT, FileStore, NewFile, StoredFile, new_file_id
from batch_assets.requests.batches.lines import model_of
from batch_assets.server.answers import Refused, answer
from batch_assets.server.jobs import shown_tenant
from batch_assets.server.openai.listing import asked_number, page
from batch_assets.server.openai.models import pipeline_of
from batch_assets.server.openai.uploads import Upload, number_in
from batch_assets.server.pipelines import RequestPipeline, RequestPipelines
from batch_assets.storage import Output, open_storage

if TYPE_CHECKING:
    from fastapi import FastAPI

MOST_UPLOADED_BYTES = 512 * 10**6
"""OpenAI's limit of a file; a batch's may be smaller (`lines.MOST_BYTES`)."""
FORM_BYTES = 2**20
"""What a form may have beside its file."""
MOST_LISTED = 10_000
SHORTEST_KEPT, LONGEST_KEPT = 3_600, 2_592_000
"""Seconds that a client may have a file kept."""


class Files:
    """The files of one deployment."""

    def __init__(self, pipelines: RequestPipelines, store: FileStore) -> None:
        self._pipelines = pipelines
        self._store = store

    async def create(self, request: Request) -> Response:
        """Take a file, whose bytes are durable before this answers."""
        file_id = new_file_id()
        taken: dict[str, Any] = {}

        def open_output(first: bytes) -> Output:
            pipeline = self._pipeline_of(first)
            root = open_storage(pipeline.settings.output.root)
            new = NewFile(file_id, request.state.tenant, INPUT, "", root.uri)
            self._store.announce(new)
            taken.update(file=new, pipeline=pipeline)
            return root.open_output(new.path)

        upload = Upload(request.headers.get("content-type", ""), open_output, MOST_UPLOADED_BYTES)
        await upload.receive(request.stream())
        file = await run_in_threadpool(self._finish, upload, taken["file"], taken["pipeline"])
        return answer(shown(file))

    def _pipeline_of(self, first: bytes) -> RequestPipeline:
        """The pipeline under whose root a file lies: the one that its first line names, else the first by name."""
        pipelines = self._pipelines.all()
        if not pipelines:
            raise Refused(404, "no pipeline takes requests", code="model_not_found")
        named = pipeline_of(pipelines, model_of(first.partition(b"\n")[0]))
        return named or pipelines[min(pipelines)]

    def _finish(self, upload: Upload, new: NewFile, pipeline: RequestPipeline) -> StoredFile:
        """Make the file known, if what was said beside it is right."""
        assert upload.written is not None
        purpose, filename = upload.fields.get("purpose"), upload.filename or ""
        if purpose != INPUT:
            raise Refused(
                400, f"purpose: {str(purpose)[:100]!r}: this server takes {INPUT!r}", param="purpose"
            )
        if not filename.lower().endswith(".jsonl"):
            raise Refused(400, f"file: {filename[:100]!r}: a batch's input is a .jsonl file", param="file")
        keep = number_in(upload.fields, "expires_after[seconds]")
        anchor = upload.fields.get("expires_after[anchor]", "created_at")
        if anchor != "created_at":
            raise Refused(
                400, f"expires_after[anchor]: {anchor[:100]!r}: write 'created_at'", param="expires_after"
            )
        if keep is not None and not SHORTEST_KEPT <= keep <= LONGEST_KEPT:
            told = (
                f"expires_after[seconds]: {keep}: write a number from {SHORTEST_KEPT:,} to {LONGEST_KEPT:,}"
            )
            raise Refused(400, told, param="expires_after")
        seconds = pipeline.rules.keep.total_seconds() if keep is None else keep
        return self._store.make_known(new.id, filename[:500], upload.written, seconds)

    def retrieve(self, file_id: str, request: Request) -> Response:
        """One file."""
        return answer(shown(self.find(file_id, request)))

    def content(self, file_id: str, request: Request) -> Response:
        """Its bytes, as they came."""
        file = self.find(file_id, request)
        storage = open_storage(file.root)
        info = storage.info(file.path)
        if info is None or info.size != file.bytes:
            raise Refused(404, f"the bytes of file {file_id} are gone")
        return StreamingResponse(
            storage.stream(file.path, version=info.version),
            media_type="application/octet-stream",
            headers={"Content-Length": str(file.bytes)},
        )

    def delete(self, file_id: str, request: Request) -> Response:
        """Show it to nobody any longer; a batch that reads it goes on."""
        self._store.delete(self.find(file_id, request))
        return answer({"id": file_id, "object": "file", "deleted": True})

    def listed(self, request: Request) -> Response:
        """Files, newest first unless asked otherwise."""
        asked = request.query_params
        order, purpose = asked.get("order", "desc"), asked.get("purpose")
        if order not in ("asc", "desc"):
            raise Refused(400, f"order: {order[:100]!r}: asc or desc", param="order")
        if purpose not in (None, INPUT, OUTPUT):
            return answer(page([], 1))
        most = asked_number(request, "limit", MOST_LISTED, MOST_LISTED)
        after = asked.get("after")
        found = self._store.listed(
            shown_tenant(request),
            purpose,
            None if after is None else self.find(after, request).number,
            most + 1,
            oldest_first=order == "asc",
        )
        return answer(page([shown(one) for one in found], most))

    def find(self, file_id: str, request: Request) -> StoredFile:
        """A file that this client sees. Raises Refused."""
        found = self._store.find(file_id) if "\0" not in file_id else None
        if found is None or found.deleted_at is not None or shown_tenant(request) not in (None, found.tenant):
            raise Refused(404, f"there is no file {file_id[:100]!r}", param="id")
        return found


def shown(file: StoredFile) -> dict[str, Any]:
    """A file as clients see it."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created),
        "expires_at": int(file.expires),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def add_files(application: "FastAPI", files: Files) -> None:
    """The doors. All but the upload are plain functions: each runs in a thread."""
    add = functools.partial(application.add_api_route, response_class=Response)
    form = {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "purpose": {"type": "string", "enum": [INPUT]},
                        "file": {"type": "string", "format": "binary"},
                    },
                    "required": ["purpose", "file"],
                }
            }
        },
    }
    add("/v1/files", files.create, methods=["POST"], openapi_extra={"requestBody": form})
    add("/v1/files", files.listed, methods=["GET"])
    add("/v1/files/{file_id}", files.retrieve, methods=["GET"])
    add("/v1/files/{file_id}", files.delete, methods=["DELETE"])
    add("/v1/files/{file_id}/content", files.content, methods=["GET"])
