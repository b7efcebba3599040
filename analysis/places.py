"""Where the results of an experiment are written."""

import re


def folder_name(experiment: str) -> str:
    """The experiment's name as that of a folder: what could lead out of the results, or nowhere, becomes an underscore."""
    return re.sub(r"[^\w.+=-]|^\.+", "_", experiment)
