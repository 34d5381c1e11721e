"""Declared types as trees of nodes, for writers of other formats than the journal's, such as the copilot's files.

`node_of` compiles an annotation; the class of the node tells the kind of the type.
"""

from perdure.core.ground.values._compile import node_of
from perdure.core.ground.values._containers import ArrayNode, DictNode, OptionalNode, RefNode, TupleNode, UnionNode
from perdure.core.ground.values._hashed import set_of
from perdure.core.ground.values._names import type_text
from perdure.core.ground.values._nodes import (
    AnyNode,
    BoolNode,
    BytesNode,
    EnumNode,
    FileNode,
    FloatNode,
    IntNode,
    LeafNode,
    LiteralNode,
    Misfit,
    Node,
    NoneNode,
    PathNode,
    StrNode,
    walk,
)
from perdure.core.ground.values._records import NamedTupleNode, PydanticNode, RecordNode
from perdure.core.ground.values._wire import Mode

__all__ = [
    "AnyNode",
    "ArrayNode",
    "BoolNode",
    "BytesNode",
    "DictNode",
    "EnumNode",
    "FileNode",
    "FloatNode",
    "IntNode",
    "LeafNode",
    "LiteralNode",
    "Misfit",
    "Mode",
    "NamedTupleNode",
    "Node",
    "NoneNode",
    "OptionalNode",
    "PathNode",
    "PydanticNode",
    "RecordNode",
    "RefNode",
    "StrNode",
    "TupleNode",
    "UnionNode",
    "node_of",
    "set_of",
    "type_text",
    "walk",
]
