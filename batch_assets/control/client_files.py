"""Clients' files leave the output root: deleted ones, those whose time is up, and what was never made known."""

from batch_assets.control.own_files import is_reached_directly
from batch_assets.control.pipeline import Pipeline
from batch_assets.plain_text import plain_logger
from batch_assets.requests.batches.files import FileStore, StoredFile
from batch_assets.requests.database import RequestsDatabase

FILES_AT_ONCE = 100
logger = plain_logger(__name__)


def remove_client_files(pipeline: Pipeline, database: RequestsDatabase) -> int:
    """Remove what is due under a pipeline's root, a bounded number; how many.

    Each has a random name that the database noted before the file was written: nobody else's is called so.
    """
    files = FileStore(database)
    found = files.to_remove(pipeline.storage.uri, FILES_AT_ONCE)
    gone: list[StoredFile] = []
    for file in found:
        if is_reached_directly(pipeline.storage, file.path):
            pipeline.storage.delete([file.path])
        else:
            logger.warning("%s/%s: a link leads there, and it is left alone", pipeline.storage.uri, file.path)
        gone.append(file)
    files.forget(gone)
    return len(found)
