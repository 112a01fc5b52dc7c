"""What the image, the compose file and the proxy promise to whoever deploys them."""

import json
import re
from typing import Any

import jsonschema
import pytest
import yaml

from rejoin.shared.providers import REGISTRY
from rejoin.shared.settings import PREFIX, Settings
from tests.house.tree import ROOT, SIDES, pyproject

COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
NGINX = re.sub(r"#.*", "", (ROOT / "deploy" / "nginx.conf").read_text(encoding="utf-8"))
UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "s": 1, "h": 3600}


def with_postgres() -> str:
    """The compose file with what is commented out: PostgreSQL instead of SQLite."""
    return re.sub(r"(?m)^( *)# (postgres:|  .*|REJOIN_DATABASE_URL.*)$", r"\1\2", COMPOSE)


def services(text: str = COMPOSE) -> dict[str, Any]:
    """The services of a compose file, its anchors resolved."""
    found = yaml.safe_load(text)["services"]
    assert isinstance(found, dict)
    return found


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined."""
    lines = re.sub(r"\\\n\s*", "", DOCKERFILE).splitlines()
    return [
        (line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines if re.match("[A-Z]", line)
    ]


def nginx(directive: str) -> str:
    """The one value of a directive of nginx.conf."""
    (value,) = re.findall(rf"(?m)^\s*{directive}\s+([^;{{}}]+);", NGINX)
    assert isinstance(value, str)
    return value


def amount(value: str) -> int:
    """nginx's `16m` in bytes, its `90s` in seconds."""
    number, unit = re.fullmatch(r"(\d+)(\w?)", value).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


@pytest.mark.parametrize("text", [COMPOSE, with_postgres()], ids=["as it is", "with postgres"])
def test_the_compose_file_is_valid(text: str) -> None:
    schema = json.loads((ROOT / "tests" / "house" / "compose_schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(text))


def test_both_sides_have_one_history() -> None:
    mounted = [services()[side]["volumes"] for side in ("api", "worker")]
    data_dir = re.search(r"REJOIN_DATA_DIR=(\S+)", DOCKERFILE)
    assert data_dir is not None
    assert mounted == [[f"history:{data_dir[1]}"]] * 2


def test_postgres_is_there_for_whoever_wants_it() -> None:
    assert "postgres" not in services()
    assert set(services(with_postgres())) == {*services(), "postgres"}


@pytest.mark.parametrize("text", [COMPOSE, with_postgres()], ids=["as it is", "with postgres"])
def test_what_a_service_names_is_there(text: str) -> None:
    found, volumes = services(text), yaml.safe_load(text)["volumes"]
    for service in found.values():
        assert set(service.get("depends_on", {})) <= set(found)
        assert service.get("network_mode", "service:redis").removeprefix("service:") in found
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in volumes
        for name, needed in service.get("depends_on", {}).items():
            assert needed["condition"] != "service_healthy" or "healthcheck" in found[name]


def test_redis_keeps_what_it_is_given() -> None:
    command = services()["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options == {
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--maxmemory-policy": "noeviction",
    }
    assert services()["redis"]["volumes"] == ["redis:/data"]


def test_there_are_one_api_and_two_workers_of_one_image() -> None:
    api, worker = services()["api"], services()["worker"]
    assert (api["command"], worker["command"]) == (["api"], ["worker"])
    assert (api.get("deploy"), worker["deploy"]["replicas"]) == (None, 2)
    assert (api["image"], api["build"]) == (worker["image"], worker["build"])
    for side in (api, worker):
        assert side["depends_on"]["redis"] == {"condition": "service_healthy"}


def test_nothing_is_published_beyond_this_machine() -> None:
    published = {
        name: service["ports"] for name, service in services().items() if "ports" in service
    }
    assert published == {"edge": [f"127.0.0.1:8000:{nginx('listen')}"]}


def test_the_api_listens_on_loopback_where_the_proxy_looks_for_it() -> None:
    api = services()["api"]
    host, port = api["environment"]["REJOIN_HOST"], api["environment"]["REJOIN_PORT"]
    assert api["network_mode"] == "service:edge"
    assert Settings(host=host, port=port).host == "127.0.0.1"
    assert nginx("server") == f"{host}:{port}"


def test_a_setting_in_the_compose_file_is_one() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for text in (COMPOSE, with_postgres()):
        named = {n for s in services(text).values() for n in s.get("environment", {})}
        assert {name for name in named if name.startswith(PREFIX)} <= known


def test_the_providers_keys_reach_both_sides() -> None:
    read = {variable for provider in REGISTRY for variable in provider.variables}
    for side in ("api", "worker"):
        environment = services()[side]["environment"]
        assert {name: environment.get(name) for name in read} == {n: f"${{{n}:-}}" for n in read}


def test_every_service_comes_back_and_the_two_sides_may_end_in_peace() -> None:
    assert {service["restart"] for service in services().values()} == {"unless-stopped"}
    # The API owes an end of its streams within 5 s.
    assert amount(services()["api"]["stop_grace_period"]) > 5
    assert amount(services()["worker"]["stop_grace_period"]) > 5


def test_the_image_runs_rejoin_itself_as_an_ordinary_user() -> None:
    found = instructions()
    last = max(index for index, (word, _) in enumerate(found) if word == "FROM")
    final = dict(found[last:])
    assert final["FROM"] == "python:3.12-slim"
    assert final["USER"] == "rejoin"
    assert json.loads(final["ENTRYPOINT"]) == list(pyproject()["project"]["scripts"])
    assert json.loads(final["CMD"]) == ["api"]
    assert final["STOPSIGNAL"] == "SIGTERM"
    assert "HEALTHCHECK" not in final


def test_the_image_holds_all_four_packages_and_exact_versions() -> None:
    copied = [value.split()[0] for word, value in instructions() if word == "COPY"]
    assert [side for side in SIDES if side not in copied] == []
    let_in = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    needed = {name for _, value in instructions() if _ == "COPY" for name in value.split()[:-1]}
    assert {f"!{name}" for name in needed if not name.startswith(("-", "/"))} <= set(let_in)
    for word, value in instructions():
        for command in value.split("&&") if word == "RUN" else ():
            if "pip" in command and " install " in command:
                assert "-c constraints.txt" in command or "--no-index" in command, command


def test_the_proxy_passes_events_on_as_they_come() -> None:
    assert nginx("proxy_buffering") == "off"
    assert nginx("gzip") == "off"
    assert nginx("proxy_http_version") == "1.1"
    assert re.search(r'proxy_set_header\s+Connection\s+"";', NGINX)


def test_the_proxy_waits_longer_than_the_api_is_ever_silent() -> None:
    assert amount(nginx("proxy_read_timeout")) > 60


def test_the_api_says_itself_that_a_body_is_too_long() -> None:
    assert amount(nginx("client_max_body_size")) > Settings.model_fields["max_body_bytes"].default
