"""`mmkd train`, as a file for launchers: trains the model of a config.

python tools/train.py configs/detection/bccd/faster-rcnn_r18-w8_bccd_distill.py
"""

from __future__ import annotations

import sys

from mmkd.cli import main

if __name__ == "__main__":
    sys.argv[:1] = ["mmkd", "train"]
    main()
