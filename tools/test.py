"""`mmkd test`, as a file for launchers: tests a checkpoint on its config's test set.

    python tools/test.py configs/detection/bccd/faster-rcnn_r18-w8_bccd_distill.py \
        work_dirs/faster-rcnn_r18-w8_bccd_distill/epoch_10.pth
"""

from __future__ import annotations

import sys

from mmkd.cli import main

if __name__ == "__main__":
    sys.argv[:1] = ["mmkd", "test"]
    main()
