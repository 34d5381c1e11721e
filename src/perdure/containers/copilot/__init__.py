"""The copilot: stages a container's inputs on disk, and collects the outputs after the container's end.

The format on disk is Flyte's, so that an image made for Flyte runs unchanged. The copilot knows no engine, event loop
or journal.

    interface    the declared inputs and outputs, with three operations: stage, arguments, collect
    types        declared types as forms
    leaves       forms of one file; scalars and records: text and JSON
    names        valid names of files
    placing      the place of each input; stage writes the files, metadata and literals describe all in one file
    outputs      an output directory, read with suspicion; collect makes values of the files
    templates    `{{.inputs.x}}` in commands
"""

from perdure.containers.copilot.collect import ErrorReport, check_error_file
from perdure.containers.copilot.interface import Interface
from perdure.containers.copilot.outputs import Away
from perdure.containers.copilot.stage import FileSystem
from perdure.containers.copilot.templates import Template, TemplateValues

__all__ = ["Away", "ErrorReport", "FileSystem", "Interface", "Template", "TemplateValues", "check_error_file"]
