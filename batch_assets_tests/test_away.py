"""A store that is away for a while: what is asked of it is asked again, and what it did meanwhile is not undone."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.errors import ConfigurationError, LastingStorageError, StorageError
from batch_assets.patience import in_a_tick
from batch_assets.retry_policy import AWAY_SECONDS, FIRST_ANSWER_SECONDS, TICK_SECONDS
from batch_assets.storage import Storage, object_files, open_storage, reach
from batch_assets.storage.credentials import aws_session, renew_credentials
from batch_assets.storage.threads import map_in_order
from batch_assets_tests import pauses
from batch_assets_tests.object_store import Fault, WayToStore, first, s3_server, use_s3
from batch_assets_tests.waiting import sleep

ASKED_AGAIN_SECONDS = 0.15  # obstore asks for credentials only so often, by a clock of its own
CONTENT = b"x" * 20_000_000  # more than one part, and more than one chunk


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture
def way(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[WayToStore]:
    """A way to an empty bucket on which nothing befalls a request yet; pauses pass at once."""
    use_s3(endpoint, monkeypatch)

    def paused() -> None:
        if Fault.EXPIRED in way.met:
            sleep(ASKED_AGAIN_SECONDS)

    with WayToStore(endpoint, lambda method, path, key: None) as way, pauses.skipping(paused):
        monkeypatch.setenv("AWS_ENDPOINT_URL", way.url)
        yield way


@pytest.fixture
def still(way: WayToStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses alone move the clock: how long this machine takes for anything counts for nothing."""
    monkeypatch.setattr(time, "monotonic", pauses.skipped_seconds)


@pytest.fixture
def storage(way: WayToStore) -> Storage:
    """A storage that has answered once, with a file."""
    storage = open_storage("s3://bucket/out")
    storage.write("there", b"content")
    return storage


def is_written(storage: Storage, path: str, content: bytes) -> bool:
    return storage.read(path) == content


def read_by_arrow(storage: Storage) -> bool:
    with storage.open_input("there") as file:
        assert file.read(3) == b"con"
        return file.read() == b"tent"


def write_by_output(storage: Storage) -> bool:
    with storage.open_output("new") as output:
        output.write(CONTENT)
    return storage.read("new") == CONTENT


ACTS: dict[str, Callable[[Storage], bool]] = {
    "read": lambda storage: storage.read("there") == b"content",
    "read_versioned": lambda storage: (storage.read_versioned("there") or (b"", ""))[0] == b"content",
    "stream": lambda storage: b"".join(storage.stream("there")) == b"content",
    "open_input": read_by_arrow,
    "open_output": write_by_output,
    "info": lambda storage: getattr(storage.info("there"), "size", 0) == 7,
    "list": lambda storage: [info.path for info in storage.list()] == ["there"],
    "write": lambda storage: storage.write("new", b"n") is None and is_written(storage, "new", b"n"),
    "copy": lambda storage: storage.copy("there", "new") is None and is_written(storage, "new", b"content"),
    "delete": lambda storage: storage.delete(["there"]) is None and storage.info("there") is None,
    "create": lambda storage: storage.create("new", b"n") and is_written(storage, "new", b"n"),
}


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.UNHEARD])
@pytest.mark.parametrize("act", ACTS)
def test_whatever_is_asked_is_asked_again(storage: Storage, way: WayToStore, act: str, fault: Fault) -> None:
    way.fault = first(9 if act != "open_output" else 2, fault)
    assert ACTS[act](storage)
    assert len(way.met) >= 2


def test_a_list_that_breaks_off_goes_on_behind_what_it_has_told(storage: Storage, way: WayToStore) -> None:
    for number in range(1_001):
        storage.write(f"many/{number:04d}", b"")
    way.fault = first(1, Fault.UNHEARD, "GET", "continuation-token")
    assert [info.path for info in storage.list("many")] == [f"many/{number:04d}" for number in range(1_001)]
    assert len(way.met) == 1


def test_a_parquet_file_is_read_through_a_gap(storage: Storage, way: WayToStore) -> None:
    table = pa.table({"n": list(range(100_000))})
    with storage.open_output("t.parquet") as output:
        pq.write_table(table, output, row_group_size=10_000)
    with storage.open_input("t.parquet") as file:
        reader = pq.ParquetFile(file)
        way.fault = first(4, Fault.UNHEARD, "GET")
        assert reader.read() == table


@pytest.mark.parametrize("fault", [Fault.ANSWER_LOST, Fault.UNHEARD])
def test_a_conditional_write_whose_answer_was_lost_has_happened(
    storage: Storage, way: WayToStore, fault: Fault
) -> None:
    way.fault = first(1, fault, "PUT")
    assert storage.create("marker", b"ours")
    _, version = storage.read_versioned("marker") or (b"", "")
    way.fault = first(1, fault, "PUT")
    assert storage.replace("marker", b"ours again", version)
    assert len(way.met) == 2 and storage.read("marker") == b"ours again"


