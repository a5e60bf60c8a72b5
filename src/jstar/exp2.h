/* 2^x in float, for the kernels of the rooms: inlined, and simple enough to be vectorised. */
#ifndef JSTAR_EXP2_H
#define JSTAR_EXP2_H
#include <math.h>
#include <stdint.h>
#include <string.h>

#define LOG2E 1.44269504088896341f
#define FLOOR -126.0f /* smallest exponent of a normal float */

/* 2^x; relative error below 2e-7. */
static inline float exp2_fast(float x) {
    x = x < FLOOR ? FLOOR : x;
    float whole = rintf(x), f = x - whole;
    float p = 1.5403530e-4f;
    p = p * f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    int32_t bits;
    memcpy(&bits, &p, 4);
    bits += (int32_t)((uint32_t)(int32_t)whole << 23);
    memcpy(&p, &bits, 4);
    return p;
}
#endif
