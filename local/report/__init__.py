"""One self-contained page about a run: its scores, its classes, its training and what it heard.

`page_records` says what a page is made of, `collect` and `clips` fill it from an experiment's
files, `page_sections` and `finding_sections` make HTML of it, `html.write_report` writes the page.
"""