def test_a_conditional_write_that_another_has_made_meanwhile_has_not_happened(
    storage: Storage, way: WayToStore
) -> None:
    assert storage.create("marker", b"theirs")
    way.fault = first(1, Fault.UNHEARD, "PUT")
    assert not storage.create("marker", b"ours")
    _, version = storage.read_versioned("marker") or (b"", "")
    assert storage.replace("marker", b"theirs again", version)
    way.fault = first(1, Fault.UNHEARD, "PUT")
    assert not storage.replace("marker", b"ours", version)
    assert len(way.met) == 2 and storage.read("marker") == b"theirs again"


@pytest.mark.parametrize("act", ["write", "open_output", "copy", "delete"])
def test_what_was_done_with_its_answer_lost_is_done(storage: Storage, way: WayToStore, act: str) -> None:
    def lost(method: str, path: str, key: str) -> Fault | None:
        return Fault.ANSWER_LOST if method in ("PUT", "POST", "DELETE") and len(way.met) < 1 else None

    way.fault = lost
    assert ACTS[act](storage)
    assert way.met == [Fault.ANSWER_LOST]


def lose_completion(way: WayToStore, instead: Callable[[], object] = lambda: None) -> None:
    """The answer to an upload's completion is lost; asked again, the store knows of no such upload."""

    def find(method: str, path: str, key: str) -> Fault | None:
        if "uploadId=" not in path or method == "PUT":
            return None
        if not way.met:
            return Fault.ANSWER_LOST
        instead()
        return Fault.NO_UPLOAD

    way.fault = find


def test_an_upload_that_is_gone_because_it_was_completed_is_done(storage: Storage, way: WayToStore) -> None:
    lose_completion(way)
    assert write_by_output(storage)
    assert way.met[:2] == [Fault.ANSWER_LOST, Fault.NO_UPLOAD]


@pytest.mark.parametrize("found", [b"y" * len(CONTENT), b"short", None])
def test_an_upload_that_is_gone_with_something_else_in_its_place_has_failed(
    storage: Storage, way: WayToStore, endpoint: str, found: bytes | None
) -> None:
    def replace() -> None:
        if found is not None:
            client.put_object(Bucket="bucket", Key="out/new", Body=found)
        else:
            client.delete_object(Bucket="bucket", Key="out/new")

    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    lose_completion(way, replace)
    with pytest.raises(
        LastingStorageError, match=r"s3://bucket/out/new: NoSuchUpload: .*ended by somebody else"
    ):
        write_by_output(storage)


def test_what_was_written_with_an_answer_is_not_taken_for_ones_own(storage: Storage) -> None:
    assert storage.create("claim", b"of a version")
    assert not storage.create("claim", b"of a version")


@pytest.mark.usefixtures("still")
def test_a_store_that_stays_away_is_given_up_with_a_word_meanwhile(
    storage: Storage, way: WayToStore, caplog: pytest.LogCaptureFixture
) -> None:
    way.fault = lambda method, path, key: Fault.REFUSED
    before = pauses.skipped_seconds()
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(LastingStorageError, match=r"s3://bucket/out/there: SlowDown.*waited"),
    ):
        storage.read("there")
    assert AWAY_SECONDS - 1 < pauses.skipped_seconds() - before <= AWAY_SECONDS
    words = [record.message for record in caplog.records if "trying again" in record.message]
    assert 5 <= len(words) <= 11 and "s3://bucket/out/there" in words[0]


@pytest.mark.usefixtures("still")
def test_what_has_never_answered_is_given_up_soon(way: WayToStore) -> None:
    way.fault = lambda method, path, key: Fault.UNHEARD
    before = pauses.skipped_seconds()
    with pytest.raises(StorageError, match="s3://bucket/other/x"):
        open_storage("s3://bucket/other").read("x")
    assert FIRST_ANSWER_SECONDS - 1 < pauses.skipped_seconds() - before <= FIRST_ANSWER_SECONDS


@pytest.mark.usefixtures("still")
def test_a_store_that_is_busy_from_the_first_is_waited_for(way: WayToStore) -> None:
    way.fault = lambda method, path, key: Fault.REFUSED
    before = pauses.skipped_seconds()
    with pytest.raises(StorageError, match="s3://bucket/other/x: SlowDown"):
        open_storage("s3://bucket/other").read("x")
    assert AWAY_SECONDS - 1 < pauses.skipped_seconds() - before <= AWAY_SECONDS


