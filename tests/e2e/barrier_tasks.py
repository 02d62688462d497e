"""Write what each of two barrier tasks sees to a JSON file.

python barrier_tasks.py FOLDER
"""

import json
import os
import sys
from pathlib import Path

from fer_pipeline.spark import barrier
from fer_pipeline.spark.session import spark_session

if __name__ == "__main__":
    folder = Path(sys.argv[1])

    def write_view(task: barrier.BarrierTask) -> None:
        view = {
            "number": task.number,
            "addresses": list(task.addresses),
            "cores": task.cores,
            "gathered": task.all_gather(f"from {task.number}"),
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        }
        (folder / f"{task.number}.json").write_text(json.dumps(view))

    with spark_session("barrier_tasks", barrier=True) as session:
        barrier.run_barrier_stage(session, 2, write_view)
