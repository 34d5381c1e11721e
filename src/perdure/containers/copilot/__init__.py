"""The copilot: puts a container's inputs on disk in front of it, and collects its outputs behind it.

The format on disk is Flyte's, so that an image made for Flyte runs unchanged. Nothing here knows an engine, an event
loop or a journal.

    interface    what a task declares, and the three things done with it: stage, arguments, collect
    types        declared types as forms
    leaves       those of one file; scalars and records: their text and JSON
    names        what may be the name of a file
    placing      where each input goes; stage writes it, metadata and literals describe it in one file
    outputs      an output directory read as what it is, a stranger's; collect makes values of it
    templates    `{{.inputs.x}}` in commands
"""

from perdure.containers.copilot.collect import ErrorReport, check_error_file
from perdure.containers.copilot.interface import Interface
from perdure.containers.copilot.outputs import Away
from perdure.containers.copilot.stage import FileSystem
from perdure.containers.copilot.templates import Surroundings, Template

__all__ = ["Away", "ErrorReport", "FileSystem", "Interface", "Surroundings", "Template", "check_error_file"]
