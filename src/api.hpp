// How Python's ctypes sees this library: plain C functions, each of which returns one of these.
#pragma once
#include <stdint.h>

#ifdef _WIN32
#define API extern "C" __declspec(dllexport)
#else
#define API extern "C" __attribute__((visibility("default")))
#endif

// A number that is not finite is for the caller to act on.
enum Status : int64_t { DONE = 0, NO_MEMORY = -1, NOT_FINITE = 1 };
