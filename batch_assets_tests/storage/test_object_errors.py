"""What a store says reaches the person first, then the step that fits; and whether time may mend it."""

from collections.abc import Callable

import pytest

from batch_assets.errors import (
    BatchAssetsError,
    ConfigurationError,
    CredentialsRefused,
    LastingStorageError,
    StorageError,
)
from batch_assets.storage import Storage, open_storage
from batch_assets_tests.storage.stores import Store, Told, fault


def write_out(storage: Storage) -> None:
    with storage.open_output("x") as output:
        output.write(b"1")


ACTS: dict[str, Callable[[Storage], object]] = {
    "list": lambda storage: list(storage.list()),
    "info": lambda storage: storage.info("x"),  # a HEAD, whose answer has no room for a reason
    "read": lambda storage: storage.read("x"),
    "stream": lambda storage: list(storage.stream("x")),
    "open_input": lambda storage: storage.open_input("x"),
    "write": lambda storage: storage.write("x", b"1"),
    "create": lambda storage: storage.create("x", b"1"),
    "replace": lambda storage: storage.replace("x", b"1", '"1"'),
    "open_output": write_out,
    "copy": lambda storage: storage.copy("x", "y"),
    "delete": lambda storage: storage.delete(["x"]),
}
REFUSALS = [
    (403, "RequestTimeTooSkewed", "The difference is too large.", ConfigurationError, "clock"),
    (403, "AccessDenied", "not authorized to perform: kms:Decrypt on it", ConfigurationError, "kms:GenerateDataKey"),
    (403, "AccessDenied", "Access Denied", ConfigurationError, "allow s3:ListBucket"),
    (403, "InvalidObjectState", "The storage class forbids it", LastingStorageError, "archived; restore it"),
    (400, "ExpiredToken", "The token is old", CredentialsRefused, "renew"),
    (400, "InvalidRequest", "Content-MD5 OR x-amz-checksum- is required", ConfigurationError, "CHECKSUM_ALGORITHM"),
    (400, "AuthorizationHeaderMalformed", "expecting 'eu-west-1'", ConfigurationError, "AWS_REGION"),
    (400, "OddRequest", "5 &lt; 6", LastingStorageError, "refuses this request"),
    (401, "Unauthorized", "Who is it?", ConfigurationError, "AWS_ACCESS_KEY_ID"),
    (409, "OperationAborted", "Another one is at work", StorageError, "in a while"),
    (501, "NotImplemented", "A header is not implemented", ConfigurationError, "conditional writes"),
    (503, "SlowDown", "Please reduce your rate", StorageError, "in a while"),
]  # fmt: skip


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize(("status", "code", "message", "kind", "step"), REFUSALS)
def test_code_and_message_come_before_the_step(
    store: Store, act: str, status: int, code: str, message: str, kind: type[BatchAssetsError], step: str
) -> None:
    store.refuse = lambda asked: fault(status, code, message)
    with pytest.raises(kind) as refused:
        ACTS[act](open_storage("s3://bucket/out"))
    # What has been waited for in vain says so, and what it was that may pass.
    met = refused.value.__cause__ if isinstance(refused.value.__cause__, BatchAssetsError) else refused.value
    assert type(met) is kind
    text = str(refused.value)
    assert text.startswith("s3://bucket/out")
    if status < 500 or act not in ("info", "stream", "open_input"):
        words = message.replace("&lt;", "<").removesuffix(".")
        assert f"{code}: {words}; " in text
        assert text.index(code) < text.index(step, text.index(words) + len(words))
    assert step in text
    assert "<" not in text.replace("5 < 6", "")


def test_a_page_of_a_proxy_is_told_without_its_marks(store: Store) -> None:
    store.refuse = lambda asked: Told(502, b"<html><body><h1>Bad gateway</h1> no upstream</body></html>")
    with pytest.raises(StorageError, match=r"out/x: 502 Bad Gateway: Bad gateway no upstream; the store"):
        open_storage("s3://bucket/out").read("x")


def test_another_region_is_told_where_the_store_only_points_there(store: Store) -> None:
    store.refuse = lambda asked: fault(301, "PermanentRedirect", "It is elsewhere")
    with pytest.raises(ConfigurationError, match=r"out/x: Received redirect.*; .*AWS_REGION"):
        open_storage("s3://bucket/out").read("x")


def test_a_refusal_to_write_is_no_missing_file(store: Store) -> None:
    store.refuse = lambda asked: Told(404, b"404 page not found")
    with pytest.raises(ConfigurationError, match=r"out/x: 404 Not Found: 404 page not found; .*endpoint"):
        open_storage("s3://bucket/out").write("x", b"1")
    with pytest.raises(FileNotFoundError):
        open_storage("s3://bucket/out").read("x")


def test_a_conflict_is_no_proof_that_an_object_is_there(store: Store) -> None:
    storage = open_storage("az://bucket/out")
    store.refuse = lambda asked: fault(409, "BlobAlreadyExists", "It is there")
    assert not storage.create("x", b"1")
    store.refuse = lambda asked: fault(409, "BlobImmutableDueToPolicy", "A policy holds it")
    with pytest.raises(LastingStorageError, match="BlobImmutableDueToPolicy: A policy holds it"):
        storage.create("x", b"1")


@pytest.mark.parametrize(
    ("uri", "step"), [("gs://bucket/out", "storage.objects.list"), ("az://bucket/out", "Storage Blob Data")]
)
def test_other_stores_have_rights_of_their_own(store: Store, uri: str, step: str) -> None:
    store.refuse = lambda asked: fault(403, "AccessDenied", "Access denied.")
    with pytest.raises(ConfigurationError, match=f"out/x: AccessDenied: Access denied; .*{step}"):
        open_storage(uri).write("x", b"1")


def test_settings_that_name_no_store_are_not_the_networks_fault(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CHECKSUM_ALGORITHM", "nonsense")
    with pytest.raises(
        ConfigurationError, match=r'"nonsense" is not a valid checksum.*; correct the environment'
    ):
        open_storage("s3://bucket/out")


@pytest.mark.parametrize("parts", [1, 2])
def test_checksums_are_sent_where_they_are_asked_for(
    store: Store, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    begun = b"<R><Bucket>bucket</Bucket><Key>x</Key><UploadId>1</UploadId></R>"
    done = b"<R><ETag>1</ETag></R>"
    store.refuse = lambda asked: (
        Told(200, begun if "uploads" in asked.query else done) if asked.method == "POST" else None
    )
    monkeypatch.setenv("AWS_CHECKSUM_ALGORITHM", "SHA256")
    storage = open_storage("s3://bucket/out")
    storage.create("marker", b"1")
    with storage.open_output("x") as output:
        for _ in range(parts):
            output.write(b"1" * 9_000_000)
    puts = [asked for asked in store.asked if asked.method == "PUT"]
    assert len(puts) == 1 + parts
    assert all(asked.headers.get("x-amz-checksum-sha256") for asked in puts)