def test_a_host_that_nobody_knows_is_a_matter_of_configuration(
    way: WayToStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://no-such-host.invalid")
    before = pauses.skipped_seconds()
    with pytest.raises(ConfigurationError, match="AWS_ENDPOINT_URL"):
        open_storage("s3://bucket/out").read("x")
    assert pauses.skipped_seconds() == before


@pytest.mark.usefixtures("still")
def test_a_tick_leaves_it_for_the_next_one(storage: Storage, way: WayToStore) -> None:
    way.fault = lambda method, path, key: Fault.REFUSED
    before = pauses.skipped_seconds()
    with in_a_tick(), pytest.raises(StorageError):
        list(map_in_order(storage.read, ["there"] * 3, threads=2))
    assert 0 < pauses.skipped_seconds() - before <= 3 * TICK_SECONDS


@pytest.fixture
def credentials(way: WayToStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file of the credentials in use."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    write_key(file, "old")
    return file


def write_key(file: Path, key: str) -> None:
    file.write_text(f"[default]\naws_access_key_id={key}\naws_secret_access_key={key}-secret\n")


@pytest.mark.parametrize("act", ACTS)
def test_credentials_renewed_in_their_file_are_used(credentials: Path, way: WayToStore, act: str) -> None:
    storage = open_storage("s3://bucket/out")
    storage.write("there", b"content")
    write_key(credentials, "new")
    sleep(ASKED_AGAIN_SECONDS)
    way.fault = lambda method, path, key: None if key == "new" else Fault.EXPIRED
    assert ACTS[act](storage)
    assert way.met == []


def test_credentials_that_have_expired_are_waited_for(
    credentials: Path, way: WayToStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage("s3://bucket/out")
    storage.write("there", b"content")

    def expired(method: str, path: str, key: str) -> Fault | None:
        if len(way.met) == 7:
            write_key(credentials, "new")
        return None if key == "new" else Fault.EXPIRED

    way.fault = expired
    assert storage.info("there") is not None and storage.read("there") == b"content"
    assert len(way.met) == 8


def test_credentials_that_nobody_renews_are_no_matter_of_configuration_any_more(
    credentials: Path, way: WayToStore
) -> None:
    storage = open_storage("s3://bucket/out")
    storage.write("there", b"content")
    way.fault = lambda method, path, key: Fault.EXPIRED
    with pytest.raises(LastingStorageError, match="credentials have expired"):
        storage.read("there")


def test_expired_credentials_of_the_environment_are_not_waited_for(storage: Storage, way: WayToStore) -> None:
    way.fault = lambda method, path, key: Fault.EXPIRED
    before = pauses.skipped_seconds()
    with pytest.raises(LastingStorageError, match="credentials have expired"):
        storage.read("there")
    assert pauses.skipped_seconds() == before


def test_credentials_that_were_never_right_are_refused_at_once(credentials: Path, way: WayToStore) -> None:
    way.fault = lambda method, path, key: Fault.EXPIRED
    with pytest.raises(ConfigurationError, match="credentials have expired"):
        open_storage("s3://bucket/out").read("there")


def test_clients_of_services_sign_with_renewed_credentials(credentials: Path, way: WayToStore) -> None:
    keys = list[str]()
    way.fault = lambda method, path, key: keys.append(key)
    client = aws_session().client("s3", region_name="us-east-1")
    client.list_buckets()
    write_key(credentials, "new")
    client.list_buckets()
    assert keys == ["old", "new"]


def test_a_process_that_names_no_end_is_asked_again_once_its_credentials_have_run_out(
    credentials: Path, way: WayToStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keys = list[str]()
    way.fault = lambda method, path, key: keys.append(key)
    credentials.unlink()
    told = tmp_path / "told.json"
    (tmp_path / "config").write_text(f"[default]\ncredential_process = cat {told}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    answer = '{{"Version": 1, "AccessKeyId": "{}", "SecretAccessKey": "s"}}'
    told.write_text(answer.format("old"))
    client = aws_session().client("s3", region_name="us-east-1")
    client.list_buckets()
    told.write_text(answer.format("new"))
    client.list_buckets()
    renew_credentials()
    client.list_buckets()
    assert keys == ["old", "old", "new"]


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.UNHEARD])
def test_an_upload_for_which_obstore_has_waited_is_not_waited_for_again(
    storage: Storage, way: WayToStore, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "AWAY_SECONDS", 1.0)
    monkeypatch.setenv("AWS_OF_THIS_TEST", "its own bucket, with that limit")
    way.fault = lambda method, path, key: fault
    with pytest.raises(LastingStorageError, match=r"s3://bucket/out/new: .*; waited \d+ s for it"):
        open_storage("s3://bucket/out").open_output("new").close()


def test_an_upload_that_obstore_gives_up_at_once_may_be_tried_again(
    storage: Storage, way: WayToStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batch_assets.storage.buckets.patient_retries", lambda: {"max_retries": 0})
    monkeypatch.setenv("AWS_OF_THIS_TEST", "its own bucket, without tries")
    way.fault = lambda method, path, key: Fault.UNHEARD
    with pytest.raises(StorageError, match="s3://bucket/out/new: ") as raised:
        open_storage("s3://bucket/out").open_output("new").close()
    assert not isinstance(raised.value, LastingStorageError)


def test_an_upload_that_gets_no_answer_says_so_meanwhile(
    storage: Storage, way: WayToStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_files, "SPEAK_SECONDS", 0.01)

    def until_said(method: str, path: str, key: str) -> Fault | None:
        said = any("out/new: no answer for" in record.message for record in caplog.records)
        return None if said or method != "PUT" else Fault.REFUSED

    way.fault = until_said
    with caplog.at_level(logging.WARNING), storage.open_output("new") as output:
        output.write(b"content")
    assert way.met and storage.read("new") == b"content"
