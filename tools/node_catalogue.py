"""What nodes take and give, as a workflow file needs it: sockets, widgets in their order, outputs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from demo.pack import load_pack
from tools.comfy_nodes import CORE, CORE_VERSION

WIDGET_TYPES = ("COMBO", "INT", "FLOAT", "STRING", "BOOLEAN", "COMFY_DYNAMICCOMBO_V3")
MATCH_TYPE = "COMFY_MATCHTYPE_V3"
AUTOGROW = "COMFY_AUTOGROW_V3"
UPLOADS = ("image_upload", "video_upload")
ROW, WIDGET_ROW, MARGIN = 20, 24, 14  # pixels: of a socket, of a widget, around them


@dataclass(frozen=True, slots=True)
class Input:
    """One input: its type ("IMAGE,MASK" takes either), and for a widget its default."""

    name: str
    type: str
    is_optional: bool = False
    is_widget: bool = False
    default: Any = None
    page_only: bool = False
    """Whether only the page has it, as a button beside the widget before; it is not sent to the server."""
    has_socket: bool = True
    """Whether a link can go there; the choice of what happens to a seed has none."""
    template: str = ""
    """Inputs and outputs of a node with the same template have the same type."""
    label: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """One output; `template` as of an input."""

    name: str
    type: str
    template: str = ""


@dataclass(frozen=True, slots=True)
class NodeType:
    """A class of nodes; `inputs` as the page orders them: sockets, then widgets, each with the required ones first."""

    name: str
    title: str
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    properties: dict[str, Any]
    grows: str = ""
    """The input that offers one socket more whenever its last one is taken, if there is one."""

    def with_links(self, linked: Collection[str]) -> tuple[Input, ...]:
        """Return the inputs of a node with links to those named: a growing one as so many sockets and a free one."""
        if not self.grows:
            return self.inputs
        grown: list[Input] = []
        for item in self.inputs:
            if item.name != self.grows:
                grown.append(item)
                continue
            taken = sum(name.startswith(f"{self.grows}.") for name in linked)
            grown += [
                Input(
                    f"{self.grows}.{item.label}{index}", item.type, is_optional=index > 0, label=f"{item.label}{index}"
                )
                for index in range(taken + 1)
            ]
        return tuple(grown)

    @property
    def height(self) -> int:
        """The least height in pixels at which the page shows every socket and widget; pictures and texts add to it."""
        widgets = sum(item.is_widget for item in self.inputs)
        rows = max(sum(not item.is_widget for item in self.inputs), len(self.outputs))
        return ROW * rows + WIDGET_ROW * widgets + MARGIN


def catalogue() -> dict[str, NodeType]:
    """Return the pack's nodes, from their schemas, and the core nodes of the workflows, by class."""
    described = {name: (info, {"cnr_id": "comfy-core", "ver": CORE_VERSION}) for name, info in CORE.items()}
    for cls in load_pack().NODES:
        info = cls.GET_NODE_INFO_V1()
        described[cls.GET_SCHEMA().node_id] = (info if isinstance(info, dict) else asdict(info), {})
    return {name: _node_type(name, info, origin) for name, (info, origin) in described.items()}


def _node_type(name: str, info: dict[str, Any], origin: dict[str, str]) -> NodeType:
    inputs: list[Input] = []
    button: Input | None = None
    for group in ("required", "optional"):
        for key, spec in info["input"].get(group, {}).items():
            options = spec[1] if len(spec) > 1 else {}
            inputs += _inputs(key, spec[0], options, is_optional=group == "optional")
            if any(options.get(key) for key in UPLOADS):
                button = Input("upload", "IMAGEUPLOAD", is_widget=True, default="image", page_only=True)
    inputs += [button] if button else []
    sockets = [item for item in inputs if not item.is_widget]
    widgets = [item for item in inputs if item.is_widget]
    matches = info.get("output_matchtypes") or [None] * len(info["output"])
    outputs = zip(info["output_name"], info["output"], matches, strict=True)
    return NodeType(
        name,
        info["display_name"],
        tuple(sockets + widgets),
        tuple(Output(label, kind, match or "") for label, kind, match in outputs),
        {"Node name for S&R": name, **origin},
        next((item.name for item in sockets if item.label), ""),
    )


def _inputs(name: str, kind: str, options: dict[str, Any], *, is_optional: bool) -> list[Input]:
    if kind == AUTOGROW:
        template = options["template"]
        return [Input(name, template["type"], is_optional, label=template["prefix"])]
    if kind == MATCH_TYPE:
        template = options["template"]
        return [Input(name, template["allowed_types"], is_optional, template=template["template_id"])]
    if kind not in WIDGET_TYPES or options.get("forceInput"):
        return [Input(name, kind, is_optional)]
    default = options.get("default", (options.get("options") or [""])[0])
    widget = Input(name, kind, is_optional and not options.get("required"), is_widget=True, default=default)
    if not options.get("control_after_generate"):
        return [widget]
    choice = Input("control_after_generate", "COMBO", is_widget=True, default="fixed", page_only=True, has_socket=False)
    return [widget, choice]
