"""Print a command of the README: the shell block that follows ``<!-- command: NAME -->``."""

import re
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def readme_command(name: str) -> str:
    """Return the block's text.

    Raises:
        ValueError: The README has no such block.
    """
    found = re.search(rf"<!-- command: {re.escape(name)} -->\n+```bash\n(.*?)```", README.read_text(), re.DOTALL)
    if found is None:
        raise ValueError(f"README.md has no command {name!r}.")
    return found[1]


if __name__ == "__main__":
    print(readme_command(sys.argv[1]), end="")
