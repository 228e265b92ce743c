"""One bad neighbour in a defs folder: it is named with its reason, and all others are loaded."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_assets.components import attributes
from batch_assets.components.attributes import COMPONENT_TYPE
from batch_assets.components.declared import Declared, load_folder
from batch_assets.components.documents import MOST_BYTES
from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline
from batch_assets_tests.components.test_embedding_pipeline import declare

TYPE = f"type: {COMPONENT_TYPE}\n"


def files(root: str, **more: Any) -> dict[str, Any]:
    return {"source": {"uri": "/in"}, "output": {"root": root}, **more}


def write(file: Path, text: bytes) -> None:
    file.parent.mkdir(parents=True)
    file.write_bytes(text)


def pipe(file: Path) -> None:
    file.parent.mkdir(parents=True)
    os.mkfifo(file)


def link(file: Path, target: str) -> None:
    file.parent.mkdir(parents=True)
    file.symlink_to(target)


def fields(**changed: Any) -> Callable[[Path], object]:
    return lambda file: declare(file.parents[1], files("/out/broken", **changed), "broken")


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no YAML": (lambda file: write(file, b"a: ["), "cannot be read as YAML"),
    "no UTF-8": (
        lambda file: write(file, TYPE.encode() + b"# \xff"),
        "cannot be read as YAML: 'utf-8' codec",
    ),
    "a pipe": (pipe, "is no regular file"),
    "a folder": (lambda file: file.mkdir(parents=True), "is no regular file"),
    "a link to nowhere": (lambda file: link(file, "nowhere"), "No such file or directory"),
    "a link to itself": (lambda file: link(file, "defs.yaml"), "Too many levels of symbolic links"),
    "huge": (lambda file: write(file, b"#" * (MOST_BYTES + 1)), "it has more than 1,048,576 bytes"),
    "no fields": (lambda file: write(file, TYPE.encode() + b"attributes: 5"), "attributes: 5: should be"),
    "no type": (
        lambda file: write(file, b"attributes: {}"),
        "type: None: for a pipeline write batch_assets.",
    ),
    "empty": (lambda file: write(file, b""), "type: None: for a pipeline write batch_assets."),
    "another type": (
        lambda file: write(file, b"type: batch_assets.components.EmbedingPipeline"),
        "type: 'batch_assets.components.EmbedingPipeline': for a pipeline write",
    ),
    "unknown field": (fields(sourse={}), "sourse: there is no such field"),
    "wrong type": (fields(shards={"records": "many"}), "shards.records: 'many' cannot be used"),
    "template": (fields(model={"id": "{{ 1 / 0 }}"}), "model.id: '{{ 1 / 0 }}' cannot be filled in"),
    "variable": (fields(model={"id": "{{ env.NOT_SET }}"}), "environment variable NOT_SET is not set"),
    "NUL in the root": (
        fields(output={"root": "/out/a\0b"}),
        "output.root: '/out/a\\x00b' cannot be used: no text may hold a NUL character",
    ),
    "NUL in a list": (
        fields(source={"uri": "/in", "columns": ["a", "\0"]}),
        "source.columns: ['a', '\\x00'] cannot be used: no text may hold a NUL character",
    ),
    "NUL in a user's name": (fields(model={"id": "~\0"}), "model.id: '~\\x00' cannot be used"),
    "NUL in a URI": (
        fields(source={"uri": "file:///in%00"}),
        "source.uri: 'file:///in%00': holds a NUL character",
    ),
    "a root that is not UTF-8": (
        fields(output={"root": "/out/\ud800"}),
        "output.root: '/out/\\ud800': is not UTF-8",
    ),
    "a type of too many digits": (
        lambda file: write(file, b"type: 0x" + b"f" * 5000),
        "type: what is too large to be shown: for a pipeline write",
    ),
    "too large a number": (fields(shards={"bytes": "9" * 400 + "MB"}), "shards.bytes: '999"),
    "a folder of time zones": (
        fields(timezone="Europe"),
        "timezone: 'Europe' cannot be used: there is no such",
    ),
    "a name that is none": (fields(name="No Name"), "name: 'No Name' cannot be used"),
    "over one that is not there": (fields(source={"pipeline": "none"}), "there is no such pipeline"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_wrong_with_one_the_others_are_loaded(tmp_path: Path, kind: str) -> None:
    make, told = KINDS[kind]
    declare(tmp_path, files("/out/good"), "good")
    file = tmp_path / "broken" / "defs.yaml"
    make(file)
    declare(tmp_path, {"source": {"pipeline": "good"}, "output": {"root": "/out/over"}}, "over_good")
    declare(tmp_path, {"source": {"pipeline": "broken"}, "output": {"root": "/out/under"}}, "over_broken")
    found = load_folder(tmp_path)
    assert list(found.pipelines) == ["good", "over_good"]
    broken = next(one for one in found.broken if one.file == file)
    assert broken.reason.startswith(f"{file}: ") and told in broken.reason and "\n" not in broken.reason
    named = "No Name" if kind == "a name that is none" else "broken"
    assert broken.reason in (found.why_broken(named) or "")
    # What reads its shards cannot be loaded either, and says why.
    above = found.why_broken("over_broken") or ""
    assert above.startswith(f"{tmp_path}/over_broken/defs.yaml: source.pipeline: 'broken'")
    assert str(file) in above or named == "No Name"


def test_what_nobody_thought_of_concerns_its_own_pipeline_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def check(values: dict[str, Any], name: str, where: str) -> PipelineSettings:
        if name == "broken":
            raise RuntimeError("not\nforeseen")
        return parse_pipeline(values, name, where)

    monkeypatch.setattr(attributes, "parse_pipeline", check)
    file = declare(tmp_path, files("/out/broken"), "broken")
    declare(tmp_path, files("/out/good"), "good")
    declare(tmp_path, {"source": {"pipeline": "broken"}, "output": {"root": "/out/over"}}, "over")
    found = load_folder(tmp_path)
    assert list(found.pipelines) == ["good"]
    told = f"{file}: cannot be loaded: RuntimeError: not\\nforeseen"
    assert found.why_broken("broken") == told
    assert told in (found.why_broken("over") or "")


def test_a_model_of_a_long_name_is_no_folder(tmp_path: Path) -> None:
    declare(tmp_path, files("/out/a", model={"id": "x" * 5000}), "first")
    assert list(load_folder(tmp_path).pipelines) == ["first"]


def test_of_several_in_one_file_the_good_ones_are_loaded(tmp_path: Path) -> None:
    def document(name: str, more: str = "") -> str:
        root = f"{{name: {name}, source: {{uri: /in}}, output: {{root: /out/{name}}}{more}}}"
        return f"{TYPE}attributes: {root}\n"

    texts = [document("first"), document("second", ", sourse: 1"), document("third")]
    write(tmp_path / "all" / "defs.yaml", "---\n".join(texts).encode())
    found = load_folder(tmp_path)
    assert list(found.pipelines) == ["first", "third"]
    assert [one.name for one in found.broken] == ["second"]


EMPTY = {
    "a last separator": "{a}---\n",
    "a first one": "---\n{a}",
    "several": "---\n---\n{a}---\n---\n{b}---\n---\n",
    "comments": "# nothing yet\n---\n{a}---\n# {b}",
    "an end": "{a}...\n",
    "null": "null\n---\n{a}---\n~\n",
    "CRLF": "{a}---\r\n",
    "a byte order mark": "\ufeff{a}---\n{b}",
}


@pytest.mark.parametrize("text", EMPTY.values(), ids=EMPTY)
def test_an_empty_document_is_nothing(tmp_path: Path, text: str) -> None:
    both = {
        name: f"{{type: {COMPONENT_TYPE}, attributes: {{name: {name}, source: {{uri: /in}}, "
        f"output: {{root: /out/{name}}}}}}}\n"
        for name in "ab"
    }
    write(tmp_path / "all" / "defs.yaml", text.format(**both).encode())
    found = load_folder(tmp_path)
    assert found.problems == []
    assert list(found.pipelines) == [name for name in "ab" if f"{{{name}}}" in text.replace("# {b}", "")]


@pytest.mark.parametrize("text", ["---\n", "# nothing yet\n", "---\n---\n", "null\n"])
def test_a_file_of_none_but_these_declares_nothing_and_is_told(tmp_path: Path, text: str) -> None:
    write(tmp_path / "all" / "defs.yaml", text.encode())
    [broken] = load_folder(tmp_path).broken
    assert "type: None: for a pipeline write batch_assets." in broken.reason


def test_of_several_with_one_name_none_is_loaded(tmp_path: Path) -> None:
    first = declare(tmp_path, files("/out/a"), "first")
    second = declare(tmp_path, files("/out/b", name="first"), "second")
    declare(tmp_path, {"source": {"pipeline": "first"}, "output": {"root": "/out/over"}}, "over")
    declare(tmp_path, {"source": {"pipeline": "over"}, "output": {"root": "/out/top"}}, "top")
    declare(tmp_path, files("/out/c"), "third")
    found = load_folder(tmp_path)
    assert list(found.pipelines) == ["third"]
    told = (
        f"{first}: name: 'first' is also the name of the pipeline in {second}, so that none of them is loaded"
    )
    assert (found.why_broken("first") or "").startswith(told)
    assert f"source.pipeline: 'first' cannot be loaded: {told}" in (found.why_broken("over") or "")
    assert "source.pipeline: 'over' cannot be loaded" in (found.why_broken("top") or "")


def test_two_with_one_root_are_named_and_loaded(tmp_path: Path) -> None:
    """Whose the root is, the root says: `check_owner` refuses the other one, whichever that is."""
    first = declare(tmp_path, files("/out/a"), "first")
    second = declare(tmp_path, files("/out/c/../a/"), "second")
    declare(tmp_path, files("/out/b"), "third")
    found = load_folder(tmp_path)
    assert list(found.pipelines) == ["first", "second", "third"]
    [told] = found.shared_roots
    assert told.startswith(f"{second}: output.root: '/out/a' is also that of pipeline 'first' in {first}")
    assert found.problems == [told]


def test_a_file_that_cannot_be_read_may_be_anybodys_whose_name_is_in_it(tmp_path: Path) -> None:
    write(tmp_path / "folder" / "defs.yaml", b"name: texts\nattributes: [")
    found: Declared = load_folder(tmp_path)
    assert [bool(found.why_broken(name)) for name in ("folder", "texts", "text")] == [True, True, False]
    assert (found.why_broken("texts") or "").endswith(" (pipeline 'texts' may be declared there)")


UNDECODED = {
    "no UTF-8": b"name: texts # \xff\n",
    "UTF-16": "name: texts\n".encode("utf-16"),
    "huge": b"name: texts\n" + b"#" * MOST_BYTES,
}


@pytest.mark.parametrize("content", UNDECODED.values(), ids=UNDECODED)
def test_also_in_one_that_cannot_be_decoded(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "folder" / "defs.yaml", content)
    found = load_folder(tmp_path)
    assert [bool(found.why_broken(name)) for name in ("folder", "texts", "text")] == [True, True, False]


def test_a_name_left_empty_is_the_folders(tmp_path: Path) -> None:
    declare(tmp_path, files("/out/a", name=""), "first")
    declare(tmp_path, files("/out/b", name=None), "second")
    assert list(load_folder(tmp_path).pipelines) == ["first", "second"]


def at_least(attributes: object) -> Callable[[Path], object]:
    return lambda file: declare(file.parents[1], attributes, "texts")


GUESSED: dict[str, Callable[[Path], object]] = {
    "no YAML": lambda file: write(file, b"name: texts\nattributes: ["),
    "a folder": lambda file: file.mkdir(parents=True),
    "no fields": at_least(5),
    "a name not filled in": at_least(files("/out/b", name="{{ env.NOT_SET }}")),
    "a name that is a number": at_least(files("/out/b", name=5)),
}


@pytest.mark.parametrize("kind", GUESSED)
def test_a_name_that_is_only_guessed_is_taken_from_nobody(tmp_path: Path, kind: str) -> None:
    """The broken one lies in the folder `texts`; the pipeline `texts` in another, and a third reads it."""
    file = tmp_path / "texts" / "defs.yaml"
    GUESSED[kind](file)
    declare(tmp_path, files("/out/a", name="texts"), "elsewhere")
    declare(tmp_path, {"source": {"pipeline": "texts"}, "output": {"root": "/out/over"}}, "over")
    found = load_folder(tmp_path)
    assert list(found.pipelines) == ["texts", "over"]
    assert found.pipelines["over"].source.uri == "shards:/out/a"
    assert [one.file for one in found.broken] == [file]
    assert found.why_broken("texts") is None


def test_of_a_namesake_that_is_broken_neither_is_loaded_nor_what_reads_it(tmp_path: Path) -> None:
    wrong = declare(tmp_path, files("/out/b", name="texts", sourse=1), "z")
    for folder in ("a", "texts"):  # which of the two is found first makes no difference
        good = declare(tmp_path, files("/out/a", name="texts"), folder)
        over = declare(tmp_path, {"source": {"pipeline": "texts"}, "output": {"root": "/out/over"}}, "over")
        declare(tmp_path, files("/out/c"), "other")
        found = load_folder(tmp_path)
        assert list(found.pipelines) == ["other"]
        named = f"{good}: name: 'texts' is also the name of the pipeline in {wrong}, so that none of them is loaded"
        assert named in (found.why_broken("texts") or "")
        assert f"{wrong}: sourse: there is no such field" in (found.why_broken("texts") or "")
        above = found.why_broken("over") or ""
        assert (
            above.startswith(f"{over}: source.pipeline: 'texts' cannot be loaded: ")
            and "z/defs.yaml" in above
        )
        good.unlink()
