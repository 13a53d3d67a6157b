"""Do two checkouts train alike? The losses of the first steps of every recipe, compared to the bit.

    python test/training/same_losses.py OTHER_CHECKOUT [--steps 20] [--data ../shared/data] [--only NAME ...] [--resume]

Each recipe is written once with small sizes (`tiny_recipe` of smoke.py), on generated photos and pairs; with `--data`
also one recipe a kind of source, on the open training material and a recording. Both checkouts then train from the same
files through their own `densematch train`, each in a process of its own; what is compared are the 32-bit losses of each
step and the SHA-256 of the tensors that the run leaves. With `--resume` the other checkout trains the first 7 steps and
this one goes on in the same folder; the rest is compared with a run that was not interrupted. Exit code 1 where
anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

# Runs in a checkout of any age: it knows only the command and Lightning.
WORKER = """
import hashlib, json, sys
import lightning
from safetensors.torch import load_file

losses = {}

class Log(lightning.Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        losses.setdefault(type(module).__name__, []).append(float(loss).hex())

begin = lightning.Trainer.__init__

def with_log(self, *args, callbacks=None, **settings):
    begin(self, *args, callbacks=[*(callbacks or []), Log()], **settings)

lightning.Trainer.__init__ = with_log
from ros2_densematch.cli.main import main

out = sys.argv[2]
code = main(["train", sys.argv[1], "--out", out, "--data", sys.argv[3], *sys.argv[4:]])
digest = hashlib.sha256()
if code == 0:
    for name, tensor in sorted(load_file(out + "/last.safetensors").items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
with open(out + ".json", "w") as file:
    json.dump({"code": code, "losses": losses, "weights": digest.hexdigest()}, file)
"""

INTERRUPTED = 7  # steps

# One recipe for each kind of source: what it draws goes through the descriptor stage's losses.
_SCENES = {
    "kind": "scenes",
    "weight": 1,
    "processes": 1,
    "render": {"groups": 3, "width": 128, "height": 96, "supersampling": 1},
}
SOURCES: dict[str, dict[str, Any]] = {
    "photos": {"kind": "photos", "weight": 1},
    "multiview": {"kind": "multiview", "weight": 1},
    "scenes": _SCENES,
    "bag": {"kind": "bag", "weight": 1, "folder": "sequences/tum_fr1_rpy", "settings": {"recording": {"stop_s": 4.0}}},
    "bag-images": {
        "kind": "bag",
        "weight": 1,
        "folder": "sequences/tum_fr1_rpy",
        "settings": {"labels": "images", "recording": {"stop_s": 2.0}, "neighbours": {"pairs": 4}},
    },
}


def source_recipe(name: str, source: dict[str, Any], steps: int) -> dict[str, Any]:
    """The stages of `gcm` on one kind of source; photo sets cannot give what the match filter needs from few steps."""
    descriptor = {
        "stage": "descriptor",
        "max_steps": steps,
        "settings": {"teacher_weights": "gcm", "imagenet": False, "warmup_steps": 0},
    }
    judges = {"stage": "match_filter", "max_steps": 3, "settings": {"initial_weights": "gcm", "graphs": 2}}
    stages = [descriptor] if name == "bag-images" else [descriptor, judges]
    data = {"size": 64, "batch_pairs": 2, "workers": 0, "sources": [source]}
    return {"name": f"source-{name}", "matcher": "gcm", "seed": 3, "data": data, "stages": stages}


def shortened(recipe: dict[str, Any], steps: int) -> dict[str, Any]:
    for stage in recipe["stages"]:
        stage["max_steps"] = min(stage["max_steps"], steps)
        stage["precision"] = "32"  # half precision needs a GPU
    recipe["validation"] = None
    return recipe


def trained(checkout: Path, recipe: Path, out: Path, data: Path, *options: str) -> dict[str, Any]:
    """Losses and weights of one run in one checkout."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", WORKER, str(recipe), str(out), str(data), *options]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    result = out.with_name(out.name + ".json")
    if not result.exists():
        raise RuntimeError(f"{recipe.stem} in {checkout} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(result.read_text("utf-8"))
    if found["code"] != 0:
        raise RuntimeError(f"{recipe.stem} in {checkout} ended with {found['code']}:\n{done.stderr[-2000:]}")
    return found


def main() -> int:
    here = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(here), str(Path(__file__).resolve().parent)]
    from smoke import generate, tiny_recipe

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the checkout to compare with")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--data", type=Path, help="folder with train_photos, train_multiview, train_scenes, sequences")
    parser.add_argument("--resume", action="store_true", help="this checkout goes on with runs of the other one")
    parser.add_argument("--only", nargs="+", default=[], help="names of recipes")
    arguments = parser.parse_args()
    checkouts = {"other": arguments.other.resolve(), "this": here}
    differing = 0
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        generate(work / "data")
        recipes: list[tuple[str, dict[str, Any], Path]] = []
        for path in sorted((here / "config" / "training").glob("*.yaml")):
            content = tiny_recipe(path).model_dump(mode="json", exclude_unset=True)
            recipes.append((path.stem, shortened(content, arguments.steps), work / "data"))
        if arguments.data is not None:
            for name, source in SOURCES.items():
                content = source_recipe(name, source, arguments.steps)
                recipes.append((f"source-{name}", content, arguments.data.resolve()))
        for name, content, data in recipes:
            if arguments.only and name not in arguments.only:
                continue
            file = work / f"{name}.yaml"
            file.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
            first = trained(checkouts["other"], file, work / f"{name}-other", data)
            out = work / f"{name}-this"
            if arguments.resume:
                trained(checkouts["other"], file, out, data, "--max-steps", str(INTERRUPTED))
            second = trained(here, file, out, data)
            expected = list(first["losses"].values())
            if arguments.resume:
                expected[0] = expected[0][INTERRUPTED:]
            same = expected == list(second["losses"].values())
            same_weights = first["weights"] == second["weights"]
            differing += not (same and same_weights)
            count = sum(map(len, second["losses"].values()))
            last = [f"{float.fromhex(values[-1]):.6f}" for values in second["losses"].values()]
            digest = hashlib.sha256(json.dumps(list(second["losses"].values())).encode()).hexdigest()[:12]
            verdict = "the same to the bit" if same and same_weights else "DIFFERENT"
            what = "" if same and same_weights else f" (losses {'same' if same else 'differ'})"
            print(f"{name:22} {count:3d} losses, last {' '.join(last)}, {digest}: {verdict}{what}", flush=True)
    return 1 if differing else 0


if __name__ == "__main__":
    raise SystemExit(main())
