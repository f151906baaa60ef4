"""Names of the files that a recipe's run leaves in its work dir."""

from __future__ import annotations

__all__ = ["DETECTIONS", "RESULT", "STARTED"]

# A detector's, in COCO's result format.
DETECTIONS = "detections.bbox.json"
# What a finished run came to, and what an unfinished one has noted so far.
RESULT = "result.json"
STARTED = "started.json"
