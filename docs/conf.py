"""How the site is built: ``python -m sphinx -W -n --keep-going docs docs/_build``."""

from __future__ import annotations

import sys
from pathlib import Path

import hookmap

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

from saved_pictures import saved_pictures  # noqa: E402

project = "hookmap"
author = "The hookmap team"
copyright = f"2026, {author}"
version = release = hookmap.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "mathml",
    "command_line",
    "properties",
    "uses",
]
exclude_patterns = ["_build", "images", "gallery_headers"]
myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["config.cache"]

# ---------------------------------------------------------------- reference

autosummary_generate = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "show-inheritance": False}
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
napoleon_use_rtype = False
napoleon_use_ivar = True
templates_path = ["_templates"]
# What other libraries call theirs, and short names of types whose meaning stands beside the parameter.
_ELSEWHERE = (
    "abc|collections|contextlib|lightning|matplotlib|nn|np|numpy|os|pandas|pathlib|pd|PIL|Image|pytorch_lightning|torch|"
    "transformers"
)
_SHORT = (
    "Algorithm|Animation|Array|By|Channels|ChannelStatistics|Engine|ExplainOptions|Factorization|Figure|FillSpec|First|"
    "FocusMeasure|Fusion|LayerMaps|LayerSpec|MethodSpec|Module|Of|Part|Path|Plan|RemovalOptions|Scale|Scorer|"
    "Similarity|SummaryWriter|TargetSpec|Tensor|TileScale|Track|tuple\\[float|WordSpec"
)
# Types of hookmap's own that no user has to make or read.
_INNER = (
    r"hookmap\.(adapters\..*|attribution\..*|hooks\..*|images\..*|layers\.tree\.LayerTree|methods\..*|models\..*|"
    r"render\.colors\.Heat|runs\.parts\..*|results\..*|targets\.resolving\.Own)"
)
nitpick_ignore_regex = [("py:.*", rf"({_ELSEWHERE})\..*"), ("py:class", _SHORT), ("py:class", _INNER)]

# ---------------------------------------------------------------- pages

html_theme = "pydata_sphinx_theme"
html_title = "hookmap"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_show_sourcelink = False
html_copy_source = False
html_math_renderer = "mathml"
html_theme_options = {
    "navbar_align": "left",
    "show_prev_next": True,
    "navbar_persistent": ["search-button"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "logo": {"text": "hookmap"},
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {"index": []}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# From the first question to the last.
_EXAMPLES = [
    "first_heatmap",
    "this_and_not_that",
    "your_own_model",
    "through_the_network",
    "feature_maps",
    "muted_channels",
    "concepts",
    "methods_side_by_side",
    "architectures_side_by_side",
    "to_the_pixel",
    "how_far_to_believe",
    "large_picture",
    "segmenter",
    "watch_training",
    "export_onnx",
    "clever_hans",
]


def _place(file: str) -> int:
    return _EXAMPLES.index(Path(file).stem)


sphinx_gallery_conf = {
    "examples_dirs": [str(HERE.parent / "examples" / "gallery")],
    "gallery_dirs": ["gallery"],
    "within_subsection_order": _place,
    "filename_pattern": r"\.py$",
    "backreferences_dir": "api/generated/examples",
    "doc_module": ("hookmap",),
    "reference_url": {"hookmap": None},
    "capture_repr": (),
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
    "image_scrapers": (saved_pictures,),
    "min_reported_time": 600,
    "plot_gallery": True,
    "abort_on_example_error": False,
}
