"""Fetching images: what servers, stores and disks answer, and where a URL must not lead."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from batch_assets.worker import fetching, hosts, web
from batch_assets.worker.addresses import is_public
from batch_assets.worker.fetching import Fetcher, Fetching, fetch
from batch_assets.worker.not_fetched import NotFetched
from batch_assets_tests.object_store import s3_server, use_s3
from batch_assets_tests.waiting import wait_until
from batch_assets_tests.worker.servers import Handler, image_server

MOST_BYTES = 100_000


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "IMAGE_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(fetching, "IMAGE_LONGEST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(fetching, "_hosts", hosts.Hosts())
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[str]:
    with image_server() as url:
        yield url


def code_of(location: str, *, allow_private: bool = True) -> tuple[str, bool]:
    """The code by which fetching fails, and whether the record is thereby rejected."""
    with pytest.raises(NotFetched) as caught:
        fetch(location, most_bytes=MOST_BYTES, allow_private=allow_private)
    assert str(caught.value)
    return caught.value.code, caught.value.rejected


def test_a_good_url_gives_the_bytes_and_tells_who_asks_and_no_password(
    server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("default login me password for-another-program\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    seen: list[str | None] = []
    answer = Handler.answer_good

    def noted(self: Handler, query: dict[str, str]) -> None:
        seen.extend((self.headers["User-Agent"], self.headers["Authorization"]))
        answer(self, query)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Handler, "answer_good", noted)
        content = fetch(f"{server}/good/a.jpg?x=1", most_bytes=MOST_BYTES, allow_private=True)
    assert content == Handler.content
    assert seen == ["batch-assets", None]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
def test_a_file_that_is_not_there_is_missing_and_asked_for_once(server: str, status: int) -> None:
    assert code_of(f"{server}/status?code={status}") == ("image_missing", True)
    assert Handler.asked["/status"] == 1


def test_a_server_in_trouble_is_asked_again_and_four_times_at_most(server: str) -> None:
    url = f"{server}/status/once?code=500&times=1"
    assert fetch(url, most_bytes=MOST_BYTES, allow_private=True) == Handler.content
    assert Handler.asked["/status/once"] == 2
    assert code_of(f"{server}/status/always?code=503") == ("fetch_error", False)
    assert Handler.asked["/status/always"] == 4


def test_a_server_that_asks_for_patience_gets_it_up_to_a_limit(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(f"{server}/status/a?code=429&after=1&times=1", most_bytes=MOST_BYTES, allow_private=True)
    assert Handler.times[1] - Handler.times[0] >= 1
    monkeypatch.setattr(fetching, "LONGEST_RETRY_AFTER_SECONDS", 0.05)
    for number, after in enumerate(("3600", "Wed, 21 Oct 2099 07:28:00 GMT", "soon")):
        url = f"{server}/status/{number}?code=429&after={after.replace(' ', '%20')}&times=1"
        assert fetch(url, most_bytes=MOST_BYTES, allow_private=True) == Handler.content


class SinceAsked(threading.Timer):
    """Counts a moment from when the server has been asked, however long a slow machine takes to ask it."""

    given: ClassVar[list[float]] = []

    def __init__(self, seconds: float, function: Callable[[], None]) -> None:
        super().__init__(0.2, function)
        self.given.append(seconds)
        self._asked_before = Handler.asked["/drip"]

    def run(self) -> None:
        wait_until(lambda: Handler.asked["/drip"] > self._asked_before)
        super().run()


@pytest.mark.parametrize("path", ["/drip", "/drip?body=1"])
def test_a_slow_server_is_hung_up_on(server: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "Timer", SinceAsked)
    monkeypatch.setattr(fetching, "IMAGE_TRIES", 2)
    SinceAsked.given.clear()
    assert code_of(server + path) == ("fetch_timeout", False)
    assert Handler.asked["/drip"] == 2
    assert SinceAsked.given == [web.TOTAL_SECONDS] * 2


def test_a_body_without_end_and_one_that_is_said_to_be_large_are_not_read(server: str) -> None:
    assert code_of(f"{server}/endless") == ("image_too_large", True)
    assert code_of(f"{server}/large") == ("image_too_large", True)


def test_a_body_that_breaks_off_is_fetched_again(server: str) -> None:
    assert code_of(f"{server}/short") == ("fetch_error", False)
    assert Handler.asked["/short"] == 4


def test_redirects_are_followed_five_times_at_most(server: str) -> None:
    url = f"{server}/to?url=/good/b.jpg"
    assert fetch(url, most_bytes=MOST_BYTES, allow_private=True) == Handler.content
    assert code_of(f"{server}/loop") == ("fetch_error", False)
    assert Handler.asked["/loop"] == 6
    assert code_of(f"{server}/to?url=file:///etc/hostname") == ("bad_url", True)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "2130706433", "0177.0.0.1", "127.1", "0x7f000001", "0.0.0.0",
        "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
    ],
)  # fmt: skip
def test_this_machine_is_not_asked_by_any_of_its_names(server: str, host: str) -> None:
    url = f"http://{host}:{server.rpartition(':')[2]}/good"
    assert code_of(url, allow_private=False) == ("private_address", True)
    assert not Handler.asked


def test_a_public_name_that_turns_private_is_not_asked(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: what counts is the address that is connected to, not an earlier answer."""
    real, port = socket.getaddrinfo, int(server.rpartition(":")[2])
    connected: list[Any] = []

    def resolve(host: str, *arguments: Any, **options: Any) -> Any:
        if host == "rebinding.example":
            address = ("127.0.0.1", port)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address)]
        connected.append(host)
        return real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert code_of(f"http://rebinding.example:{port}/good", allow_private=False) == ("private_address", True)
    # Where it was public when it was looked at, exactly that address is connected to.
    monkeypatch.setattr("batch_assets.worker.addresses.is_public", lambda address: True)
    assert (
        fetch(f"http://rebinding.example:{port}/good", most_bytes=MOST_BYTES, allow_private=False)
        == Handler.content
    )
    assert connected == ["127.0.0.1"]


