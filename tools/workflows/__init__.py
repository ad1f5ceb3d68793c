"""The shipped workflows, by name, and the subgraphs for the node library."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tools.node_catalogue import NodeType
from tools.workflow_builder import Workflow
from tools.workflows import blueprints, core_template, lengths, masks, simple, texts

WORKFLOWS: dict[str, Callable[[Workflow], None]] = {
    "scail2_animation": simple.animation,
    "scail2_replacement": simple.replacement,
    "scail2_one_node": simple.one_node,
    "scail2_two_people": simple.two_people,
    "scail2_several_references": simple.several_references,
    "scail2_long_video": lengths.long_video,
    "scail2_still_image": lengths.still_image,
    "scail2_masks_from_mask": masks.masks_from_mask,
    "scail2_sam3_masks": masks.sam3_masks,
    "scail2_core_template": core_template.core_template,
}
SUBGRAPHS = {"SCAIL-2 Animation": texts.ANIMATION, "SCAIL-2 Replacement": texts.REPLACEMENT}


def built(types: Mapping[str, NodeType]) -> list[Workflow]:
    """Return every workflow."""
    made = []
    for name, place in WORKFLOWS.items():
        workflow = Workflow(name, types)
        place(workflow)
        made.append(workflow)
    return made


def built_subgraphs(types: Mapping[str, NodeType]) -> list[tuple[Workflow, str]]:
    """Return every subgraph with its description."""
    made = []
    for name, mode in SUBGRAPHS.items():
        workflow = Workflow(name, types)
        blueprints.inside(workflow, mode)
        made.append((workflow, blueprints.DESCRIPTIONS[mode]))
    return made
