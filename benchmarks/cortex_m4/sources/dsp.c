/* c [n, m] = a [n, k] b [k, m] as CMSIS-DSP's portable FP32 product works, four steps of k at a time: our own text. */
#include <stdint.h>

typedef struct {
    uint16_t rows, columns;
    float *values;
} matrix;

void dsp_product(const matrix *a, const matrix *b, const matrix *c)
{
    const float *row = a->values, *left;
    float *out = c->values;
    uint16_t n = a->rows, m = b->columns, depth = a->columns;
    for (uint32_t i = n; i > 0; i--) {
        const float *column = b->values;
        float *target = out;
        for (uint32_t j = m; j > 0; j--) {
            const float *right = column;
            float sum = 0.0f;
            left = row;
            for (uint32_t k = depth >> 2; k > 0; k--) {
                sum += *left++ * *right;
                right += m;
                sum += *left++ * *right;
                right += m;
                sum += *left++ * *right;
                right += m;
                sum += *left++ * *right;
                right += m;
            }
            for (uint32_t k = depth & 3; k > 0; k--) {
                sum += *left++ * *right;
                right += m;
            }
            *target++ = sum;
            column++;
        }
        row += depth;
        out += m;
    }
}
