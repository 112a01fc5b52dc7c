"""Health, readiness, OpenAPI, CORS, the page, and what is not there."""

import re

import pytest
from openapi_spec_validator import validate

from tests.support.caller import UNKNOWN_ID, Caller, assert_problem, caller
from tests.support.processes import rejoin_stack
from tests.support.redis_server import RedisServer

ENDPOINTS = {
    ("/api/messages", "post"),
    ("/api/messages/{}", "get"),
    ("/api/messages/{}/events", "get"),
    ("/api/messages/{}/cancel", "post"),
    ("/api/models", "get"),
    ("/healthz", "get"),
    ("/readyz", "get"),
}
LATER = [
    ("GET", "/metrics"),
    ("GET", "/client.js"),
    ("POST", "/v1/chat/completions"),
    ("GET", "/v1/models"),
    ("POST", "/v1/responses"),
    ("POST", "/api/chat"),
    ("GET", "/api/chat/abc/stream"),
]


async def test_the_process_is_up_and_ready(api: Caller) -> None:
    assert (await api.http.get("/healthz")).status_code == 200
    assert (await api.http.get("/readyz")).status_code == 200


async def test_without_redis_it_is_up_and_not_ready_until_redis_is_back(
    own_redis: RedisServer,
) -> None:
    with rejoin_stack(own_redis, workers=0) as stack:
        async with caller(stack.url) as api:
            own_redis.kill()
            assert_problem(await api.http.get("/readyz"), 503)
            assert (await api.http.get("/healthz")).status_code == 200
            own_redis.start()
            assert (await api.http.get("/readyz")).status_code == 200
        stack.assert_no_traceback()


async def test_openapi_is_valid_and_lists_each_endpoint(api: Caller) -> None:
    response = await api.http.get("/openapi.json")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/json")
    description = response.json()
    validate(description)
    listed = {
        (re.sub(r"\{[^}]+\}", "{}", path), method)
        for path, methods in description["paths"].items()
        for method in methods
    }
    assert listed >= ENDPOINTS
    for path, _ in listed:
        assert not path.startswith(("/v1", "/api/chat", "/metrics"))


async def test_the_root_is_a_page(api: Caller) -> None:
    response = await api.http.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert "<title>" in response.text


@pytest.mark.parametrize(("method", "path"), LATER)
async def test_what_later_versions_have_is_404(api: Caller, method: str, path: str) -> None:
    assert_problem(await api.http.request(method, path), 404)


@pytest.mark.parametrize(
    "path",
    [
        "/no-such",
        "/api",
        "/api/",
        "/api/nothing",
        "/static/nothing.js",
        "/static/..%2f..%2fapp.py",
        "/../app.py",
        "/%ff",
        "/%00",
        f"/api/messages/{UNKNOWN_ID}/nothing",
        f"/api/messages/{UNKNOWN_ID}/events/1-0",
        "/" + "a" * 5000,
    ],
)
async def test_an_unknown_path_is_404(api: Caller, path: str) -> None:
    assert_problem(await api.http.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/messages", "POST"),
        ("PUT", "/api/messages", "POST"),
        ("DELETE", f"/api/messages/{UNKNOWN_ID}", "GET"),
        ("POST", f"/api/messages/{UNKNOWN_ID}/events", "GET"),
        ("GET", f"/api/messages/{UNKNOWN_ID}/cancel", "POST"),
        ("POST", "/api/models", "GET"),
        ("POST", "/healthz", "GET"),
        ("DELETE", "/readyz", "GET"),
        ("POST", "/openapi.json", "GET"),
        ("POST", "/", "GET"),
        ("PROPFIND", "/api/messages", "POST"),
    ],
)
async def test_a_wrong_method_is_405_and_says_the_right_one(
    api: Caller, method: str, path: str, allowed: str
) -> None:
    response = await api.http.request(method, path)
    assert_problem(response, 405)
    assert allowed in [name.strip() for name in response.headers["allow"].split(",")]


ORIGIN = {"Origin": "http://a.example"}


async def test_an_allowed_origin_may_send_and_read_what_it_needs(other_api: Caller) -> None:
    asked = ORIGIN | {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type, idempotency-key, last-event-id",
    }
    preflight = await other_api.http.options("/api/messages", headers=asked)
    assert preflight.status_code in (200, 204)
    assert preflight.headers["access-control-allow-origin"] == ORIGIN["Origin"]
    granted = preflight.headers["access-control-allow-headers"].lower()
    assert all(name in granted for name in ("content-type", "idempotency-key", "last-event-id"))
    response = await other_api.post("a", headers=ORIGIN)
    assert response.status_code == 202
    assert response.headers["access-control-allow-origin"] == ORIGIN["Origin"]
    exposed = response.headers["access-control-expose-headers"].lower()
    assert "location" in exposed
    assert "retry-after" in exposed


async def test_errors_and_streams_are_readable_across_origins_too(other_api: Caller) -> None:
    problem = await other_api.http.get(f"/api/messages/{UNKNOWN_ID}", headers=ORIGIN)
    assert_problem(problem, 404)
    message_id = await other_api.accepted()
    stream = await other_api.http.get(f"/api/messages/{message_id}/events", headers=ORIGIN)
    for response in (problem, stream):
        assert response.headers["access-control-allow-origin"] == ORIGIN["Origin"]


async def test_other_origins_and_unset_origins_get_nothing(other_api: Caller, api: Caller) -> None:
    elsewhere = {"Origin": "http://evil.example"}
    for speaker in (other_api, api):
        response = await speaker.http.get("/api/models", headers=elsewhere)
        assert "access-control-allow-origin" not in response.headers
