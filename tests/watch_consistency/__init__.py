"""Eight writers with delays inside their transactions and sixteen watchers, all of them processes, at real servers.

`make watch PART=n` runs one part in full: 20,000 changes in ones and 200,000 in arrays. `make watch-short` runs a tenth
of all parts. Each run prints what it measured, with the number of trials beside every zero.
"""
