"""Ids that saved workflows hold: they stay, in their order, and what is new stands at the end.

tests/data/node_ids.json is the record: for each node its inputs and outputs as [id, type]. A new node, or a new last
input or output, is added to it by hand; nothing in it ever changes, because a saved workflow finds nodes and sockets by
these names and the values of older ones by their place.
"""

import json

import pytest
from support import DATA

from demo.pack import load_pack

RECORD = json.loads((DATA / "node_ids.json").read_text(encoding="utf-8"))


def schemas():
    return {schema.node_id: schema for schema in (cls.GET_SCHEMA() for cls in load_pack().NODES)}


def shown(schema):
    """Return a node's inputs and outputs as the record has them."""
    return {
        "inputs": [[item.id, item.get_io_type()] for item in schema.inputs],
        "outputs": [[item.id, item.get_io_type()] for item in schema.outputs],
    }


def test_every_node_is_recorded_and_none_is_gone():
    assert set(RECORD) == set(schemas()), "add new nodes to tests/data/node_ids.json; never take one away"


@pytest.mark.parametrize("node_id", sorted(RECORD))
def test_a_nodes_ids_are_as_recorded(node_id):
    now = json.loads(json.dumps(shown(schemas()[node_id])))
    assert now == RECORD[node_id], f"add what is new at the end of {node_id} in tests/data/node_ids.json: {now}"


def test_ids_are_unique_within_a_node():
    for schema in schemas().values():
        for part in (schema.inputs, schema.outputs):
            names = [item.id for item in part]
            assert len(set(names)) == len(names), schema.node_id
