"""The one kind of error that the gallery shows to the person at the terminal."""


class GalleryError(Exception):
    """What is wrong and what to do about it, in words for the person who meets it."""
