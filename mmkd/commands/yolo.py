"""``mmkd yolo``."""

from __future__ import annotations

from typing import Annotated

import typer

from mmkd.commands.options import Imports
from mmkd.commands.user_errors import user_errors
from mmkd.extras import extra

__all__ = ["yolo"]

yolo = typer.Typer(no_args_is_help=True, help="Train YOLO detectors of Ultralytics.")


@yolo.command()
def train(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="[CONFIG] KEY=VALUE...",
            help="A YAML file, or one of mmkd's by its name, mmkd::yolo/FOLDER/FILE.yaml; "
            "Ultralytics' training arguments; teacher=FILE, and terms by dotted keys "
            "(terms.backbone.weight=3).",
        ),
    ],
    imports: Imports = None,
) -> None:
    """Distil a YOLO detector.

    mmkd yolo train model=yolov5s.yaml teacher=yolov5m.pt data=coco.yaml

    teacher=None trains without distillation. A run that was stopped goes on with resume,
    model=.../last.pt and the same teacher.
    """
    has_config = arguments[0].endswith((".yaml", ".yml")) and "=" not in arguments[0]
    with user_errors("yolo train", ValueError, TypeError, ImportError):
        from mmkd.custom_imports import import_modules

        with extra("yolo", "mmkd yolo train"):
            from mmkd.engine.ultralytics.callback import try_out
            from mmkd.engine.ultralytics.train import add_imports, prepare, read_settings

        import_modules(imports or [])
        settings = read_settings(arguments[0] if has_config else None, arguments[has_config:])
        model, rest = prepare(add_imports(settings, imports or []))
        if settings["teacher"] is not None:
            try_out(model, rest.get("imgsz"))
    # Ultralytics calls an unknown argument a SyntaxError, an unknown optimizer not implemented;
    # other errors keep their traceback.
    with user_errors("yolo train", SyntaxError, NotImplementedError):
        model.train(**rest)
