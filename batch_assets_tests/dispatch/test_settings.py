"""The fields of dispatch.yaml: short forms, and what is refused with words that help."""

from typing import Any

import pydantic
import pytest

from batch_assets.settings.dispatch import DispatchSettings
from batch_assets.settings.gates import GATES
from batch_assets.settings.pipeline import describe_errors

SERVER = "http://127.0.0.1:8000"


def settings(**fields: Any) -> DispatchSettings:
    return DispatchSettings.model_validate({"endpoint": SERVER} | fields)


def refused(**fields: Any) -> str:
    with pytest.raises(pydantic.ValidationError) as told:
        settings(**fields)
    return describe_errors(told.value, DispatchSettings)


def test_an_endpoint_is_enough() -> None:
    made = settings()
    assert [queue.url for queue in made.queues] == ["local:requests"]
    assert [pool.name for pool in made.pools] == ["default"]
    assert made.concurrency == "auto"


@pytest.mark.parametrize(
    "given",
    [
        {"queue": "local:a"},
        {"queue": ["local:a"]},
        {"queue": {"url": "local:a"}},
        {"queues": "local:a"},
        {"queues": ["local:a"]},
        {"queues": {"url": "local:a"}},
        {"queues": [{"url": "local:a"}]},
    ],
)
def test_queues_have_short_forms(given: dict[str, Any]) -> None:
    assert settings(**given) == settings(queues=[{"url": "local:a"}])


def test_short_and_long_forms_may_stand_side_by_side() -> None:
    made = settings(queues=["local:a", {"url": "local:b", "weight": 3}])
    assert [(queue.url, queue.weight) for queue in made.queues] == [("local:a", 1.0), ("local:b", 3.0)]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"queue": "local:a", "queues": ["local:b"]}, "the same"),
        ({"queues": ["local:a", "local:a"]}, "twice"),
        ({"queues": ["local:a", {"url": "local:a", "weight": 2}]}, "twice"),
        ({"queues": []}, "queues"),
        ({"queues": 3}, "queues"),
        ({"queues": [{"weight": 1}]}, "queues.0.url"),
        ({"queues": [{"url": "local:a", "weight": 0}]}, "weight"),
        ({"queues": [{"url": "local:a", "wight": 1}]}, "queues.0.wight: there is no such field"),
        ({"quue": "local:a"}, "quue: there is no such field"),
        ({"queues": [{"url": "local:a", "pool": "b"}]}, "'b' is not among pools (default)"),
        ({"pools": [{"name": "a"}, {"name": "a"}]}, "same name"),
        ({"pools": []}, "pools"),
        ({"pools": [{"name": "A b"}]}, "pools.0.name"),
        ({"endpoint": None}, "name the model server"),
        ({"endpoint": None, "pools": [{"name": "a", "endpoint": SERVER}, {"name": "b"}]}, "name the model"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": "many"}, "concurrency"),
        ({"lease_seconds": 0.1}, "lease_seconds"),
        ({"drain_timeout": -1}, "drain_timeout"),
        ({"results_max": 0}, "results_max"),
        ({"request_merge_policy": "first"}, "request_merge_policy"),
        ({"api_key_env": "MY KEY"}, "api_key_env"),
        ({"listen": "9090"}, "HOST:PORT"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_said(given: dict[str, Any], told: str) -> None:
    assert told in refused(**given)


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ("http://h:8000", "http://h:8000"),
        ("http://h:8000/", "http://h:8000"),
        ("https://h/v1", "https://h"),
        ("https://h/openai/v1/", "https://h/openai"),
    ],
)
def test_an_endpoint_is_a_base_url(given: str, endpoint: str) -> None:
    assert settings(endpoint=given).endpoint == endpoint
    assert settings(pools=[{"endpoint": given}]).pools[0].endpoint == endpoint


