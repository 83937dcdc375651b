// Which level of processor the kernels run on.
#include <string.h>

#include "kernel.hpp"

#if defined(__x86_64__)
#include <cpuid.h>

namespace v2 { extern const Kernels table; }
namespace v3 { extern const Kernels table; }
namespace v4 { extern const Kernels table; }

namespace {

const Kernels* const all[] = {&v4::table, &v3::table, &v2::table};  // best first

// The level of x86-64 that the processor and the operating system have. Not __builtin_cpu_supports: zig links one that
// always says no.
int x86_64_level() {
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 2;
    const unsigned fma = 1u << 12, movbe = 1u << 22, osxsave = 1u << 27, avx = 1u << 28, f16c = 1u << 29;
    const unsigned first = fma | movbe | osxsave | avx | f16c;
    if ((c & first) != first) return 2;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & 0x6) != 0x6 || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 2;
    const unsigned bmi = 1u << 3, avx2 = 1u << 5, bmi2 = 1u << 8;
    if ((b & (bmi | avx2 | bmi2)) != (bmi | avx2 | bmi2)) return 2;
    const unsigned avx512 = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31;  // F, DQ, CD, BW, VL
    return (low & 0xe6) == 0xe6 && (b & avx512) == avx512 ? 4 : 3;
}

bool runs(const Kernels& k) {
    return k.level[1] - '0' <= x86_64_level();
}

}  // namespace
#else
namespace native { extern const Kernels table; }

namespace {
const Kernels* const all[] = {&native::table};
bool runs(const Kernels&) { return true; }
}  // namespace
#endif

namespace {

const Kernels* best() {
    for (const Kernels* k : all)
        if (runs(*k)) return k;
    return nullptr;  // never: the last one runs everywhere
}

const Kernels* chosen = best();

}  // namespace

const Kernels& kernels() { return *chosen; }

API const char* gmm_level() { return chosen->level; }

// Name of the i-th level that this processor has, best first; null beyond the last.
API const char* gmm_available_level(int64_t i) {
    for (const Kernels* k : all)
        if (runs(*k) && i-- == 0) return k->level;
    return nullptr;
}

// Use the kernels of a level from now on; 0 where this processor has none of that name.
API int64_t gmm_use_level(const char* level) {
    for (const Kernels* k : all)
        if (runs(*k) && !strcmp(k->level, level)) {
            chosen = k;
            return 1;
        }
    return 0;
}
