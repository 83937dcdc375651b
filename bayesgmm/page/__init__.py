"""A page for people who would rather look than read: one HTML file that needs nothing else, not even a network.

`facts` collects what is told, `rows` which rows, `specs` draws it, `words` says it, and `html` puts all into the page.
"""

from bayesgmm.page.html import report, write_page

__all__ = ["report", "write_page"]
