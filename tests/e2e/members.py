"""Writes down what each of two processes of a barrier stage sees.

python members.py FOLDER
"""

import json
import os
import sys
from pathlib import Path

from fer_pipeline.spark import barrier
from fer_pipeline.spark.session import spark_session

if __name__ == "__main__":
    folder = Path(sys.argv[1])

    def note(member: barrier.BarrierTask) -> None:
        said = {
            "number": member.number,
            "addresses": list(member.addresses),
            "cores": member.cores,
            "gathered": member.all_gather(f"from {member.number}"),
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        }
        (folder / f"{member.number}.json").write_text(json.dumps(said))

    with spark_session("members", barrier=True) as session:
        barrier.run(session, 2, note)
