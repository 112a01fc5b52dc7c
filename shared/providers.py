"""The providers there are, an entry each: the API reads what one needs, a worker its adapter."""

from typing import Final, NamedTuple


class Entry(NamedTuple):
    """One provider.

    `adapter` is `module:Class` in rejoin.worker.providers. `variables`: one of them, set, makes
    it configured; where there is none it always is. `hint` is one sentence on how to set it up.
    """

    name: str
    adapter: str
    variables: tuple[str, ...]
    hint: str


REGISTRY: Final = (
    Entry("demo", "demo:DemoProvider", (), "demo/echo needs no key and sends your words back."),
    Entry(
        "openai",
        "openai:OpenAIProvider",
        ("OPENAI_API_KEY", "OPENAI_BASE_URL"),
        "Set OPENAI_API_KEY; for another server with OpenAI's API (vLLM, llama.cpp)"
        " set OPENAI_BASE_URL too, the key only where it asks for one.",
    ),
    Entry(
        "anthropic",
        "anthropic:AnthropicProvider",
        ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"),
        "Set ANTHROPIC_API_KEY; for another server with Anthropic's API set ANTHROPIC_BASE_URL"
        " too, the key only where it asks for one.",
    ),
    Entry(
        "openrouter",
        "openrouter:OpenRouterProvider",
        ("OPENROUTER_API_KEY", "OPENROUTER_BASE_URL"),
        "Set OPENROUTER_API_KEY; OPENROUTER_BASE_URL only for a proxy in front of it.",
    ),
    Entry(
        "ollama",
        "ollama:OllamaProvider",
        ("OLLAMA_HOST",),
        "Set OLLAMA_HOST, to 127.0.0.1:11434 for an Ollama of this machine; it needs no key.",
    ),
)
