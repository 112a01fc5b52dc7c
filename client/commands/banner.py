"""What `rejoin dev` says when everything runs."""

from rich.console import Console
from rich.text import Text

from rejoin.shared.catalogue import providers


def show(url: str, redis: str) -> None:
    """Print the address, which Redis runs, and each provider: usable, or how to make it so."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(Text.assemble("Rejoin is ready at ", (f"{url}/", "bold green")))
    console.print()
    console.print(Text(f"  redis    {redis}"))
    for provider in providers():
        state = "configured" if provider.configured else "not configured"
        line = Text.assemble(
            f"  {provider.name:<8} ",
            (state, "green" if provider.configured else "yellow"),
            f". {provider.hint}",
        )
        console.print(line)
    console.print()
    console.print(Text("Ctrl-C ends everything."))
