// Random numbers from one of NumPy's bit generators: the struct that its `ctypes.bit_generator` points to.
#pragma once
#include <stdint.h>

struct Random {
    void* state;
    uint64_t (*next_uint64)(void* state);
    uint32_t (*next_uint32)(void* state);
    double (*next_double)(void* state);
    uint64_t (*next_raw)(void* state);

    double uniform() const { return next_double(state); }  // in [0, 1)
    // One of 0, ..., n - 1, as evenly as doubles are fine.
    int64_t below(int64_t n) const { return int64_t(uniform() * double(n)); }
    // Put the n entries into a random order.
    void shuffle(int64_t* entries, int64_t n) const {
        for (int64_t i = n - 1; i > 0; i--) {
            const int64_t j = below(i + 1), entry = entries[i];
            entries[i] = entries[j];
            entries[j] = entry;
        }
    }
};
