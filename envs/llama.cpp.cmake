# llama-cpp-python forces LLAMA_BUILD_COMMON on in CMake's cache, whatever was asked for. A variable
# of the same name goes before the cache: it keeps what the command line said last.
set(LLAMA_BUILD_COMMON ${LLAMA_BUILD_COMMON})

# Without AMX: compiled by GCC, llama.cpp's code for it crashes at the first product with a quantized
# matrix (github.com/ggml-org/llama.cpp/pull/26954). GCC takes the tiles' configuration as unread.
include(CheckCXXCompilerFlag)
check_cxx_compiler_flag(-mno-amx-tile HAS_AMX_SWITCH)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND HAS_AMX_SWITCH)
    add_compile_options(-mno-amx-tile -mno-amx-int8 -mno-amx-bf16)
endif()
