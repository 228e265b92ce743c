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
