"""The static site: everything the lab has found, as pages that need no server and no network.

`lab.site.build` puts it together: a source tree of Markdown pages and notebooks (`lab.site.tree`), which Sphinx turns into
HTML. Nothing is measured for it; it shows stored verdicts, committed pictures, notebooks and docstrings.
"""
