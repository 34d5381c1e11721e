"""What may cross the durability boundary, and how: values, arguments and exceptions as bytes.

Everything that a run records goes through here. A value is written by its declared type (`codec_for`), or, where
nothing is declared, so that the built-in types come back as they were. A value that does not fit its declaration is
refused with the annotation that would fit. Nothing in the bytes can make code run: the class of a value comes from
the annotation alone, the class of an exception only from modules already imported.

    _wire        MessagePack and its extensions: what stands in the bytes
    _nodes       declared types as trees of nodes; _containers and _records: those that hold others
    _compile     from annotations to trees
    _codec       one declared type, bytes to values and back
    _signature   a function's arguments, for identity and as recorded inputs
    _errors      exceptions
    _names       what types are called; _preview: stored values as text for humans
"""

from perdure.core.ground.values._codec import ANY, Codec, codec_for
from perdure.core.ground.values._compile import UnresolvedNameError
from perdure.core.ground.values._errors import decode_error, describe_error, encode_error, held_by, tame
from perdure.core.ground.values._names import logical_module, set_main_name
from perdure.core.ground.values._preview import preview
from perdure.core.ground.values._signature import Signature
from perdure.core.ground.values._traceback import linked, text_of
from perdure.core.ground.values._wire import INLINE_LIMIT, add_file_types, by_content, find_file_types

__all__ = [
    "ANY",
    "INLINE_LIMIT",
    "Codec",
    "Signature",
    "UnresolvedNameError",
    "add_file_types",
    "by_content",
    "codec_for",
    "decode_error",
    "describe_error",
    "encode_error",
    "find_file_types",
    "held_by",
    "linked",
    "logical_module",
    "preview",
    "set_main_name",
    "tame",
    "text_of",
]
