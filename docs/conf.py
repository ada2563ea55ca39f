"""The site made of docs/: Sphinx reads the pages as Markdown; `make docs` calls it, and every warning is an error."""

from __future__ import annotations

project = "pulpsim"
html_title = "pulpsim"
author = copyright = "the pulpsim authors"

extensions = ["myst_parser"]
# Headings can be linked to as on other sites that show Markdown: page.md#a-heading.
myst_heading_anchors = 4
# Quotation marks stay as they are written, as in code.
smartquotes = False

html_theme = "furo"
pygments_dark_style = "monokai"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}
# A block that its lexer does not know whole, as the output of a command, is shown without colours.
suppress_warnings = ["misc.highlighting_failure"]
