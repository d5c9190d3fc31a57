"""One self-contained page about a run: its scores, its classes, its training and what it heard.

`data` says what a report is made of, `pictures` draws it, `html` puts it on the page. Callers fill
a `Report` and hand it to `write_report`.
"""
