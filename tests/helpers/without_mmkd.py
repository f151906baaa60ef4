"""What a process that cannot import mmkd does with checkpoints; its findings go to a file.

Run as ``python without_mmkd.py FOLDER DATA NAME=CHECKPOINT...``: ``FOLDER`` holds ``images.pt``
and gets ``found.pt``. The checkpoint called ``interrupted`` is also trained to its end.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.modules["mmkd"] = None  # type: ignore[assignment]
WATCHED = ("socket.getaddrinfo", "socket.connect", "subprocess.Popen", "os.system")
events: list[str] = []


def note(event: str, args: tuple) -> None:
    if event in WATCHED:
        events.append(f"{event} {args[0]} {args[1]}")


sys.addaudithook(note)

import onnxruntime  # noqa: E402
import torch  # noqa: E402
from ultralytics import YOLO  # noqa: E402


def use(file: str, data: str, images: torch.Tensor) -> dict[str, Any]:
    """Loads, runs, validates, predicts with, and exports a checkpoint."""
    with torch.no_grad():
        output = YOLO(file).model.float().eval()(images)[0]
    metrics = YOLO(file).val(data=data, imgsz=images.shape[2], batch=4, plots=False, workers=0)
    predicted = YOLO(file).predict(images, conf=1e-6, verbose=False)
    exported = YOLO(file).export(format="onnx", imgsz=images.shape[2], batch=len(images))
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    return dict(
        output=output,
        metrics={key: float(value) for key, value in metrics.results_dict.items()},
        boxes=[result.boxes.data for result in predicted],
        exported=torch.tensor(session.run(None, {entry.name: images.numpy()})[0]),
    )


def main(folder: Path, data: str, files: dict[str, str]) -> None:
    torch.set_num_threads(1)
    images = torch.load(folder / "images.pt")
    found: dict[str, Any] = {name: use(file, data, images) for name, file in files.items()}
    run = Path(files["interrupted"]).parents[1]
    model = YOLO(files["interrupted"])
    model.train(resume=True, save_dir=str(run))
    found["resumed"] = dict(trainer=type(model.trainer).__name__, epochs=model.trainer.epoch + 1)
    found["mmkd"] = [name for name in sys.modules if name.partition(".")[0] == "mmkd"]
    found["events"] = events
    torch.save(found, folder / "found.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], dict(each.split("=", 1) for each in sys.argv[3:]))
