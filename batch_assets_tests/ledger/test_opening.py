"""URLs, migrations, and what a person reads when a ledger cannot be opened."""

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from batch_assets.errors import ConfigurationError, LedgerError
from batch_assets.ledger import engines, migrations, patience, schema
from batch_assets.ledger.database import Database
from batch_assets.ledger.known_roots import known_roots
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State
from batch_assets_tests.ledger.conftest import postgresql_database
from batch_assets_tests.ledger.helpers import ME, both_databases, dead_process

ORIGINAL = Path(__file__).parent / "original_schema.sql"
Opened = Callable[..., Ledger]


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Of a ledger that nobody has opened yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/ledger/ledger.db"
    else:
        with postgresql_database(request.getfixturevalue("postgresql_server")) as url:
            yield url


@both_databases
def test_the_migrations_make_what_the_code_uses(url: str, opened: Opened) -> None:
    opened(url)
    with Database(url).read() as connection:
        found = sa.inspect(connection)
        for table in schema.metadata.tables.values():
            there = found.get_columns(table.name)
            assert [column["name"] for column in there] == [column.name for column in table.columns]
            if connection.dialect.name == "postgresql":
                assert [column["nullable"] for column in there] == [
                    column.nullable for column in table.columns
                ]
                texts = {column["type"].collation for column in there if isinstance(column["type"], sa.Text)}
                assert texts == {"C"}, "keys and paths have one order, whatever the server's locale"
            assert found.get_pk_constraint(table.name)["constrained_columns"] == [
                c.name for c in table.primary_key
            ]


@both_databases
def test_who_asks_for_roots_makes_no_table(url: str, opened: Opened) -> None:
    if url.startswith("sqlite"):
        file = Path(url.removeprefix("sqlite:///"))
        file.parent.mkdir()
        file.touch()
    assert known_roots(url) == {}
    with Database(url).read() as connection:
        assert sa.inspect(connection).get_table_names() == []
    ledger = opened(url)
    ledger.attach("texts", "s3://bucket/out", 1)
    assert known_roots(url) == {"texts": "s3://bucket/out"}


@pytest.mark.parametrize("in_use", [False, True])
def test_a_ledger_that_cannot_be_written_can_be_looked_at(
    tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch, in_use: bool
) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    writing = opened(url)
    writing.attach("texts", "s3://bucket/out", 1)
    if not in_use:
        writing.dispose()
    before = sorted((file.name, file.stat().st_size) for file in tmp_path.iterdir())
    monkeypatch.setattr(engines.os, "access", lambda path, mode: False)
    looking = Ledger.look(url)
    assert [row.root for row in looking.pipelines()] == ["s3://bucket/out"]
    assert looking.counts("texts") == {} and looking.pipeline("none") is None
    with pytest.raises(LedgerError, match="readonly"):
        looking.stop("texts")
    looking.dispose()
    assert known_roots(url) == {"texts": "s3://bucket/out"}
    assert sorted((file.name, file.stat().st_size) for file in tmp_path.iterdir()) == before


def test_an_old_ledger_that_cannot_be_written_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = sqlite3.connect(tmp_path / "ledger.db")
    old.executescript(ORIGINAL.read_text())
    old.close()
    monkeypatch.setattr(engines.os, "access", lambda path, mode: False)
    with pytest.raises(
        ConfigurationError,
        match=r"^ledger sqlite.*ledger.db: attempt to write a readonly database; it lacks what this version of "
        r"Batch Assets adds \(m002_.*, m010_breaker\): run `batch-assets status` once where it can be written",
    ):
        Ledger.look(f"sqlite:///{tmp_path}/ledger.db")


def test_a_role_that_may_not_change_an_old_ledger_is_told_so(postgresql_server: str) -> None:
    with postgresql_database(postgresql_server) as url:
        with Database(url).write() as connection:
            connection.exec_driver_sql("CREATE TABLE ledger_migrations (name TEXT PRIMARY KEY)")
            name = connection.exec_driver_sql("SELECT current_database()").scalar_one()
            connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        with pytest.raises(ConfigurationError, match=r"read-only transaction.*adds \(m001_tables, .*may$"):
            Ledger.open(url)


def test_a_ledger_that_nobody_has_made_is_empty_for_who_looks(tmp_path: Path) -> None:
    looking = Ledger.look(f"sqlite:///{tmp_path}/none/ledger.db")
    with ThreadPoolExecutor() as pool:
        assert list(pool.map(lambda _: looking.pipelines(), range(3))) == [[], [], []]
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_of_the_first_version_is_upgraded(tmp_path: Path, opened: Opened) -> None:
    old = sqlite3.connect(tmp_path / "ledger.db")
    old.executescript(ORIGINAL.read_text())
    old.close()
    ledger = opened(f"sqlite:///{tmp_path}/ledger.db")
    row = ledger.pipeline("texts")
    assert row is not None
    assert (row.root, row.planned, row.fingerprint) == ("s3://bucket/out", 300, "f1")
    assert ledger.counts("texts") == {State.COLLECTED: 1, State.READY: 2}
    assert [(s.key, s.state, s.embedded) for s in ledger.shards("texts")] == [
        ("g0001-00000", State.COLLECTED, 97),
        ("g0001-00001", State.READY, 0),
        ("g0001-00002", State.READY, 0),
    ]
    assert ledger.claim("texts", "g0001-00001", ME) is not None
    ledger.set_deferred("texts", True)
    ledger.recompute("texts", ["g0001-00000"], keep=True)
    assert [(s.key, s.state, s.keep_fence) for s in ledger.shards("texts")] == [
        ("g0001-00000", State.PREPARED, 1),
        ("g0001-00001", State.RUNNING, None),
        ("g0001-00002", State.PREPARED, None),
    ]


