"""Consistency of the watch: every change is sent once and in order, with many writers, watchers and faults.

Eight writers with delays inside their transactions and sixteen watchers are processes at real servers. `make watch
PART=n` runs one part in full: 20,000 single changes and 200,000 in arrays. `make watch-short` runs a tenth of all
parts. Each run prints its results, with the number of trials beside every zero.
"""
