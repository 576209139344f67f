"""Before anything is read: where the lab's code is, and whether the config is a file to be read."""

import os
import pathlib
import sys

LAB = os.path.relpath(workflow.current_basedir.join("..").get_path_or_uri(secret_free=True))
sys.path.insert(0, os.path.abspath(LAB))
os.environ |= {  # for the jobs: this Python runs `python -m minillm_lab…`
    "PYTHONPATH": os.pathsep.join(
        filter(None, [os.path.abspath(LAB), os.environ.get("PYTHONPATH")])
    ),
    "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")]),
}

from minillm_lab.jobs.errors import LabError
from minillm_lab.experiment.yaml_file import check_config_file

try:
    for file in workflow.configfiles or ["config.yaml"]:
        check_config_file(pathlib.Path(file))
except LabError as error:
    sys.exit(f"error: {error}")
