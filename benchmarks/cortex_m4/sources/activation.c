/* ReLU and its gradient as AIfES' portable FP32 code works: our own text. The bound of each loop is a call. */
#include "tensor.h"

void relu(const tensor *a, tensor *c)
{
    for (uint32_t i = 0; i < elements(a); i++)
        c->values[i] = a->values[i] > 0.0f ? a->values[i] : 0.0f;
}

void relu_slope(const tensor *a, tensor *c)
{
    for (uint32_t i = 0; i < elements(a); i++)
        c->values[i] = a->values[i] >= 0.0f ? 1.0f : 0.0f;
}

void multiply(const tensor *a, const tensor *b, tensor *c)
{
    for (uint32_t i = 0; i < elements(a); i++)
        c->values[i] = a->values[i] * b->values[i];
}
