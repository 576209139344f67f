"""Write ``workflow/schemas/`` from the models that define the config and the results.

PYTHONPATH=workflow python -m minillm_lab.experiment.schemas
"""

import json
from pathlib import Path

from pydantic import BaseModel

from minillm_lab.experiment.config import Experiment
from minillm_lab.result import Result

FOLDER = Path(__file__).parent.parent.parent / "schemas"
SHAPES: dict[str, type[BaseModel]] = {"config": Experiment, "result": Result}


def main() -> None:
    for name, shape in SHAPES.items():
        text = json.dumps(shape.model_json_schema(), indent=2, ensure_ascii=False)
        (FOLDER / f"{name}.schema.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
