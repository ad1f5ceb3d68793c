"""Workflow files from a few lines: which nodes, where, with which values and links.

`Workflow.page` is what ComfyUI's page saves and opens, `Workflow.prompt` what it sends to the server, and
`Workflow.blueprint` the page's form of a subgraph for the node library.  Values that are not given are the nodes'
defaults, so after a change of a node `python -m tools.draw_workflows` brings every file up to date.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tools.node_catalogue import Input, NodeType

PAGE_VERSION = "1.49.6"
NOTE = "MarkdownNote"
NOTE_COLOURS = {"color": "#222", "bgcolor": "#1a1a1a"}
ANY = "*"
OUTSIDE_IN, OUTSIDE_OUT = -10, -20
"""The nodes that a subgraph's inputs come from and its outputs go to."""
HEAD, SLOT = 30, 20  # pixels: the title of a node, and the distance of two sockets

Place = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Plug:
    """An output to connect: of which node, which, and its type."""

    node: int
    slot: int
    type: str


@dataclass(frozen=True, slots=True)
class Link:
    """A connection from an output to the input `slot` of a node."""

    id: int
    source: Plug
    node: int
    slot: int
    type: str


@dataclass(slots=True)
class Box:
    """A node on the page: where its body's upper left corner lies, its size in pixels and what it was given."""

    id: int
    type: NodeType
    at: Place
    size: Place
    title: str
    given: dict[str, Any]
    properties: dict[str, Any]
    outputs: tuple[str, ...] = ()
    """Types of the outputs, the open ones settled by what is connected."""

    def __getitem__(self, output: str) -> Plug:
        """Return an output by its name. Raises KeyError for one that the node does not have."""
        for slot, made in enumerate(self.type.outputs):
            if made.name == output:
                return Plug(self.id, slot, self.outputs[slot])
        raise KeyError(f"{self.type.name} has no output '{output}', but {[made.name for made in self.type.outputs]}.")

    @property
    def bottom(self) -> float:
        """Lower edge in pixels."""
        return self.at[1] + self.size[1]

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Its inputs as the page orders them."""
        return self.type.with_links([name for name, value in self.given.items() if isinstance(value, Plug)])

    def value(self, item: Input) -> Any:
        """Return what stands in a widget, whole numbers without a point as the page writes them."""
        value = self.given.get(item.name, item.default)
        value = item.default if isinstance(value, Plug) else value
        return int(value) if isinstance(value, float) and value.is_integer() else value


@dataclass(slots=True)
class Workflow:
    """Nodes, notes and groups, numbered in the order in which they are added."""

    name: str
    types: Mapping[str, NodeType]
    boxes: list[Box] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    outside_inputs: list[tuple[str, str]] = field(default_factory=list)
    """Of a subgraph: name and type of each input."""
    outside_outputs: list[tuple[str, Plug]] = field(default_factory=list)
    """Of a subgraph: name and source of each output."""

    def add(
        self,
        kind: str,
        at: Place,
        size: Place,
        given: Mapping[str, Any] | None = None,
        title: str = "",
        properties: Mapping[str, Any] | None = None,
    ) -> Box:
        """Place a node; `given` holds widget values and, as `Plug`s, what is connected, by the inputs' names.

        A height of 0 is the least that shows everything.
        Raises ValueError for an input that the node does not have.
        """
        node_type = self.types[kind]
        size = (size[0], size[1] or node_type.height)
        box = Box(len(self.boxes) + 1, node_type, at, size, title, dict(given or {}), dict(properties or {}))
        known = {item.name for item in box.inputs}
        if not known.issuperset(box.given):
            raise ValueError(f"{kind} has no input {sorted(set(box.given) - known)}, but {sorted(known)}.")
        types = {
            item.template: box.given[item.name].type for item in box.inputs if item.template and item.name in box.given
        }
        box.outputs = tuple(types.get(out.template, ANY) if out.template else out.type for out in node_type.outputs)
        self.boxes.append(box)
        return box

    def note(self, title: str, text: str, at: Place, size: Place) -> Box:
        """Place a note in Markdown."""
        widget = Input("text", "MARKDOWN", is_widget=True, has_socket=False)
        box = Box(len(self.boxes) + 1, NodeType(NOTE, NOTE, (widget,), (), {}), at, size, title, {"text": text}, {})
        self.boxes.append(box)
        return box

    def group(self, title: str, at: Place, size: Place, colour: str) -> None:
        """Put a titled frame behind a part of the page."""
        number = len(self.groups) + 1
        bounding = [*at, *size]
        self.groups.append({"id": number, "title": title, "bounding": bounding, "color": colour, "flags": {}})

    def outside(self, name: str, kind: str) -> Plug:
        """Return a new input of the subgraph, to connect to its nodes."""
        self.outside_inputs.append((name, kind))
        return Plug(OUTSIDE_IN, len(self.outside_inputs) - 1, kind)

    def hand_out(self, name: str, plug: Plug) -> None:
        """Make an output of the subgraph."""
        self.outside_outputs.append((name, plug))

    def links(self) -> list[Link]:
        """Return every connection, numbered by its target."""
        found = []
        for box in self.boxes:
            for slot, item in enumerate(item for item in box.inputs if item.has_socket):
                plug = box.given.get(item.name)
                if isinstance(plug, Plug):
                    found.append(Link(len(found) + 1, plug, box.id, slot, plug.type))
        for slot, (_, plug) in enumerate(self.outside_outputs):
            found.append(Link(len(found) + 1, plug, OUTSIDE_OUT, slot, plug.type))
        return found

    def page(self) -> dict[str, Any]:
        """Return the file that the page opens."""
        links = self.links()
        return {
            "id": _uuid(self.name),
            "revision": 0,
            "last_node_id": len(self.boxes),
            "last_link_id": len(links),
            "nodes": self._nodes(links),
            "links": [[k.id, k.source.node, k.source.slot, k.node, k.slot, k.type] for k in links],
            "groups": self.groups,
            "config": {},
            "extra": {"frontendVersion": PAGE_VERSION},
            "version": 0.4,
        }

    def prompt(self) -> dict[str, Any]:
        """Return what the page sends to the server: nodes by id with their values and links, without notes."""
        sent = {}
        for box in self.boxes:
            if box.type.name == NOTE:
                continue
            sockets = [item for item in box.inputs if not item.is_widget]
            widgets = [item for item in box.inputs if item.is_widget and not item.page_only]
            inputs = {
                item.name: [str(plug.node), plug.slot] if isinstance(plug, Plug) else box.value(item)
                for item in (*widgets, *sockets)
                if isinstance(plug := box.given.get(item.name), Plug) or item.is_widget
            }
            title = {"title": box.title or box.type.title}
            sent[str(box.id)] = {"inputs": inputs, "class_type": box.type.name, "_meta": title}
        return sent

    def blueprint(self, description: str, category: str, aliases: list[str]) -> dict[str, Any]:
        """Return the subgraph's file for the node library: one node that holds this workflow."""
        inside = self._inside() | {"extra": {}, "category": category, "description": description}
        return {
            "revision": 0,
            "last_node_id": len(self.boxes) + 1,
            "last_link_id": 0,
            "nodes": [self._instance()],
            "links": [],
            "version": 0.4,
            "definitions": {"subgraphs": [inside]},
            "extra": {"BlueprintDescription": description, "BlueprintSearchAliases": aliases},
        }

    def _inside(self) -> dict[str, Any]:
        """Return the workflow as it stands within the subgraph's node."""
        links, name = self.links(), self.name
        left, right = min(box.at[0] for box in self.boxes), max(box.at[0] + box.size[0] for box in self.boxes)
        return {
            "id": _uuid(name),
            "version": 1,
            "state": {
                "lastGroupId": len(self.groups),
                "lastNodeId": len(self.boxes),
                "lastLinkId": len(links),
                "lastRerouteId": 0,
            },
            "revision": 0,
            "config": {},
            "name": name,
            "inputNode": {"id": OUTSIDE_IN, "bounding": [left - 260, 80, 160, HEAD + SLOT * len(self.outside_inputs)]},
            "outputNode": {"id": OUTSIDE_OUT, "bounding": [right + 100, 80, 120, HEAD + SLOT]},
            **self._doors(links, left - 120, right + 120),
            "widgets": [],
            "nodes": self._nodes(links),
            "groups": self.groups,
            "links": [
                {
                    "id": k.id,
                    "origin_id": k.source.node,
                    "origin_slot": k.source.slot,
                    "target_id": k.node,
                    "target_slot": k.slot,
                    "type": k.type,
                }
                for k in links
            ],
        }

    def _doors(self, links: list[Link], left: float, right: float) -> dict[str, Any]:
        """Return the subgraph's inputs at the left and its outputs at the right."""
        return {
            "inputs": [
                {
                    "id": _uuid(f"{self.name}/in/{label}"),
                    "name": label,
                    "type": kind,
                    "linkIds": [k.id for k in links if (k.source.node, k.source.slot) == (OUTSIDE_IN, slot)],
                    "pos": [left, 100 + SLOT * slot],
                }
                for slot, (label, kind) in enumerate(self.outside_inputs)
            ],
            "outputs": [
                {
                    "id": _uuid(f"{self.name}/out/{label}"),
                    "name": label,
                    "type": plug.type,
                    "linkIds": [k.id for k in links if (k.node, k.slot) == (OUTSIDE_OUT, slot)],
                    "localized_name": label,
                    "pos": [right, 100 + SLOT * slot],
                }
                for slot, (label, plug) in enumerate(self.outside_outputs)
            ],
        }

    def _instance(self) -> dict[str, Any]:
        """Return the one node that stands for the subgraph; a value inside shows as its widget."""
        inputs, shown = [], []
        for slot, (name, kind) in enumerate(self.outside_inputs):
            targets = [
                (box.id, item)
                for box in self.boxes
                for item in box.inputs
                if box.given.get(item.name) == Plug(OUTSIDE_IN, slot, kind)
            ]
            entry: dict[str, Any] = {"name": name, "type": kind, "link": None}
            if targets and targets[0][1].is_widget:
                entry["widget"] = {"name": name}
                shown.append([str(targets[0][0]), targets[0][1].name])
            elif all(item.is_optional for _, item in targets):
                entry["shape"] = 7
            inputs.append(entry)
        return {
            "id": len(self.boxes) + 1,
            "type": _uuid(self.name),
            "pos": [0, 0],
            "size": [400, 80 + SLOT * len(inputs) + 160],
            "flags": {},
            "order": 0,
            "mode": 0,
            "inputs": inputs,
            "outputs": [
                {"localized_name": name, "name": name, "type": plug.type, "links": []}
                for name, plug in self.outside_outputs
            ],
            "properties": {"proxyWidgets": shown},
            "widgets_values": [],
            "title": self.name,
        }

    def _nodes(self, links: list[Link]) -> list[dict[str, Any]]:
        order = self._order(links)
        return [_node(box, links, order[box.id]) for box in self.boxes]

    def _order(self, links: list[Link]) -> dict[int, int]:
        """Return when each node runs: after all that it needs, and else in the order of the page."""
        inner = [link for link in links if link.source.node > 0 and link.node > 0]
        needs = {box.id: sum(link.node == box.id for link in inner) for box in self.boxes}
        ready, order = deque(node for node, count in needs.items() if not count), {}
        while ready:
            node = ready.popleft()
            order[node] = len(order)
            for link in sorted((k for k in inner if k.source.node == node), key=lambda k: (k.source.slot, k.id)):
                needs[link.node] -= 1
                if not needs[link.node]:
                    ready.append(link.node)
        return order


