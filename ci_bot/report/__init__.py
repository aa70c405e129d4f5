"""Everything a person reads: check runs, sentences, lines in the terminal. Pure.

Text that comes from outside (logs, commit titles, names, reasons) goes through `redact` and `markdown` first.
"""
