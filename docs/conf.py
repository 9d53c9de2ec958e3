"""How the documentation is built: `make docs`."""
# ruff: noqa: INP001 - Sphinx runs it by its path

from __future__ import annotations

import builtins
import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.ext.autodoc.mock import _MockObject
from sphinx.util.docutils import SphinxRole

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent

project = "producer-backpressure"
release = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
myst_heading_anchors = 3
default_role = "name"

html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_show_copyright = False
html_show_sphinx = False
# Read the Docs serves each release under its own address, and tells which one search engines are to keep.
html_baseurl = os.environ.get("READTHEDOCS_CANONICAL_URL", "")

# What programs print is not copied, and of a session only what was typed.
copybutton_selector = "div:not(.highlight-text) > div.highlight > pre"
copybutton_prompt_text = "$ "

add_module_names = False
autodoc_mock_imports = ["arq"]  # it excludes the redis that all the others want
# Since 3.12 `functools.wraps` copies type parameters, and a stand-in's are a stand-in, where a tuple is needed.
_MockObject.__type_params__ = ()
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {
    "members": True,
    # The methods that both controllers share, without those of Python's own bases.
    "inherited-members": "BaseException, Exception, ExceptionGroup, Enum, StrEnum, Protocol, object",
}
napoleon_numpy_docstring = False
napoleon_use_ivar = True

nitpick_ignore_regex = [
    # Documented elsewhere; without a network their inventories cannot be loaded.
    (
        "py:.*",
        r"(collections|datetime|fractions|logging|os|pathlib|prometheus_client|redis|ssl|threading|types|typing)\..*",
    ),
    ("py:.*", r"(celery|dramatiq|faststream|huey|rq|saq|taskiq)\..*"),
    (
        "py:class",
        r"(Async)?(Broker|Kicker|Message|TaskiqDecoratedTask)|PublishCommand|StartResponse|WSGI\w+|ASGIApplication",
    ),
    ("py:class", r"Steps|Rounds|Future|CollectorRegistry|Metric|MeterProvider|Redis|RedisCluster|datetime"),
    ("py:class", r"Console|RedisTarget|Request|Rider"),
    ("py:class", rf"(builtins\.)?({'|'.join(name for name in dir(builtins) if name[0].isupper())})"),
    # Type variables.
    ("py:class", r"(backpressure\.[\w.]+\.)?(A|C|H|Q|P|P\.args|P\.kwargs|T)"),
    # Opaque to users, or spelled out in the text.
    (
        "py:class",
        r"(backpressure\.[\w.]+\.)?(Answer|AnyTenant|Client|AsyncClient|Ended|Given|Headers|Key|Kind|Layout|MaxWait|MetricsSource|Outcome|Row|SeveralProviders|Status|Ticket|\w+Rule)",
    ),
]


class Name(SphinxRole):
    """Text between single backticks: a link if the reference has it; else a parameter, a command or similar."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return a reference that may stay unresolved, unless it looks like a class or a method."""
        context = self.env.ref_context
        reference = pending_xref(
            self.rawtext,
            nodes.literal(self.rawtext, self.text, classes=["xref", "py"]),
            refdomain="py",
            reftype="obj",
            reftarget=self.text,
            refspecific=True,
            refwarn=bool(re.search(r"[a-z]\.\w|[A-Z][a-z]", self.text)) and not hasattr(builtins, self.text),
            is_name=True,
        )
        reference["py:module"], reference["py:class"] = context.get("py:module"), context.get("py:class")
        return [reference], []


def leave_unlinked(_: Sphinx, __: object, node: Any, shown: nodes.Element) -> nodes.Element | None:
    """Show names that need no target as text."""
    return shown if node.get("is_name") and not node["refwarn"] else None


def hide_private(
    _: Sphinx, __: str, ___: str, ____: object, _____: object, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Leave out of signatures what only this project's tests pass."""
    return signature and re.sub(r", _\w+: [^,)]+ = \w+", "", signature), returned


def setup(app: Sphinx) -> None:
    """Register what is defined here."""
    app.add_role("name", Name())
    app.connect("missing-reference", leave_unlinked)
    app.connect("autodoc-process-signature", hide_private)
