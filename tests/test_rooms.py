"""The house: every import points down, none in a circle, and frameworks stay in their own rooms."""

from __future__ import annotations

from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import grimp
import pytest
import yaml
from mmengine.config import Config

import mmkd
from mmkd.registry import DATASETS, HOOKS, MODELS

ROOT = Path(mmkd.__file__).parents[1]
# From the street to the cellar; a room may import those below it. Rooms of one line are strangers.
FLOORS = [
    ["__main__"],
    ["cli"],
    ["commands"],
    ["demo"],
    ["report", "runs"],
    ["engine", "evaluation", "work_dirs", "data", "models"],
    ["doctor"],
    ["dynamics"],
    ["distillation", "analysis", "custom_imports", "configs", "ops"],
    ["distillers", "terms", "term_watch", "checkpoint"],
    ["distiller"],
    ["losses", "projectors", "normalizers", "balance", "linear_probe"],
    ["attention_maps", "box_features", "box_masks", "initial_weights", "seeded_draws", "targets"],
    [
        "registry",
        "numerics",
        "distributed",
        "features",
        "json_records",
        "term_warnings",
        "dynamics_file",
    ],
    ["batch_norm", "counted_calls", "output_files", "token_grids", "backward"],
    ["extras", "input_files"],
    ["errors"],
]
# Who may import a package: folders by their names, and files by their module's.
FRAMEWORKS = {
    "ultralytics": {"ultralytics"},
    "mmengine": {"mmengine", "models", "registry"},
    "mmcv": {"mmengine", "models", "ops"},
    "mmdet": {"mmengine", "models", "ops"},
    "mmpretrain": {"mmengine", "models", "ops"},
}
# Names that users write, by the modules from which they may be imported.
PUBLIC = {
    "mmkd": "FeatureDistiller DistillHook DynamicsHook ClassifierAlignmentHook "
    "losses normalizers ops projectors",
    "mmkd.engine": "DistillHook ClassifierAlignmentHook",
    "mmkd.engine.plain": "distill",
    "mmkd.engine.ultralytics": "DistillCallback DistillTrainer distilling",
    "mmkd.projectors": "LinearProjector MLPProjector ProjectorEnsemble ConvConnector "
    "IdentityProjector",
    "mmkd.normalizers": "BatchNormalizer L2Normalizer GroupNormalizer LayerNormalizer "
    "IdentityNormalizer",
    "mmkd.losses": "LogSumLoss CorrelationLogSumLoss DirectionAlignmentLoss L2Loss MSELoss KDLoss "
    "HardDistillationLoss SoftmaxRegressionLoss JointClassifierLoss PKDLoss CWDLoss "
    "ATLoss BinaryKDLoss CrossKDLoss DKDLoss FBKDLoss FGDLoss FGFILoss LDLoss MGDLoss "
    "ReviewKDLoss ScoreWeightedL2Loss CCLoss DISTLoss FSPLoss ICKDLoss NKDLoss NSTLoss PKTLoss "
    "RKDLoss SPLoss SphericalKDLoss VIDLoss",
    "mmkd.distillers": "AFDDistiller CIDDistiller CRDDistiller FTDistiller SSKDDistiller "
    "USKDDistiller",
    "mmkd.models": "CIFARResNet CIFARBottleneckResNet CIFARMobileNetV2 CIFARShuffleNetV1 "
    "CIFARShuffleNetV2 CIFARVGG WideResNet",
    "mmkd.models.heads": "ConnectorClsHead DeiTDistillHead",
    "mmkd.data": "make_digits CLASSES METAINFO",
    "mmkd.evaluation": "CocoScores evaluate_detections",
    "mmkd.report": "write_report",
    "mmkd.analysis": "classifier_distance pearson_correlation",
    "mmkd.terms": "Schedule Term parse_terms",
    "mmkd.registry": "MODELS HOOKS DATASETS build_part",
}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("mmkd", include_external_packages=True, cache_dir=None)


def own(graph: grimp.ImportGraph) -> list[str]:
    return [module for module in graph.modules if module.split(".")[0] == "mmkd"]


def room(module: str) -> str:
    return module.split(".")[1]


def test_no_circle(graph: grimp.ImportGraph) -> None:
    imports = {m: graph.find_modules_directly_imported_by(m) for m in own(graph)}
    # Raises a CycleError that names the circle.
    assert list(TopologicalSorter(imports).static_order())


def test_imports_point_down(graph: grimp.ImportGraph) -> None:
    floor = {name: index for index, names in enumerate(FLOORS) for name in names}
    inside = [module for module in own(graph) if module != "mmkd"]
    assert {room(module) for module in inside} <= set(floor), "a room without a floor"
    upward = [
        f"{module} -> {imported}"
        for module in inside
        for imported in graph.find_modules_directly_imported_by(module)
        if imported.startswith("mmkd.")
        and room(module) != room(imported)
        and floor[room(module)] >= floor[room(imported)]
    ]
    assert upward == []


@pytest.mark.parametrize("package", FRAMEWORKS)
def test_frameworks_stay_in_their_rooms(graph: grimp.ImportGraph, package: str) -> None:
    present = package in graph.modules
    importers = graph.find_modules_that_directly_import(package) if present else set()
    strangers = [m for m in importers if not FRAMEWORKS[package] & set(m.split("."))]
    assert strangers == []


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names(module: str) -> None:
    names = PUBLIC[module].split()
    missing = [name for name in names if not hasattr(import_module(module), name)]
    assert missing == []


def types_in(settings: object) -> set[str]:
    """Every ``type='mmkd...'`` of nested settings."""
    found: set[str] = set()
    if isinstance(settings, dict):
        kind = settings.get("type")
        found |= {kind} if isinstance(kind, str) and kind.startswith("mmkd.") else set()
        settings = list(settings.values())
    for each in settings if isinstance(settings, list | tuple) else ():
        found |= types_in(each)
    return found


def test_every_name_of_a_config_is_registered() -> None:
    registries = (MODELS, HOOKS, DATASETS)
    for registry in registries:
        registry.import_from_location()
    found: set[str] = set()
    for file in sorted((ROOT / "configs").rglob("*.py")):
        found |= types_in(Config.fromfile(file, import_custom_modules=False).to_dict())
    for file in sorted((ROOT / "configs").rglob("*.yaml")):
        found |= types_in(yaml.safe_load(file.read_text("utf-8")))
    assert len(found) > 15
    for name in found:
        registered = [
            registry
            for registry in (MODELS, HOOKS, DATASETS)
            if name.removeprefix("mmkd.")
            in (registry.import_from_location() or registry.module_dict)
        ]
        assert len(registered) == 1, name
