"""A program that writes one run to W&B: `python program.py FOLDER`.

Run by its path in whichever environment has `wandb`, so it imports nothing of ours.  The folder has
`tracked.json` and the files of the adapter below `adapter/`.  The last line that it prints is where
the run is shown.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

try:
    import wandb
except ImportError:
    sys.exit(
        f"{sys.executable} has no wandb: install it there (pip install wandb), or name an "
        "interpreter that has it in RATCHET_WANDB_PYTHON"
    )


def main(folder: Path) -> None:
    told = json.loads((folder / "tracked.json").read_text())
    run = wandb.init(
        project=told["project"],
        id=told["version"],
        name=told["version"],
        # Of a copy that was cut short W&B keeps what it has, and takes the rest.
        resume="allow",
        config=told["params"],
        notes=told["url"],
        dir=told["dir"],
        settings=wandb.Settings(
            console="off", disable_code=True, disable_git=True,
            # Of this machine, where nothing was trained.
            x_disable_stats=True, x_disable_meta=True,
        ),
    )  # fmt: skip
    for step, loss in told["losses"]:
        run.log({"loss": loss}, step=step)
    run.summary.update(told["metrics"])
    adapter = wandb.Artifact(
        f"{told['name']}-adapter", type="model", metadata={"ratchet": told["url"]}
    )
    for file in sorted((folder / "adapter").iterdir()):
        adapter.add_file(str(file))
    run.log_artifact(adapter, aliases=["candidate", told["version"]])
    shown = run.url if not run.offline else str(Path(run.dir).parent)
    run.finish()
    sys.stdout.write(f"{shown}\n")


if __name__ == "__main__":
    given = Path(sys.argv[1])
    try:
        main(given)
    finally:
        # Whoever started us may have been killed meanwhile.
        shutil.rmtree(given, ignore_errors=True)
