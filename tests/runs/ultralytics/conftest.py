"""Fixtures around Ultralytics' own trainer."""

from helpers.yolo_fixtures import no_network, settings_folder, toy

__all__ = ["no_network", "settings_folder", "toy"]
