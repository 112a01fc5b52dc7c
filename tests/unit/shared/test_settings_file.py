"""The settings file: what it takes, what it refuses and how it names it, and its variables."""

import re
from pathlib import Path

import pytest

from rejoin.shared.errors import SettingsError
from rejoin.shared.settings_file import McpServer, SettingsFile, filled_in, load

HOW_TO = Path(__file__).parents[3] / "docs" / "how-to" / "tools.md"
WHOLE = """
[mcp.files]
command = ["python", "server.py"]
env = { TOKEN = "${SECRET}", PLAIN = "a $ and a {" }
cwd = "there"
timeout_seconds = 5
needs_approval = ["write"]
on_unknown_outcome = "ask"

[mcp.web-search_2]
url = "http://127.0.0.1:9000/mcp"
headers = { Authorization = "Bearer ${SECRET}" }
"""


def written(path: Path, text: str) -> Path:
    file = path / "rejoin.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_servers_of_both_kinds_are_read(tmp_path: Path) -> None:
    servers = load(written(tmp_path, WHOLE)).mcp
    files, web = servers["files"], servers["web-search_2"]
    assert (files.command, files.cwd) == (["python", "server.py"], "there")
    assert (files.timeout_seconds, files.needs_approval) == (5, ["write"])
    assert files.on_unknown_outcome == "ask"
    assert web.url == "http://127.0.0.1:9000/mcp"
    assert (web.timeout_seconds, web.needs_approval, web.on_unknown_outcome) == (60, False, "fail")


def test_without_a_file_nothing_is_set() -> None:
    assert load(None) == SettingsFile()


def test_variables_are_filled_in_and_their_values_shown_nowhere(tmp_path: Path) -> None:
    file = filled_in(load(written(tmp_path, WHOLE)), {"SECRET": "s3cret"})
    assert file.mcp["files"].env == {"TOKEN": "s3cret", "PLAIN": "a $ and a {"}
    assert file.mcp["web-search_2"].headers == {"Authorization": "Bearer s3cret"}
    assert "s3cret" not in repr(file)


def test_a_variable_that_is_not_set_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"\[mcp.files\] env TOKEN: the variable SECRET is not"):
        filled_in(load(written(tmp_path, WHOLE)), {})
    broken = SettingsFile(mcp={"a": McpServer(url="http://a/", headers={"K": "${a-b}"})})
    with pytest.raises(SettingsError, match=r"\[mcp.a\] headers K: write a variable as"):
        filled_in(broken, {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[mpc.a]\nurl = 'http://a'", "mpc is no table of it: did you mean mcp?"),
        ("quotas = 1", "quotas is no table of it: did you mean quota?"),
        ("providers = 1", "providers is no table of it: it has mcp, fallbacks, quota"),
        ("[fallbacks]\n'openai/a' = 'demo/echo'", "[fallbacks] openai/a: each line is "),
        ("[fallbacks]\n'openai/a' = [3]", "[fallbacks] openai/a: each line is "),
        ("[fallbacks]\nopenai.a = ['demo/echo']", '[fallbacks] openai: each line is "provider/'),
        ("fallbacks = ['demo/echo']", '[fallbacks]: each line is "provider/name" = ['),
        ("[fallbacks]\nopenai/a = []", 'a key with a "/" or ":" in it has quotation marks'),
        ("[fallbacks]\n'openai/a' = ['gpt']", "'gpt' is no model: write provider/name"),
        ("[fallbacks]\n'opnai/a' = []", "there is no provider opnai: did you mean openai?"),
        ("[fallbacks]\n'openai/a' = ['x/y']", "there is no provider x: there are anthropic,"),
        ("[fallbacks]\n'agent/a' = []", "[fallbacks] 'agent/a': 'agent/a' is an agent: "),
        ("[fallbacks]\n'openai/a' = ['openai/a']", "'openai/a': it is its own fallback"),
        ("quota = 3", "[quota]: it has tables, [quota.PROVIDER]"),
        ("[quota.opnai]", "[quota.opnai]: there is no provider opnai: did you mean openai?"),
        ("[quota.openai]\nrequest_per_minute = 3", "did you mean requests_per_minute?"),
        ("[quota.openai]\nx = 3", "x is no key of it: it has requests_per_minute, tokens_"),
        ("[quota.openai]\ntokens_per_minute = 0", "tokens_per_minute: it is a whole number"),
        ("[quota.openai]\ntokens_per_minute = true", "tokens_per_minute: it is a whole number"),
        ("[quota.openai]\nrequests_at_once = '3'", "requests_at_once: it is a whole number from 1"),
        ("mcp = 1", "[mcp]: it has tables"),
        ("[mcp]\nfiles = 1", "[mcp.files]: "),
        ("[mcp.a]\ncomand = ['x']", "[mcp.a] comand is no key of it: did you mean command?"),
        ("[mcp.a]", "[mcp.a]: it has either `command`"),
        ("[mcp.a]\ncommand = ['x']\nurl = 'http://a'", "[mcp.a]: it has either `command`"),
        ("[mcp.a]\ncommand = 'python server.py'", "[mcp.a] command: "),
        ("[mcp.a]\ncommand = []", "[mcp.a] command: "),
        ("[mcp.a]\nurl = 'ftp://a'", "[mcp.a] url: "),
        ("[mcp.a]\nurl = 'http://a'\nenv = {A = 'b'}", "[mcp.a]: `env` and `cwd` are for"),
        ("[mcp.a]\ncommand = ['x']\nheaders = {A = 'b'}", "[mcp.a]: `headers` are for a `url`"),
        ("[mcp.a]\nurl = 'http://a'\ntimeout_seconds = 0", "[mcp.a] timeout_seconds: "),
        ("[mcp.a]\nurl = 'http://a'\nneeds_approval = 'x'", "[mcp.a] needs_approval: it is true"),
        ("[mcp.a]\nurl = 'http://a'\non_unknown_outcome = 'x'", "[mcp.a] on_unknown_outcome: "),
        ("[mcp.a__b]\nurl = 'http://a'", "[mcp.a__b]: a name is 1 to 32 of"),
        ("[mcp.a_]\nurl = 'http://a'", "[mcp.a_]: a name is"),
        ('[mcp."ä"]\nurl = "http://a"', "[mcp.ä]: a name is"),
        ("[mcp", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named_by_table_and_key(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load(written(tmp_path, text))
    assert said in str(caught.value)
    assert str(caught.value).startswith("REJOIN_SETTINGS_FILE: ")


def test_no_value_of_a_wrong_file_is_shown(tmp_path: Path) -> None:
    text = "[mcp.a]\nurl = 'http://a'\nheaders = {A = 's3cret', B = 1}\nurls = 's3cret'"
    with pytest.raises(SettingsError) as caught:
        load(written(tmp_path, text))
    assert "s3cret" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere.toml cannot be read: No such file"):
        load(tmp_path / "nowhere.toml")
    file = tmp_path / "latin.toml"
    file.write_bytes(b"# \xff")
    with pytest.raises(SettingsError, match="it is not UTF-8"):
        load(file)


def test_the_how_tos_file_is_read(tmp_path: Path) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", HOW_TO.read_text(encoding="utf-8"), re.DOTALL)
    file = filled_in(load(written(tmp_path, block)), {"FILES_TOKEN": "f", "SEARCH_TOKEN": "s"})
    assert set(file.mcp) == {"files", "search"}
    assert file.mcp["search"].headers == {"Authorization": "Bearer s"}
