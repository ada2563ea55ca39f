/* Stochastic gradient descent in the three passes of AIfES: our own text. The bound of each loop is a call. */
#include "tensor.h"

void zero(tensor *t)
{
    for (uint32_t i = 0; i < elements(t); i++)
        t->values[i] = 0.0f;
}

void scale(const float *scalar, const tensor *a, tensor *c)
{
    for (uint32_t i = 0; i < elements(a); i++)
        c->values[i] = *scalar * a->values[i];
}

void subtract(const tensor *a, const tensor *b, tensor *c)
{
    for (uint32_t i = 0; i < elements(a); i++)
        c->values[i] = a->values[i] - b->values[i];
}
