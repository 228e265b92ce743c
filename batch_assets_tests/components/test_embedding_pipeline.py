"""What a `defs.yaml` may say: every field described, every wrong one refused in words, before anything runs."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from batch_assets.components import EmbeddingPipeline
from batch_assets.components.attributes import COMPONENT_TYPE, load_file
from batch_assets.errors import ConfigurationError

SOURCE = {
    "uri": "in/",
    "format": "jsonl",
    "id_column": "id",
    "text_column": "text",
    "columns": None,
    "limit": None,
}
COMPLETE = {
    "source": SOURCE,
    "model": {
        "id": "sentence-transformers/all-MiniLM-L6-v2", "revision": None, "prompt": None, "dimensions": None,
        "dtype": "auto", "max_tokens": None, "normalize": True, "trust_remote_code": False,
    },
    "executor": {"type": "gpu", "device": "auto", "batch_tokens": "auto"},
    "shards": {"records": 50000, "bytes": "200MB", "max_record_bytes": "16MB"},
    "output": {"root": "s3://bucket/embeddings/", "dtype": "float32", "merge": "parquet"},
    "max_failed_fraction": 0.05,
    "automation": False,
}  # fmt: skip


def declare(folder: Path, attributes: object, name: str = "texts") -> Path:
    """A `defs.yaml` in a folder of its own."""
    file = folder / name / "defs.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump({"type": COMPONENT_TYPE, "attributes": attributes}))
    return file


def schema() -> dict[str, Any]:
    model = EmbeddingPipeline.get_model_cls()
    assert model is not None
    return model.model_json_schema()


def test_every_field_has_a_description() -> None:
    found = schema()
    objects = {"EmbeddingPipeline": found, **found["$defs"]}
    fields = [
        (name, field, value) for name, one in objects.items() for field, value in one["properties"].items()
    ]
    assert len(fields) > 30

    def described(value: dict[str, Any]) -> bool:
        # A field whose description is that of what it refers to does not repeat it.
        referred = found["$defs"].get(value.get("$ref", "").removeprefix("#/$defs/"), {})
        return bool(value.get("description", "").strip() or referred.get("description", "").strip())

    assert [f"{name}.{field}" for name, field, value in fields if not described(value)] == []


@pytest.mark.parametrize(
    "attributes",
    [
        COMPLETE,
        {"source": {"uri": "in/"}, "output": {"root": "out/"}},
        {"source": {"uri": "{{ env.IN }}"}, "output": {"root": "out/"}, "automation": "{{ env.AUTOMATION }}",
         "shards": {"records": "{{ env.RECORDS }}"}, "model": {"dtype": "{{ env.DTYPE }}"}},
    ],
)  # fmt: skip
def test_the_json_schema_takes_what_the_component_takes(attributes: dict[str, Any]) -> None:
    jsonschema.validate(attributes, schema())


@pytest.mark.parametrize(
    ("change", "field", "told"),
    [
        ({"sourse": {}}, "sourse", "there is no such field; known: automation, calls_per_second, deps, executor"),
        ({"source": {"uri": "in/", "id_colum": "id"}}, "source.id_colum", "known: allow_private_addresses, "),
        ({"source": {"pipeline": "other"}}, "source.pipeline: 'other'", "there is no such pipeline in"),
        ({"source": {"pipeline": "texts"}}, "source.pipeline: 'texts'", "is this pipeline itself"),
        ({"source": {"pipeline": "other", "uri": "in/"}}, "source", "name exactly one of uri, pipeline and requests"),
        ({"source": {"pipeline": "other", "uri": "shards:/o"}}, "source", "name exactly one of uri, pipeline and"),
        ({"source": {"requests": {}, "uri": "in/"}}, "source", "name exactly one of uri, pipeline and requests"),
        ({"source": {"requests": {}, "format": "csv"}}, "source", "format: 'csv': is for files"),
        ({"source": {"requests": {}, "id_column": "id"}}, "source", "a request is named by its job id"),
        ({"source": {"requests": {"keep": "30"}}}, "source.requests.keep", "write an age"),
        ({"source": {"uri": "shards:/out"}}, "source", "name that one in source.pipeline"),
        ({"source": {"pipeline": "other", "format": "csv"}}, "source", "are parquet, not csv"),
        ({"source": {}}, "source", "name exactly one of uri, pipeline and requests"),
        ({"source": {"uri": "in/", "format": "xml"}}, "source.format", "'xml' cannot be used: should be 'jsonl'"),
        ({"source": {"uri": "in/", "limit": 0}}, "source.limit", "0 cannot be used: should be greater than or equal"),
        ({"source": {"uri": "in/", "text_column": "a", "text_template": "{b}"}}, "source", "not both"),
        ({"source": {"uri": "in/", "format": "imagefolder", "image_column": "jpg"}}, "source", "leave it out"),
        ({"executor": {"type": "ray", "workers": 0}}, "executor.workers", "0 cannot be used"),
        ({"model": {"dtype": "float12"}}, "model.dtype", "'float12' cannot be used: should be 'auto', 'float32'"),
        ({"model": {"normalize": "perhaps"}}, "model.normalize", "'perhaps' cannot be used: should be a valid boolean"),
        ({"executor": {"type": "abacus"}}, "executor", "type should be one of gpu, ray, gateway, bedrock"),
        ({"executor": {"type": "gpu", "device": "gpu0"}}, "executor.device", "'gpu0' cannot be used: use auto, cpu"),
        ({"shards": {"records": "many"}}, "shards.records", "'many' cannot be used: should be a valid integer"),
        ({"shards": {"bytes": "200 potatoes"}}, "shards.bytes", "write a size such as 200MB or 16MiB"),
        ({"output": {"dtype": "float32"}}, "output.root", "this field is required"),
        ({"output": "out/"}, "output", "'out/' cannot be used"),
        ({"max_failed_fraction": 5}, "max_failed_fraction", "5 cannot be used: should be less than or equal to 1"),
        ({"name": "My Texts"}, "name", "'My Texts' cannot be used: use 1 to 24 of a-z"),
        ({"output": {"root": "ftp://host/out"}}, "output.root: 'ftp://host/out'", "cannot read ftp://"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_refused_with_its_value_and_what_would_be_right(
    tmp_path: Path, change: dict[str, Any], field: str, told: str
) -> None:
    file = declare(tmp_path, {"source": {"uri": "in/"}, "output": {"root": "out/"}, **change})
    with pytest.raises(ConfigurationError) as refused:
        load_file(file)
    sentence = str(refused.value)
    assert sentence.startswith(f"{file}: ")
    assert field in sentence
    assert told in sentence
    assert "\n" not in sentence


def test_all_wrong_fields_are_named_at_once(tmp_path: Path) -> None:
    file = declare(tmp_path, {"source": {"uri": "in/"}, "model": {"dtype": 1}, "shards": {"records": 0}})
    with pytest.raises(
        ConfigurationError, match=r"model\.dtype: 1 .*shards\.records: 0 .*output: this field"
    ):
        load_file(file)


@pytest.mark.parametrize("text", ["a: [", "type: X\n", f"type: {COMPONENT_TYPE}\nattributes: 5\n"])
def test_what_is_no_pipeline(tmp_path: Path, text: str) -> None:
    file = declare(tmp_path, {})
    file.write_text(text)
    if text == "type: X\n":
        assert load_file(file) == []
    else:
        with pytest.raises(ConfigurationError, match=str(file)):
            load_file(file)


def test_templates_are_filled_in_and_all_else_is_left_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"BUCKET": "b-1", "RECORDS": "70", "ON": "true", "REVISION": "12345678"}.items():
        monkeypatch.setenv(name, value)
    file = declare(
        tmp_path,
        {
            "source": {
                "uri": "s3://{{ env.BUCKET }}/in",
                "text_template": "{title}\n{body}\n",
                "id_column": "1",
            },
            "model": {"revision": "{{ env.REVISION }}", "prompt": "{{ env.PROMPT or 'query: ' }}"},
            "shards": {"records": "{{ env.RECORDS }}", "bytes": "{{ env('BYTES', '1MB') }}"},
            "output": {"root": "out/"},
            "automation": "{{ env.ON }}",
        },
    )
    [settings] = load_file(file)
    assert settings.source.uri == "s3://b-1/in"
    assert settings.source.text_template == "{title}\n{body}\n"
    assert settings.source.id_column == "1"
    assert (settings.model.revision, settings.model.prompt) == ("12345678", "query: ")
    assert (settings.shards.records, settings.shards.bytes) == (70, 10**6)
    assert settings.automation is True


@pytest.mark.parametrize(
    "value", ["{{ env.NOT_THERE }}", "s3://{{ env.NOT_THERE }}/out", "{{ env('NOT_THERE') }}"]
)
def test_a_variable_that_is_not_set_is_refused(tmp_path: Path, value: str) -> None:
    file = declare(tmp_path, {"source": {"uri": "in/"}, "output": {"root": value}})
    with pytest.raises(ConfigurationError) as refused:
        load_file(file)
    assert str(refused.value).startswith(f"{file}: output.root: {value!r} cannot be filled in: ")
    assert "environment variable NOT_THERE is not set" in str(refused.value).replace("Env", "env")


def test_relative_paths_count_from_the_projects_root(tmp_path: Path) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    attributes = {
        "source": {"uri": "in/a.jsonl"},
        "model": {"id": "models/mine"},
        "output": {"root": "../out"},
    }
    [alone] = load_file(declare(tmp_path / "x", attributes))
    assert alone.source.uri == f"{tmp_path}/x/texts/in/a.jsonl"
    (tmp_path / "workspace.yaml").write_text("")
    [settings] = load_file(declare(tmp_path / "package" / "defs", attributes))
    assert settings.source.uri == f"{tmp_path}/in/a.jsonl"
    assert settings.output.root == str(tmp_path.parent / "out")
    assert settings.model.id == f"{tmp_path}/models/mine"
    absolute = {"source": {"uri": "/in"}, "model": {"id": "org/model"}, "output": {"root": "gs://b/out"}}
    [settings] = load_file(declare(tmp_path / "package" / "defs", absolute))
    assert (settings.source.uri, settings.model.id, settings.output.root) == (
        "/in",
        "org/model",
        "gs://b/out",
    )


def test_the_name_is_the_folders_unless_one_is_given(tmp_path: Path) -> None:
    attributes = {"source": {"uri": "in/"}, "output": {"root": "out/"}}
    [settings] = load_file(declare(tmp_path, attributes, "wikipedia_en"))
    assert settings.name == "wikipedia_en"
    [settings] = load_file(declare(tmp_path, {**attributes, "name": "other"}, "wikipedia_en"))
    assert settings.name == "other"
    [settings] = load_file(declare(tmp_path, attributes, "Wikipedia-EN 2"))
    assert settings.name == "wikipedia_en_2"
    with pytest.raises(ConfigurationError, match="name: '2nd_try' cannot be used"):
        load_file(declare(tmp_path, attributes, "2nd try"))
    with pytest.raises(ConfigurationError, match="name: 'Wikipedia-EN' cannot be used"):
        load_file(declare(tmp_path, {**attributes, "name": "Wikipedia-EN"}, "wikipedia_en"))
    own = declare(tmp_path, attributes, "Wikipedia EN").rename(tmp_path / "My-Texts.yaml")
    assert load_file(own)[0].name == "my_texts"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Another Dagster project, which uses the component."""
    package = tmp_path / "project" / "other_project"
    (package / "defs").mkdir(parents=True)
    for folder in (package, package / "defs"):
        (folder / "__init__.py").touch()
    (package.parent / "pyproject.toml").write_text(
        '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "other_project"\n'
        'registry_modules = ["batch_assets.components"]\n'
    )
    return package.parent


def test_dg_check_yaml_shows_the_line_and_what_is_wrong(project: Path) -> None:
    declare(
        project / "other_project" / "defs",
        {
            "source": {"uri": "in/", "id_colum": "id"},
            "model": {"dtype": "float12"},
            "shards": {"records": "many", "bytes": "200MB"},
            "output": {"root": "out/"},
            "automation": "{{ env.AUTOMATION }}",
        },
    )
    checked = subprocess.run(
        [Path(sys.executable).with_name("dg"), "check", "yaml", "--no-validate-requirements"],
        cwd=project,
        env={"PATH": "/usr/bin:/bin", "HOME": str(project), "PYTHONPATH": f"{project}:{Path.cwd()}"},
        capture_output=True,
        text=True,
        check=False,
    )
    told = checked.stdout + checked.stderr
    assert checked.returncode == 1, told
    assert "Additional properties are not allowed ('id_colum' was unexpected)" in told
    assert "'float12' is not one of ['auto', 'float32', 'bfloat16', 'float16']" in told
    assert "'many' is not of type 'integer'" in told
    assert "200MB" not in [line.partition("^")[2] for line in told.splitlines()]
    assert "Traceback" not in told
