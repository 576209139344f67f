// Arrays of C++ programs begin BUFFER_PLACE bytes past a cache line (0, 16, 32 or 48). Loaded before
// such a program with LD_PRELOAD; llama.cpp's work buffer is such an array. For llama_bench.py.

#include <cstdint>
#include <cstdlib>
#include <new>

constexpr std::size_t line = 64;

void *operator new[](std::size_t size) {
    static const char *given = std::getenv("BUFFER_PLACE");
    static const std::size_t place = given ? std::strtoul(given, nullptr, 10) : 0;
    void *block = std::malloc(size + 3 * line);
    if (block == nullptr) throw std::bad_alloc();
    auto next = (reinterpret_cast<std::uintptr_t>(block) / line + 2) * line;  // leaves room before it
    auto *array = reinterpret_cast<char *>(next + place);
    reinterpret_cast<void **>(array)[-1] = block;
    return array;
}

void operator delete[](void *array) noexcept {
    if (array != nullptr) std::free(static_cast<void **>(array)[-1]);
}

void operator delete[](void *array, std::size_t) noexcept { operator delete[](array); }