@pytest.mark.parametrize(
    "given",
    [
        "", "h:8000", "ftp://h", "http://", "http://u:p@h", "http://u@h", "http://h?key=1", "http://h/#a",
        "http://h /", "http://[::1", "http://h:port", "http://h:99999",
    ],
)  # fmt: skip
def test_another_endpoint_is_refused(given: str) -> None:
    assert "write http://host:port" in refused(endpoint=given)
    assert "write http://host:port" in refused(pools=[{"endpoint": given}])


def test_each_pool_may_name_its_own_server() -> None:
    pools = [{"name": name, "endpoint": SERVER} for name in ("a", "b")]
    made = settings(endpoint=None, pools=pools, queues=[{"url": "local:a", "pool": "b"}])
    assert made.queues[0].pool == "b"


COMPLETE: dict[str, dict[str, Any]] = {
    "controller": {},
    "constant": {"share": 0.5},
    "concurrency": {"limit": 3},
    "saturation": {"metric": "load", "maximum": 10},
    "prometheus-query": {"url": "http://prometheus:9090", "query": "up"},
    "quota": {"limit": 3, "window_seconds": 60},
}


@pytest.mark.parametrize("kind", GATES)
def test_gates_stand_before_everything_a_pool_or_a_queue(kind: str) -> None:
    gate = {"type": kind} | COMPLETE[kind]
    made = settings(gates=[gate], pools=[{"gates": [gate]}], queues=[{"url": "local:a", "gates": [gate]}])
    assert made.gates == made.pools[0].gates == made.queues[0].gates
    assert isinstance(made.gates[0], GATES[kind])
    assert DispatchSettings.model_validate(made.model_dump()) == made


@pytest.mark.parametrize(
    "given", [{"type": "open"}, {}, {"limit": 1}, {"type": None}, {"type": ["quota"]}, "quota", None]
)
@pytest.mark.parametrize("place", ["worker", "pool", "queue"])
def test_an_unknown_gate_is_refused_for_it_would_let_everything_pass(given: Any, place: str) -> None:
    fields: dict[str, Any] = {
        "worker": {"gates": [given]},
        "pool": {"pools": [{"gates": [given]}]},
        "queue": {"queues": [{"url": "local:a", "gates": [given]}]},
    }[place]
    assert (
        "type should be one of controller, constant, concurrency, saturation, prometheus-query, quota"
        in refused(**fields)
    )


@pytest.mark.parametrize(
    ("gate", "field"),
    [
        ({"type": "quota", "limit": 1, "per": 60}, "per: there is no such field"),
        ({"type": "quota"}, "limit"),
        ({"type": "quota", "limit": 0}, "limit"),
        ({"type": "quota", "limit": 1, "field": "userid"}, "field"),
        ({"type": "quota", "limit": 1, "window_seconds": 0}, "window_seconds"),
        ({"type": "concurrency", "limit": 0}, "limit"),
        ({"type": "constant", "share": 1.5}, "share"),
        ({"type": "constant", "share": float("nan")}, "share"),
        ({"type": "controller", "share": 1}, "share: there is no such field"),
        ({"type": "saturation", "threshold": 0}, "threshold"),
        ({"type": "saturation", "maximum": 0}, "maximum"),
        ({"type": "prometheus-query", "url": "http://prometheus:9090"}, "query"),
        ({"type": "prometheus-query", "query": "up"}, "url"),
        ({"type": "prometheus-query", "query": "up", "url": "prometheus:9090"}, "write http://host:port"),
        ({"type": "prometheus-query", "query": "up", "url": "http://[::1"}, "write http://host:port"),
        ({"type": "saturation", "url": "h:8000/metrics"}, "write http://host:port"),
        ({"type": "saturation", "url": "http://h:port/metrics"}, "write http://host:port"),
        ({"type": "quota", "limit": 1, "field": "x metadata.userid.y"}, "field"),
    ],
)
def test_a_gate_is_checked_by_its_kind(gate: dict[str, Any], field: str) -> None:
    assert field in refused(gates=[gate])
