// Arrays that are freed with the scope they were made in. No exceptions: whoever makes some asks whether there was room.
// The kernel of each level includes this inside that level's namespace: nothing may be shared between them.
#pragma once
#include <stdint.h>
#include <stdlib.h>

// n entries, not set to anything, from the start of a cache line on.
template <class T>
class Array {
    void* memory;
    T* first;

  public:
    explicit Array(int64_t n) : memory(malloc(sizeof(T) * size_t(n) + 64)) {
        first = reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(memory) + 63) / 64 * 64);
    }
    Array(int64_t n, T value) : Array(n) {
        for (int64_t i = 0; memory && i < n; i++) first[i] = value;
    }
    ~Array() { free(memory); }
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;
    bool missing() const { return !memory; }
    operator T*() const { return first; }
};

template <class... Arrays>
inline bool missing(const Arrays&... arrays) {
    return (arrays.missing() || ...);
}
