/* The number of elements of a tensor. */
#include "tensor.h"

uint32_t elements(const tensor *t)
{
    uint32_t count = 1;
    for (uint8_t i = 0; i < t->dims; i++)
        count *= t->shape[i];
    return count;
}