def test_a_redirect_into_the_private_network_is_not_followed(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = server.rpartition(":")[2]
    monkeypatch.setattr(
        "batch_assets.worker.addresses.is_public", lambda address: address == "127.0.0.1"
    )  # the server plays a public one
    for target in (f"http://127.0.0.2:{port}/good", "http://169.254.169.254/latest/meta-data/"):
        assert code_of(f"{server}/to?url={target}", allow_private=False) == ("private_address", True)
    assert Handler.asked["/good"] == 0


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True),
        ("10.0.0.1", False), ("172.16.3.4", False), ("192.168.1.1", False), ("100.64.0.1", False),
        ("169.254.169.254", False), ("224.0.0.1", False), ("255.255.255.255", False), ("240.0.0.1", False),
        ("0.0.0.0", False), ("fe80::1%eth0", False), ("fc00::1", False), ("fd00:ec2::254", False),
        ("ff02::1", False), ("::", False), ("64:ff9b::a00:1", False), ("64:ff9b::808:808", True),
        ("2002:7f00:1::", False), ("::ffff:10.0.0.1", False), ("fec0::1", False),
    ],
)  # fmt: skip
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_behind_a_proxy_the_name_is_looked_at_all_the_same(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server)
    assert code_of("http://10.1.2.3/good", allow_private=False) == ("private_address", True)
    assert not Handler.asked
    monkeypatch.setattr(Handler, "do_GET", lambda self: self.answer(200))
    assert fetch("http://8.8.8.8/good", most_bytes=MOST_BYTES, allow_private=False) == Handler.content


@pytest.mark.parametrize(
    "location", ["ftp://host/a.jpg", "http://", "http:///a.jpg", "http://[::1/a", "http://host:x/", "s3://b"]
)
def test_what_is_no_url_is_rejected(location: str) -> None:
    assert code_of(location) == ("bad_url", True)


def test_a_host_that_is_down_is_left_alone_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.jpg"
        attempts: list[str] = []
        download = web.download

        def counted(url: str, **options: Any) -> bytes:
            attempts.append(url)
            return download(url, **options)

        monkeypatch.setattr(web, "download", counted)
        assert {code_of(url) for _ in range(30)} == {("fetch_error", False)}
        assert len(attempts) == hosts.HOST_FAILURES
        with pytest.raises(NotFetched, match=r"refused.* is left alone for a while$"):
            fetch(url, most_bytes=MOST_BYTES, allow_private=True)
        monkeypatch.setattr(hosts, "HOST_REST_SECONDS", 0.0)
        code_of(url)
        assert len(attempts) > hosts.HOST_FAILURES


def test_a_name_that_does_not_exist_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def resolve(host: str, *arguments: Any, **options: Any) -> Any:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    for allow_private in (True, False):
        assert code_of("http://gone.example/a.jpg", allow_private=allow_private) == ("fetch_error", False)
    assert asked == ["gone.example"] * 2


def test_stopping_ends_a_read_that_hangs(server: str) -> None:
    fetcher = Fetcher(Fetching(MOST_BYTES, allow_private=True))
    codes: list[str] = []

    def run() -> None:
        try:
            fetcher.fetch(f"{server}/drip")
        except NotFetched as error:
            codes.append(error.code)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: Handler.asked["/drip"])
    fetcher.stop()
    thread.join()
    assert len(codes) == 1


def test_files_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a b.jpg").write_bytes(b"content")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "large.jpg").write_bytes(bytes(MOST_BYTES + 1))
    os.mkfifo(tmp_path / "pipe.jpg")
    monkeypatch.chdir(tmp_path)
    for location in ("a b.jpg", str(tmp_path / "a b.jpg"), f"file://{tmp_path}/a%20b.jpg"):
        assert fetch(location, most_bytes=MOST_BYTES, allow_private=False) == b"content"
    assert code_of("empty.jpg") == ("no_image", True)
    assert code_of("large.jpg") == ("image_too_large", True)
    for location in ("none.jpg", ".", "pipe.jpg", "a b.jpg/x", "x" * 5000, "a\0b", ""):
        assert code_of(location) == ("image_missing", True)


def test_objects_of_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server() as endpoint:
        client = use_s3(endpoint, monkeypatch)
        monkeypatch.setattr(fetching, "CHUNK_BYTES", 1000)
        monkeypatch.setattr("batch_assets.storage.objects.CHUNK_BYTES", 1000)
        contents = {
            "a/b c.jpg": b"content",
            "exact": bytes(2000),
            "long": bytes(2500),
            "large": bytes(100_001),
        }
        for key, content in contents.items():
            client.put_object(Bucket="bucket", Key=key, Body=content)
        client.put_object(Bucket="bucket", Key="empty", Body=b"")
        for key in ("a/b c.jpg", "exact", "long"):
            assert fetch(f"s3://bucket/{key}", most_bytes=MOST_BYTES, allow_private=False) == contents[key]
        assert code_of("s3://bucket/large") == ("image_too_large", True)
        assert code_of("s3://bucket/none.jpg") == ("image_missing", True)
        assert code_of("s3://bucket/empty") == ("no_image", True)
        assert code_of("s3://no-such-bucket/a.jpg") == ("fetch_error", False)
