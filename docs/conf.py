"""The documentation site: `python -m sphinx -W --keep-going -n -b html docs docs/_build`."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import semcache  # noqa: E402 - the checkout's own package

project = "semcache"
author = "The semcache authors"
version = release = semcache.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "semcache_reference"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 80

nitpicky = True
nitpick_ignore_regex = [
    # The standard library and other packages: no inventory is fetched, a build needs no network.
    (r"py:.*", r"(collections\.abc|datetime|httpx|pathlib|starlette|typing)\..*"),
    (r"py:class", r"(Path|SecretStr|SentenceTransformer|Starlette)"),
    # Type variables, and aliases whose values the text lists.
    (r"py:.*", r".*~?\b(P|R|Context|LongPrompts|Coalesce|GivenTTL|Form|Order|Takes)"),
    # Internal types in signatures of which the text says what may be given.
    (
        r"py:class",
        r".*\b(Client|Fault|Handler|Invalidates|WebhookSettings|AdmissionState|RequestFields|Unit|Shape)",
    ),
]

html_theme = "furo"
html_title = "semcache"
html_show_copyright = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
