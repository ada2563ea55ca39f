/* c [n, m] = a [n, k] b^T, b [m, k], as PULP-TrainLib's port to STM32 works: U rows of a and V rows of b at a time,
 * what is left over by single sums. Our own text, one kernel by -DU=.. -DV=.. (1 1: the naive one). */

struct operands {
    float *a, *b, *c;
    int n, k, m;
};

#define SUM(u, v) sum##u##v
#if U == 1 && V == 1
#define PRODUCTS(X) X(0, 0)
#elif U == 1 && V == 2
#define PRODUCTS(X) X(0, 0) X(0, 1)
#elif U == 2 && V == 1
#define PRODUCTS(X) X(0, 0) X(1, 0)
#elif U == 2 && V == 4
#define PRODUCTS(X) X(0, 0) X(0, 1) X(0, 2) X(0, 3) X(1, 0) X(1, 1) X(1, 2) X(1, 3)
#else
#define PRODUCTS(X) \
    X(0, 0) X(0, 1) X(0, 2) X(0, 3) X(1, 0) X(1, 1) X(1, 2) X(1, 3) \
    X(2, 0) X(2, 1) X(2, 2) X(2, 3) X(3, 0) X(3, 1) X(3, 2) X(3, 3)
#endif
#define DECLARE(u, v) float SUM(u, v) = 0;
#define STEP(u, v) SUM(u, v) += a[(i + u) * K + k] * b[(j + v) * K + k];
#define STORE(u, v) c[(i + u) * M + j + v] = SUM(u, v);

static void __attribute__((unused)) left_over(
    const float *restrict a, const float *restrict b, float *restrict c, int i, int j, int K, int M)
{
    float sum = 0;
    for (int k = 0; k < K; k++)
        sum += a[i * K + k] * b[j * K + k];
    c[i * M + j] = sum;
}

void port_product(void *arguments)
{
    struct operands *args = arguments;
    float *restrict a = args->a, *restrict b = args->b, *restrict c = args->c;
    int N = args->n, M = args->m, K = args->k;
    for (int i = 0; i < N / U * U; i += U) {
        for (int j = 0; j < M / V * V; j += V) {
            PRODUCTS(DECLARE)
            for (int k = 0; k < K; k++) {
                PRODUCTS(STEP)
            }
            PRODUCTS(STORE)
        }
    }
#if U * V > 1
    for (int i = 0; i < N; i++)
        for (int j = i < N / U * U ? M / V * V : 0; j < M; j++)
            left_over(a, b, c, i, j, K, M);
#endif
}
