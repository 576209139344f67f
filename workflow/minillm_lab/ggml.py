"""llama.cpp's types of tensors and files, and its file format, as the package gguf knows them.

gguf also imports what converts Mistral's tokenizers (``mistral_common``). That takes 0.4 s in each
job that reads a GGUF, and the lab's own jobs convert none: llama.cpp's converter does, in a process
of its own.
"""

import sys
from typing import Any

_LEFT_OUT = "mistral_common"
_modules: dict[str, Any] = sys.modules
_leave_out = _LEFT_OUT not in _modules
if _leave_out:
    _modules[_LEFT_OUT] = None  # an import of it fails, which gguf allows for
try:
    import gguf
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType
    from gguf.quants import dequantize
finally:
    if _leave_out:
        del _modules[_LEFT_OUT]

__all__ = ["GGML_QUANT_SIZES", "GGMLQuantizationType", "LlamaFileType", "dequantize", "gguf"]
