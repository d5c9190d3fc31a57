"""One self-contained page about a run: its scores, its classes, its training and what it heard.

`records` says what a page is made of, `collect` and `clips` fill it from an experiment's files,
`page_sections` and `findings` make HTML of it, and `write_report` of `html` writes the page.
"""
