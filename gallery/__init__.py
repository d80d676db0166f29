"""Turns tutorial scripts into recordings, pages, notebooks and tests.

Data flows one way: script (`gallery.script`), recording (`gallery.recording`,
made by `gallery.record`), page (`gallery.replay`).
"""
