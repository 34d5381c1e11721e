"""The encoding of everything that crosses the durability boundary: values, arguments and exceptions as bytes.

All records of a run are encoded here. A value is written by the declared type (`codec_for`). Without a declared type,
values of the built-in types come back unchanged. A value that does not fit the declared type is refused, and the
message names the annotation that would fit. Stored bytes cannot make code run: the class of a value comes from the
annotation alone, the class of an exception only from modules already imported. Encoding, decoding and previewing cost
time and memory in proportion to the bytes, also for bytes from outside.

    _wire        MessagePack and the extension types: the content of the bytes
    _tokens      MessagePack read without making values; _hashed: sets and dicts filled in bounded time
    _forms       classes of other layers, stored as values of other types
    _nodes       declared types as trees of nodes; _containers and _records: nodes with children
    _compile     from annotations to trees
    _codec       the codec of a declared type
    _coerce      values from outside as instances of declared classes
    _signature   a function's arguments, for identity and as recorded inputs
    _errors      exceptions; _traceback: tracebacks as text; _validation: pydantic's errors
    _names       names of types; _preview: stored values as text for people
"""

from perdure.core.ground.values._codec import ANY, Codec, codec_for
from perdure.core.ground.values._coerce import Coercion
from perdure.core.ground.values._compile import UnresolvedNameError, know_form
from perdure.core.ground.values._errors import decode_error, describe_error, encode_error, held_by, tame
from perdure.core.ground.values._forms import Form, add_forms
from perdure.core.ground.values._names import logical_module, set_main_name
from perdure.core.ground.values._preview import preview
from perdure.core.ground.values._signature import Signature, plain_inputs
from perdure.core.ground.values._traceback import linked, text_of
from perdure.core.ground.values._wire import (
    INLINE_LIMIT,
    Frames,
    add_file_types,
    add_frames,
    by_content,
    find_file_types,
    frames_of,
    is_by_content,
)

__all__ = [
    "ANY",
    "INLINE_LIMIT",
    "Codec",
    "Coercion",
    "Form",
    "Frames",
    "Signature",
    "UnresolvedNameError",
    "add_file_types",
    "add_forms",
    "add_frames",
    "by_content",
    "codec_for",
    "decode_error",
    "describe_error",
    "encode_error",
    "find_file_types",
    "frames_of",
    "held_by",
    "is_by_content",
    "know_form",
    "linked",
    "logical_module",
    "plain_inputs",
    "preview",
    "set_main_name",
    "tame",
    "text_of",
]
