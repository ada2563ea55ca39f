/* A dense layer and its training as AIfES' portable FP32 code works, batch of any size: our own text of the published
 * algorithms. Loops, types of the counters and places of the shapes are those that decide the instruction mix. */
#include "tensor.h"

/* c [n, m] = a [n, k] b [k, m] */
void product(const tensor *a, const tensor *b, tensor *c)
{
    const float *left = a->values, *right = b->values;
    float *result = c->values;
    for (uint16_t i = 0; i < a->shape[0]; i++)
        for (uint16_t j = 0; j < b->shape[1]; j++) {
            float sum = 0.0f;
            for (uint16_t k = 0; k < a->shape[1]; k++)
                sum += left[i * a->shape[1] + k] * right[k * b->shape[1] + j];
            result[i * c->shape[1] + j] = sum;
        }
}

/* c [n, m] = a [n, k] b^T, b [m, k] */
void product_bt(const tensor *a, const tensor *b, tensor *c)
{
    const float *left = a->values, *right = b->values;
    float *result = c->values;
    for (uint16_t i = 0; i < a->shape[0]; i++)
        for (uint16_t j = 0; j < b->shape[0]; j++) {
            float sum = 0.0f;
            for (uint16_t k = 0; k < a->shape[1]; k++)
                sum += left[i * a->shape[1] + k] * right[j * b->shape[1] + k];
            result[i * c->shape[1] + j] = sum;
        }
}

/* c [n, m] = a^T b, a [k, n], b [k, m]; k is the batch */
void product_at(const tensor *a, const tensor *b, tensor *c)
{
    const float *left = a->values, *right = b->values;
    float *result = c->values;
    for (uint16_t i = 0; i < a->shape[1]; i++)
        for (uint16_t j = 0; j < b->shape[1]; j++) {
            float sum = 0.0f;
            for (uint16_t k = 0; k < a->shape[0]; k++)
                sum += left[k * a->shape[1] + i] * right[k * b->shape[1] + j];
            result[i * c->shape[1] + j] = sum;
        }
}

/* c = a + b, element by element; the number of elements is known before the loop */
void tensor_add(const tensor *a, const tensor *b, tensor *c)
{
    uint32_t count = elements(a);
    for (uint32_t i = 0; i < count; i++)
        c->values[i] = a->values[i] + b->values[i];
}