@both_databases
def test_a_later_step_is_applied_once_and_keeps_what_is_there(
    url: str, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(url).attach("texts", "/out", 1)

    def m999_note(connection: sa.Connection) -> None:
        connection.exec_driver_sql("ALTER TABLE ledger_pipelines ADD COLUMN note TEXT")

    monkeypatch.setattr(migrations, "MIGRATIONS", [*migrations.MIGRATIONS, m999_note])
    for _ in range(2):
        assert opened(url).pipeline("texts") is not None
    monkeypatch.undo()
    with pytest.raises(ConfigurationError, match=r"written by a newer version of Batch Assets \(m999_note\)"):
        Ledger.open(url)


@both_databases
def test_runs_that_an_older_version_notes_are_not_taken_for_dead(
    url: str, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have no heartbeats: silence tells nothing of those that are there, nor of those that it goes on noting."""
    before = [step for step in migrations.MIGRATIONS if step.__name__ < "m008"]
    monkeypatch.setattr(migrations, "MIGRATIONS", before)
    migrations.migrate(Database(url))
    monkeypatch.undo()
    twin = replace(ME, boot_id="another-boot")

    def note(run_id: str) -> None:
        row = {"run_id": run_id, "pipeline": "texts", "host": twin.host, "holder": twin.encode()}
        with Database(url).write() as connection:
            connection.execute(sa.insert(schema.runs).values(row))

    note("there")
    ledger = opened(url)
    note("later")
    assert ledger.dead_runs(10) == []
    ledger.note_run("dead", dead_process(), "texts")
    assert ledger.dead_runs(10) == ["dead"]


@both_databases
def test_a_step_that_fails_leaves_no_half(url: str, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    def m998_broken(connection: sa.Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE half (a INTEGER)")
        raise RuntimeError("killed here")

    monkeypatch.setattr(migrations, "MIGRATIONS", [*migrations.MIGRATIONS, m998_broken])
    with pytest.raises(RuntimeError, match="killed here"):
        Ledger.open(url)
    monkeypatch.undo()
    opened(url).attach("texts", "/out", 1)
    with Database(url).read() as connection:
        assert "half" not in sa.inspect(connection).get_table_names()


def test_a_new_ledger_goes_on_above_the_revisions_of_a_lost_one(tmp_path: Path, opened: Opened) -> None:
    revisions = []
    for name in ("lost", "new"):
        ledger = opened(f"sqlite:///{tmp_path}/{name}.db")
        ledger.attach("texts", "/out", 1)
        ledger.add_shards("texts", 1, [("g0001-00000", 0, 1, 1)])
        revisions.append(ledger.changes(0, 1)[0].revision)
    assert revisions[0] < revisions[1]


@both_databases
def test_threads_share_a_ledger(url: str, opened: Opened) -> None:
    ledger = opened(url)
    ledger.attach("texts", "/out", 1)
    keys = [f"g0001-{ordinal:05d}" for ordinal in range(40)]
    ledger.add_shards("texts", 1, [(key, 0, 1, 1) for key in keys])
    with ThreadPoolExecutor(12) as pool:
        moved = list(
            pool.map(lambda key: ledger.move("texts", [key], [State.PLANNED], State.PREPARED), keys * 2)
        )
    assert sorted(key for some in moved for key in some) == keys
    assert ledger.counts("texts") == {State.PREPARED: 40}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "the ledger's URL cannot be read; write sqlite:////"),
        ("sqlite://", "a ledger in memory would forget everything"),
        ("mysql://me:secret@host/db", r"mysql://me:\*\*\*@host/db: 'mysql' is unknown"),
        (
            "postgresql://me:secret@127.0.0.1:1/db",
            r"ledger postgresql://me:\*\*\*@127.0.0.1:1/db: cannot be opened",
        ),
        ("postgresql://me@127.0.0.1:1/db?password=secret", "db: cannot be opened"),
        ("postgresql://me:secret@host:port/db", "cannot be read"),
        ("sqlite:////dev/null/folder/ledger.db", "cannot be opened: .*/dev/null"),
        ("sqlite:////proc/version", "cannot be opened"),
    ],
)
def test_a_url_that_cannot_work(url: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "OPENING_SECONDS", 0.0)
    with pytest.raises(ConfigurationError, match=said) as caught:
        Ledger.open(url)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("This is text, and more than a hundred bytes of it." * 20)
    with pytest.raises(ConfigurationError, match=r"ledger.db: cannot be opened: file is not a database"):
        Ledger.open(f"sqlite:///{tmp_path}/ledger.db")


def test_a_relative_path_stays_where_it_was(
    tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ledger = opened("sqlite:///here/ledger.db")
    monkeypatch.chdir("/")
    ledger.attach("texts", "/out", 1)
    assert ledger.url_shown == f"sqlite:///{tmp_path}/here/ledger.db"
    assert (tmp_path / "here" / "ledger.db").exists()
