"""Pages that tell users which files to write and which commands to type: both, for a test that does so."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from support import doc_examples

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_NAME = re.compile(r"# ([\w/-]+\.\w+)\n")


class Page:
    """A page of Markdown. A block whose first line is a comment with a name, as in ``# shop.py``, is a file.

    Args:
        replaced: texts to replace in all files and commands, such as the address of a server.
    """

    def __init__(self, path: Path, replaced: Mapping[str, str]) -> None:
        self._replaced = replaced
        blocks = list(doc_examples.blocks(path))
        self.files = {name[1]: self.changed(block.text) for block in blocks if (name := _NAME.match(block.text))}
        shells = [block.text for block in blocks if block.language == "sh"]
        lines = "".join(shells).replace("\\\n", "").splitlines()
        commands = [re.sub(r"(^|\s+)#.*", "", line) for line in lines]
        #: Each command once, in the order of the page, as it is printed but for comments and joined lines.
        self.commands = list(dict.fromkeys(" ".join(command.split()) for command in commands if command.strip()))

    def changed(self, text: str) -> str:
        """Return a text of the page with what is replaced in it."""
        for old, new in self._replaced.items():
            text = text.replace(old, new)
        return text

    def write_files(self, folder: Path) -> None:
        """Do as the page says: write all its files."""
        for name, content in self.files.items():
            (folder / name).write_text(content, "utf-8")

    def command(self, beginning: str) -> str:
        """Return the one command of the page that begins like this."""
        (command,) = (command for command in self.commands if command.startswith(beginning))
        return self.changed(command)

    def not_run_by(self, test: Path) -> list[str]:
        """Return the commands whose beginning the file of a test does not ask for."""
        asked = tuple(re.findall(r'"(\w+[ =][^"\n]+)"', test.read_text("utf-8")))
        return [command for command in self.commands if not command.startswith(asked)]
