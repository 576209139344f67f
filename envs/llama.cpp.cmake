# llama-cpp-python forces LLAMA_BUILD_COMMON on in CMake's cache, whatever was asked for. A variable
# of the same name goes before the cache: it keeps what the command line said last.
set(LLAMA_BUILD_COMMON ${LLAMA_BUILD_COMMON})
