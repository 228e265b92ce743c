"""A template fills in values and runs nothing."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import ResolutionContext

from batch_assets.components.templates import render
from batch_assets.errors import ConfigurationError
from batch_assets_tests.command import make_machine, some_records, write_records


def filled(value: Any) -> Any:
    return render(value, ResolutionContext.default(), "defs.yaml: output")


REFUSED = [
    "{{ cycler.__init__.__globals__.os.popen('touch MARKER').read() }}",
    "{{ namespace.__init__.__globals__.os.popen('touch MARKER').read() }}",
    "{{ joiner.__init__.__globals__.os.popen('touch MARKER').read() }}",
    "{{ lipsum.__globals__.os.popen('touch MARKER').read() }}",
    "{{ self.__init__.__globals__.__builtins__.__import__('os').popen('touch MARKER').read() }}",
    "{{ env.__init__.__globals__.os.popen('touch MARKER').read() }}",
    "{{ env.__class__.__base__.__call__.__globals__.os.popen('touch MARKER').read() }}",
    "{{ (env | attr('__init__')).__globals__.os.popen('touch MARKER').read() }}",
    "{{ dg._wrapped_object.os.popen('touch MARKER').read() }}",
    "{{ datetime._wrapped_object.sys.modules.os.popen('touch MARKER').read() }}",
    "{{ dg.AutomationCondition.eager.__func__.__globals__ }}",
    "{{ dg.AutomationCondition.mro() }}",
    "{{ '{0.__class__}'.format(env) }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ [env] | map(attribute='__init__.__globals__') | first }}",
    "{% import 'os' as os %}{{ os }}",
    "{{ range(3) }}",
]


@pytest.mark.parametrize("value", REFUSED)
def test_python_behind_a_template_is_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError) as refused:
        filled({"root": value})
    told = str(refused.value)
    assert told.startswith(f"defs.yaml: output.root: {value!r} cannot be filled in: ")
    assert "env.NAME" in told and "datetime" in told, "what there is instead is named"
    assert not list(tmp_path.iterdir()), "the command has run"


GROWING = [
    "{{ 'a' * 10**9 }}",
    "{{ 'a' * 1000000000 }}",
    "{{ [1] * 1000000000 }}",
    "{{ 1000000000 * 'a' }}",
    "{{ 2 ** (10 ** 9) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{{ '{x:>1000000000}'.format_map({'x': 1}) }}",
    "{{ 'a'['format'](1) }}",
    "{{ 'a' | center(1000000000) }}",
    "{{ 'a' | indent(1000000000) }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ [1] | slice(100000000) | list }}",
    "{{ 'a'.ljust(1000000000) }}",
    "{{ 'a'['ljust'](1000000000) }}",
    "{{ 'a'.zfill(1000000000) }}",
    "{{ 'a\t'.expandtabs(1000000000) }}",
    "{{ 'a'.translate({97: 'aa'}) }}",
    "{{ (1).to_bytes(1000000000) }}",
    "{{ 'a'" + ".replace('a', 'aaaaaaaaaa')" * 9 + " }}",
    "{{ 'a'" + " | replace('a', 'aaaaaaaaaa')" * 9 + " }}",
    "{{ 'aaaaaaaaaa'" + " | join('aaaaaaaaaa')" * 9 + " }}",
    "{{ 'a'" + ".join('aaaaaaaaaa')" * 2 + ".join('" + "a" * 4096 + "') }}",
    "{{ " + "[" * 40 + "'\\\\'" + "] | string" * 40 + " }}",
    "{{ " + "([" * 40 + "'\\\\'" + "] ~ '')" * 40 + " }}",
    "{% for a in [1, 2] %}{% for b in [1, 2] %}{{ b }}{% endfor %}{% endfor %}",
    "{% set a = 'a' %}{{ a ~ a }}",
    "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "{% filter upper %}{{ 'a' }}{% endfilter %}",
    "{{ dg.HourlyPartitionsDefinition('0001-01-01-00:00').get_partition_keys() }}",
    "{{ '" + "a" * 20_000 + "' }}",
    "{{ " + "9" * 5000 + " }}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ " + "1+" * 5000 + "1 }}",
    "{{ " + "not " * 4000 + "1 }}",
]


@pytest.mark.parametrize(
    "value", ["{{ env.NOT_THERE * 2 }}", "{{ [env.NOT_THERE] | join }}", "{{ 'a' ~ env.NOT_THERE }}"]
)
def test_what_is_missing_is_told_first(value: str) -> None:
    with pytest.raises(ConfigurationError, match="NOT_THERE is not set"):
        filled(value)


@pytest.mark.parametrize("value", GROWING, ids=range(len(GROWING)))
def test_nothing_grows_or_runs_for_long(value: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        filled(value)
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize(
    "value",
    [
        "{{ env }}",
        "x{{ env }}",
        "{{ [env] }}",
        "{{ {'a': dg} }}",
        "{{ env ~ '' }}",
        "{{ [env] | join }}",
        "{{ env | string }}",
        "{{ datetime.datetime.now }}",
        "{{ 'a'.upper }}",
        "{{ env(env) }}",
        "{{ env + 1 }}",
        "{{ [env.NOT_THERE] }}",
    ],
)
def test_only_plain_values_come_out_and_no_address_is_told(value: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        filled(value)
    assert "0x" not in str(refused.value)


def test_what_templates_are_for_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGE", "Prod-1")
    monkeypatch.setenv("LONG", "long " * 10_000)
    assert filled("s3://{{ env.STAGE | lower | replace('-', '_') }}/x") == "s3://prod_1/x"
    assert filled("{{ 's3://' ~ env.STAGE ~ '/' ~ 1 }}") == "s3://Prod-1/1"
    assert filled("{{ env.STAGE.replace('-', '/') }}") == "Prod/1"
    assert filled("{{ '-'.join(env.STAGE.split('-')) }}") == "Prod-1"
    assert filled("{{ ['a', 1] | join('/') }}") == "a/1"
    assert filled("{{ env.STAGE.split('-') | last | int * 2 }}") == "2"
    assert filled("{{ 'big' if env.STAGE.startswith('Prod') else 'small' }}") == "big"
    assert filled("{{ env.STAGE[:4] | upper }}") == "PROD"
    assert filled("{{ env.NOT_THERE or env('NEITHER', 'c') }}") == "c"
    assert filled("{{ env.LONG }}") == filled("{{ env.LONG | default('') }}") == "long " * 10_000
    assert filled("{{ 'x' if env.NOT_THERE is none or 7 % 4 == 3 }}") == "x"


def test_values_keep_their_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAMES", "a,b")
    assert filled("{{ ['a', 'b'] }}") == ["a", "b"]
    assert filled("{{ {'requests': '7d'} }}") == {"requests": "7d"}
    assert filled("{{ env.NAMES.split(',') }}") == ["a", "b"]
    assert filled("{{ 2 * 35 }}") == "70", "the field's own type decides what it is"
    assert filled("{{ datetime.datetime(2026, 11, 30).strftime('%Y/%m') }}") == "2026/11"
    assert filled("{% if env.NAMES %}{{ env.NAMES | upper }}{% endif %}") == "A,B"
    assert filled("{{ env.NOT_THERE | default('c') }}") == "c"
    assert filled(["{title}", {"deep": "{{ env.NAMES }}"}]) == ["{title}", {"deep": "a,b"}]


def test_a_command_that_plans_a_file_runs_nothing_of_it(tmp_path: Path) -> None:
    write_records(tmp_path / "in.jsonl", some_records(3))
    marker = tmp_path / "ran"
    attributes = {
        "source": {"uri": str(tmp_path / "in.jsonl")},
        "output": {
            "root": f"{tmp_path}/{{{{ cycler.__init__.__globals__.os.popen('touch {marker}').read() }}}}"
        },
    }
    file = tmp_path / "evil.yaml"
    file.write_text(
        yaml.safe_dump({"type": "batch_assets.components.EmbeddingPipeline", "attributes": attributes})
    )
    result = make_machine(tmp_path / "home").run("plan", "-f", file, "--dry-run")
    assert result.returncode == 2, result.stderr
    assert f"{file}: output.root: " in result.stderr and "'cycler' is undefined" in result.stderr
    assert not marker.exists()
