"""Runs ComfyUI's own SCAIL2ColoredMask; test_people_core.py starts it in ComfyUI's Python and folder.

Arguments: a file of tracks and masks with the calls as JSON in it, and the file to write the answers to.
"""

import json
import sys


def main(given_path: str, made_path: str) -> None:
    sys.path.insert(0, ".")
    sys.argv[1:] = ["--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import numpy as np
    import torch
    from comfy_extras.nodes_scail import SCAIL2ColoredMask

    given = np.load(given_path)

    def side(call: dict, name: str | None) -> dict | torch.Tensor | None:
        if name is None:
            return None
        array = torch.from_numpy(given[name]) if name in given else None
        if name.startswith("mask"):
            return array
        frames = call["frames"] if array is None else len(array)
        return {"packed_masks": array, "orig_size": tuple(call["size"]), "n_frames": frames, "scores": []}

    made = {}
    for name, call in json.loads(str(given["calls"])).items():
        driving, reference = side(call, call["driving"]), side(call, call["reference"])
        masks = SCAIL2ColoredMask.execute(
            driving, call["people"], call["order"], call["mode"] == "replacement", reference
        )
        made[f"{name}.driving"], made[f"{name}.reference"] = (mask.numpy() for mask in masks.args)
    np.savez(made_path, **made)


if __name__ == "__main__":
    main(*sys.argv[1:])
