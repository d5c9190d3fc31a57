"""YAML of plain values only, bounded: what a configuration needs and nothing that could surprise.

Beside what safe YAML refuses (objects), duplicate keys, tags and values that grow by aliases are
errors, and dates stay text.
"""

from typing import Any

import yaml

from local.io.limits import MAX_YAML_DEPTH, MAX_YAML_NODES

# What PyYAML lets through of values that are not of the kind they look like.
_ODD_VALUES = (ValueError, TypeError, OverflowError, LookupError, AttributeError, RecursionError)
_TIMESTAMP = "tag:yaml.org,2002:timestamp"


class _RefusedError(Exception):
    """A fault of ours, in half a sentence with its remedy."""


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys, tags, depth and growth by aliases."""

    yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0] != _TIMESTAMP]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        """Count while nodes are made, so that what is too much is never made."""
        event = self.peek_event()
        line = event.start_mark.line + 1
        if getattr(event, "tag", None) is not None:
            raise _RefusedError(f"line {line} has the tag {event.tag}; write a plain value")
        self._depth += 1
        if self._depth > MAX_YAML_DEPTH:
            raise _RefusedError(f"line {line} is deeper than {MAX_YAML_DEPTH}; flatten it")
        node: Any = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent) and id(node) not in self._sizes:
            raise _RefusedError(
                f"line {line}: the alias *{event.anchor} holds itself; break the circle"
            )
        self._sizes[id(node)] = self._size(node)
        if self._sizes[id(node)] > MAX_YAML_NODES:
            raise _RefusedError(
                f"line {line} stands for more than {MAX_YAML_NODES} values, counting its aliases; "
                "write less"
            )
        return node

    def _size(self, node: yaml.Node) -> int:
        """Values a node stands for once its aliases are written out."""
        if isinstance(node, yaml.ScalarNode):
            return 1
        parts = node.value
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in parts for part in pair]
        return 1 + sum(self._sizes[id(part)] for part in parts)


def _strict_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        key = str(loader.construct_object(key_node, deep=True))
        if key in seen:
            raise _RefusedError(
                f"key {key!r:.80} stands twice (line {key_node.start_mark.line + 1}); keep one of "
                "them"
            )
        seen.add(key)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _strict_mapping)


def parse_yaml(text: str) -> Any:
    """The one document of `text`: dicts, lists, text, numbers, true and false, null.

    Raises
    ------
    ValueError
        Whatever is wrong, in half a sentence: the caller names the file.
    """
    loader = None
    try:
        loader = _StrictLoader(text)
        return loader.get_single_data()
    except _RefusedError as error:
        raise ValueError(str(error)) from None
    except (yaml.YAMLError, *_ODD_VALUES) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"not readable as YAML ({reason:.300})") from None
    finally:
        if loader is not None:
            loader.dispose()
