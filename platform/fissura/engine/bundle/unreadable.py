"""Why an image file cannot be read."""


class Unreadable(Exception):
    """The file is damaged, or is no image; the text says what is wrong with it."""


class Unsupported(Unreadable):
    """The file may be sound, but is of a kind that is not decoded here; the text says which."""
