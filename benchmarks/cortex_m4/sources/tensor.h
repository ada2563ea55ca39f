/* A tensor as these sources have it: how many dimensions, their sizes, the values. */
#include <stdint.h>

typedef struct {
    uint8_t dims;
    uint16_t *shape;
    float *values;
} tensor;

uint32_t elements(const tensor *t); /* in a file of its own, so that a call is a call */
