"""A distilled run neither looks for another machine nor writes into the user's home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from helpers.yolo_toy import SIZE, YOLOToy

SCRIPT = """
import json, socket, sys

attempts = []


def guarded(name):
    original = getattr(socket.socket, name)

    def connect(self, address):
        local = self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1", "localhost")
        if not local:
            attempts.append(f"{name} {address}")
            raise OSError("no other machine is in reach")
        return original(self, address)

    setattr(socket.socket, name, connect)


def look_up(host, *args, original=socket.getaddrinfo, **kwargs):
    if host not in (None, "", "127.0.0.1", "::1", "localhost"):
        attempts.append(f"look up {host}")
        raise OSError("no other machine is in reach")
    return original(host, *args, **kwargs)


guarded("connect")
guarded("connect_ex")
socket.getaddrinfo = look_up

student, teacher, data, project, images = sys.argv[1:]

from ultralytics import YOLO
from mmkd.engine.ultralytics import DistillCallback

model = YOLO(student)
DistillCallback(teacher=teacher, terms=dict(backbone=dict())).attach(model)
run = dict(imgsz=SIZE, project=project, device="cpu")
model.train(data=data, epochs=1, batch=8, name="train", plots=True, **run)
weights = sorted(file.name for file in model.trainer.wdir.iterdir())
metrics = model.val(data=data, name="val", **run)
predictions = model.predict(images, name="predict", save=True, **run)
found = dict(
    attempts=attempts,
    loss=float(model.trainer.tloss["kd_loss"]),
    weights=weights,
    validated=len(metrics.results_dict),
    predicted=len(predictions),
)
print("FOUND " + json.dumps(found))
""".replace("SIZE", str(SIZE))


def test_home_and_network_are_left_alone(toy: YOLOToy, tmp_path: Path) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("XDG_")}
    environment |= dict(
        HOME=str(home),
        # Matplotlib's own cache.
        MPLCONFIGDIR=str(tmp_path / "matplotlib"),
    )
    assert environment["YOLO_OFFLINE"] == "true"
    settings = Path(environment["YOLO_CONFIG_DIR"])
    assert Path.home() not in (settings, *settings.parents)
    project = tmp_path / "project"
    images = toy.data.parent / "images" / "val"
    files = [str(file) for file in (toy.student, toy.teacher, toy.data, project, images)]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *files],
        env=environment,
        cwd=work,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    found = json.loads(line.removeprefix("FOUND "))
    assert found["attempts"] == []
    assert list(home.rglob("*")) == []
    assert list(work.rglob("*")) == []
    # It did what was to be seen.
    assert found["loss"] != 0
    assert found["weights"] == ["best.pt", "last.pt"]
    assert found["validated"] > 4
    assert found["predicted"] == 4
    assert (project / "train" / "results.csv").is_file()
