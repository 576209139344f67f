"""OpenVINO, imported so that it reports nothing to anybody."""

import sys

# Through this package, where it is found, it and NNCF tell their maker of imports and conversions.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino  # noqa: E402

__all__ = ["openvino"]
