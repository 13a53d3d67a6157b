"""The documentation as a site: `make docs` (needs the extra docs; builds without a network)."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

project = "densematch"
copyright = "the densematch developers"
version = release = re.search(r'__version__ = "([^"]+)"', (ROOT / "ros2_densematch/__init__.py").read_text())[1]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["attrs_inline"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = f"densematch {version}"
exclude_patterns = ["plugin", "_build"]
# Pages link to files of the repository that are no pages; a reader of the site is told where they lie.
suppress_warnings = ["myst.xref_missing", "misc.highlighting_failure"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