def _node(box: Box, links: list[Link], order: int) -> dict[str, Any]:
    widgets = [item for item in box.inputs if item.is_widget]
    coming = {link.slot: link.id for link in links if link.node == box.id}
    sockets = [item for item in box.inputs if item.has_socket]
    node: dict[str, Any] = {
        "id": box.id,
        "type": box.type.name,
        "pos": list(box.at),
        "size": list(box.size),
        "flags": {},
        "order": order,
        "mode": 0,
        "inputs": [_socket(item, coming.get(slot)) for slot, item in enumerate(sockets)],
        "outputs": [
            {
                "localized_name": made.name,
                "name": made.name,
                "type": kind,
                "links": [k.id for k in links if (k.source.node, k.source.slot) == (box.id, slot)] or None,
            }
            for slot, (made, kind) in enumerate(zip(box.type.outputs, box.outputs, strict=True))
        ],
        **({"title": box.title} if box.title else {}),
        "properties": box.type.properties | box.properties,
    }
    if widgets:
        node["widgets_values"] = [box.value(item) for item in widgets]
        node["widgets_values_named"] = {item.name: box.value(item) for item in widgets}
    return node | (NOTE_COLOURS if box.type.name == NOTE else {})


def _socket(item: Input, link: int | None) -> dict[str, Any]:
    name = "choose file to upload" if item.name == "upload" else item.name
    return {
        **({"label": item.label} if item.label else {}),
        "localized_name": name,
        "name": item.name,
        **({"shape": 7} if item.is_optional else {}),
        "type": item.type,
        **({"widget": {"name": item.name}} if item.is_widget else {}),
        "link": link,
    }


def _uuid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"scail2-mlx/workflows/{name}"))
